"""``python -m tests.bench [jobs|peers|all|NAME …]``: see docs/benchmarks.md; starts its own broker."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from ..services.kafka import KafkaBroker, open_kafka
from . import broker, installed, jobs, latency, processes
from .compare import tables
from .peers.ways import peers

OTHERS: dict[str, Callable[[KafkaBroker, int], list[dict[str, Any]]]] = {
    "latency": lambda kafka, rounds: latency.measure(kafka, rounds=rounds),
    "idle": lambda kafka, _: processes.idle(kafka),
    "start": lambda kafka, rounds: processes.start(kafka, rounds=rounds),
    "memory": lambda kafka, _: processes.memory(kafka),
}
JOBS = {**jobs.JOBS, "peers": peers}
MACHINE_PACKAGES = ("confluent-kafka", "fastavro", "msgspec", "sqlalchemy")


def main() -> None:
    """Measure what was asked for."""
    asked = _arguments()
    if not installed.has_command():
        sys.exit("`axe run` cannot be started here: install axe into this environment")
    found: dict[str, Any] = {"machine": _machine(), "command": sys.argv[1:], "jobs": [], "wanted": []}
    kafka = KafkaBroker(java_options=broker.JAVA_OPTIONS) if "AXE_TEST_KAFKA" not in os.environ else open_kafka()
    try:
        for name in asked.what:
            if name in OTHERS:
                found["wanted"] += OTHERS[name](kafka, asked.rounds)
                continue
            summary, judged = JOBS[name](jobs.Bench(kafka, asked.events, asked.rounds, asked.profile))
            found["jobs"].append(summary)
            found["wanted"] += judged
    finally:
        kafka.close()
    found["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    if asked.json != "-":
        # Piped, a table is as wide as it has to be.
        console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
        console.print(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
        console.print(*tables(found["jobs"], found["wanted"]))
    if asked.json is not None:
        document = json.dumps(found, indent=2) + "\n"
        sys.stdout.write(document) if asked.json == "-" else Path(asked.json).write_text(document)


def _arguments() -> argparse.Namespace:
    groups = {"jobs": [*jobs.JOBS, *OTHERS], "all": [*JOBS, *OTHERS]}
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", nargs="*", default=["jobs"], metavar="NAME", help=", ".join([*groups, *groups["all"]]))
    parser.add_argument("--events", type=int, default=1_000_000, help="of a job (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (default %(default)s)")
    parser.add_argument("--profile", action="store_true", help="one more round of each job by stages and functions")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="one JSON document, to stdout or a file")
    asked = parser.parse_args()
    if unknown := [name for name in asked.what if name not in groups and name not in groups["all"]]:
        parser.error(f"unknown: {', '.join(unknown)}")
    asked.what = list(dict.fromkeys(one for name in asked.what for one in groups.get(name, [name])))
    return asked


def _machine() -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in MACHINE_PACKAGES}
    load = round(os.getloadavg()[0], 2)
    return {"python": platform.python_version(), "cores": os.cpu_count(), "load_before": load, **versions}


if __name__ == "__main__":
    main()
