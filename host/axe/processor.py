"""A bound processor: a name, what it reads, and its hooks, checked before its first event."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .config import TOPIC
from .errors import PluginError
from .event import Event
from .hooks import hookimpl, never_runs, new_plugin_manager, options_of, refuse_slips, register
from .telling import said

NAME_FORM = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class Status(enum.Enum):
    """What a processor is doing.

    unassigned → running ⇄ retrying, waiting, paused; from each of them → stopped (an orderly end)
    or failed (one by failure, which lasts until ``axe resume`` or ``axe reset``). ``rebuilding`` is kept
    for a state that is being built beside the one that is served.
    """

    UNASSIGNED = "unassigned"
    RUNNING = "running"
    RETRYING = "retrying"
    WAITING = "waiting"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"
    REBUILDING = "rebuilding"


class Processor:
    """One processor with its hooks; ``types`` maps each topic to the event types it wants, None for all.

    ``reads_only`` is its handler's word that it changes nothing in ``event.value``, so that others may have the same.

    Raises:
        PluginError: the object is no processor: what is wrong with it, in words.
    """

    def __init__(
        self,
        name: str,
        handler: Any,
        *,
        topics: Iterable[str] | None = None,
        version: int | None = None,
        plugins: Sequence[tuple[str, Any]] = (),
        settings: dict[str, Any] | None = None,
    ) -> None:
        if not NAME_FORM.fullmatch(name):
            message = f"the name {name!r} is impossible: use a-z, 0-9, - and _, a letter first, at most 63 characters"
            raise PluginError(message)
        self.name = name
        self.settings = settings or {}
        self.version = _version(handler if version is None else version)
        self.types = _subscriptions(getattr(handler, "topics", None) if topics is None else topics)
        reads_only = _reads_only(handler)
        self.hooks = new_plugin_manager()
        for plugin_name, plugin in plugins:
            try:
                register(self.hooks, plugin, plugin_name)
            except PluginError as error:
                message = f"the plugin {plugin_name}, which it would use, is broken: {error}"
                raise PluginError(message) from error
        for part, suffix in _parts(handler):
            register(self.hooks, part, name + suffix)
        self.on_event, self.on_batch = self._handlers()
        # What a plugin wraps around the handler has not given its word.
        self.reads_only = reads_only and len(self._handler_hook().get_hookimpls()) == 1
        self.events_as = (self.reads_only, frozenset(self.types.items()))
        """Processors in which this is equal take the same events of their topics, decoders of plugins apart."""

    def _handlers(self) -> tuple[Callable[[Event, Any], None] | None, Callable[[list[Event], Any], None] | None]:
        one, many = self.hooks.hook.on_event, self.hooks.hook.on_batch
        # What a plugin wraps around either of them is no handler.
        takes_one, takes_many = (
            any(not (impl.wrapper or impl.hookwrapper) for impl in hook.get_hookimpls()) for hook in (one, many)
        )
        if takes_one and takes_many:
            message = "it has both on_event and on_batch; keep one of them"
            raise PluginError(message)
        if takes_many:
            return None, _direct(many, "events")
        if takes_one:
            return _direct(one, "event"), None
        message = "it has no handler: give it an on_event(event, state) marked with @axe.hookimpl"
        raise PluginError(message)

    def _handler_hook(self) -> Any:
        return self.hooks.hook.on_batch if self.on_event is None else self.hooks.hook.on_event

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """What it reads, as people write it: topics, or topic/event type."""
        found: list[str] = []
        for topic, types in self.types.items():
            found += [topic] if types is None else [f"{topic}/{kind}" for kind in sorted(types)]
        return tuple(found)

    def implements(self, hook: str) -> bool:
        """Tell whether anybody implements a hook for this processor."""
        return bool(getattr(self.hooks.hook, hook).get_hookimpls())


def _direct(hook: Any, first: str) -> Callable[[Any, Any], None]:
    """Bind the one implementation of a hook: a call through pluggy costs ten times as much."""
    impls = hook.get_hookimpls()
    if len(impls) == 1 and not (impls[0].wrapper or impls[0].hookwrapper):
        function, names = impls[0].function, tuple(impls[0].argnames)
        if isinstance(impls[0].plugin, _Called):
            return impls[0].plugin.call
        if names == (first, "state"):
            return function  # type: ignore[no-any-return]
        if names == (first,):
            return lambda given, _state: function(given)
    return lambda given, state: hook(**{first: given, "state": state})


def _parts(handler: Any) -> list[tuple[Any, str]]:
    """List the objects with hooks that a handler comes to, and what tells each by name: itself, and its call."""
    # A marked method of another name counts too: registration refuses it by name.
    members = {name: inspect.getattr_static(handler, name, None) for name in dir(handler)}
    marked = {options.get("specname") or name for name, one in members.items() if (options := options_of(one))}
    parts = [(handler, "")] if marked else []
    if marked & {"on_event", "on_batch"}:
        return parts
    refuse_slips(handler)
    if callable(handler):
        return [*parts, (_Called(handler), " (called)" if marked else "")]
    if marked:
        return parts
    message = "it has no handler: give it an on_event(event, state) marked with @axe.hookimpl"
    raise PluginError(message)


class _Called:
    """A handler that is called itself, with or without the state."""

    def __init__(self, handler: Callable[..., object]) -> None:
        if (reason := never_runs(handler)) is not None:
            message = f"its handler {reason}"
            raise PluginError(message)
        self.call = _taking_both(handler)

    @hookimpl
    def on_event(self, event: Event, state: Any) -> None:
        """Call the handler."""
        self.call(event, state)


def _taking_both(handler: Callable[..., Any]) -> Callable[[Event, Any], None]:
    """Return a handler as one that takes (event, state), looked at once and not at each event."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError) as error:
        message = "its handler does not say which arguments it takes; wrap it in a function of (event, state)"
        raise PluginError(message) from error
    parameters = list(signature.parameters.values())
    second = parameters[1] if len(parameters) > 1 else None
    # `lambda event, seen=seen: …` binds something of its own: only under the name `state` is it for us.
    own = second is not None and second.default is not second.empty and second.name != "state"
    if not own and _fits(signature, None, None):
        return handler
    if "state" in signature.parameters and _fits(signature, None, state=None):
        return lambda event, state: handler(event, state=state)
    if _fits(signature, None):
        return lambda event, _state: handler(event)
    names = ", ".join(one.name for one in parameters if one.default is one.empty)
    message = f"its handler takes ({names}); handlers take (event) or (event, state)"
    raise PluginError(message)


