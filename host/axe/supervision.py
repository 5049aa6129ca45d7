"""Supervision: hearing the workers, and starting those again that die."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection
from typing import Any, NamedTuple

from .discovery import Found
from .log import get_logger
from .places import Places
from .probe import ended_process, how_ended, import_limit_s, no_end
from .process import WorkerProcess
from .rows import Rows
from .services import Services

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_DEATHS_UNTIL_END = 10
_DEATHS_TO_TELL = 2
_KILLS_AT_ONE_IMPORT = 5


class Import(NamedTuple):
    """What a worker imports at the moment, and since when."""

    found: Found
    since: float


class Group:
    """The processors of one worker process, and the process, over all its restarts."""

    def __init__(self, members: list[Found]) -> None:
        self.members = members
        self.worker: WorkerProcess | None = None
        self.restart_at: float | None = None
        self.deaths = 0
        self.importing: Import | None = None
        self.killed_importing: Counter[Found] = Counter()
        self.done: set[str] = set()
        self.furthest: dict[str, int] = {}
        self.events: dict[str, int] = {}
        self.rejections: dict[str, int] = {}

    @property
    def names(self) -> str:
        """The names of the processors, for a line of the log."""
        return ", ".join(found.name for found in self.members)

    def note_progress(self, row: dict[str, Any], message: dict[str, Any]) -> None:
        """Bring the row of a processor up to date; what a worker counts begins anew with each worker."""
        name, events, rejections = message["name"], message["events"], message["rejections"]
        if self._has_got_on(name, events, message["position"]):
            self.deaths = 0
        row["events"] += events - self.events.get(name, 0)
        row["rejections"] += rejections - self.rejections.get(name, 0)
        self.events[name], self.rejections[name] = events, rejections
        row.update((key, message[key]) for key in ("position", "end", "lag"))

    def _has_got_on(self, name: str, events: int, position: int | None) -> bool:
        """Tell whether a processor has done something since it was last heard of; not that it has begun again."""
        furthest = self.furthest.get(name)
        if position is not None:
            self.furthest[name] = position if furthest is None else max(position, furthest)
        moved = furthest is not None and position is not None and position > furthest
        return moved or events > self.events.get(name, 0)

    def fault_of(self, imported: Found, code: int | None) -> str | None:
        """Say what an import did to end the worker; None where it may well have been innocent."""
        if code is None or code == -signal.SIGKILL:
            # By a person, a test, or the kernel for want of memory: chance, unless it comes back.
            self.killed_importing[imported] += 1
            if self.killed_importing[imported] < _KILLS_AT_ONE_IMPORT:
                return None
        return ended_process(code)


class Supervisor:
    """Looks after the workers of one host.

    ``launch`` starts a worker for some processors, ``leave_out`` drops a broken package for good, ``is_ending``
    says that none is to be started any more.
    """

    def __init__(  # noqa: PLR0913 # the parts it works with, by name
        self,
        groups: Sequence[Group],
        *,
        rows: Rows,
        places: Places,
        services: Services,
        launch: Callable[[Sequence[Found]], WorkerProcess],
        leave_out: Callable[[Found, str], None],
        is_ending: Callable[[], bool],
        until_end: bool,
    ) -> None:
        self._groups = groups
        self._rows = rows
        self._places = places
        self._services = services
        self._launch = launch
        self._leave_out = leave_out
        self._is_ending = is_ending
        self._until_end = until_end
        self._import_limit_s = import_limit_s()
        self._log = get_logger()

    @property
    def is_busy(self) -> bool:
        """Whether there is a worker, or will be one again."""
        return any(group.worker is not None or group.restart_at for group in self._groups)

    @property
    def is_unsettled(self) -> bool:
        """Whether something is due that nobody tells: a restart, or the end of an import that takes too long."""
        return any(group.restart_at is not None or group.importing is not None for group in self._groups)

    def start(self) -> None:
        """Start a worker for each group."""
        for group in self._groups:
            self._start(group)

    def tend(self, timeout_s: float, *, wake: connection.Connection) -> None:
        """Hear what workers say within this time, and see to those that ended, hang in an import, or are due.

        Something to read from ``wake`` ends the waiting.
        """
        self._listen(timeout_s, wake)
        for group in self._groups:
            self._tend(group)

    def stop(self, *, is_forced: Callable[[], bool], tick_s: float) -> None:
        """Ask all workers for an orderly end, and wait for it; once it is forced, kill those that are left."""
        for group in self._groups:
            group.restart_at = None
            if group.worker is not None:
                group.worker.tell_to_stop()
        while self.is_busy:
            self._listen(tick_s)
            forced = is_forced()
            for group in self._groups:
                if group.worker is not None and not group.worker.is_alive():
                    self._collect(group)
                elif group.worker is not None and group.importing is not None:
                    group.worker.kill()  # which may never hear of the end, and has nothing to finish
                elif group.worker is not None and forced:
                    self._log.warning("worker is killed, its last batch is undone", processors=group.names)
                    group.worker.kill()

    def _start(self, group: Group) -> None:
        group.worker, group.restart_at = self._launch(group.members), None

    def _listen(self, timeout_s: float, *others: connection.Connection) -> None:
        workers = [group.worker for group in self._groups if group.worker is not None]
        connection.wait([*(sign for worker in workers for sign in worker.signs), *others], timeout=timeout_s)
        for group in self._groups:
            self._drain(group)

    def _drain(self, group: Group) -> None:
        if group.worker is not None:
            for message in group.worker.heard():
                self._hear(group, message)

    def _hear(self, group: Group, message: dict[str, Any]) -> None:
        if message["kind"] in ("importing", "ready", "broken"):
            self._hear_of_import(group, message)
            return
        row = self._rows.of(message["name"])
        match message["kind"]:
            case "misconfigured":
                self._rows.cannot_start(message["name"], message["error"])
                group.done.add(message["name"])
            case "status":
                row["status"], row["reason"] = message["status"], message["error"]
            case "progress":
                group.note_progress(row, message)
            case "ended":
                row["status"], row["reason"] = message["status"], message["error"]
                row["gave_up"] = not message["succeeded"] and not self._is_ending()
                row["stages"] = message["stages"]
                group.done.add(message["name"])

    def _hear_of_import(self, group: Group, message: dict[str, Any]) -> None:
        found: Found = message["found"]
        if message["kind"] == "importing":
            group.importing = Import(found, time.monotonic())
            return
        group.importing = None
        group.killed_importing.pop(found, None)
        if message["kind"] == "broken":
            self._drop(group, found, message["error"])
        elif "services" in message["hooks"]:
            self._services.start(found)

    def _tend(self, group: Group) -> None:
        worker, importing, limit_s = group.worker, group.importing, self._import_limit_s
        if worker is not None and not worker.is_alive():
            self._collect(group)
        elif worker is not None and importing is not None and time.monotonic() - importing.since > limit_s:
            worker.kill()
            self._collect(group, fault=no_end(limit_s))
        if group.restart_at is not None and time.monotonic() >= group.restart_at:
            self._start(group)

    def _collect(self, group: Group, *, fault: str | None = None) -> None:
        """A worker has ended: in order, or is it to be started again? ``fault`` says what its import did."""
        assert group.worker is not None
        self._drain(group)
        code = group.worker.let_go()
        group.worker = None
        group.events.clear()
        group.rejections.clear()
        importing, group.importing = group.importing, None
        if (
            importing is not None
            and not self._is_ending()
            and (fault := fault or group.fault_of(importing.found, code))
        ):
            self._drop(group, importing.found, fault)
        else:
            fault = None
        left = [found.name for found in group.members if found.name not in group.done]
        if not left or self._is_ending():
            return
        group.members = [found for found in group.members if found.name not in group.done]
        if fault is not None:
            # Its cause is gone.
            group.restart_at = time.monotonic()
            return
        group.deaths += 1
        if self._give_up_or_note(group, left, code):
            return
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (group.deaths - 1))
        self._log.error("worker died, starting it again", processors=group.names, code=code, pause_s=pause)
        group.restart_at = time.monotonic() + pause

    def _give_up_or_note(self, group: Group, left: list[str], code: int | None) -> bool:
        """Leave word of a worker that dies again and again, which cannot do so itself; return whether it was the last.

        The first death may be chance: a person, a test, or the kernel for want of memory.
        """
        gives_up = self._until_end and group.deaths >= _DEATHS_UNTIL_END
        if group.deaths < _DEATHS_TO_TELL:
            return False
        reason = f"its worker died {group.deaths} times{how_ended(code)} without progress"
        for name in left:
            status = "failed" if gives_up else "retrying"
            self._rows.of(name).update(status=status, reason=reason, gave_up=gives_up)
            # Whatever is wrong with the database, the next worker tells it better.
            with suppress(Exception), self._places.opened(name, create=False) as store:
                if store is not None:
                    store.set_status(status, reason, unless_directed=True)
        return gives_up

    def _drop(self, group: Group, found: Found, reason: str) -> None:
        """Run on without a package: no worker that is started from now on imports it."""
        if found in group.members:
            group.done.add(found.name)
        self._leave_out(found, reason)
