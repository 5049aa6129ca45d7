"""One measurement in a process of its own: ``python -m tests.bench.one JOB`` prints a line of JSON.

A fresh process each time, so that no round profits from the one before, and so that the CPU time of
the process, librdkafka's threads included, is the round's. Jobs: ``hand:NAME``, ``axe``, ``profile``, ``stages``.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from . import handwritten
from .stamps import Stamps


def main() -> None:
    """Run the job of the first argument with the JSON settings of the second."""
    job, settings = sys.argv[1], json.loads(sys.argv[2])
    committed = Stamps()
    if job.startswith("hand:"):
        _hand(job.removeprefix("hand:"), settings, committed)
    else:
        {"axe": _axe, "profile": _profile, "stages": _stages}[job](settings, committed)
    print(json.dumps(committed.told(every=settings.get("every", False))))


def _hand(job: str, settings: dict[str, Any], committed: Stamps) -> None:
    database = Path(settings["folder"]) / "hand.db"
    handwritten.run(job, settings["brokers"], settings["topic"], database, end=settings["end"], committed=committed)


def _axe(settings: dict[str, Any], committed: Stamps) -> None:
    """Run one processor alone: no host, no worker process, no supervision."""
    import axe

    from . import handlers

    handler: Any = getattr(handlers, settings.get("handler", "OnEvent"))

    class Alone(handler):  # type: ignore[misc] # one of several
        @axe.hookimpl
        def on_commit(self, report: axe.CommitReport) -> None:
            position = max(report.positions.values())
            committed(position)
            if position >= settings["end"]:
                done.set()

        @axe.hookimpl
        def on_stop(self) -> None:
            """Tell nobody: ``main`` does."""

    done = threading.Event()
    folder = Path(settings["folder"])
    configuration = {"source": f"kafka://{settings['brokers']}", "state": f"sqlite:{folder / 'state'}"}
    # Of its own: each round is another store, which axe would warn of.
    own = {"processors": {"bench-0": {"group": folder.name}}}
    app = axe.App({**configuration, **own, **settings.get("configuration", {})})
    app.processors.add(id="bench-0", topic=settings["topic"], handler=Alone({}))
    with app:
        if not done.wait(600):
            raise SystemExit("the processor did not reach the end within ten minutes")


def _profile(settings: dict[str, Any], committed: Stamps) -> None:
    """As ``axe``, with the runner's thread under cProfile; the table goes to stderr."""
    import cProfile
    import pstats

    from axe import runner

    profile = cProfile.Profile()
    run = runner.Runner.run

    def profiled(self: runner.Runner) -> None:
        profile.runcall(run, self)

    runner.Runner.run = profiled  # type: ignore[method-assign]
    _axe(settings, committed)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(30)


def _stages(settings: dict[str, Any], committed: Stamps) -> None:
    """As ``axe``, with a stopwatch of CPU time around each step of a batch; the table goes to stderr."""
    from axe import dispatch, runner
    from axe.sources.kafka import KafkaSource
    from axe.store import sql, state, transaction

    spent: dict[str, float] = {}

    def watch(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def timed(*args: Any, **given: Any) -> Any:
            started = time.thread_time()
            try:
                found = inner(*args, **given)
                # A generator does its work when it is asked for it.
                return list(found) if isinstance(found, Generator) else found
            finally:
                label = f"{owner.__name__}.{name}"
                spent[label] = spent.get(label, 0.0) + time.thread_time() - started

        setattr(owner, name, timed)

    steps = [(KafkaSource, "fetch"), (dispatch.Dispatcher, "decode"), (dispatch.Dispatcher, "handle_all")]
    steps += [(dispatch.Dispatcher, "handle_batch"), (state.State, "write")]
    steps += [(sql.Store, "begin")] + [(transaction.Transaction, name) for name in ("control", "advance", "commit")]
    for owner, name in [*steps, (runner.Runner, "_step")]:
        if hasattr(owner, name):
            watch(owner, name)
    _axe(settings, committed)
    for label, seconds in spent.items():
        print(f"{label:24}{seconds / settings['end'] * 1e6:8.2f} µs", file=sys.stderr)


if __name__ == "__main__":
    main()
