"""What the handler makes of the events of a batch, inside of its transaction: all at once, or one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

from .decoding import Failed, Item, Refused
from .dispatch import Dispatcher, Outcome
from .errors import SessionLost, TooManyRejections, TransactionEnded
from .event import Event, Record
from .flood import Flood
from .order import KeyQueue
from .store import HandlerState, Transaction

_HURTS_UNTIL_FAILURE = 3


class Spoiled(Exception):
    """An event of the batch cannot be undone alone: undo the batch and do it again event by event."""


class Ended(Exception):
    """The handler of one event ended the transaction, and with it what was before the event."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(str(failed.record))
        self.failed = failed


class Flooded(NamedTuple):
    """Too many rejections: behind which event the batch ends, and what to say."""

    behind: Record
    trouble: TooManyRejections


class Handled(NamedTuple):
    """What became of the events of a batch: how many are done, and which of them are refused.

    It may have ended early: at the event that failed, or behind the one after which too many were refused.
    """

    events: int
    refused: list[Refused]
    failed: Failed | None = None
    flooded: Flooded | None = None


class Handling:
    """The two ways of one processor; both stop where a flood of rejections does."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._hurting: Record | None = None
        self._hurts = 0

    def all_at_once(
        self, transaction: Transaction, parts: Iterable[list[Item]], flood: Flood, queue: KeyQueue | None
    ) -> Handled:
        """Handle the events without savepoints: the fast way, which one sick event ends."""
        count = 0
        refused: list[Refused] = []
        for items in parts:
            count += len(items)
            part = items
            if queue is not None:
                part, waiting = queue.split(items)
                refused += waiting
            before = len(refused)
            events: list[Any] = part
            kinds = set(map(type, part))
            if Failed in kinds:
                raise Spoiled
            if Refused in kinds:
                refused += [item for item in part if type(item) is Refused]
                events = [item for item in part if type(item) is not Refused]
            if events:
                refused += self._together(events, transaction.state)
            if queue is not None and not queue.is_kept(events, refused[before:]):
                raise Spoiled
            if (trouble := self._count(part, refused[before:], flood)) is not None:
                return Handled(count, refused, flooded=Flooded(items[-1].record, trouble))
        return Handled(count, refused)

    def _count(self, part: list[Item], refused: list[Refused], flood: Flood) -> TooManyRejections | None:
        """Count the events of a part in order; too many rejections are found out at a rejection."""
        if not refused:
            flood.add(len(part), rejected=False)
            return None
        trouble = None
        reasons = {item.record: item.reason for item in refused}
        for item in part:
            reason = reasons.get(item.record)
            flood.add(1, rejected=reason is not None)
            if reason is not None and flood.is_on:
                trouble = flood.trouble(reason)
        return trouble

    def _together(self, events: list[Event], state: HandlerState) -> list[Refused]:
        dispatcher = self._dispatcher
        refused: list[Refused] = []
        if dispatcher.takes_batches:
            if not dispatcher.handle_batch(events, state):
                raise Spoiled
            return refused
        for outcome, mark in dispatcher.handle_all(events, state):
            if type(outcome) is Refused and state.undo_event(mark):
                refused.append(outcome)
            else:
                raise Spoiled
        return refused

    def one_by_one(
        self, transaction: Transaction, parts: Iterable[list[Item]], flood: Flood, queue: KeyQueue | None
    ) -> Handled:
        """Handle the events with a savepoint before each: a sick one is undone alone."""
        count = 0
        refused: list[Refused] = []
        for count, item in enumerate(itertools.chain.from_iterable(parts), 1):
            if queue is not None and (waiting := queue.waiting(item.record)) is not None:
                refused.append(waiting)
                continue
            outcome = self._alone(transaction, item) if isinstance(item, Event) else item
            if isinstance(outcome, Failed):
                return Handled(count - 1, refused, failed=outcome)
            if outcome is not None:
                refused.append(outcome)
                if queue is not None:
                    queue.block(outcome.record)
            flood.add(1, rejected=outcome is not None)
            if outcome is not None and flood.is_on:
                return Handled(count, refused, flooded=Flooded(item.record, flood.trouble(outcome.reason)))
        return Handled(count, refused)

    def _alone(self, transaction: Transaction, event: Event) -> Outcome:
        transaction.savepoint()
        outcome = self._dispatcher.handle(event, transaction.state)
        if outcome is None:
            try:
                transaction.keep_event()
            except Exception as error:  # noqa: BLE001 # what the handler left behind counts as its failure
                outcome = Failed(event.record, error)
            else:
                return None
        if isinstance(outcome, Failed) and (trouble := transaction.trouble(outcome.exception)) is not None:
            if isinstance(trouble, SessionLost) and self._hurts_again(outcome.record):
                raise Ended(outcome) from outcome.exception
            raise trouble from outcome.exception
        try:
            transaction.undo_event()
        except TransactionEnded as ended:
            raise Ended(outcome if isinstance(outcome, Failed) else Failed(event.record, ended)) from ended
        return outcome

    def _hurts_again(self, record: Record) -> bool:
        """Tell whether it is this event that ends our sessions: the server is there again each time."""
        if self._hurting != record:
            self._hurting, self._hurts = record, 0
        self._hurts += 1
        return self._hurts >= _HURTS_UNTIL_FAILURE
