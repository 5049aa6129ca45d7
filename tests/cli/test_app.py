"""App in a project with packages installed."""

from __future__ import annotations

import subprocess
import sys

from .conftest import Project

LISTING = """
import axe, logging
logging.basicConfig()
app = axe.App("axe.toml", discover=True)
print(*app.processors)
app.start(until_end=True)
print(dict(app.processors["counter"].state))
"""


def test_an_app_leaves_out_what_is_broken_and_says_so(project: Project) -> None:
    project.install("bad-import", "import no_such_module")
    project.install("bad-handler", "class Counter:\n    topics = ('studies',)\n")
    project.install("bad-property", "class Counter:\n    @property\n    def topics(self): raise OSError('no disk')\n")
    project.install("Bad-Name")
    project.install("counter")
    project.publish("studies", {}, {})

    done = subprocess.run(
        [sys.executable, "-c", LISTING], cwd=project.folder, env=project.environment, capture_output=True, text=True
    )

    assert done.stdout == "counter\n{'count': 2}\n"
    for said in (
        "processor bad-import (axe-bad-import 1.0) cannot be imported: ModuleNotFoundError",
        "processor bad-handler (axe-bad-handler 1.0) cannot run: it has no handler",
        "processor bad-property (axe-bad-property 1.0) cannot run: OSError: no disk",
        "processor Bad-Name (axe-Bad-Name 1.0) does not run: the name 'Bad-Name' is impossible",
    ):
        assert said in done.stderr
    assert "Traceback" not in done.stderr
