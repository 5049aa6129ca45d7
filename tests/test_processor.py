"""What may be a handler, and which mistakes are refused by name before the first event."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import axe
from axe.errors import ConfigError, PluginError
from axe.processor import Processor
from axe.sources.memory import memory_log


def _nothing(event: axe.Event, state: Any) -> None:
    pass


class WithHook:
    topics = ("t",)

    @axe.hookimpl
    def on_event(self, event: axe.Event, state: axe.State) -> None:
        state["n"] = state.get("n", 0) + 1


class WithHookOfOne:
    topics = ("t",)

    def __init__(self) -> None:
        self.seen: list[int] = []

    @axe.hookimpl
    def on_event(self, event: axe.Event) -> None:
        self.seen.append(event.offset)


class WithCall:
    def __call__(self, event: axe.Event, state: axe.State) -> None:
        state["n"] = state.get("n", 0) + 1


def function(event: axe.Event, state: axe.State) -> None:
    state["n"] = state.get("n", 0) + 1


def module_() -> types.ModuleType:
    made = types.ModuleType("handlers")
    made.on_event = axe.hookimpl(function)  # type: ignore[attr-defined] # just made
    return made


def lambda_() -> Any:
    return lambda event, state: state.__setitem__("n", state.get("n", 0) + 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: WithHook,
        WithHook,
        WithCall,
        lambda: WithCall,
        lambda: function,
        lambda_,
        module_,
        lambda: WithCall().__call__,
    ],
    ids=["class", "instance", "callable", "class of callables", "function", "lambda", "module", "bound method"],
)
def test_a_handler_may_be(make: Callable[[], Any], tmp_path: Path, topic: str) -> None:
    memory_log(topic).append(topic, 1)
    app = axe.App({"source": f"memory:{topic}", "state": f"sqlite:{tmp_path / 'state'}"})
    app.processors.add(id="p", topic=topic, handler=make())

    app.start(until_end=True)

    assert dict(app.processors["p"].state) == {"n": 1}


def test_a_handler_may_do_without_the_state(tmp_path: Path, topic: str) -> None:
    memory_log(topic).append(topic, 1)
    app = axe.App({"source": f"memory:{topic}", "state": f"sqlite:{tmp_path / 'state'}"})
    handler, seen = WithHookOfOne(), []
    app.processors.add(id="hook", topic=topic, handler=handler)
    app.processors.add(id="function", topic=topic, handler=lambda event: seen.append(event.offset))

    app.start(until_end=True)

    assert (handler.seen, seen) == ([0], [0])


class Forgotten:
    def on_event(self, event: axe.Event, state: Any) -> None:
        pass


class Misspelt:
    @axe.hookimpl
    def on_evnt(self, event: axe.Event, state: Any) -> None:
        pass


class MisspeltBesideARightOne(WithHook):
    @axe.hookimpl
    def on_strat(self, state: Any) -> None:
        pass


class Async:
    @axe.hookimpl
    async def on_event(self, event: axe.Event, state: Any) -> None:
        pass


class AsyncCall:
    async def __call__(self, event: axe.Event, state: Any) -> None:
        pass


class WrongArguments:
    @axe.hookimpl
    def on_event(self, event: axe.Event, stat: Any) -> None:
        pass


class Both(WithHook):
    @axe.hookimpl
    def on_batch(self, events: list[axe.Event], state: Any) -> None:
        pass


class Nothing:
    pass


async def async_function(event: axe.Event, state: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (Forgotten(), r"on_event is not marked with @axe\.hookimpl"),
        (Misspelt(), "on_evnt"),
        (MisspeltBesideARightOne(), "on_strat"),
        (Async(), "async def"),
        (AsyncCall(), "async def"),
        (async_function, "async def"),
        (WrongArguments(), "stat"),
        (lambda: None, "takes 0 arguments"),
        (lambda a, b, c: None, "takes 3 arguments"),
        (Both(), "both on_event and on_batch"),
        (Nothing(), "no handler"),
        (WithHook, "is a class"),
        (42, "no handler"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_broken_handler_is_refused_with_what_is_wrong(handler: Any, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        Processor("p", handler, topics=("t",))


def test_a_broken_plugin_of_a_processor_is_named() -> None:
    with pytest.raises(PluginError, match=r"the plugin reporter, .* is broken: .*on_event is not marked"):
        Processor("p", _nothing, topics=("t",), plugins=(("reporter", Forgotten()),))


@pytest.mark.parametrize("topics", [None, (), "", ("",), ("/created",), ("studies/",), (1,)])
def test_a_processor_without_topics_is_refused(topics: Any) -> None:
    with pytest.raises(PluginError, match="topic"):
        Processor("p", _nothing, topics=topics)


@pytest.mark.parametrize("name", ["", "P", "1a", "a b", "../x", "a" * 64, "a\n", "é"])
def test_an_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match="impossible"):
        Processor(name, _nothing, topics=("t",))


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, True])
def test_a_version_is_a_whole_number_from_1(version: Any) -> None:
    class Versioned(WithHook):
        pass

    Versioned.version = version  # type: ignore[attr-defined] # the mistake at hand
    with pytest.raises(PluginError, match="version"):
        Processor("p", Versioned())


def test_subscriptions_to_one_topic_add_up() -> None:
    assert Processor("p", _nothing, topics=("a/x", "a/y", "b")).types == {"a": frozenset({"x", "y"}), "b": None}
    assert Processor("p", _nothing, topics=("a/x", "a")).types == {"a": None}
    assert Processor("p", _nothing, topics=("a", "a/x")).types == {"a": None}


def test_a_name_is_given_once(tmp_path: Path) -> None:
    app = axe.App({"source": "memory:", "state": f"sqlite:{tmp_path}"})
    app.processors.add(id="p", topic="t", handler=_nothing)

    with pytest.raises(ConfigError, match="p already"):
        app.processors.add(id="p", topic="t", handler=_nothing)
