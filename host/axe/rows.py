"""The rows of a run: what each processor does and how it ended, and which plugins are broken."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from .config import NAME
from .discovery import PLUGINS, Found
from .errors import AxeError
from .log import get_logger
from .places import Places


class Rows:
    """A row for each processor, filled as the host hears of it, and a row for each broken plugin."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._log = get_logger()
        self._processors: dict[str, dict[str, Any]] = {}
        self._plugins: dict[tuple[str, str], dict[str, Any]] = {}
        self.misconfigured: set[str] = set()
        """The processors that could not start because of the configuration."""

    @property
    def names(self) -> list[str]:
        """The processors that have a row."""
        return list(self._processors)

    @property
    def processors(self) -> list[dict[str, Any]]:
        """The rows of the processors, in the order in which they came."""
        return list(self._processors.values())

    @property
    def plugins(self) -> list[dict[str, Any]]:
        """The rows of the plugins that are broken."""
        return list(self._plugins.values())

    def of(self, name: str) -> dict[str, Any]:
        """Return the row of a processor, which is made when it is first asked for."""
        if name not in self._processors:
            row = {"name": name, "status": "unassigned", "events": 0, "rejections": 0, "reason": None}
            row |= {"position": None, "end": None, "lag": None, "stages": None, "gave_up": False}
            row["database"] = None
            # An impossible name never has one, and asking for it could lead anywhere.
            if NAME.match(name):
                with suppress(AxeError):
                    row["database"] = self._places.store(name).location
            self._processors[name] = row
        return self._processors[name]

    def cannot_start(self, name: str, reason: str) -> None:
        """Note a processor that the configuration keeps from starting; no plugin is at fault."""
        self.misconfigured.add(name)
        self.of(name).update(status="broken", reason=reason)
        self._log.error("processor cannot start, the configuration is wrong", processor=name, reason=reason)

    def broken(self, found: Found, reason: str) -> None:
        """Note what is broken, and say it once."""
        if not reason.startswith(str(found)):
            reason = f"{found.distribution} {found.version}: {reason}"
        if found.group == PLUGINS:
            row = {"name": found.name, "distribution": found.distribution, "version": found.version}
            row |= {"status": "broken", "reason": reason}
            if self._plugins.setdefault((found.name, found.distribution), row) is row:
                self._log.error("plugin is broken and left out", plugin=found.name, reason=reason)
            return
        row = self.of(found.name)
        before = row["reason"] if row["status"] == "broken" else None
        if before is None or reason not in before:
            self._log.error("processor is broken and does not run", processor=found.name, reason=reason)
            # Of several distributions that claim the name each has its own.
            row["reason"] = reason if before is None else f"{before}; {reason}"
        row["status"] = "broken"
