"""One measurement in a process of its own: ``python -m tests.bench.one JOB`` prints a line of JSON.

A fresh process each time, so that no round profits from the one before, and so that the CPU time of
the process, librdkafka's threads included, is the round's.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from . import handwritten


def main() -> None:
    """Run the job of the first argument with the JSON settings of the second."""
    job, settings = sys.argv[1], json.loads(sys.argv[2])
    cpu = time.process_time()
    started = time.perf_counter()
    times: list[tuple[float, int]] = []
    {"hand": _hand, "axe": _axe, "profile": _profile, "stages": _stages}[job](settings, times)
    ended = time.perf_counter()
    cpu = time.process_time() - cpu
    moments = [at for at, _ in times]
    first, last = times[0], times[-1]
    result = {
        "events": settings["end"],
        "wall_s": ended - started,
        "cpu_s": cpu,
        "commits": len(times),
        # Between the first commit and the last: without imports, connecting and closing.
        "steady_events_per_s": (last[1] - first[1]) / max(moments[-1] - moments[0], 1e-9),
    }
    if settings.get("times"):
        # time.perf_counter is one clock for all processes of a machine.
        result["times"] = times
    print(json.dumps(result))


def _hand(settings: dict[str, Any], times: list[tuple[float, int]]) -> None:
    folder = Path(settings["folder"])
    note = handwritten.stamped(times)
    handwritten.count_by_phase(
        settings["brokers"], settings["topic"], folder / "hand.db", end=settings["end"], committed=note
    )


def _axe(settings: dict[str, Any], times: list[tuple[float, int]]) -> None:
    import axe

    class Counter:
        """Counts by phase with values, as the yardstick does."""

        topics = (settings["topic"],)

        @axe.hookimpl
        def on_event(self, event: axe.Event, state: axe.State) -> None:
            """Count one event."""
            phase = event.value["phase"]
            state[phase] = state.get(phase, 0) + 1

        @axe.hookimpl
        def on_commit(self, report: Any) -> None:
            """Note the time, and end after the last event."""
            position = max(report.positions.values())
            times.append((time.perf_counter(), position))
            if position >= settings["end"]:
                done.set()

    done = threading.Event()
    folder = Path(settings["folder"])
    app = axe.App({"source": f"kafka://{settings['brokers']}", "state": f"sqlite:{folder / 'state'}"})
    app.processors.add(id="counter", handler=Counter())
    with app:
        if not done.wait(600):
            raise SystemExit("the counter did not reach the end within ten minutes")


def _profile(settings: dict[str, Any], times: list[tuple[float, int]]) -> None:
    """As ``axe``, with the runner's thread under cProfile; the table goes to stderr."""
    import cProfile
    import pstats

    from axe import runner

    profile = cProfile.Profile()
    run = runner.Runner.run

    def profiled(self: runner.Runner) -> None:
        profile.runcall(run, self)

    runner.Runner.run = profiled  # type: ignore[method-assign]
    _axe(settings, times)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(30)


def _stages(settings: dict[str, Any], times: list[tuple[float, int]]) -> None:
    """As ``axe``, with a stopwatch of CPU time around each step of a batch; the table goes to stderr."""
    from axe import dispatch, runner
    from axe.sources.kafka import KafkaSource
    from axe.store import sql, transaction

    spent: dict[str, float] = {}

    def watch(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def timed(*args: Any, **given: Any) -> Any:
            started = time.thread_time()
            try:
                return inner(*args, **given)
            finally:
                label = f"{owner.__name__}.{name}"
                spent[label] = spent.get(label, 0.0) + time.thread_time() - started

        setattr(owner, name, timed)

    steps = [(KafkaSource, "fetch"), (dispatch.Dispatcher, "decode"), (dispatch.Dispatcher, "handle_all")]
    steps += [(sql.Store, "begin")] + [(transaction.Transaction, name) for name in ("control", "advance", "commit")]
    for owner, name in [*steps, (runner.Runner, "_step")]:
        if hasattr(owner, name):
            watch(owner, name)
    _axe(settings, times)
    for label, seconds in spent.items():
        print(f"{label:24}{seconds / settings['end'] * 1e6:8.2f} µs", file=sys.stderr)


if __name__ == "__main__":
    main()
