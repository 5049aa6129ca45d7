"""Whether stored positions fit the log: what a worker asks before it reads, and ``axe check`` foretells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, Self

from .config import MisfitConfig
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


class Misfit(NamedTuple):
    """One thing that stands between a processor and its log."""

    kind: type[AxeError]
    what: str
    way_out: str
    onward: dict[TopicPartition, int]
    """Where reading may go on without what is gone, for partitions where that can be told."""

    @property
    def error(self) -> AxeError:
        """What a worker stops with."""
        return self.kind(f"{self.what}; {self.way_out}")


class Cure(NamedTuple):
    """What the configuration says to do about misfits, instead of stopping at them."""

    action: Literal["skip", "rebuild"]
    targets: dict[TopicPartition, int]
    reason: str


_SETTINGS: dict[type[BaseException], str] = {
    VersionChanged: "version_changed",
    ClusterChanged: "cluster_changed",
    TopicRecreated: "topic_recreated",
    BehindRetention: "behind_retention",
    BeyondEnd: "beyond_end",
}


def policy(kind: type[BaseException], settings: MisfitConfig) -> str:
    """Return what is set for this kind of misfit: "halt" for what is none."""
    name = _SETTINGS.get(kind)
    return "halt" if name is None else getattr(settings, name)


def cure(found: Iterable[Misfit], settings: MisfitConfig, stored: Iterable[TopicPartition], log: Log) -> Cure | None:
    """Put together what is set for these misfits; None where there are none. A rebuild takes everything along.

    Raises:
        AxeError: the first at which the processor is to stop.
    """
    misfits = list(found)
    policies = [policy(misfit.kind, settings) for misfit in misfits]
    for misfit, said in zip(misfits, policies, strict=True):
        if said == "halt":
            raise misfit.error
    if not misfits:
        return None
    reason = "; ".join(misfit.what for misfit in misfits)
    if "rebuild" in policies:
        # What was read from a partition that is gone is dropped, too; should it come back, it is read whole.
        begins = {at: bounds.begin for at, bounds in log.bounds.items()}
        return Cure("rebuild", dict.fromkeys(stored, 0) | begins, reason)
    return Cure("skip", {at: to for misfit in misfits for at, to in misfit.onward.items()}, reason)


def misfits(
    name: str, version: int | None, control: Control, stored: Mapping[TopicPartition, StoredPosition], log: Log
) -> Iterator[Misfit]:
    """Yield what stands between a processor and its log.

    ``version`` is that of the installed processor, None where it is not known. Partitions that the log
    does not have are not looked at: the topic may be one that the processor no longer reads.
    """
    if stored and version is not None and control.version != version and control.pending != "wipe":
        yield Misfit(
            VersionChanged,
            f"the state of {name} was built by version {control.version}, version {version} is installed",
            f"`axe reset {name} --to earliest --wipe` builds it anew",
            {},
        )
    way_out = f"restore the log, or decide with `axe reset {name} --to earliest` (or latest, a number, a time)"
    if stored and None not in (control.cluster_id, log.cluster_id) and control.cluster_id != log.cluster_id:
        what = f"the positions of {name} are for the cluster {control.cluster_id}, this is {log.cluster_id}"
        yield Misfit(ClusterChanged, what, way_out, {})
        return
    anew: set[str] = set()
    for at, row in sorted(stored.items()):
        if at not in log.bounds or at.topic in anew:
            continue
        begin, end = log.bounds[at]
        topic_id = log.topic_ids.get(at.topic)
        if None not in (row.topic_id, topic_id) and row.topic_id != topic_id:
            anew.add(at.topic)
            what = f"the topic {at.topic} was made anew since {name} read it to {row.position}"
            begins = {other: bounds.begin for other, bounds in log.bounds.items() if other.topic == at.topic}
            yield Misfit(TopicRecreated, what, way_out, begins)
        elif row.position < begin:
            gone = begin - row.position
            what = f"{name} is at {at}@{row.position}, but the log begins at {begin}: {gone} are gone"
            yield Misfit(BehindRetention, what, way_out, {at: begin})
        elif row.position > end:
            what = f"{name} is at {at}@{row.position}, but the log ends at {end}: it was shortened or made anew"
            yield Misfit(BeyondEnd, what, way_out, {at: end})
