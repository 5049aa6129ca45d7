"""The processors that are measured: what a user would write. Topics and where to tell come from ``axe.toml``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import axe

from .handwritten import UPSERT, core_upsert, counts_table
from .stamps import Stamps


class _Stamped:
    """Notes when commits come; only the worker itself can tell: it is no child of the command's."""

    topics = ("told by axe.toml",)

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._committed = Stamps()

    @axe.hookimpl
    def on_commit(self, report: axe.CommitReport) -> None:
        """Note the time."""
        self._committed(max(report.positions.values()))

    @axe.hookimpl
    def on_stop(self) -> None:
        """Tell."""
        told = self._committed.told(every=self._settings.get("every", False))
        Path(self._settings["told"]).write_text(json.dumps(told))


class OnEvent(_Stamped):
    """Counts by phase."""

    @axe.hookimpl
    def on_event(self, event: axe.Event, state: axe.State) -> None:
        """Count one event."""
        phase = event.value["phase"]
        state[phase] = state.get(phase, 0) + 1


class ReadsOnly(OnEvent):
    """The same, which says that it changes nothing in the values of events."""

    reads_only = True


class OnBatch(_Stamped):
    """Counts by phase, many events at once."""

    @axe.hookimpl
    def on_batch(self, events: list[axe.Event], state: axe.State) -> None:
        """Count the events of a batch."""
        counts: dict[str, int] = {}
        for event in events:
            phase = event.value["phase"]
            counts[phase] = counts.get(phase, 0) + 1
        for phase, count in counts.items():
            state[phase] = state.get(phase, 0) + count


class Keys(_Stamped):
    """Counts by id, in values of 100 bytes."""

    @axe.hookimpl
    def on_event(self, event: axe.Event, state: axe.State) -> None:
        """Count one event."""
        key = event.value["id"]
        state[key] = f"{int(state.get(key, '0')) + 1:0100d}"


class KeysInMemory(Keys):
    """As ``Keys``, and reads every key with the first event, whose commit is not counted: all are in memory then."""

    _has_read = False

    @axe.hookimpl
    def on_event(self, event: axe.Event, state: axe.State) -> None:
        """Count one event."""
        if not self._has_read:
            self._has_read = True
            for key in state:
                state.get(key)
        super().on_event(event, state)


class Cursor(_Stamped):
    """One upsert an event, on the driver's cursor."""

    @axe.hookimpl
    def on_start(self, state: axe.State) -> None:
        """Make the table."""
        counts_table.create(state.connection, checkfirst=True)

    @axe.hookimpl
    def on_event(self, event: axe.Event, state: axe.State) -> None:
        """Count one event."""
        state.cursor.execute(UPSERT, (event.value["phase"],))


class Core(_Stamped):
    """One upsert an event, through SQLAlchemy Core."""

    @axe.hookimpl
    def on_start(self, state: axe.State) -> None:
        """Make the table."""
        counts_table.create(state.connection, checkfirst=True)

    @axe.hookimpl
    def on_event(self, event: axe.Event, state: axe.State) -> None:
        """Count one event."""
        state.connection.execute(core_upsert, {"phase": event.value["phase"]})
