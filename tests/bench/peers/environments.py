"""The environments of the peers: virtual environments and compiled Java, kept in the cache folder of the tests.

The folder's name carries a hash of what was asked for, so that a changed requirement makes a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ...services import ServiceMissing, cache_folder
from ...services.kafka import jars

HERE = Path(__file__).parent
POM = HERE / "streams-pom.xml"
JAVA = HERE / "CountByPhase.java"


def python(name: str, requirements: list[str]) -> Path:
    """Return the interpreter of a virtual environment with these packages, made at the first call.

    Raises:
        ServiceMissing: a package cannot be installed here; the message has pip's last words.
    """
    asked = "\n".join([sys.version, *requirements])
    folder = cache_folder() / f"bench-{name}-{_hash(asked.encode())}"
    with (cache_folder() / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = folder / "finished"
        if not finished.exists():
            # Made in place: the scripts of a virtual environment name its folder.
            shutil.rmtree(folder, ignore_errors=True)
            _run(name, [sys.executable, "-m", "venv", str(folder)])
            _run(name, [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *requirements])
            finished.touch()
    return folder / "bin" / "python"


def java() -> str:
    """Return the class path of the Kafka Streams program, compiled at the first call.

    Raises:
        ServiceMissing: Java, its compiler or Maven is not installed, or something could not be fetched.
    """
    libraries = jars(POM)
    if shutil.which("javac") is None:
        raise ServiceMissing("kafka-streams", "install a JDK (Debian: default-jdk-headless)")
    folder = cache_folder() / f"bench-streams-{_hash(JAVA.read_bytes() + POM.read_bytes())}"
    if not folder.exists():
        unfinished = tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent)
        _run("kafka-streams", ["javac", "-cp", f"{libraries}/*", "-d", unfinished, str(JAVA)])
        Path(unfinished).rename(folder)
    return f"{folder}:{libraries}/*"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _run(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ServiceMissing(name, said[-1] if said else f"{command[0]} ended with {done.returncode}")
