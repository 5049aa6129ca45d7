"""axe: a host for event processors. What a plugin author and a user of ``App`` may import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    AxeError,
    BehindRetention,
    BeyondEnd,
    ClusterChanged,
    CommitRefused,
    ConfigError,
    DecodeError,
    HostRunning,
    PluginError,
    PositionConflict,
    PositionError,
    SessionLost,
    SourceError,
    SourceUnavailable,
    StateError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFormat,
    StoreMissing,
    StoreUnavailable,
    TooManyRejections,
    TopicMissing,
    TopicRecreated,
    TransactionEnded,
    VersionChanged,
    WorkerDied,
)
from .event import Decision, Event, Failure, Record, Reject, Rejection, TopicPartition
from .hooks import hookimpl

if TYPE_CHECKING:
    from .app import App
    from .store.state import State

__version__ = "0.1.0"

__all__ = [
    "App",
    "AxeError",
    "BehindRetention",
    "BeyondEnd",
    "ClusterChanged",
    "CommitRefused",
    "ConfigError",
    "Decision",
    "DecodeError",
    "Event",
    "Failure",
    "HostRunning",
    "PluginError",
    "PositionConflict",
    "PositionError",
    "Record",
    "Reject",
    "Rejection",
    "SessionLost",
    "SourceError",
    "SourceUnavailable",
    "State",
    "StateError",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreForeign",
    "StoreFormat",
    "StoreMissing",
    "StoreUnavailable",
    "TooManyRejections",
    "TopicMissing",
    "TopicPartition",
    "TopicRecreated",
    "TransactionEnded",
    "VersionChanged",
    "WorkerDied",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    # These bring SQLAlchemy with them, a third of a second that `axe --help` need not pay.
    if name == "App":
        from .app import App

        return App
    if name == "State":
        from .store.state import State

        return State
    message = f"module 'axe' has no attribute {name!r}"
    raise AttributeError(message)
