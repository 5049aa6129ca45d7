"""What a worker does beside running its processors."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import axe
from axe.assembly import bind
from axe.config import load
from axe.discovery import PROCESSORS, Found
from axe.plugins import Plugins
from axe.worker import _Worker


def test_what_several_threads_tell_the_host_at_once_arrives_whole() -> None:
    ours, theirs = multiprocessing.Pipe()
    worker = _Worker([], Plugins(), load({"source": "memory:", "state": "memory:"}), theirs, until_end=False)
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


class Drawer:
    """Has a source of its own, and knows whether it is open."""

    topics = ("t",)
    is_open = False

    @axe.hookimpl
    def open_source(self) -> Drawer:
        self.is_open = True
        return self

    def close(self) -> None:
        self.is_open = False

    @axe.hookimpl
    def on_event(self) -> None:
        pass


def test_the_source_of_a_processor_that_cannot_begin_is_closed(tmp_path: Path) -> None:
    config = load({"source": "drawer:", "state": f"sqlite:{tmp_path}", "topics": {"t": {"decode": ["jsn"]}}})
    found = Found(name="p", value="m:p", distribution="axe-p", version="1", group=PROCESSORS)
    ours, theirs = multiprocessing.Pipe()
    drawer = Drawer()

    _Worker([found], Plugins.unseen(config), config, theirs, until_end=False)._start(bind(config, "p", drawer))

    assert ours.recv()["kind"] == "misconfigured"
    assert not drawer.is_open
