"""A project to run ``axe`` in: distributions that are real folders, a folder source, SQLite."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from .forking import AXE, HOST, Forks

T = TypeVar("T")

COUNTER = """
    import axe

    class Counter:
        topics = ("studies",)
        version = 2

        @axe.hookimpl
        def on_event(self, event, state):
            if isinstance(event.value, dict) and event.value.get("bad"):
                raise axe.Reject("it is bad")
            state["count"] = state.get("count", 0) + 1
    """


# To be gone on with, in the event's method or after it.
COUNTING = """
    import os
    import pathlib
    import signal
    import time

    import axe

    class Counter:
        topics = ("studies",)

        @axe.hookimpl
        def on_event(self, event, state):
            state["count"] = state.get("count", 0) + 1
"""


def wait_for(condition: Callable[[], T], what: str, seconds: float = 20) -> T:
    """Wait until something is there, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def workers(host: psutil.Process) -> list[psutil.Process]:
    """Find the workers below a host, by their titles."""
    found = []
    for child in host.children(recursive=True):
        with suppress(psutil.Error):
            if "".join(child.cmdline()).startswith("axe ["):
                found.append(child)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; a zombie that nobody has reaped does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Project:
    """A folder with an axe.toml, packages on the path, and the command line."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder = folder
        self._forks = forks
        # So that a machine under load imports what is sound; tests of what is not make it short.
        self.import_limit_s = 30
        self.site = folder / "site"
        self.site.mkdir()
        (folder / "data").mkdir()
        self._hide_what_is_really_installed()
        self.configure()

    def _hide_what_is_really_installed(self) -> None:
        # Of two copies of a distribution the first on the path counts: these have no entry points.
        for real in importlib.metadata.distributions():
            if "axe." in (real.read_text("entry_points.txt") or ""):
                name = real.metadata["Name"]
                info = self.site / f"{name.replace('-', '_')}-0.dist-info"
                info.mkdir(exist_ok=True)
                (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")

    def configure(self, more: str = "", *, source: str = "file:data", state: str = "sqlite:state") -> None:
        (self.folder / "axe.toml").write_text(f'source = "{source}"\nstate = "{state}"\n{textwrap.dedent(more)}')

    def install(
        self,
        name: str,
        code: str = COUNTER,
        *,
        attribute: str = ":Counter",
        group: str = "axe.processors",
        distribution: str | None = None,
    ) -> None:
        module = f"m_{uuid.uuid4().hex[:8]}"
        info = self.site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution or f'axe-{name}'}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}{attribute}\n")
        (self.site / f"{module}.py").write_text(textwrap.dedent(code))

    def publish(self, topic: str, *values: Any) -> None:
        with (self.folder / "data" / f"{topic}.jsonl").open("a") as file:
            file.writelines(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values)

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.site), HOST])
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AXE_")}
        return {**kept, "PYTHONPATH": path, "AXE_PROBE_S": str(self.import_limit_s), "COLUMNS": "200"}

    def axe(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a forked interpreter; the host, and what wants anything special, in one of its own."""
        if "run" in words or options:
            return self.started(*words, **options)
        return self._forks.run(AXE, words, folder=self.folder, environment=self.environment)

    def started(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as a shell does, in an interpreter of its own."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "axe", *words],
            cwd=self.folder,
            env=self.environment | options.pop("env", {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )

    def json(self, *words: str, code: int = 0) -> Any:
        done = self.axe(*words, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def running(self, *words: str, env: Mapping[str, str] | None = None) -> Iterator[psutil.Popen]:
        """Run ``axe`` for a ``with`` block, in a session of its own, of which nothing is left at the end."""
        with (self.folder / "log").open("a") as log:
            process = psutil.Popen(
                [sys.executable, "-P", "-m", "axe", *words],
                cwd=self.folder,
                env=self.environment | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self) -> str:
        """What the last ``running`` has said."""
        return (self.folder / "log").read_text()

    def work(self, name: str = "counter") -> None:
        """Let a processor read to the end, in a process of its own, without the host."""
        script = (
            "import sys; from axe import App; app = App('axe.toml', discover=True);"
            "[app.processors._found.pop(n) for n in list(app.processors) if n != sys.argv[1]];"
            "app.start(until_end=True)"
        )
        done = self._forks.run(script, [name], folder=self.folder, environment=self.environment)
        assert done.returncode == 0, done.stderr

    def files(self) -> dict[str, bytes]:
        """Everything under the folder, but for what stands beside a database while it is open."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path): path.read_bytes() for path in found if not path.name.endswith(("-shm", "-wal", "-lock"))}


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Where commands come from; its process imports everything once."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def project(tmp_path: Path, forks: Forks) -> Project:
    return Project(tmp_path, forks)
