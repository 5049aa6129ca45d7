"""The jobs: axe by what a handler does, against the loop written by hand, or against itself."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..services.kafka import KafkaBroker
from . import broker as bench
from . import events, installed
from .compare import EXACTLY_ONCE, Wanted, Way, measure, ratio
from .stamps import Speed, speed

HAND = "hand-written"
VALUES, TABLE = "SELECT key, value FROM axe_values", "SELECT phase, n FROM counts"
MANY_KEYS, FEW_KEYS = 1_000_000, 10
# Twice of what a million keys take: half of it is sure to hold them.
CACHE_MB = 600
PROCESSORS = 10

Found = tuple[dict[str, Any], list[dict[str, Any]]]


class Bench(NamedTuple):
    """What each job needs to know."""

    kafka: KafkaBroker
    events: int
    rounds: int
    is_profiled: bool = False

    @contextmanager
    def topic(self, *args: Any, **given: Any) -> Iterator[str]:
        """Make a topic with events, and delete it."""
        name = bench.topic_of(self.kafka, *args, **given)
        try:
            yield name
        finally:
            self.kafka.delete_topic(name)

    def hand(self, job: str, topic: str, *, name: str = HAND, expected: dict[str, int] | None = None) -> Way:
        """Make the way that is written by hand."""

        def run() -> Speed:
            with _folder() as folder:
                settings = {"brokers": self.kafka.bootstrap, "topic": topic, "end": self.events, "folder": str(folder)}
                told = bench.result(bench.child(f"hand:{job}", settings))
                query = TABLE if job in ("cursor", "core") else "SELECT key, value FROM kept"
                _judge(installed.rows(folder / "hand.db", query), expected or events.counts(range(self.events)))
                return speed(told)

        return Way(name, EXACTLY_ONCE, run)

    def profile(self, handler: str, topic: str, *, end: int | None = None, **given: Any) -> None:
        """Where it is asked for, say on stderr where the time of a handler goes: by stage, and by function."""
        for job in ("stages", "profile") if self.is_profiled else ():
            with _folder() as folder:
                if (state := given.get("state")) is not None:
                    shutil.copytree(state, folder / "state")
                settings = {"brokers": self.kafka.bootstrap, "topic": topic, "end": end or self.events, **given}
                bench.result(bench.child(job, {**settings, "handler": handler, "folder": str(folder)}))

    def axe(
        self,
        name: str,
        handler: str,
        topic: str,
        *,
        top: str = "",
        expected: dict[str, int] | None = None,
        is_table: bool = False,
    ) -> Way:
        """Make the way of one processor through `axe run`."""

        def run() -> Speed:
            with _folder() as folder:
                [told] = installed.run(folder, self.kafka.bootstrap, [topic], handler, top=top)
                counted = installed.rows(installed.database(folder), TABLE if is_table else VALUES)
                _judge(counted, expected or events.counts(range(self.events)))
                return speed(told)

        return Way(name, EXACTLY_ONCE, run)


def _judge(counted: list[tuple[Any, ...]], expected: dict[str, int]) -> None:
    # axe keeps JSON, in which a string has quotation marks.
    found = {key: int(str(value).strip('"')) for key, value in counted}
    if found != expected:
        raise RuntimeError(f"wrong counts: {found} instead of {expected}"[:300])


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="axe-bench-") as folder:
        yield Path(folder)


def count(at: Bench) -> Found:
    """Count by phase: values, one event or many at a time; and the processor in a program of its own."""
    with at.topic(events.events(at.events)) as topic:

        def alone() -> Speed:
            with _folder() as folder:
                settings = {"brokers": at.kafka.bootstrap, "topic": topic, "end": at.events, "folder": str(folder)}
                told = bench.result(bench.child("axe", settings))
                counted = installed.rows(installed.database(folder), VALUES)
                _judge(counted, events.counts(range(at.events)))
                return speed(told)

        ways = [
            at.hand("count", topic),
            at.axe("axe run, on_event", "OnEvent", topic),
            Way("axe.App, on_event", EXACTLY_ONCE, alone),
            at.axe("axe run, on_batch", "OnBatch", topic),
        ]
        found = measure("count by phase", ways, rounds=at.rounds)
        at.profile("OnEvent", topic)
        at.profile("OnBatch", topic)
    by_event = Wanted("count, on_event, of hand-written", 0.7).compared(found, "axe run, on_event", HAND)
    by_batch = Wanted("count, on_batch, of hand-written", 0.8).compared(found, "axe run, on_batch", HAND)
    host = Wanted("axe run, of the processor alone", 0.97)
    return found, [by_event, by_batch, host.compared(found, "axe run, on_event", "axe.App, on_event")]


def cursor(at: Bench) -> Found:
    """One upsert an event on the driver's cursor."""
    return _upsert(at, "cursor", "Cursor", 0.75)


def core(at: Bench) -> Found:
    """One upsert an event through SQLAlchemy Core."""
    return _upsert(at, "core", "Core", 0.85)


