"""Real services for tests and benchmarks: each started here, on 127.0.0.1, in a temporary folder."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path


class ServiceMissing(Exception):
    """A service cannot run here; ``part`` is its name in ``AXE_TEST_REQUIRE``, the message says what to install."""

    def __init__(self, part: str, install: str) -> None:
        super().__init__(f"{part}: {install}")
        self.part = part


def is_required(part: str) -> bool:
    """Tell whether a missing part must fail the tests instead of skipping them."""
    return part in os.environ.get("AXE_TEST_REQUIRE", "").replace(" ", "").split(",")


def cache_folder() -> Path:
    """Return the folder for downloads, which outlives checkouts: ``$AXE_TEST_CACHE`` or one below the home."""
    folder = Path(os.environ.get("AXE_TEST_CACHE") or Path.home() / ".cache" / "axe-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on; drawn by the system, so collisions are unlikely."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Set by the child for itself before it becomes the service: a preexec_fn may deadlock where threads
# run, and warns of it. PR_SET_PDEATHSIG is 1; the kernel keeps it across exec.
_TIE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def tied_to_parent(command: list[str]) -> list[str]:
    """Return the command so that the kernel kills it when its parent ends, however that ends.

    Only Linux can do so; elsewhere ``atexit`` has to be enough.
    """
    return [sys.executable, "-I", "-S", "-c", _TIE, *command] if sys.platform == "linux" else command
