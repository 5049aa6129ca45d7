"""What axe uses of a store: the protocol of a processor's state and positions, whoever keeps them.

``axe.store.sql`` is the one of axe's own. A package of ``axe.plugins`` whose ``open_store`` hook knows a
``state`` URL gives another one: its objects need these methods and no base class. This module is the one
beneath ``axe`` that such a package may import.

Whatever the storage, three promises are what exactly once rests on:

- A ``Transaction`` is all or nothing, and one at a time for a processor: positions, values, dead letters,
  what the handler did through the state.
- ``advance`` moves a position by compare-and-set on (position, epoch, owner), and fails otherwise.
- ``commit`` returns only when what was written outlives the process, and raises when it may not.

Errors are those of ``axe``: StoreUnavailable makes the processor wait and try again, any other StoreError
ends it with its message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from ..errors import StoreError
from ..event import Record, Rejection, TopicPartition

__all__ = [
    "ALIVE_S",
    "Control",
    "Going",
    "HandlerState",
    "KeepsWiped",
    "Letters",
    "Move",
    "Reversible",
    "Store",
    "StoredPosition",
    "Transaction",
]

ALIVE_S = 15.0
"""A worker that has not written for so long is taken for dead; it writes three times as often."""


class StoredPosition(NamedTuple):
    """A row of ``axe_offsets``."""

    position: int
    epoch: int
    owner: str | None
    topic_id: str | None
    event_at: str | None


class Control(NamedTuple):
    """What people and workers have set about the processor as a whole."""

    version: int
    cluster_id: str | None
    status: str
    paused: bool
    pending: str | None
    last_error: str | None

    @property
    def is_directed(self) -> bool:
        """Whether somebody has paused or moved the processor."""
        return self.paused or self.pending is not None


class Move(NamedTuple):
    """One partition's step from a position to the next, with the time of the last event before it."""

    seen: int
    epoch: int
    position: int
    event_at: str | None


class Letters(NamedTuple):
    """Which dead letters are meant: those of which everything that is given here is true."""

    ids: tuple[int, ...] | None = None
    statuses: tuple[str, ...] | None = None
    topic: str | None = None
    partition: int | None = None
    begin: int | None = None
    """At this offset or behind it."""
    end: int | None = None
    """Before this offset."""
    reason: str | None = None
    """The whole text of the reason."""
    contains: str | None = None
    """A part of it."""
    since: str | None = None
    """Rejected then or later; a time as ``rejected_at`` has it."""
    until: str | None = None
    """Rejected before then."""

    def takes(self, letter: Mapping[str, Any]) -> bool:
        """Tell whether a letter, with the columns of ``axe_dead_letters``, is one of them."""
        return (
            (self.ids is None or letter["id"] in self.ids)
            and (self.statuses is None or letter["status"] in self.statuses)
            and (self.topic is None or letter["topic"] == self.topic)
            and (self.partition is None or letter["partition"] == self.partition)
            and (self.begin is None or letter["offset"] >= self.begin)
            and (self.end is None or letter["offset"] < self.end)
            and (self.reason is None or letter["reason"] == self.reason)
            and (self.contains is None or self.contains in letter["reason"])
            and (self.since is None or letter["rejected_at"] >= self.since)
            and (self.until is None or letter["rejected_at"] < self.until)
        )


class Going(NamedTuple):
    """How many dead letters are beyond what is kept of them."""

    too_old: int
    too_many: int
    """Not counting those that are too old as well."""
    unpublished: int
    """How many of all these are ``rejected`` and in no topic."""


