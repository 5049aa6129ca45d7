"""What a worker does beside running its processors."""

from __future__ import annotations

import multiprocessing
import threading

from axe.config import load
from axe.worker import _Worker


def test_what_several_threads_tell_the_host_at_once_arrives_whole() -> None:
    ours, theirs = multiprocessing.Pipe()
    worker = _Worker([], [], load({"source": "memory:", "state": "memory:"}), theirs, until_end=False)
    # More than the line takes at once, so that a message is written in several pieces.
    said = {str(number): str(number) * 200_000 for number in range(4)}

    def tell(name: str) -> None:
        for _ in range(20):
            worker._tell("status", name, error=said[name])

    threads = [threading.Thread(target=tell, args=(name,), daemon=True) for name in said]
    for thread in threads:
        thread.start()
    heard = []
    while len(heard) < 20 * len(said):
        assert ours.poll(10), "a message did not arrive"
        heard.append(ours.recv())

    assert all(message["error"] == said[message["name"]] for message in heard)
