"""``python -m tests.bench [count|latency|idle|start|memory|all] [--json]``; starts its own broker."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

from ..services.kafka import KafkaBroker, open_kafka
from . import count, latency, processes

ALL = ("count", "latency", "idle", "start", "memory")


def main() -> None:
    """Measure what was asked for."""
    asked = _arguments()
    kafka = open_kafka()
    jobs: dict[str, tuple[Callable[[KafkaBroker], Any], Callable[[Any], str]]] = {
        "count": (
            lambda kafka: count.measure(kafka, count=asked.events, rounds=asked.rounds, profile=asked.profile),
            count.shown,
        ),
        "latency": (latency.measure, latency.shown),
        "idle": (processes.idle, lambda found: processes.shown("idle", found)),
        "start": (processes.start, lambda found: processes.shown("start", found)),
        "memory": (processes.memory, lambda found: processes.shown("memory", found)),
    }
    names = ALL if asked.what == "all" else (asked.what,)
    found: dict[str, Any] = {"machine": _machine()}
    try:
        for name in names:
            if name not in ("count", "latency") and not count.has_command():
                print(f"{name}: left out, `axe run` cannot be started here", file=sys.stderr)
                continue
            job, shown = jobs[name]
            found[name] = job(kafka)
            if not asked.json:
                print(shown(found[name]), flush=True)
    finally:
        kafka.close()
    if asked.json:
        print(json.dumps(found, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=(*ALL, "all"))
    parser.add_argument("--events", type=int, default=500_000, help="of count (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of count (default %(default)s)")
    parser.add_argument("--profile", action="store_true", help="count: one more round under cProfile, to stderr")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args()


def _machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}


if __name__ == "__main__":
    main()