class HandlerState(Protocol):
    """What the host calls on the state that handlers get, which is a ``MutableMapping[str, Any]`` beside.

    Values are what a JSON document can hold. More than that (axe's own has ``connection``, ``session`` and
    ``cursor``) is between the store and the processors that are written for it.
    """

    isolated: bool
    """Set by ``savepoint``: each event is undone alone, if need be."""

    changes: list[Any]
    """Grows with what events of the batch change; how long it is before an event is what ``undo_event`` is told."""

    watched: bool
    """Whether events need ``end_event`` at once, because they may have left something open; may always be False."""

    def end_event(self) -> None:
        """Finish what an event has begun; raises what the event is then said to have failed at."""

    def undo_event(self, mark: int) -> bool:
        """Take back what was changed since ``changes`` had this length, and shorten it to that.

        False where that cannot be told: then the whole batch is undone and its events run one at a time.
        """


class Transaction(Protocol):
    """One write transaction, used from one thread; left as a context manager, which undoes what is not committed."""

    @property
    def state(self) -> HandlerState:
        """What handlers get; one object for the whole transaction."""

    def plugin_code(self) -> AbstractContextManager[None]:
        """Guard the transaction while a handler runs: nothing that a handler does may end it."""

    def control(self) -> Control:
        """Read what people have set, in this transaction."""

    # --- positions

    def take_over(
        self, starts: Mapping[TopicPartition, int], topic_ids: Mapping[str, str | None], owner: str
    ) -> dict[TopicPartition, StoredPosition]:
        """Own these partitions from now on, and return their positions; new ones begin at the given starts.

        Every stored epoch goes up by one, those of other partitions too, so that nothing that an earlier owner
        has begun can be committed: the values are one for all partitions.
        """

    def advance(self, moves: Mapping[TopicPartition, Move], owner: str) -> None:
        """Move positions from ``seen`` to ``position``, if they are at ``seen``, of that epoch and this owner.

        May be called again for a partition, which then moves on, or back, from where the first call left it.

        Raises:
            PositionConflict: one is not; the transaction is given up.
        """

    def note_attempt(self, at: TopicPartition, offset: int, *, epoch: int, owner: str) -> int:
        """Note that an event is about to be tried; return how often it was, this time included.

        Another offset of the partition begins at 1 again, and so does what ``move_by_hand`` has moved.

        Raises:
            PositionConflict: the partition is not of this epoch and owner any more.
        """

    def move_by_hand(self, targets: Mapping[TopicPartition, int]) -> tuple[dict[TopicPartition, int | None], bool]:
        """Set positions whoever owns them, raise their epochs, and forget their topic ids and event times.

        Returns the positions before, None for new ones, and whether every stored partition was among them.
        """

    # --- what else is written

    def add_dead_letter(self, rejection: Rejection, blocked_by: int | None = None) -> None:
        """Store a refused event; one of the same topic, partition and offset is updated, its attempts added up.

        Its status is ``rejected``, whatever it was, its version that which ``adopted`` has noted last, and no topic
        has it. With ``blocked_by`` it is ``blocked``: an event that waits for the one of its key that has this offset.
        """

    def blocker(self, record: Record, known: int) -> int | None:
        """Return the offset of the first open letter of a record's partition and key; None where none is open.

        Those are open that are ``rejected``, ``retry`` or ``blocked``. ``known`` is one that was the first: cheaper, if
        it still is open. Nobody else can settle the one that is returned until the end of the transaction.
        """

    def release(self, ids: Iterable[int]) -> list[int]:
        """Mark what waits for letters that are settled: the first of each of their keys becomes ``retry``.

        Where no letter of the key before it is open. Returns the ids of those that were marked.
        """

    def block(self, record: Record) -> None:
        """Let the ``blocked`` letters of a record's partition and key, behind it, wait for this one."""

    def restore_dead_letter(self, letter: Mapping[str, Any]) -> bool:
        """Add a dead letter as it is, unless there is one of its topic, partition and offset; tell whether it was.

        It has the columns of ``axe_dead_letters`` but for ``id``, which is given to it, and ``tries``; a
        ``published_at`` only where a topic has it.
        """

    def mark_dead_letters(self, which: Letters, status: str) -> list[int]:
        """Give dead letters another status, and forget what ``note_retry`` has counted; return their ids in order.

        They stay as they are until the end of the transaction: what somebody else has changed meanwhile is not
        among them.
        """

    def trim_dead_letters(self, *, until: str | None, rows: int | None, limit: int, size: int) -> dict[str, list[int]]:
        """Delete dead letters that were rejected before then, and the oldest of those that are more than so many.

        Never one that waits for its worker. At most ``limit`` of them at once, and not much more than ``size``
        bytes. Returns their ids by the status that they had; none where nothing is left to be deleted.
        """

    def note_published(self, letters: Iterable[Mapping[str, Any]]) -> None:
        """Note that a topic has these dead letters: those of which id, attempts and ``rejected_at`` are still so."""

    def note_retry(self, number: int) -> int:
        """Note that the retry of a dead letter is about to be begun; return how often it was since it was marked.

        Zero where it is not marked any more.
        """

    def direct(self, pending: str) -> None:
        """Let the worker see to something: what is pending is this, unless something is already.

        Nobody else can change what is set about the processor until the end of the transaction.
        """

    def set_control(self, values: Mapping[str, object]) -> None:
        """Change some of ``status``, ``paused`` (1 or 0), ``pending``, ``last_error``, ``cluster_id``, ``version``.

        Nobody else can change any of them until the end of the transaction.
        """

    def adopted(self, *, version: int, cluster_id: str | None, status: str) -> None:
        """Note that what was pending is done, what the state is built for, and what the processor does now."""

    def hold(self, *, paused: int, last_error: str) -> None:
        """Pause the processor, with the error that led to it."""

    def wipe(self) -> None:
        """Drop the values and whatever else the processor built; dead letters and history stay."""

    def audit(self, who: str, action: str, reason: str | None, before: object, after: object) -> None:
        """Note what was done by hand, or came of it; ``before`` and ``after`` are JSON values."""

    # --- one event alone

    def savepoint(self) -> None:
        """Remember this point; at most one is remembered."""

    def keep_event(self) -> None:
        """Let the event since the savepoint stand; raises what the event is then said to have failed at."""

    def undo_event(self) -> None:
        """Undo everything since the savepoint.

        Raises:
            TransactionEnded: that is not possible any more.
        """

    # --- the end

    def check_open(self) -> None:
        """Make sure that this is still the transaction that began.

        Raises:
            TransactionEnded: it is not.
        """

    def trouble(self, error: BaseException) -> StoreError | None:
        """Name the trouble of the storage behind an error out of a handler, if it is one and not the handler's own."""

    def commit(self) -> None:
        """Make everything durable, or raise and make nothing durable.

        Raises:
            CommitRefused: something that the handlers did is only now found to be impossible.
            TransactionEnded, PositionConflict, StateError: this is not the transaction that began, or not ours.
        """

    def rollback(self) -> None:
        """Undo everything; nothing to do after the commit."""

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(self, *_: object) -> None:
        """Undo what is not committed."""


