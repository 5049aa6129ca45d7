"""`axe run` with processors that are installed, each round with a state of its own."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import broker as bench

AXE = (sys.executable, "-c", "import sys; sys.argv[0] = 'axe'; from axe.cli import main; sys.exit(main())")
# What else is installed is not measured.
ALONE = 'block = ["sentry", "airbrake"]\n'


def has_command() -> bool:
    """Tell whether `axe run` can be started here."""
    tried = subprocess.run(
        [sys.executable, "-c", "from axe.cli import main; import axe.host"],
        capture_output=True,
        env=bench.environment(),
    )
    return tried.returncode == 0


def entry_points(folder: Path, processors: Mapping[str, str]) -> None:
    """Lay a distribution for each processor into a folder of the import path, as pip would: its metadata."""
    for name, target in processors.items():
        metadata = folder / f"{name.replace('-', '_')}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[axe.processors]\n{name} = {target}\n")


def configuration(
    folder: Path, brokers: str, topics: Mapping[str, list[str]], *, top: str = "", own: str = "", every: bool = False
) -> Path:
    """Write the ``axe.toml`` of processors by name, with the topics of each; ``own`` are more settings of each."""
    lines = [f'source = "kafka://{brokers}"', 'state = "sqlite:state"', ALONE, top]
    for name, read in topics.items():
        lines += [f"[processors.{name}]", f"topics = {json.dumps(read)}", own, f"[processors.{name}.settings]"]
        lines += [f'told = "{folder / name}.json"', f"every = {str(every).lower()}"]
    path = folder / "axe.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def command(
    folder: Path,
    brokers: str,
    topics: list[str],
    handler: str,
    *,
    count: int = 1,
    apart: bool = False,
    top: str = "",
    own: str = "",
    every: bool = False,
) -> list[str]:
    """Install so many processors of a handler, and return the command that runs them.

    Each reads all of the topics; with ``apart`` there are as many of those, and each reads its own.
    """
    names = {f"bench-{number}": f"tests.bench.handlers:{handler}" for number in range(count)}
    entry_points(folder, names)
    read = {name: topics[number : number + 1] if apart else topics for number, name in enumerate(names)}
    path = configuration(folder, brokers, read, top=top, own=own, every=every)
    return [*AXE, "--config", str(path), "run", *(word for name in names for word in ("--only", name))]


def run(
    folder: Path, brokers: str, topics: list[str], handler: str, *, count: int = 1, **given: Any
) -> list[dict[str, Any]]:
    """Run processors to the end of the topics; return what each tells."""
    words = command(folder, brokers, topics, handler, count=count, **given)
    log = folder / "log"
    with log.open("w") as to:
        done = subprocess.run(
            [*words, "--until-end"],
            cwd=bench.ROOT,
            env=bench.environment(folder),
            stdout=to,
            stderr=to,
            timeout=bench.TIMEOUT_S,
        )
    if done.returncode != 0:
        raise RuntimeError(f"axe run ended with {done.returncode}: {log.read_text()[-2000:]}")
    return [_told(folder, number) for number in range(count)]


def start(folder: Path, brokers: str, topics: list[str], handler: str) -> subprocess.Popen[bytes]:
    """Start one processor that goes on; each of its commits is noted."""
    with (folder / "log").open("w") as to:
        return subprocess.Popen(
            command(folder, brokers, topics, handler, every=True),
            cwd=bench.ROOT,
            env=bench.environment(folder),
            stdout=to,
            stderr=to,
        )


def stop(folder: Path, host: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Let it drain, and return what it tells."""
    host.terminate()
    host.wait(30)
    return _told(folder, 0)


def _told(folder: Path, number: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / f"bench-{number}.json").read_text())
    return told


def database(folder: Path, number: int = 0) -> Path:
    """Return where the state of a processor lies."""
    return folder / "state" / f"bench-{number}.db"


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask a database that nobody writes."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        return db.execute(query).fetchall()