def _upsert(at: Bench, job: str, handler: str, bound: float) -> Found:
    with at.topic(events.events(at.events)) as topic:
        ways = [at.hand(job, topic), at.axe("axe run", handler, topic, is_table=True)]
        found = measure(f"upsert, {job}", ways, rounds=at.rounds)
        at.profile(handler, topic)
    row = Wanted(f"upsert by state.{'connection' if job == 'core' else job}, of hand-written", bound)
    return found, [row.compared(found, "axe run", HAND)]


def avro(at: Bench) -> Found:
    """Count by phase out of Avro."""
    with _folder() as folder, at.topic(events.avro_events(at.events)) as topic:
        schema = folder / "study.avsc"
        schema.write_text(json.dumps(events.SCHEMA))
        top = f'[topics.{topic}]\ndecode = ["avro"]\nschema = "{schema}"'
        ways = [at.hand("avro", topic), at.axe("axe run", "OnEvent", topic, top=top)]
        found = measure("count by phase, Avro", ways, rounds=at.rounds)
        decode = {"decode": ["avro"], "schema": str(schema)}
        at.profile("OnEvent", topic, configuration={"topics": {topic: decode}})
    return found, [Wanted("Avro, of hand-written", 0.7).compared(found, "axe run", HAND)]


def keys(at: Bench) -> Found:
    """A state of a million keys against one of ten."""
    few = events.events_of_keys(at.events, FEW_KEYS)
    many = events.events_of_every_key(MANY_KEYS)
    with _folder() as prepared, at.topic(few) as ten, at.topic(many) as million:
        # Each key once, which is the state that every round begins with.
        progressed = {"hand": prepared / "hand.db", "axe": prepared / "state"}
        settings = {"brokers": at.kafka.bootstrap, "topic": million, "end": MANY_KEYS, "folder": str(prepared)}
        bench.result(bench.child("hand:keys", settings))
        installed.run(prepared, at.kafka.bootstrap, [million], "Keys")
        bench.fill(at.kafka.bootstrap, million, events.events_of_keys(at.events, MANY_KEYS))
        end = MANY_KEYS + at.events

        def hand(name: str, job: str) -> Way:
            def run() -> Speed:
                with _folder() as folder:
                    shutil.copy(progressed["hand"], folder / "hand.db")
                    settings = {"brokers": at.kafka.bootstrap, "topic": million, "end": end, "folder": str(folder)}
                    told = bench.result(bench.child(f"hand:{job}", settings))
                    _judge(installed.rows(folder / "hand.db", _TOTAL.format(table="kept")), {"all": end})
                    return speed(told)

            return Way(f"{HAND}, 1,000,000 keys{name}", EXACTLY_ONCE, run)

        def axe(name: str, handler: str, own: str = "") -> Way:
            def run() -> Speed:
                with _folder() as folder:
                    shutil.copytree(progressed["axe"], folder / "state")
                    [told] = installed.run(folder, at.kafka.bootstrap, [million], handler, own=own)
                    _judge(installed.rows(installed.database(folder), _TOTAL.format(table="axe_values")), {"all": end})
                    return speed(told)

            return Way(f"axe run, 1,000,000 keys{name}", EXACTLY_ONCE, run)

        ids = events.counts_of_keys(at.events, FEW_KEYS)
        ways = [
            at.hand("keys", ten, name=f"{HAND}, 10 keys", expected=ids),
            hand("", "keys"),
            hand(_IN_MEMORY, "keys-in-memory"),
            at.axe("axe run, 10 keys", "Keys", ten, expected=ids),
            axe("", "Keys"),
            axe(_IN_MEMORY, "KeysInMemory", f"cache_mb = {CACHE_MB}"),
        ]
        found = measure("count by key, values of 100 bytes", ways, rounds=at.rounds)
        at.profile("Keys", ten)
        at.profile("Keys", million, end=end, state=str(progressed["axe"]))
    judged = []
    for name in ("", _IN_MEMORY):
        own = Wanted(f"1,000,000 keys{name}, of 10 keys", None if name else 0.5)
        limit = Wanted(f"the same of the hand-written loop{name}", None)
        judged += [
            own.compared(found, f"axe run, 1,000,000 keys{name}", "axe run, 10 keys"),
            limit.compared(found, f"{HAND}, 1,000,000 keys{name}", f"{HAND}, 10 keys"),
        ]
    return found, judged


_IN_MEMORY = ", all in memory"
_TOTAL = "SELECT 'all', sum(CAST(trim(value, '\"') AS INTEGER)) FROM {table}"


