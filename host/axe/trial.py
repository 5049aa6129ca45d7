"""The event that fails at the moment: how often it was tried, and what is decided about it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .config import ProcessorConfig
from .decoding import Failed, Refused
from .errors import WorkerDied
from .event import Decision, Failure, Record, TopicPartition
from .hooks import notify
from .processor import Processor
from .telling import said, told

if TYPE_CHECKING:
    from .log import Logger


class Trial:
    """At most one event of a processor fails at a time: the others wait behind it."""

    def __init__(self, processor: Processor, settings: ProcessorConfig, log: Logger) -> None:
        self._processor = processor
        self._settings = self._policy = settings
        self._log = log
        self._record: Record | None = None
        self._attempt = 0
        self.sentence: Refused | None = None
        """What becomes of the event instead of being handled, once that is decided."""

    def judge(self, failed: Failed) -> Failure:
        """Count an attempt and decide; the first and the final decision are reported."""
        if self._record != failed.record:
            self._record, self._attempt = failed.record, 0
        self._policy = policy = self._settings.of_failure(type(failed.exception))
        default = Decision(policy.on_failure)
        is_first = self._attempt == 0
        if isinstance(failed.exception, WorkerDied):
            # It was tried often enough, and a retry would end this worker, too.
            self._attempt += failed.exception.deaths
        else:
            self._attempt += 1
            default = Decision.RETRY if self._attempt <= policy.retries else default
        failure = Failure(self._processor.name, failed.record, failed.exception, self._attempt, default)
        decision = self._asked(failure) or default
        failure = Failure(self._processor.name, failed.record, failed.exception, self._attempt, decision)
        reason = told(failed.exception)
        if decision is Decision.REJECT:
            self.sentence = failed.refused(attempts=self._attempt)
        if is_first or decision is not Decision.RETRY:
            self._log.error(
                "event failed",
                at=str(failed.record),
                error=reason[:200],
                decision=decision.value,
                exc_info=failed.exception,
            )
            notify(self._processor.hooks, "on_error", self._log, failure=failure)
        return failure

    def _asked(self, failure: Failure) -> Decision | None:
        try:
            decision = self._processor.hooks.hook.decide(failure=failure)
        except BaseException:  # noqa: BLE001 # the plugin boundary: its fault must not decide
            self._log.error("decide hook failed, the configuration decides", exc_info=True)
            return None
        if decision is None or isinstance(decision, Decision):
            return decision
        self._log.error("decide hook returned no Decision, the configuration decides", returned=said(decision)[:100])
        return None

    @property
    def pause_s(self) -> float:
        """How long to wait before the next attempt: doubled each time, give or take a quarter."""
        low, high = self._policy.backoff_s
        pause: float = min(high, low * 2 ** min(self._attempt - 1, 60))
        return pause * random.uniform(0.75, 1.25)  # noqa: S311 # spreads retries; no secret depends on it

    @property
    def is_on(self) -> bool:
        """Whether an event has failed and is not done yet."""
        return self._record is not None

    def counted(self, refused: list[Refused]) -> list[Refused]:
        """Put refusals in the order of their records, with the attempts of the one that failed before."""
        ordered = sorted(refused, key=lambda item: item.record.offset)
        if self._record is None:
            return ordered
        return [
            item._replace(attempts=self._attempt + 1)
            if item.record == self._record and item is not self.sentence
            else item
            for item in ordered
        ]

    def end_behind(self, positions: Mapping[TopicPartition, int]) -> None:
        """Forget the event once it is behind these positions."""
        record = self._record
        if record is not None and positions.get(record.at, 0) > record.offset:
            self.end()

    def end(self) -> None:
        """Forget the event: it was done, or somebody moved the position."""
        self._record, self.sentence, self._attempt = None, None, 0
