"""Discovery: which processors and plugins are installed, and which of them may run.

Names first: everything that can be told from metadata is told before a line of a plugin runs.
Imports later and one by one, so that one broken plugin takes no other with it.
"""

from __future__ import annotations

import enum
import fnmatch
import importlib
import importlib.metadata
import inspect
import re
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import Distribution, EntryPoint
from typing import Any

import msgspec
from stevedore.named import NamedExtensionManager

from .config import NAME, Config
from .errors import AxeError, PluginError
from .telling import told

PROCESSORS = "axe.processors"
PLUGINS = "axe.plugins"
_GROUPS = (PROCESSORS, PLUGINS)
_LONGEST_REASON = 300
_UNKNOWN = "unknown"


class FoundStatus(enum.Enum):
    """What the metadata says about an entry point. BROKEN is told of, BLOCKED was asked for."""

    FOUND = "found"
    BLOCKED = "blocked"
    BROKEN = "broken"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One entry point as its metadata has it; nothing of it has been imported.

    ``reason`` says why it does not run and what to do; None when it may.
    """

    name: str
    value: str
    distribution: str
    version: str
    group: str
    status: FoundStatus = FoundStatus.FOUND
    reason: str | None = None

    def __str__(self) -> str:
        kind = "processor" if self.group == PROCESSORS else "plugin"
        return f"{kind} {self.name} ({self.distribution} {self.version})"


class Discovered(msgspec.Struct, frozen=True):
    """Everything that is installed, in the order of its names; also what may not run."""

    processors: tuple[Found, ...]
    plugins: tuple[Found, ...]


def discover(config: Config) -> Discovered:
    """List the installed processors and plugins without importing any of them."""
    found = {group: tuple(_judged(group, config)) for group in _GROUPS}
    return Discovered(processors=found[PROCESSORS], plugins=found[PLUGINS])


def load(found: Found) -> object:
    """Import one entry point and return what it names.

    Runs code of the plugin: call it in a worker or a probe process, never in the host.

    Raises:
        PluginError: it may not run, or its import failed, in whatever way.
    """
    if found.status is not FoundStatus.FOUND:
        message = f"{found} does not run: {found.reason}"
        raise PluginError(message)
    try:
        (extension,) = _EntryPoints(found.group, _entry_point(found), names=[found.name])
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may well call sys.exit() at import
        raise _plugin_error(found, "cannot be imported", error, _entry_point(found).module) from error
    loaded: object = extension.plugin
    return loaded


def instantiate(obj: object, settings: Mapping[str, Any], found: Found | None = None) -> object:
    """Make the object that has the hooks: a class is called, anything else is taken as it is.

    A class gets ``settings`` when its constructor has a parameter of that name. ``found``
    is for the message.

    Raises:
        PluginError: the constructor failed, or the object cannot have hooks at all.
    """
    if obj is None or isinstance(obj, bool | int | float | complex | str | bytes | list | tuple | dict | set):
        message = (
            f"{repr(obj) if found is None else found} names a {type(obj).__name__}: "
            "let its entry point name a class, an instance, a module or a function"
        )
        raise PluginError(message)
    if not inspect.isclass(obj):
        return obj
    make: Callable[..., object] = obj
    try:
        kind = _settings_parameter(obj)
        if kind is None:
            return make()
        return make(dict(settings)) if kind is inspect.Parameter.POSITIONAL_ONLY else make(settings=dict(settings))
    except KeyboardInterrupt:
        raise
    except AxeError as error:
        # In its own words, as about a missing setting: where its code says so is of no interest.
        message = f"{found or obj.__qualname__} cannot be made: {error}; mend that, or add its name to `block`"
        raise PluginError(message) from error
    except BaseException as error:
        raise _plugin_error(found or obj.__qualname__, "cannot be made", error, obj.__module__) from error


def load_plugin(found: Found, settings: Mapping[str, Any]) -> tuple[object, tuple[str, ...]]:
    """Import and make a package of ``axe.plugins``; return it with the names of its hooks.

    Raises:
        PluginError: it failed, or one of its hooks would never be called as it stands.
    """
    # Of those who discover only few import: names and statuses do without pluggy.
    from .hooks import hooks_of

    plugin = instantiate(load(found), settings, found)
    try:
        return plugin, hooks_of(plugin, found.name)
    except PluginError as error:
        message = f"{found} is broken: {error}; fix or uninstall it, or add its name to `block`"
        raise PluginError(message) from error


class _EntryPoints(NamedExtensionManager[Any]):
    """stevedore's manager over exactly these entry points; imports those that ``names`` picks.

    stevedore's own listing goes through a cache on disk that can be minutes old and has lost
    the distributions. It also asks for its ``names`` before it imports, so that an empty list
    means: import nothing.
    """

    def __init__(self, group: str, *entry_points: EntryPoint, names: list[str]) -> None:
        self._entry_points = list(entry_points)
        super().__init__(
            group,
            names,
            on_load_failure_callback=_raise_load_failure,
            on_missing_entrypoints_callback=None,
        )

    def list_entry_points(self) -> list[EntryPoint]:
        return self._entry_points


def _raise_load_failure(_manager: object, _entry_point: EntryPoint, error: BaseException) -> None:
    """Let the error out: stevedore would log it and go on without the plugin."""
    raise error


class _Listed(msgspec.Struct, frozen=True):
    """An entry point with the distribution that it came from, or the reason why it is none."""

    entry_point: EntryPoint
    distribution: str
    version: str
    problem: str | None = None


def _judged(group: str, config: Config) -> Iterator[Found]:
    """Yield each entry point of a group with its status."""
    listed = sorted(_listed(group), key=lambda one: (one.entry_point.name, _normalized(one.distribution)))
    claims: defaultdict[str, list[_Listed]] = defaultdict(list)
    for one in listed:
        # What may not run anyway cannot take a name away from what may.
        if _blocked(one, group, config) is None:
            claims[one.entry_point.name].append(one)
    for one in listed:
        status, reason = FoundStatus.FOUND, None
        if blocked := _blocked(one, group, config):
            status, reason = FoundStatus.BLOCKED, blocked
        elif broken := one.problem or _broken(one, claims[one.entry_point.name]):
            status, reason = FoundStatus.BROKEN, broken
        yield Found(
            name=one.entry_point.name,
            value=one.entry_point.value,
            distribution=one.distribution,
            version=one.version,
            group=group,
            status=status,
            reason=reason,
        )


def _blocked(one: _Listed, group: str, config: Config) -> str | None:
    """Say why the configuration keeps an entry point from running."""
    name = one.entry_point.name
    if config.allow is not None and _normalized(one.distribution) not in map(_normalized, config.allow):
        return f"the distribution {one.distribution} is not in `allow`"
    for pattern in config.block:
        if fnmatch.fnmatchcase(name, pattern):
            return f"`block` has {pattern}"
    if group == PROCESSORS and not config.processor(name).enabled:
        return f"`enabled = false` in [processors.{name}]"
    return None


def _broken(one: _Listed, claims: list[_Listed]) -> str | None:
    """Say what is wrong with an entry point itself."""
    name = one.entry_point.name
    if not NAME.match(name):
        return (
            f"the name {name!r} is impossible: a small letter, then at most 62 of a-z, 0-9, '_' and '-'; "
            "rename the entry point"
        )
    if EntryPoint.pattern.match(one.entry_point.value) is None:
        return f"the entry point {one.entry_point.value!r} is not of the form module:object"
    if len(claims) > 1:
        claimants = sorted({f"{claim.distribution} {claim.version}" for claim in claims})
        if len(claimants) == 1:
            return f"{claimants[0]} declares the name {name} twice; rename one"
        return f"the name {name} is claimed by {' and by '.join(claimants)}; uninstall all but one"
    return None


def _listed(group: str) -> list[_Listed]:
    """List the entry points of a group over all distributions, the first of each name on the path."""
    # The import system remembers folder listings by their modification times.
    importlib.invalidate_caches()
    listed: list[_Listed] = []
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        # Reading the metadata of everything installed takes longer than everything else here.
        if not _mentions(distribution, group):
            continue
        name, version = _identity(distribution)
        if _normalized(name) in seen:
            continue
        if name != _UNKNOWN:
            seen.add(_normalized(name))
        listed += _listed_of(_first_on_path(name, distribution), name, version, group)
    return listed


def _mentions(distribution: Distribution, group: str) -> bool:
    try:
        return group in (distribution.read_text("entry_points.txt") or "")
    except UnicodeDecodeError as error:
        return group.encode() in error.object


def _listed_of(distribution: Distribution, name: str, version: str, group: str) -> list[_Listed]:
    """List what one distribution declares; damaged metadata is one broken entry under its own name."""
    try:
        version = _identity(distribution)[1]
        declared = distribution.entry_points.select(group=group)
    except Exception as error:  # noqa: BLE001 - each kind of damage raises its own
        problem = f"its entry_points.txt cannot be read ({type(error).__name__}); install it again"
        return [_Listed(EntryPoint(name=name, value="", group=group), name, version, problem)]
    # A pair of the same name and value is one, however often it is written.
    unique = {(one.name, one.value): one for one in declared}
    listing = _EntryPoints(group, *unique.values(), names=[])
    return [_Listed(one, name, version) for one in listing.list_entry_points()]


def _first_on_path(name: str, distribution: Distribution) -> Distribution:
    """Return the distribution that an import would see: an older one may lie further down the path."""
    try:
        return importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return distribution


def _identity(distribution: Distribution) -> tuple[str, str]:
    # A folder that pip left half-removed has no METADATA; before Python 3.14 that reads as None.
    metadata: Any = distribution.metadata
    if metadata is None:
        return _UNKNOWN, _UNKNOWN
    return str(metadata["Name"] or _UNKNOWN), str(metadata["Version"] or _UNKNOWN)


def _entry_point(found: Found) -> EntryPoint:
    return EntryPoint(name=found.name, value=found.value, group=found.group)


def _normalized(distribution: str) -> str:
    """Spell a distribution's name as the Python packaging guide normalizes it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _settings_parameter(cls: type) -> Any:
    """Return the kind of the constructor's parameter ``settings``, None where it has none."""
    # About a class without a constructor inspect would find out from `object`: it copies sys.modules and compiles
    # a tokenizer for that, and writes to 2 MB that a worker shares with the others.
    if type(cls) is type and not any({"__init__", "__new__"} & vars(base).keys() for base in cls.__mro__[:-1]):
        return None
    try:
        parameter = inspect.signature(cls).parameters.get("settings")
    except ValueError:  # classes written in C need not have a signature
        return None
    return None if parameter is None else parameter.kind


def _plugin_error(found: Found | str, what: str, error: BaseException, module: str) -> PluginError:
    place = _place(error, module.partition(".")[0])
    at = f" (at {place})" if place else ""
    advice = "fix or uninstall it, or add its name to `block`"
    return PluginError(f"{found} {what}: {_one_line(error)}{at}; {advice}")


def _one_line(error: BaseException) -> str:
    said = told(error)
    return said if len(said) <= _LONGEST_REASON else f"{said[:_LONGEST_REASON]}…"


def _place(error: BaseException, package: str) -> str | None:
    """Return file:line of the last line of the plugin's own code that led to the error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    own = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] == package
    ]
    return own[-1] if own else None
