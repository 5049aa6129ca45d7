"""Whether stored positions fit the log: what a worker asks before it reads, and ``axe check`` foretells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Self

from .errors import AxeError, BehindRetention, BeyondEnd, ClusterChanged, TopicRecreated, VersionChanged
from .event import TopicPartition
from .sources import Bounds, Source
from .store import Control, StoredPosition


class Log(NamedTuple):
    """What a source says about some topics at one moment."""

    cluster_id: str | None
    topic_ids: dict[str, str | None]
    bounds: dict[TopicPartition, Bounds]

    @classmethod
    def of(cls, source: Source, topics: Iterable[str]) -> Self:
        """Ask a source.

        Raises:
            SourceUnavailable, TopicMissing: it does not answer, or a topic is not there.
        """
        names = list(topics)
        partitions = [at for topic in names for at in source.partitions(topic)]
        topic_ids = {topic: source.topic_id(topic) for topic in names}
        return cls(source.cluster_id(), topic_ids, source.bounds(partitions))


def misfits(
    name: str, version: int | None, control: Control, stored: Mapping[TopicPartition, StoredPosition], log: Log
) -> Iterator[AxeError]:
    """Yield what stands between a processor and its log, as the errors that a worker stops with.

    ``version`` is that of the installed processor, None where it is not known. Partitions that the log
    does not have are not looked at: the topic may be one that the processor no longer reads.
    """
    if stored and version is not None and control.version != version and control.pending != "wipe":
        yield VersionChanged(
            f"the state of {name} was built by version {control.version}, version {version} is installed; "
            f"`axe reset {name} --to earliest --wipe` builds it anew"
        )
    way_out = f"restore the log, or decide with `axe reset {name} --to earliest` (or latest, a number, a time)"
    if stored and None not in (control.cluster_id, log.cluster_id) and control.cluster_id != log.cluster_id:
        yield ClusterChanged(
            f"the positions of {name} are for the cluster {control.cluster_id}, this is {log.cluster_id}; {way_out}"
        )
        return
    anew: set[str] = set()
    for at, row in sorted(stored.items()):
        if at not in log.bounds or at.topic in anew:
            continue
        begin, end = log.bounds[at]
        topic_id = log.topic_ids.get(at.topic)
        if None not in (row.topic_id, topic_id) and row.topic_id != topic_id:
            anew.add(at.topic)
            yield TopicRecreated(
                f"the topic {at.topic} was made anew since {name} read it to {row.position}; {way_out}"
            )
        elif row.position < begin:
            gone = begin - row.position
            yield BehindRetention(
                f"{name} is at {at}@{row.position}, but the log begins at {begin}: {gone} are gone; {way_out}"
            )
        elif row.position > end:
            yield BeyondEnd(
                f"{name} is at {at}@{row.position}, but the log ends at {end}: it was shortened or made anew; {way_out}"
            )
