"""Order by key: what comes after an event that was set aside waits with it, if it has the same key.

Which keys are blocked stands in the dead letters: those of which one is open. A worker remembers them, so that an
event of any other key costs it one look into a dictionary; and asks the store about those, because people settle
dead letters at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .decoding import Item, Refused
from .event import Event, Record
from .store import Store, Transaction

_Key = tuple[str, int, bytes]


class KeyOrder:
    """The keys of one processor that may be blocked, each with the offset of the first event that blocks it."""

    def __init__(self) -> None:
        self._firsts: dict[_Key, int] = {}

    def load(self, store: Store) -> None:
        """Learn which keys are blocked: positions have been adopted."""
        self._firsts = {(topic, partition, key): offset for topic, partition, key, offset in store.first_of_each_key()}

    def within(self, transaction: Transaction) -> KeyQueue:
        """Look at events of one transaction."""
        return KeyQueue(transaction, self._firsts)

    def keep(self, queue: KeyQueue) -> None:
        """Remember what a transaction has found out, which was committed."""
        for key, first in queue.met.items():
            if first is None:
                self._firsts.pop(key, None)
            else:
                self._firsts[key] = first


class KeyQueue:
    """Which events of a transaction have to wait for others of their keys; ``met`` are the keys it was asked about."""

    def __init__(self, transaction: Transaction, firsts: dict[_Key, int]) -> None:
        self._transaction = transaction
        self._firsts = firsts
        self.met: dict[_Key, int | None] = {}

    def waiting(self, record: Record) -> Refused | None:
        """Return what becomes of an event that has to wait; None for one that need not."""
        first = self._first(record)
        if first is None or first >= record.offset:
            return None
        reason = f"waits for {record.at}@{first}, an event of the same key that was set aside"
        return Refused(record, reason, None, attempts=0, blocked_by=first)

    def _first(self, record: Record) -> int | None:
        if record.key is None:
            return None
        key = record.topic, record.partition, record.key
        if key not in self.met:
            known = self._firsts.get(key)
            if known is None:
                return None
            self.met[key] = self._transaction.blocker(record, known)
        return self.met[key]

    def block(self, record: Record) -> None:
        """Let what comes after an event that is refused wait for it."""
        if record.key is not None and self._first(record) is None:
            self.met[record.topic, record.partition, record.key] = record.offset

    def split(self, items: Sequence[Item]) -> tuple[list[Item], list[Refused]]:
        """Part what may be handled from what waits; what is refused already lets others wait."""
        ready: list[Item] = []
        waiting: list[Refused] = []
        for item in items:
            if (waits := self.waiting(item.record)) is not None:
                waiting.append(waits)
                continue
            ready.append(item)
            if type(item) is Refused:
                self.block(item.record)
        return ready, waiting

    def is_kept(self, events: Iterable[Event], refused: Sequence[Refused]) -> bool:
        """Tell whether none of the events that were handled came after one of its key that was refused."""
        for item in refused:
            self.block(item.record)
        return not refused or all(self.waiting(event.record) is None for event in events)
