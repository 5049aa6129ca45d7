"""What a runner shows of itself: to its host at once, and in the store for whoever looks."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .processor import Status
from .store import ALIVE_S, Store
from .telling import told

if TYPE_CHECKING:
    from .log import Logger

_HEARTBEAT_S = ALIVE_S / 3


class Presence:
    """The status of one runner, its heartbeat, and its name among the workers of the processor.

    ``alone`` says that no other host may work on the processor: then nobody else's word can be overwritten.
    """

    def __init__(
        self, store: Store, log: Logger, *, alone: bool, on_status: Callable[[Status, str | None], None] | None
    ) -> None:
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.status = Status.UNASSIGNED
        self.error: str | None = None
        self.is_open = False
        """Whether the store is open, so that it can be written to."""
        self._store = store
        self._log = log
        self._alone = alone
        self._on_status = on_status
        self._beat_at = 0.0
        # Whether the store could not be told the status.
        self._unsaid = False

    def show(
        self,
        status: Status,
        error: str | None = None,
        *,
        unless_directed: bool = False,
        stored: bool = True,
        forget_error: bool = False,
    ) -> None:
        """Tell what the processor is doing; never raises.

        With ``unless_directed`` the store keeps what somebody has set meanwhile, without ``stored`` in any case.
        The store keeps the last error unless there is another one, or ``forget_error`` says not to.
        """
        if (status, error) == (self.status, self.error) and not self._unsaid:
            return
        # The store first: who sees it here may at once do something about it there.
        last_error = "" if forget_error else error
        self._unsaid = stored and not self._write(status, last_error, unless_directed=unless_directed)
        if (status, error) == (self.status, self.error):
            return
        self.status, self.error = status, error
        if self._on_status is not None:
            self._on_status(status, error)

    def arrive(self) -> None:
        """Note that the store is open, and be known in it before owning anything; never raises."""
        self.is_open = True
        if not self._alone:
            # Else another worker could write its status over ours between our first commit and the first beat.
            self.beat()

    def beat(self) -> None:
        """Write that this worker is there, if it is time to; never raises."""
        now = time.monotonic()
        if now - self._beat_at > _HEARTBEAT_S and self.is_open:
            self._beat_at = now
            if self._unsaid:
                self._unsaid = not self._write(self.status, self.error, unless_directed=True)
            host, status = socket.gethostname(), self.status.value
            self._quietly(lambda: self._store.heartbeat(self.worker, host, os.getpid(), status, alone=self._alone))

    def leave(self) -> None:
        """Write the last word of an orderly end, which a failure or a pause outlives; never raises."""
        lost = self.status is Status.UNASSIGNED and self.error is not None
        if not lost and self.status not in (Status.FAILED, Status.PAUSED):
            # What is still waiting has not stopped by itself, but nobody waits from now on.
            if self.status is not Status.WAITING:
                self.show(Status.STOPPED)
            else:
                self._write(Status.STOPPED, None)
        if self.is_open:
            self._quietly(lambda: self._store.leave(self.worker))

    def directions(self) -> object:
        """Return what somebody has decided about the processor, for comparing; None where that is nothing, or unknown.

        A pause, what is pending, and the epochs, which every reset raises.
        """

        def read() -> object:
            control = self._store.control()
            if not control.is_directed:
                return None
            return control.paused, control.pending, {at: row.epoch for at, row in self._store.positions().items()}

        return self._quietly(read) if self.is_open else None

    def is_lost(self) -> bool:
        """Tell whether a worker that is alive owns a partition: it may write positions, this one may not."""
        owners = {row.owner for row in self._store.positions().values()} - {self.worker, None}
        now = datetime.now(UTC)
        return any(
            row["worker"] in owners and (now - datetime.fromisoformat(row["heartbeat_at"])).total_seconds() < ALIVE_S
            for row in self._store.workers()
        )

    def _write(self, status: Status, error: str | None, *, unless_directed: bool = False) -> bool:
        """Write the status, where the store is open; return whether that went well."""
        worker = None if self._alone else self.worker

        def write() -> bool:
            self._store.set_status(status.value, error, worker=worker, unless_directed=unless_directed)
            return True

        return not self.is_open or self._quietly(write) is True

    def _quietly(self, call: Callable[[], object]) -> object:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 # what the store is in trouble with, the next transaction tells
            self._log.debug("presence could not be stored", reason=told(self._store.trouble(error) or error))
            return None
