"""The hooks: what a processor and a plugin may implement, grouped by phase.

A processor's own object implements hooks of the first four groups for itself. A package under
``axe.plugins`` implements any of them for every processor. An implementation is marked
``@axe.hookimpl`` and may take fewer arguments than are listed here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from .config import did_you_mean
from .errors import AxeError, PluginError
from .event import CommitReport, Decision, Event, Failure, Record, Rejection
from .telling import told

if TYPE_CHECKING:
    from .sources import Source
    from .store.protocol import Store
    from .store.state import State

PROJECT = "axe"
MARK = f"{PROJECT}_impl"
"""The attribute that ``hookimpl`` leaves on a function."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Decoder = Callable[[Record], Any]
"""Turns the value of a record into an event's value; raises DecodeError for bytes it cannot read."""


class ProcessorHooks:
    """What happens to one processor, in the order of its life."""

    # --- its life

    @hookspec
    def on_start(self, state: State, settings: dict[str, Any]) -> None:
        """Make tables and warm up: called at each start, in a transaction, before any event.

        An exception stops the processor before its first event.
        """

    @hookspec
    def on_stop(self) -> None:
        """Let go of what ``on_start`` took: called once after the last event of an orderly end.

        Outside any transaction; an exception is logged.
        """

    @hookspec
    def on_reset(self, state: State) -> None:
        """The positions were moved by hand: called once, in the transaction that adopts them.

        After a wipe the plugin's tables are gone, and ``on_start`` follows.
        """

    # --- its events

    @hookspec(firstresult=True)
    def deserializer(self, topic: str, settings: dict[str, Any]) -> Decoder | None:
        """Return the decoder for a topic, or None to leave it to others and to the built-in ones.

        Asked once a topic, at start. ``settings`` is the topic's table of the configuration. What the decoder
        cannot read it says with ``DecodeError``, or ``Reject``: a dead letter. ``SourceUnavailable`` makes the
        processor wait, for a registry that is away. Any other exception is a failure of the event.
        """

    @hookspec
    def on_event(self, event: Event, state: State) -> None:
        """Handle one event, in the transaction that moves the position past it.

        May be called again for the same event after a rollback; its effects count once.
        ``raise Reject(reason)`` refuses the event; any other exception is a failure.
        """

    @hookspec
    def on_batch(self, events: Sequence[Event], state: State) -> None:
        """Handle several events at once, in one transaction; instead of ``on_event``.

        When it raises, the batch is undone and its events come again one at a time.
        """

    # --- what went wrong

    @hookspec(firstresult=True)
    def decide(self, failure: Failure) -> Decision | None:
        """Decide about a failed event; None leaves it to the configuration.

        ``failure.decision`` is what the configuration would do. If the hook itself raises,
        that is logged and the configuration decides.
        """

    @hookspec
    def on_reject(self, rejection: Rejection) -> None:
        """Hear of a rejection, after its dead letter is committed. An exception is logged."""

    @hookspec
    def on_error(self, failure: Failure) -> None:
        """Report a failure: called at the first failure of an event and at the final decision.

        Outside any transaction; an exception is logged and the next reporter still called.
        """

    # --- afterwards

    @hookspec
    def on_commit(self, report: CommitReport) -> None:
        """Hear of a commit, after it. An exception is logged."""


class HostHooks:
    """What extends the host itself; for packages under ``axe.plugins``."""

    @hookspec(firstresult=True)
    def open_source(self, url: str, settings: dict[str, Any]) -> Source | None:
        """Name the source of a URL, or return None for a URL that is not yours.

        Asked once by each worker for each processor. ``settings`` is the package's own table.
        An exception makes the processor broken.
        """

    @hookspec(firstresult=True)
    def open_store(self, url: str, processor: str, settings: dict[str, Any]) -> Store | None:
        """Name the store of a processor at a ``state`` URL, or return None for a URL that is not yours.

        Asked wherever a store is needed, for URLs that are not built in: by each worker, by the host, and by
        the commands that look at stores, in their own process. Return a new object each time, which connects
        in its ``open``. ``settings`` is the package's own table. An exception makes the processor broken.
        """

    @hookspec
    def commands(self, cli: Any) -> None:
        """Add commands to the command line; ``cli`` is a ``typer.Typer``."""

    @hookspec
    def services(self, host: Any) -> None:
        """Start something that runs beside the workers, called once when the host is up.

        An exception is logged; the workers run on.
        """


# Called one by one and not through pluggy, so that one that raises silences no other: a wrapper has nothing to wrap.
_CALLED_ALONE = frozenset(
    {"on_stop", "on_reject", "on_error", "on_commit", "open_source", "open_store", "commands", "services"}
)

HOOK_NAMES = frozenset(
    name for specs in (ProcessorHooks, HostHooks) for name in vars(specs) if not name.startswith("_")
)