@runtime_checkable
class Reversible(Protocol):
    """What a transaction has beside where resets can be undone; a store may do without."""

    def put_back(self, rows: Mapping[TopicPartition, StoredPosition | None]) -> None:
        """Give partitions the position, topic id and event time of these rows, whoever owns them; raise their epochs.

        None forgets the partition.
        """

    def set_aside(self, *, keep: bool) -> str | None:
        """Keep what a wipe is about to drop, and nothing of earlier wipes; return its name for ``restore``.

        Without ``keep`` nothing is kept any more, and None returned.
        """

    def restore(self, kept: str) -> None:
        """Drop what was built since a wipe, and put back what it dropped; that is kept no longer.

        Raises:
            StoreMissing: it is not kept any more.
        """


@runtime_checkable
class KeepsWiped(Protocol):
    """What a store has beside whose transactions are ``Reversible``."""

    def why_final(self) -> str | None:
        """Say why a wipe of now would be final, as ``it is larger than …``; None where it could be undone."""


class Store(Protocol):
    """One processor's state and positions. Making one opens nothing: ``axe`` names many that it never opens.

    A worker has one and uses it from one thread. The command line opens others of the same processor
    meanwhile, from other processes: reading must not wait for the worker's transaction, and writing waits
    until it ends.
    """

    @property
    def processor(self) -> str:
        """The name of the processor."""

    @property
    def location(self) -> str:
        """Where it lies, fit to be shown: no secret is in it."""

    @property
    def store_id(self) -> str:
        """What tells this store from every other one; known once it is open."""

    def open(self, *, version: int = 1, create: bool = True) -> None:
        """Connect. A new store begins with ``version``, the status ``stopped``, and nothing else.

        Raises:
            StoreMissing: there is none and ``create`` is false; or there was one, and it is gone.
            StoreError: it cannot be used, for the reason that the class names.
        """

    def close(self) -> None:
        """Let go of everything; safe to call twice, and before ``open``."""

    # --- reading

    def control(self) -> Control:
        """Read what is set about the processor, as it was committed last."""

    def positions(self) -> dict[TopicPartition, StoredPosition]:
        """Read every partition's position, as it was committed last; ``event_at`` is ISO 8601 in UTC."""

    def values(self, key: str | None = None) -> dict[str, Any]:
        """Read the values, or that of one key: empty where it has none."""

    def dead_letters(
        self, *, only: int | None = None, limit: int | None = None, which: Letters | None = None
    ) -> list[dict[str, Any]]:
        """Read the dead letters in the order of their rejection, or the one with an id.

        Each has the columns of ``axe_dead_letters``; ``headers`` is JSON text: a list of [name, base64 or null].
        """

    def unpublished_letters(self, *, limit: int, size: int, but: Sequence[int] = ()) -> list[dict[str, Any]]:
        """Read the first dead letters that are ``rejected`` and that no topic has, in the order of their ids.

        At most so many, and not many more than have so many bytes. ``but`` leaves some out by their ids.
        """

    def count_dead_letters(self) -> int:
        """Count the dead letters whose events are missing in the state: ``rejected``, ``retry``, ``blocked``."""

    def count_going_letters(self, *, until: str | None, rows: int | None) -> Going:
        """Count what ``trim_dead_letters`` of a transaction would delete, called until nothing is left."""

    def first_of_each_key(self) -> list[tuple[str, int, bytes, int]]:
        """Return topic, partition and key of those of them that have a key, and the first offset of each."""

    def history(self) -> list[dict[str, Any]]:
        """Read what ``audit`` has noted, oldest first: each with the columns of ``axe_audit``.

        ``before`` and ``after`` are JSON text.
        """

    def workers(self) -> list[dict[str, Any]]:
        """Read who works on the processor: each with the columns of ``axe_workers``."""

    # --- writing

    def begin(self) -> Transaction:
        """Begin the one write transaction; waits until another one has ended.

        Raises:
            StoreUnavailable: it took too long.
        """

    def set_status(
        self, status: str, last_error: str | None = None, *, worker: str | None = None, unless_directed: bool = False
    ) -> None:
        """Write what the processor is doing; an error, where one is given, replaces the last one; "" leaves none.

        With ``worker`` only if no other worker that is alive owns a partition; with ``unless_directed``
        only if nothing is pending: what somebody decided is newer.
        """

    def heartbeat(self, worker: str, host: str, pid: int, status: str, *, alone: bool) -> None:
        """Write that a worker is there, and when; ``alone`` removes the rows of all others."""

    def leave(self, worker: str) -> None:
        """Take a worker's row out."""

    def renew(self) -> None:
        """Let go of what a handler may have kept of a transaction that has ended."""

    def trouble(self, error: BaseException) -> StoreError | None:
        """Name the trouble of the storage itself behind an error (full disk, lost server), if it is one."""