def _fits(signature: inspect.Signature, *positional: object, **named: object) -> bool:
    try:
        signature.bind(*positional, **named)
    except TypeError:
        return False
    return True


def _version(source: Any) -> int:
    version = source if isinstance(source, int) else getattr(source, "version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        message = f"its version is {version!r}; a version is a whole number from 1"
        raise PluginError(message)
    return version


def _reads_only(handler: Any) -> bool:
    reads_only = getattr(handler, "reads_only", False)
    if not isinstance(reads_only, bool):
        message = f"its reads_only is {said(reads_only)}; it is True where the handler changes nothing in event.value"
        raise PluginError(message)
    return reads_only


def _subscriptions(topics: Any) -> dict[str, frozenset[str] | None]:
    if isinstance(topics, str):
        topics = (topics,)
    if not topics or not all(isinstance(topic, str) and topic for topic in topics):
        message = 'it names no topics: give it topics = ("topic",) or ("topic/event_type",)'
        raise PluginError(message)
    types: dict[str, frozenset[str] | None] = {}
    for subscription in topics:
        topic, slash, kind = subscription.partition("/")
        if not topic or (slash and not kind):
            message = f"its topic {subscription!r} is neither a topic nor topic/event_type"
            raise PluginError(message)
        if not TOPIC.match(topic):
            message = f"its topic {topic!r:.100} is no name of a topic (letters, digits, '.', '_', '-')"
            raise PluginError(message)
        if not slash or (topic in types and types[topic] is None):
            types[topic] = None
        else:
            types[topic] = (types.get(topic) or frozenset()) | {kind}
    return types
