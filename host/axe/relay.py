"""Dead letters on their way to a topic: read from the database after their commit, at least once, in order.

Never part of a batch. A page of letters is sent in the background; what became of them is looked at in later rounds,
and noted in a transaction of its own. A worker that dies in between sends the page again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .batch import Batches
from .errors import ConfigError
from .failpoints import failpoint
from .letters import published_headers
from .sources import LetterTopic, Outgoing, Report, Source, letter_topic
from .store import Store
from .telling import told

if TYPE_CHECKING:
    from .log import Logger

# Of one page, which is one transaction.
_LETTERS = 500
_BYTES = 8_000_000
# How often is looked for letters that no batch of this worker has refused: imported ones.
_LOOK_S = 60.0
# A client has threads that wake up.
_IDLE_S = 60.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_WAIT_S = 0.05
_LATER = "they go out later, when the processor runs"
# In the log; all of them stay without `published_at`.
_REFUSALS_SAID = 3


def open_topic(processor: str, name: str | None, topics: Iterable[str], source: Source) -> LetterTopic | None:
    """Open the topic that a processor's settings name for its dead letters; None where they name none.

    Raises:
        ConfigError: the processor reads it, the source is no Kafka, or the client does not take a property.
    """
    if name is None:
        return None
    where = f"processors.{processor}.dead_letters.topic"
    if name in topics:
        raise ConfigError(f"{where}: {processor} reads {name} itself and would get its refusals back; name another one")
    try:
        return letter_topic(source, name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


class Relay:
    """Of one processor, whose topic is open; ``alone`` says that no other host may work on it."""

    def __init__(
        self, processor: str, topic: LetterTopic, log: Logger, *, store: Store, batches: Batches, alone: bool
    ) -> None:
        self._processor = processor
        self._topic = topic
        self._log = log
        self._store = store
        self._batches = batches
        self._alone = alone
        self._is_due = True
        self._rejections = 0
        self._look_at = 0.0
        self._used_at = time.monotonic()
        self._size = _LETTERS
        # Sent, and not heard of yet; of each what tells it from the same letter when it is refused again.
        self._flight: dict[int, dict[str, Any]] = {}
        self._page = 0
        self._published: list[dict[str, Any]] = []
        self._refused: dict[int, str] = {}
        self._aside: dict[int, str] = {}
        self._problem: str | None = None
        self._said: str | None = None
        self._pause_s = 0.0
        self._paused_until = 0.0

    def begin(self) -> None:
        """Look at all of them again: positions have been adopted, and letters retried perhaps."""
        self._is_due = True
        self._aside.clear()

    def tend(self) -> None:
        """Send what is to be sent, and note what has arrived; never waits.

        Raises:
            StoreError: the database is away. What has arrived is noted later.
        """
        if self._flight:
            self._hear(0)
        self._note_arrivals()
        now = time.monotonic()
        if self._flight or now < self._paused_until:
            return
        if self._batches.rejections != self._rejections or now > self._look_at:
            self._is_due, self._rejections, self._look_at = True, self._batches.rejections, now + _LOOK_S
        if self._is_due and self._is_ours():
            self._send()
        elif now - self._used_at > _IDLE_S:
            self._used_at = float("inf")
            self._topic.close()

    def finish(self, limit_s: float, *, goes_on: Callable[[], bool]) -> None:
        """Send what is there before the end; never raises.

        Waits so long at most; while ``goes_on`` says so, so long for each page.
        """
        try:
            self._finish(limit_s, goes_on)
        except Exception as error:  # noqa: BLE001 # what was not noted is sent again
            reason = told(self._store.trouble(error) or error)
            self._log.warning("dead letters that were published are not noted, and go out again", reason=reason)
        if self._flight:
            self._log.warning("dead letters are not published yet", letters=len(self._flight), what_happens=_LATER)

    def _finish(self, limit_s: float, goes_on: Callable[[], bool]) -> None:
        deadline = time.monotonic() + limit_s
        self._look_at = 0.0
        while True:
            gets_on = bool(self._published)
            self.tend()
            now = time.monotonic()
            if gets_on and goes_on():
                deadline = now + limit_s
            if not self._flight or now > deadline:
                break
            self._hear(_WAIT_S)
        self._note_arrivals()

    def close(self) -> None:
        """Let go of the topic; what is under way goes out again when the processor runs next."""
        self._topic.close()

    # --- out

    def _is_ours(self) -> bool:
        """Tell whether no other worker would send them, too: while the processor is paused both of them look."""
        owners = {row.owner for row in self._store.positions().values()}
        return self._alone or owners == {self._batches.worker}

    def _send(self) -> None:
        letters = self._store.unpublished_letters(limit=self._size, size=_BYTES, but=tuple(self._aside))
        if not letters:
            self._is_due = False
            return
        kept = ("id", "rejected_at", "attempts")
        self._flight = {letter["id"]: {name: letter[name] for name in kept} for letter in letters}
        self._page, self._used_at = len(letters), time.monotonic()
        self._topic.send([self._outgoing(letter) for letter in letters])

    def _outgoing(self, letter: Mapping[str, Any]) -> Outgoing:
        key, value = (None if letter[name] is None else bytes(letter[name]) for name in ("key", "value"))
        return Outgoing(letter["id"], key, value, published_headers(self._processor, letter))

    # --- back

    def _hear(self, timeout_s: float) -> None:
        for report in self._topic.reports(timeout_s):
            self._take(report)
        if not self._flight:
            self._land()

    def _take(self, report: Report) -> None:
        sent = self._flight.pop(report.number, None)
        if sent is None:
            return
        if report.problem is None:
            self._published.append(sent)
        elif report.is_its_own:
            self._refused[report.number] = report.problem
        else:
            self._problem = report.problem

    def _land(self) -> None:
        """The page is done: what went wrong with it decides about the next one."""
        refused, self._refused = self._refused, {}
        problem, self._problem = self._problem, None
        if problem is not None:
            self._complain(problem)
            return
        self._pause_s = 0.0
        if self._said is not None:
            self._log.info("dead letters are published again")
            self._said = None
        if not refused:
            self._size = min(_LETTERS, self._size * 2)
        elif self._page > 1:
            # The client sends several as one, and the broker refuses them as one: which of them it is, halving tells.
            self._size = max(1, self._page // 2)
        else:
            self._set_aside(refused)

    def _complain(self, problem: str) -> None:
        """Say once that nothing gets through, and try again with growing pauses and a new client."""
        if problem != self._said:
            self._said = problem
            self._log.warning("dead letters are not published", reason=problem, what_happens=_LATER)
        self._topic.close()
        self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, self._pause_s * 2))
        self._paused_until = time.monotonic() + self._pause_s

    def _set_aside(self, refused: Mapping[int, str]) -> None:
        """Leave out a letter that the topic does not take, until the positions are adopted again."""
        for number, problem in refused.items():
            self._aside[number] = problem
            if len(self._aside) <= _REFUSALS_SAID:
                self._log.warning("dead letter cannot be published", id=number, reason=problem)

    def _note_arrivals(self) -> None:
        if not self._published:
            return
        failpoint("after_publish")
        with self._store.begin() as transaction:
            # Whoever owns the positions by now: the topic has them.
            transaction.note_published(self._published)
            transaction.commit()
        self._published = []
