"""An outage: something that a processor needs is away. Since when, and what was said about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .errors import AxeError

if TYPE_CHECKING:
    from .log import Logger

_LONGEST_PAUSE_S = 5.0


class Outage:
    """At most one of a processor at a time; it ends when source and store were seen to work."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._since: float | None = None
        self._said: type[AxeError] | None = None

    @property
    def is_on(self) -> bool:
        """Whether something is being waited for."""
        return self._since is not None

    @property
    def waited_s(self) -> float:
        """How long."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def pause_s(self) -> float:
        """How long to wait before the next attempt: longer and longer, up to five seconds."""
        return min(_LONGEST_PAUSE_S, 0.2 + self.waited_s / 4)

    def note(self, error: AxeError) -> None:
        """Note what is away; say it once for each kind, because its words change from try to try."""
        if self._since is None:
            self._since = time.monotonic()
        if self._said is not type(error):
            self._said = type(error)
            self._log.warning("waiting", reason=str(error))

    def end(self) -> None:
        """Say that it is over."""
        self._log.info("going on", waited_s=round(self.waited_s))
        self.forget()

    def forget(self) -> None:
        """Wait for nothing any more: somebody holds the processor."""
        self._since = self._said = None
