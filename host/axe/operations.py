"""What people do to a processor: reset, pause, resume. One function each, one transaction in the store.

They work beside a running worker, which sees the change with its next commit or within a second, and
run no code of the plugin: what a plugin has to do about a reset, its worker runs.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from .errors import ConfigError, TopicMissing
from .event import TopicPartition
from .sources import Source
from .store import Store

Target = int | Literal["earliest", "latest"] | datetime | timedelta | Mapping[TopicPartition, int]


def resolve(source: Source, partitions: list[TopicPartition], to: Target) -> dict[TopicPartition, int]:
    """Work out the offsets that a target means for these partitions now.

    A ``timedelta`` counts back from now.

    Raises:
        ConfigError: a number lies outside the log, or a named partition is not read.
    """
    bounds = source.bounds(partitions)
    if isinstance(to, timedelta):
        to = datetime.now(UTC) - to
    if isinstance(to, datetime):
        return source.offsets_at(partitions, int(to.timestamp() * 1000))
    if isinstance(to, Mapping):
        targets = {TopicPartition(*at): offset for at, offset in to.items()}
    elif isinstance(to, str):
        return {at: bound.begin if to == "earliest" else bound.end for at, bound in bounds.items()}
    else:
        targets = dict.fromkeys(partitions, to)
    for at, offset in targets.items():
        if at not in bounds:
            message = f"{at} is not among the partitions that the processor reads"
            raise ConfigError(message)
        if not bounds[at].begin <= offset <= bounds[at].end:
            message = f"{at} holds the offsets {bounds[at].begin} to {bounds[at].end}; {offset} is outside"
            raise ConfigError(message)
    return targets


def partitions_of(source: Source, store: Store, topics: list[str] | None = None) -> list[TopicPartition]:
    """List the partitions of the topics, or of those that the store has positions for."""
    stored = list(store.positions())
    names = topics or sorted({at.topic for at in stored})
    if not names:
        message = f"{store.processor} has not read anything yet: there is nothing to reset"
        raise ConfigError(message)
    found = []
    for topic in names:
        try:
            found += source.partitions(topic)
        except TopicMissing as error:
            raise ConfigError(str(error)) from error
    return found


def reset(
    store: Store, targets: Mapping[TopicPartition, int], *, wipe: bool = False, reason: str | None = None
) -> dict[TopicPartition, int | None]:
    """Move positions, and with ``wipe`` drop what the plugin built; returns the positions before.

    The epoch goes up, so that a batch that is under way loses its compare-and-set and counts for nothing.
    """
    with store.begin() as transaction:
        before, is_all = transaction.move_by_hand(targets)
        # Not before: on PostgreSQL another operator's reset may commit while this one waits for the rows.
        control = transaction.control()
        values: dict[str, object] = {"last_error": None}
        values["pending"] = "wipe" if wipe or control.pending == "wipe" else "reset"
        if control.status == "failed":
            values["status"] = "stopped"
        if is_all:
            # No position is left that was stored for another cluster.
            values["cluster_id"] = None
        transaction.set_control(values)
        if wipe:
            transaction.wipe()
        action = "reset and wipe" if wipe else "reset"
        transaction.audit(_who(), action, reason, _shown(before), _shown(targets))
        transaction.commit()
    return before


def pause(store: Store, reason: str | None = None) -> None:
    """Hold the processor after the batch at hand, over restarts too."""
    _set_paused(store, 1, "pause", reason)


def resume(store: Store, reason: str | None = None) -> None:
    """Let a paused or failed processor go on where it stopped."""
    _set_paused(store, 0, "resume", reason)


def _set_paused(store: Store, paused: int, action: str, reason: str | None) -> None:
    with store.begin() as transaction:
        control = transaction.control()
        values: dict[str, object] = {"paused": paused}
        if not paused:
            values["last_error"] = None
            if control.status in ("failed", "paused"):
                values["status"] = "stopped"
        transaction.set_control(values)
        before = {"paused": control.paused, "status": control.status}
        transaction.audit(_who(), action, reason, before, {"paused": bool(paused)})
        transaction.commit()


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _shown(positions: Mapping[TopicPartition, int | None]) -> dict[str, int | None]:
    return {str(at): position for at, position in positions.items()}
