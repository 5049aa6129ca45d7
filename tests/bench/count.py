"""Throughput: one partition, counted by phase, against the loop written by hand."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from ..services.kafka import KafkaBroker
from . import broker as bench
from .events import events

COUNTER = '''
import json
import pathlib
import time

from axe import hookimpl


class Counter:
    """Counts by phase with values."""

    topics = ("{topic}",)

    @hookimpl
    def on_event(self, event, state):
        phase = event.value["phase"]
        state[phase] = state.get(phase, 0) + 1
'''
# What only the worker itself can tell: it is no child of the command's, but of its fork server.
TOLD = """
    def __init__(self):
        self.times = []

    @hookimpl
    def on_commit(self, report):
        self.times.append((time.perf_counter(), max(report.positions.values())))

    @hookimpl
    def on_stop(self):
        told = {{"times": [self.times[0], self.times[-1]], "cpu_s": time.process_time()}}
        pathlib.Path("{told}").write_text(json.dumps(told))
"""


def measure(kafka: KafkaBroker, *, count: int, rounds: int, profile: bool = False) -> dict[str, Any]:
    """Run the ways in turn, ``rounds`` times, so that what else the machine does falls on all of them."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic)
    bench.fill(kafka.bootstrap, topic, events(count))
    ways = ["hand", "axe"]
    if has_command():
        ways.append("run")
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    # One round to warm up the broker's page cache; it does not count.
    for number in range(rounds + 1):
        for way in ways:
            if number == 0 and way != "hand":
                continue
            with tempfile.TemporaryDirectory(prefix="axe-bench-") as folder:
                settings = {"brokers": kafka.bootstrap, "topic": topic, "end": count, "folder": folder}
                one = _axe_run(settings) if way == "run" else bench.result(bench.child(way, settings))
            if number:
                found[way].append(one)
    for job in ("stages", "profile") if profile else ():
        with tempfile.TemporaryDirectory(prefix="axe-bench-") as folder:
            settings = {"brokers": kafka.bootstrap, "topic": topic, "end": count, "folder": folder}
            bench.result(bench.child(job, settings))
    kafka.delete_topic(topic)
    return _summary(found, count)


def has_command() -> bool:
    """Tell whether `axe run` can be started here."""
    tried = subprocess.run(
        [sys.executable, "-c", "from axe.cli import main; import axe.host"],
        capture_output=True,
        env=bench.environment(),
    )
    return tried.returncode == 0


# What else is installed is not measured.
ALONE = 'block = ["sentry", "airbrake"]\n'


def _axe_run(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure `axe run --until-end` from outside: the whole command, all its processes."""
    folder = Path(settings["folder"])
    configuration = folder / "axe.toml"
    configuration.write_text(f'source = "kafka://{settings["brokers"]}"\nstate = "sqlite:state"\n{ALONE}')
    told = folder / "told.json"
    install(folder, {"bench-counter": COUNTER.format(topic=settings["topic"]) + TOLD.format(told=told)})
    env = bench.environment()
    env["PYTHONPATH"] = f"{folder}:{env['PYTHONPATH']}"
    command = [*AXE, "--config", str(configuration), "run", "--until-end", "--only", "bench-counter"]
    started = time.perf_counter()
    subprocess.run(command, env=env, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    found = json.loads(told.read_text())
    (first_at, first), (last_at, last) = found["times"]
    steady = (last - first) / (last_at - first_at)
    return {"events": settings["end"], "wall_s": wall, "cpu_s": found["cpu_s"], "steady_events_per_s": steady}


AXE = (sys.executable, "-c", "import sys; sys.argv[0] = 'axe'; from axe.cli import main; sys.exit(main())")


def install(folder: Path, modules: dict[str, str]) -> None:
    """Lay processors into a folder of the import path, as pip would: a module and its metadata each."""
    for name, source in modules.items():
        module = name.replace("-", "_")
        (folder / f"{module}.py").write_text(source)
        metadata = folder / f"{module}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[axe.processors]\n{name} = {module}:Counter\n")


def _summary(found: dict[str, list[dict[str, Any]]], count: int) -> dict[str, Any]:
    summary: dict[str, Any] = {"events": count, "ways": {}}
    for way, rounds in found.items():
        summary["ways"][way] = {
            "events_per_s": round(statistics.median(count / one["wall_s"] for one in rounds)),
            "steady_events_per_s": round(statistics.median(one["steady_events_per_s"] for one in rounds)),
            "cpu_us_per_event": round(statistics.median(one["cpu_s"] / count * 1e6 for one in rounds), 2),
        }
    hand = found["hand"]
    for way, mine in found.items():
        if way == "hand":
            continue
        # Of the same round each, so that a busy minute falls on both.
        of_hand = [
            other["steady_events_per_s"] / one["steady_events_per_s"] for one, other in zip(hand, mine, strict=True)
        ]
        cpu = [other["cpu_s"] / one["cpu_s"] for one, other in zip(hand, mine, strict=True)]
        summary["ways"][way]["of_hand"] = round(statistics.median(of_hand), 3)
        summary["ways"][way]["cpu_of_hand"] = round(statistics.median(cpu), 2)
    return summary


def shown(summary: dict[str, Any]) -> str:
    """Write a summary as a table."""
    lines = [
        f"count, {summary['events']:,} events, one partition",
        f"{'':8}{'events/s':>12}{'steady':>12}{'CPU µs':>9}{'of hand':>9}",
    ]
    for way, one in summary["ways"].items():
        ratio = one.get("of_hand", "")
        lines.append(
            f"{way:8}{one['events_per_s']:>12,}{one['steady_events_per_s']:>12,}{one['cpu_us_per_event']:>9}{ratio:>9}"
        )
    return "\n".join(lines)
