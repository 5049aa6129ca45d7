"""A process that runs the oracle on a folder, to be killed: ``child.py CONFIG.json [--until-end]``."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import axe
from tests.faults.planted import plant_what_is_asked_for
from tests.oracle import NAME, Oracle


def main() -> None:
    random.seed(int(os.environ.get("AXE_TEST_SEED", "0")))
    plant_what_is_asked_for()
    app = axe.App(json.loads(Path(sys.argv[1]).read_text()))
    app.processors.add(id=NAME, handler=Oracle())
    print("ready", flush=True)  # the test waits for it
    app.start(until_end="--until-end" in sys.argv)


if __name__ == "__main__":
    main()
