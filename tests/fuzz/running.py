"""Feeding a target in a process of its own, which an input may end or hang: then that input is the finding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.services import tied_to_parent

from .configuration import CONFIGURATION, NAMES
from .decoding import AVRO, JSON
from .planted import PLANTED
from .records import FILES, FOLDER, PAYLOADS
from .target import Feeder, Finding, Target

ROOT = Path(__file__).parents[2]
TARGETS: dict[str, Target] = {one.name: one for one in (CONFIGURATION, NAMES, JSON, AVRO, FILES, FOLDER, PAYLOADS)}
# An input has a second; this is for one after which nothing comes any more.
_HANG_S = 60.0
_SHOWN = 20_000


@dataclass
class Outcome:
    """What came of feeding one target."""

    target: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0
    finding: Finding | None = None

    @property
    def per_second(self) -> float:
        """How many inputs a second."""
        return self.inputs / self.seconds if self.seconds else 0.0


def feed_apart(
    target: Target,
    *,
    seed: int,
    inputs: int = sys.maxsize,
    seconds: float = float("inf"),
    hang_s: float = _HANG_S,
    progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Feed a target from a seed on until there were so many inputs or seconds, in a process of its own."""
    outcome = Outcome(target.name, seed)
    with tempfile.TemporaryDirectory(prefix="axe-fuzz-") as folder:
        current, errors = Path(folder) / "current", Path(folder) / "errors"
        words = [target.name, str(current), str(seed), str(inputs), str(seconds)]
        with errors.open("wb") as output:
            process = subprocess.Popen(
                tied_to_parent([sys.executable, "-m", "tests.fuzz.running", *words]),
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(ROOT / "host"), os.environ.get("PYTHONPATH", "")]),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        assert process.stdout is not None
        # The first word comes with the first input; before it there are imports.
        last, limits = [time.monotonic()], [_HANG_S]
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(1):
                if time.monotonic() - last[0] > limits[0]:
                    process.kill()
                    return

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        with process.stdout:
            for line in process.stdout:
                last[0], limits[0] = time.monotonic(), hang_s
                said = json.loads(line)
                outcome.inputs, outcome.seconds = said["inputs"], said["seconds"]
                progress(outcome.inputs)
                if said["finding"] is not None:
                    outcome.finding = Finding(**said["finding"])
        code = process.wait()
        ended.set()
        watching.join()
        if code and outcome.finding is None:
            example = current.read_text(errors="replace") if current.exists() else "before the first input"
            what = f"nothing came for {hang_s:.0f} s" if code == -9 else f"its process ended with {code}"
            outcome.finding = Finding(seed, example[:_SHOWN], f"{what}\n{errors.read_text(errors='replace')[-2000:]}")
    return outcome


def _child(name: str, current: str, seed: str, inputs: str, seconds: str) -> None:
    began, most, longest = time.monotonic(), int(inputs), float(seconds)

    def say(count: int, finding: Finding | None = None) -> None:
        found = None if finding is None else asdict(finding)
        print(json.dumps({"inputs": count, "seconds": time.monotonic() - began, "finding": found}), flush=True)

    feeder = Feeder((TARGETS | PLANTED)[name], Path(current), say)
    found = feeder.feed(int(seed), lambda count: count >= most or time.monotonic() - began > longest)
    say(feeder.inputs, found)


if __name__ == "__main__":
    _child(*sys.argv[1:])
