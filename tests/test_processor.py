"""What may be a handler, and which mistakes are refused by name before the first event."""

from __future__ import annotations

import functools
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


class WithStaticHook:
    topics = ("t",)

    @staticmethod
    @axe.hookimpl
    def on_event(event: axe.Event, state: axe.State) -> None:
        state["n"] = state.get("n", 0) + 1


class WithClassHook:
    topics = ("t",)

    @classmethod
    @axe.hookimpl
    def on_event(cls, event: axe.Event, state: axe.State) -> None:
        state["n"] = state.get("n", 0) + 1


class WithHookOfAnotherName:
    topics = ("t",)

    @axe.hookimpl(specname="on_event")
    def counts(self, event: axe.Event, state: axe.State) -> None:
        state["n"] = state.get("n", 0) + 1


class WithCallAndHooks:
    def __init__(self) -> None:
        self.step = 0

    @axe.hookimpl
    def on_start(self, state: axe.State) -> None:
        self.step = 1

    def __call__(self, event: axe.Event, state: axe.State) -> None:
        state["n"] = state.get("n", 0) + self.step


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
        WithStaticHook,
        WithClassHook,
        WithHookOfAnotherName,
        WithCallAndHooks,
        lambda: functools.partial(lambda step, event, state: state.update(n=state.get("n", 0) + step), 1),
    ],
    ids=[
        "class",
        "instance",
        "callable",
        "class of callables",
        "function",
        "lambda",
        "module",
        "bound method",
        "static method",
        "class method",
        "hook of another name",
        "callable with hooks",
        "partial",
    ],
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


@pytest.mark.parametrize(
    ("handler", "given"),
    [
        (lambda event: ("event",), 1),
        (lambda event, state: (event, state), 2),
        (lambda event, state=None: (event, state), 2),
        (lambda event, *, state: (event, state), 2),
        (lambda event, *, state=None: (event, state), 2),
        (lambda event, seen=(), state=None: (event, state), 2),
        (lambda *both: both, 2),
        (lambda event, *more: (event, *more), 2),
        (lambda event, **more: (event, *more), 1),
        (lambda event, seen="its own": (seen,), 1),
        (lambda event, state, seen=(): (event, state), 2),
        (lambda other, name, /: (other, name), 2),
    ],
)
def test_a_function_gets_the_state_where_it_has_room_for_it(
    handler: Callable[..., tuple[Any, ...]], given: int, tmp_path: Path, topic: str
) -> None:
    memory_log(topic).append(topic, 1)
    app = axe.App({"source": f"memory:{topic}", "state": f"sqlite:{tmp_path / 'state'}"})
    got: list[tuple[Any, ...]] = []

    @functools.wraps(handler)
    def kept(*positional: Any, **named: Any) -> None:
        got.append(handler(*positional, **named))

    app.processors.add(id="p", topic=topic, handler=kept)

    app.start(until_end=True)

    (arguments,) = got
    assert len(arguments) == given
    assert None not in arguments


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


class WrongArgumentOfStop(WithHook):
    @axe.hookimpl
    def on_stop(self, why: Any) -> None:
        pass


class Both(WithHook):
    @axe.hookimpl
    def on_batch(self, events: list[axe.Event], state: Any) -> None:
        pass


class Nothing:
    pass


class UnknownLikeNone:
    @axe.hookimpl
    def zzz(self) -> None:
        pass


class Generator:
    @axe.hookimpl
    def on_event(self, event: axe.Event, state: Any) -> Any:
        yield


class AsyncGenerator:
    @staticmethod
    @axe.hookimpl
    async def on_event(event: axe.Event, state: Any) -> Any:
        yield


class GeneratorCall:
    def __call__(self, event: axe.Event, state: Any) -> Any:
        yield


class StateByDefault:
    @axe.hookimpl
    def on_event(self, event: axe.Event, state: Any = None) -> None:
        pass


class StateByKeyword:
    @axe.hookimpl
    def on_event(self, event: axe.Event, *, state: Any) -> None:
        pass


class OnlyStarts:
    @axe.hookimpl
    def on_start(self, state: Any) -> None:
        pass


def generator_function(event: axe.Event, state: Any) -> Any:
    yield


async def async_generator_function(event: axe.Event, state: Any) -> Any:
    yield


async def async_function(event: axe.Event, state: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (Forgotten(), r"on_event is not marked with @axe\.hookimpl"),
        (Misspelt(), r"\Aits on_evnt is no hook of axe; did you mean on_event\?\Z"),
        (MisspeltBesideARightOne(), r"on_strat is no hook of axe; did you mean on_start\?"),
        (UnknownLikeNone(), r"zzz is no hook of axe; the hooks are commands, decide, "),
        (Generator(), "on_event is a generator: its body would never run"),
        (AsyncGenerator(), "on_event is a generator: its body would never run"),
        (GeneratorCall(), "handler is a generator: its body would never run"),
        (generator_function, "handler is a generator: its body would never run"),
        (async_generator_function, "handler is a generator: its body would never run"),
        (functools.partial(async_function), "async def"),
        (functools.partial(functools.partial(generator_function), state=1), "is a generator"),
        (functools.partial(AsyncCall()), "async def"),
        (StateByDefault(), "on_event has a default for state, and would never get another"),
        (StateByKeyword(), "on_event takes state as a keyword only"),
        (OnlyStarts(), "no handler"),
        (min, "does not say which arguments"),
        (Async(), "async def"),
        (AsyncCall(), "async def"),
        (async_function, "async def"),
        (
            WrongArguments(),
            r"\Aits on_event takes stat, which on_event does not have; did you mean state\? it may take event, state\Z",
        ),
        (WrongArgumentOfStop(), r"takes why, which on_stop does not have; it takes none\Z"),
        (lambda: None, r"takes \(\)"),
        (lambda a, b, c: None, r"takes \(a, b, c\)"),
        (lambda event, *, other: None, r"takes \(event, other\)"),
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


def test_a_wrapper_is_a_generator_by_design() -> None:
    class Wrapping:
        @axe.hookimpl(wrapper=True)
        def on_event(self) -> Any:
            return (yield)

    Processor("p", _nothing, topics=("t",), plugins=(("wrapping", Wrapping()),))


def test_a_wrapper_around_on_event_is_no_handler_beside_on_batch() -> None:
    class Wrapping:
        @axe.hookimpl(wrapper=True)
        def on_event(self) -> Any:
            return (yield)

    class Batches:
        @axe.hookimpl
        def on_batch(self, events: Any) -> None: ...

    assert Processor("p", Batches(), topics=("t",), plugins=(("wrapping", Wrapping()),)).on_batch is not None
    with pytest.raises(PluginError, match="no handler"):
        Processor("p", Wrapping(), topics=("t",))


@pytest.mark.parametrize("hook", ["on_error", "on_reject", "on_commit", "on_stop", "services"])
def test_a_wrapper_of_a_hook_that_is_called_on_its_own_is_refused(hook: str) -> None:
    @axe.hookimpl(wrapper=True)
    def wrapping(self: object) -> Any:
        return (yield)

    plugin = type("Wrapping", (), {hook: wrapping})()

    with pytest.raises(PluginError, match=f"its {hook} is a wrapper"):
        Processor("p", _nothing, topics=("t",), plugins=(("wrapping", plugin),))


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