def new_plugin_manager() -> pluggy.PluginManager:
    """Make an empty plugin manager that knows every hook; each processor gets its own."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(ProcessorHooks)
    manager.add_hookspecs(HostHooks)
    return manager


def register(manager: pluggy.PluginManager, plugin: Any, name: str) -> None:
    """Add the hooks of a plugin.

    Raises:
        PluginError: one of them would never be called as it stands; says what is wrong.
    """
    refuse_slips(plugin)
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(" ".join(str(error).split())) from error


def hooks_of(plugin: Any, name: str) -> tuple[str, ...]:
    """Name the hooks that a plugin implements, as a manager of its own takes them.

    Raises:
        PluginError: one of them would never be called as it stands; says what is wrong.
    """
    manager = new_plugin_manager()
    register(manager, plugin, name)
    return tuple(sorted(hook for hook in HOOK_NAMES if getattr(manager.hook, hook).get_hookimpls()))


def first_answer(manager: pluggy.PluginManager, hook: str, settings: Mapping[str, Any], **given: Any) -> Any:
    """Ask the implementations of a hook of the host in turn, each with the table that ``settings`` has for it.

    Raises:
        PluginError: one of them raised; names it.
    """
    for implementation in reversed(getattr(manager.hook, hook).get_hookimpls()):
        name = implementation.plugin_name
        arguments = {**given, "settings": dict(settings.get(name, {}))}
        try:
            answer = implementation.function(*(arguments[argument] for argument in implementation.argnames))
        except AxeError:
            raise
        except Exception as error:
            message = f"{hook} of the plugin {name} failed: {told(error)}"
            raise PluginError(message) from error
        if answer is not None:
            return answer
    return None


def refuse_slips(plugin: Any) -> None:
    """Refuse by name what pluggy would pass over in silence, or say in its own words.

    Raises:
        PluginError: the object is a class, or a hook of its is unknown, is not marked, or would not be called
            as it is written.
    """
    if inspect.isclass(plugin):
        message = f"{plugin.__name__} is a class, not an instance of it"
        raise PluginError(message)
    for name in dir(plugin):
        if name.startswith("__"):
            continue
        try:
            member = inspect.getattr_static(plugin, name)
        except AttributeError:
            continue
        function = inner(member)
        if not inspect.isfunction(function):
            continue
        if (options := options_of(member)) is not None:
            _refuse_slips_of(name, function, options)
            # As it is called: without the instance.
            _refuse_arguments(name, getattr(plugin, name), options)
        elif name in HOOK_NAMES:
            message = f"its {name} is not marked with @axe.hookimpl, so it would never be called"
            raise PluginError(message)


def inner(member: Any) -> Any:
    """Return the function in what a class may hold of it."""
    return member.__func__ if isinstance(member, staticmethod | classmethod) else member


def options_of(member: Any) -> dict[str, Any] | None:
    """Return what ``hookimpl`` noted at a function; None where it is not marked."""
    options = getattr(inner(member), MARK, None)
    return options if isinstance(options, dict) else None


def never_runs(function: Any) -> str | None:
    """Say why the body of a function would not run when it is called; None where it would."""
    while isinstance(function, functools.partial):
        function = function.func
    for called in (function, getattr(type(function), "__call__", None)):  # noqa: B004 # of the class, not of it
        if inspect.iscoroutinefunction(called):
            return "is `async def`: its body would never run; write `def`"
        if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            return "is a generator: its body would never run; write it without `yield`"
    return None


def _refuse_slips_of(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    hook = options.get("specname") or name
    if hook not in HOOK_NAMES:
        if options.get("optionalhook"):
            return
        advice = did_you_mean(hook, HOOK_NAMES, f"the hooks are {', '.join(sorted(HOOK_NAMES))}")
        message = f"its {hook} is no hook of axe; {advice}"
        raise PluginError(message)
    # A wrapper is a generator by design.
    is_wrapper = options.get("wrapper") or options.get("hookwrapper")
    if not is_wrapper and (reason := never_runs(function)) is not None:
        message = f"its {name} {reason}"
        raise PluginError(message)
    if is_wrapper and hook in _CALLED_ALONE:
        message = f"its {name} is a wrapper, and each {hook} is called on its own: write it as a plain hook"
        raise PluginError(message)
    for parameter in inspect.signature(function).parameters.values():
        has_default = parameter.default is not parameter.empty
        if parameter.kind is parameter.KEYWORD_ONLY and not has_default:
            message = f"its {name} takes {parameter.name} as a keyword only; hooks are called by position: drop the `*`"
            raise PluginError(message)
        if has_default and parameter.name in _arguments(hook):
            message = f"its {name} has a default for {parameter.name}, and would never get another; write it without"
            raise PluginError(message)


def _refuse_arguments(name: str, called: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse arguments that a hook does not have; pluggy would name neither the nearest nor those that it has."""
    hook = options.get("specname") or name
    if hook not in HOOK_NAMES:
        return
    allowed = _arguments(hook)
    for parameter in inspect.signature(called).parameters.values():
        is_passed = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if is_passed and parameter.default is parameter.empty and parameter.name not in (*allowed, "self"):
            has = f"it may take {', '.join(allowed)}" if allowed else "it takes none"
            advice = did_you_mean(parameter.name, allowed, "")
            message = f"its {name} takes {parameter.name}, which {hook} does not have; {advice} {has}"
            raise PluginError(" ".join(message.split()))


def _arguments(hook: str) -> tuple[str, ...]:
    """Return the names of a hook's arguments, as it is specified."""
    specification = vars(ProcessorHooks).get(hook) or vars(HostHooks)[hook]
    return tuple(inspect.signature(specification).parameters)[1:]


def notify(hooks: pluggy.PluginManager, hook: str, log: Any, **given: Any) -> None:
    """Call each implementation of a hook on its own: one that raises does not silence the next."""
    for implementation in reversed(getattr(hooks.hook, hook).get_hookimpls()):
        try:
            implementation.function(*(given[name] for name in implementation.argnames))
        except BaseException:  # the plugin boundary, sys.exit() included
            log.exception("hook failed", hook=hook, plugin=implementation.plugin_name)
