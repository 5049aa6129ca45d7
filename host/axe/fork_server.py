"""The fork server: the process that workers come from, which imports the libraries for all of them.

It takes longer to come up than whoever starts it: this module imports nothing that would hold up its start.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext


def start_fork_server() -> ForkServerContext:
    """Start what workers come from, once; it imports the libraries while its caller goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["axe.preload"])
    # By itself, for it unblocks the signals that the next line blocks.
    resource_tracker.ensure_running()
    with signals_blocked():
        forkserver.ensure_running()
    return context


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Let a process that is started here live on when a signal reaches everything at once.

    `kill -- -PGID`, `timeout` and systemd send SIGTERM to the fork server, too, and with it would go what is known
    of the workers. A blocked signal stays blocked in what a process starts; workers let it through again.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