def processors(at: Bench) -> Found:
    """Ten processors on one topic in one worker process against one: what each further one costs."""
    with at.topic(events.events(at.events)) as topic:

        def way(number: int, handler: str, name: str) -> Way:
            def run() -> Speed:
                with _folder() as folder:
                    top = '[host]\nworkers = "threads"'
                    told = installed.run(folder, at.kafka.bootstrap, [topic], handler, count=number, top=top)
                    for one in range(number):
                        counted = installed.rows(installed.database(folder, one), VALUES)
                        _judge(counted, events.counts(range(at.events)))
                    # One process, so that its CPU time is that of all; events of the topic, not of the processors.
                    ends = {"stamps": [min(one["stamps"][0] for one in told), max(one["stamps"][1] for one in told)]}
                    return speed({**told[0], **ends}, events=at.events)

            return Way(f"axe run, {name}", EXACTLY_ONCE, run)

        single, each, shared = "1 in one process", f"{PROCESSORS} in one process", f"{PROCESSORS} that only read"
        ways = [way(1, "OnEvent", single), way(PROCESSORS, "OnEvent", each), way(PROCESSORS, "ReadsOnly", shared)]
        found = measure("count by phase, one topic", ways, rounds=at.rounds)
    rows = []
    for name, what in ((each, "processor"), (shared, "processor that only reads")):
        times = ratio(found, f"axe run, {name}", f"axe run, {single}", "cpu_us")
        row = Wanted(f"CPU of each further {what}, of the first", 0.4, is_limit=True)
        rows.append(row.judged(None if times is None else (times - 1) / (PROCESSORS - 1)))
    return found, rows


def types(at: Bench) -> Found:
    """A processor that asks for one event type in ten against one that takes all; the header tells the type."""
    with at.topic(events.events(at.events), header=events.header) as topic:
        kept = events.counts(range(0, at.events, 10))
        ways = [
            at.hand("count", topic, name=f"{HAND}, all"),
            at.hand("kept-type", topic, name=f"{HAND}, one type in ten", expected=kept),
            at.axe("axe run, all", "OnEvent", topic),
            at.axe("axe run, one type in ten", "OnEvent", f"{topic}/{events.KEPT_TYPE}", expected=kept),
        ]
        found = measure("count by phase, typed", ways, rounds=at.rounds)
        at.profile("OnEvent", topic)
        at.profile("OnEvent", f"{topic}/{events.KEPT_TYPE}", end=at.events - 1000)
    row = Wanted("a filter that drops 90 %, of unfiltered", 2.0)
    limit = Wanted("the same of the hand-written loop", None)
    return found, [
        row.compared(found, "axe run, one type in ten", "axe run, all"),
        limit.compared(found, f"{HAND}, one type in ten", f"{HAND}, all"),
    ]


def partitions(at: Bench) -> Found:
    """Two workers, each on a partition of its own, against one on one; the partitions are of two topics."""
    with at.topic(events.events(at.events)) as one, at.topic(events.events(at.events)) as other:

        def hand() -> Speed:
            with _folder() as folder:
                started = []
                for number, topic in enumerate((one, other)):
                    (own := folder / str(number)).mkdir()
                    settings = {"brokers": at.kafka.bootstrap, "topic": topic, "end": at.events, "folder": str(own)}
                    started.append(bench.child("hand:count", settings))
                return _together(list(map(bench.result, started)), events=2 * at.events)

        def axe() -> Speed:
            with _folder() as folder:
                told = installed.run(folder, at.kafka.bootstrap, [one, other], "OnEvent", count=2, apart=True)
                for number in range(2):
                    counted = installed.rows(installed.database(folder, number), VALUES)
                    _judge(counted, events.counts(range(at.events)))
                return _together(told, events=2 * at.events)

        ways = [
            at.hand("count", one, name=f"{HAND}, 1 on 1"),
            Way(f"{HAND}, 2 on 2", EXACTLY_ONCE, hand),
            at.axe("axe run, 1 on 1", "OnEvent", one),
            Way("axe run, 2 on 2", EXACTLY_ONCE, axe),
        ]
        found = measure("count by phase, two workers", ways, rounds=at.rounds)
    own, limit = ratio(found, "axe run, 2 on 2", "axe run, 1 on 1"), ratio(found, f"{HAND}, 2 on 2", f"{HAND}, 1 on 1")
    scaling = None if own is None or limit is None else own / limit
    return found, [
        Wanted("2 workers on 2 partitions, of 1 on 1", None).judged(own),
        Wanted("the same of the hand-written loop", None).judged(limit),
        Wanted("the scaling of axe run, of that of the loop", 0.9).judged(scaling),
    ]


def _together(told: list[dict[str, Any]], *, events: int) -> Speed:
    """Return the speed of several that ran at once, from the first commit of any to the last."""
    first = min(one["stamps"][0][0] for one in told)
    last = max(one["stamps"][-1][0] for one in told)
    cpu_s = sum(one["stamps"][-1][1] - one["stamps"][0][1] for one in told)
    return Speed(events / (last - first), cpu_s / events * 1e6)


JOBS: dict[str, Callable[[Bench], Found]] = {
    "count": count,
    "cursor": cursor,
    "core": core,
    "avro": avro,
    "keys": keys,
    "processors": processors,
    "types": types,
    "partitions": partitions,
}
