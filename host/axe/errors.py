"""Every error of axe, in one tree.

AxeError
├── ConfigError                 the configuration or the command line is wrong (exit code 2)
├── PluginError                 a plugin cannot run; names it, its distribution and the reason
├── DecodeError                 bytes that are no event; becomes a rejection
├── SourceError
│   ├── SourceUnavailable       wait and try again: broker away, folder missing
│   └── TopicMissing            wait and try again: the topic does not exist yet
├── PositionError               the stored position and the log do not fit; needs a decision
│   ├── BehindRetention         the log begins after the position
│   ├── BeyondEnd               the log ends before the position
│   ├── TopicRecreated          the topic was deleted and made again
│   └── ClusterChanged          the source is another cluster
├── WorkerDied                  an event ended its worker again and again; a failure of the event
├── TooManyRejections           the flood guard paused the processor
├── StateError                  a handler did what it may not do with its state
│   ├── CommitRefused           a deferred constraint is not met at the end of the transaction
│   └── TransactionEnded        the transaction was no longer open when it should be committed
└── StoreError                  the database of a processor
    ├── StoreUnavailable        wait and try again: server away, disk full
    │   ├── StoreBusy           somebody else holds it, another worker perhaps
    │   └── SessionLost         the server ended our session, which a new one may not concern
    ├── StoreMissing            the database existed and is gone
    ├── StoreCorrupt            the database cannot be read as one
    ├── StoreForeign            it belongs to another processor or another store
    ├── StoreFormat             it was written by a newer axe
    ├── VersionChanged          it was built by another version of the processor
    ├── PositionConflict        somebody else moved the position
    └── HostRunning             another host runs on this state folder
"""

from __future__ import annotations


class AxeError(Exception):
    """What went wrong, where, and what to do next; the message is fit for a person."""


class ConfigError(AxeError):
    """The configuration or the command line is wrong."""


class PluginError(AxeError):
    """A plugin cannot run."""


class DecodeError(AxeError):
    """The bytes of a record do not decode; the event is rejected with this reason."""


class SourceError(AxeError):
    """Something about where records come from."""


class SourceUnavailable(SourceError):
    """The source cannot be reached at the moment; no event is at fault."""


class TopicMissing(SourceError):
    """The topic does not exist (yet)."""


class PositionError(AxeError):
    """A stored position does not fit the log; going on would lose or repeat events."""


class BehindRetention(PositionError):
    """The log begins after the stored position: events were deleted unread."""


class BeyondEnd(PositionError):
    """The log ends before the stored position."""


class TopicRecreated(PositionError):
    """The topic was deleted and made again since the position was stored."""


class ClusterChanged(PositionError):
    """The position was stored for another cluster."""


class WorkerDied(AxeError):
    """Workers died while an event was handled, one after the other: ``deaths`` of them."""

    def __init__(self, deaths: int) -> None:
        super().__init__(
            f"its worker died {deaths} times while this event was handled; the log says how each of them ended: "
            'see the lines "worker died"'
        )
        self.deaths = deaths


class TooManyRejections(AxeError):
    """So many of the latest events were rejected that the processor was paused."""


class StateError(AxeError):
    """A handler did something with its state that it may not do."""


class CommitRefused(StateError):
    """The database refused to commit what a handler did: a deferred constraint is not met."""


class TransactionEnded(StateError):
    """The transaction was no longer open at its end; nothing of it counts."""


class StoreError(AxeError):
    """Something about the database of a processor."""


class StoreUnavailable(StoreError):
    """The database cannot be used at the moment; no event is at fault."""


class StoreBusy(StoreUnavailable):
    """Somebody else holds what is needed: another worker of the same processor, perhaps."""


class SessionLost(StoreUnavailable):
    """The server ended our session; that may be the doing of the event at hand."""


class StoreMissing(StoreError):
    """The database existed and is gone."""


class StoreCorrupt(StoreError):
    """The database cannot be read as one."""


class StoreForeign(StoreError):
    """The database belongs to another processor or another store."""


class StoreFormat(StoreError):
    """The database was written by a newer axe."""


class VersionChanged(StoreError):
    """The state was built by another version of the processor."""


class PositionConflict(StoreError):
    """Somebody else moved the position since it was read."""


class HostRunning(StoreError):
    """Another host runs on this state folder."""
