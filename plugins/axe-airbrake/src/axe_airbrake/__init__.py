"""Reports the failures of processors to Airbrake, or to what speaks its protocol (Errbit).

What leaves the machine: the exception with its message and its stack (files, lines), where it
happened (processor, topic, partition, offset, attempt, decision), host name, working directory
and the versions of loaded libraries. Keys, values and headers leave only with ``payload = true``.
"""

from __future__ import annotations

import contextlib
import difflib
import queue
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import pybrake

from axe import ConfigError, Failure, hookimpl

__all__ = ["Airbrake"]

_KNOWN: dict[str, type] = {"environment": str, "host": str, "payload": bool, "project_id": int, "project_key": str}
_NAMES = {str: "a text", bool: "true or false", int: "a whole number"}
_FLUSH_S = 2.0
_MAX_WAITING = 100
_MAX_PAYLOAD = 1_000


class Airbrake:
    """Reports each failure as one notice, from a thread of its own.

    When Airbrake cannot be reached, a bounded number of notices waits and the rest is dropped:
    nothing here holds a worker up, but for two seconds at its end.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _check(settings)
        self._payload_bytes = _MAX_PAYLOAD if settings.get("payload") else None
        optional = {name: settings[name] for name in ("host", "environment") if name in settings}
        self._notifier = pybrake.Notifier(
            project_id=settings["project_id"],
            project_key=settings["project_key"],
            remote_config=False,
            performance_stats=False,
            query_stats=False,
            queue_stats=False,
            revision="",  # None would look for a git repository around the working directory
            **optional,
        )
        # pybrake's own pool has non-daemon threads, five a processor core, which Python waits
        # for at its end; one daemon thread can be left behind when the time is up.
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None

    @hookimpl
    def on_error(self, failure: Failure) -> None:
        """Hand the failure to the thread; the first failure of an event and the last one both come."""
        if self._waiting.full():  # before the notice is put together, which takes some milliseconds
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(self._notice(failure))
        if self._thread is None:  # not in the constructor: a thread does not survive a fork
            self._thread = threading.Thread(target=self._send, name="axe-airbrake", daemon=True)
            self._thread.start()

    @hookimpl
    def on_stop(self) -> None:
        """Give what still waits up to two seconds to leave."""
        deadline = time.monotonic() + _FLUSH_S
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks and (left := deadline - time.monotonic()) > 0:
                self._waiting.all_tasks_done.wait(left)

    def _send(self) -> None:
        while True:
            notice = self._waiting.get()
            try:
                self._notifier.send_notice_sync(notice)
            except Exception:  # noqa: BLE001 # a notice that cannot be sent must not end the thread
                time.sleep(0.1)
            finally:
                self._waiting.task_done()

    def _notice(self, failure: Failure) -> dict[str, Any]:
        notice: dict[str, Any] = self._notifier.build_notice(None)
        # Not pybrake's: it sends the source around each line, follows the causes that
        # ``raise … from None`` hides, and does not end on causes that go in a circle.
        notice["errors"] = [_error(exception) for exception in _causes(failure.exception)]
        notice["context"] |= {"component": failure.processor, "severity": "error"}
        notice["params"] = failure.where(payload_bytes=self._payload_bytes)
        return notice


def _causes(exception: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = exception
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)


def _error(exception: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(exception.__traceback__)
    return {
        "type": type(exception).__name__,
        "message": str(exception),
        "backtrace": [{"file": f.filename, "line": f.lineno, "function": f.name} for f in reversed(frames)],
    }


def _check(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(sorted(_KNOWN))}"
            raise ConfigError(f"plugins.airbrake.{name}: unknown setting{hint}")
        if type(value) is not _KNOWN[name]:
            raise ConfigError(f"plugins.airbrake.{name}: must be {_NAMES[_KNOWN[name]]}")
    for name in ("project_id", "project_key"):
        if not settings.get(name):
            raise ConfigError(f"plugins.airbrake.{name}: missing")
