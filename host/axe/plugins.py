"""Plugins: the packages of ``axe.plugins`` that are used, by a processor or by the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .config import Config, did_you_mean
from .discovery import Found, FoundStatus, discover, load, load_plugin
from .errors import PluginError
from .hooks import first_answer, new_plugin_manager, register
from .log import get_logger
from .sources import is_built_in, unknown_kind


class Plugins(NamedTuple):
    """The packages that may be used, and those of them that open URLs which are not built in."""

    usable: tuple[Found, ...] = ()
    open_source: tuple[Found, ...] = ()
    open_store: tuple[Found, ...] = ()
    faults: tuple[str, ...] = ()
    """What is wrong with others, which may open something, too."""

    @classmethod
    def unseen(cls, config: Config) -> Plugins:
        """Take all that are installed, for a process that imports them whatever comes of it."""
        found = tuple(one for one in discover(config).plugins if one.status is FoundStatus.FOUND)
        return cls(usable=found, open_source=found, open_store=found)

    def without(self, name: str) -> Plugins:
        """Leave one of them out."""
        usable, sources, stores = (tuple(one for one in these if one.name != name) for these in self[:3])
        return Plugins(usable, sources, stores, self.faults)


def uses(config: Config, processor: str, plugin: Found) -> bool:
    """Tell whether a processor uses a package of ``axe.plugins``, as far as its metadata tells."""
    picked = config.processor(processor).plugins
    return plugin.status is FoundStatus.FOUND and (picked is None or plugin.name in picked)


def unknown_picks(config: Config, installed: Iterable[Found]) -> list[str]:
    """Say which names in `plugins` of a processor nobody has, and which may have been meant."""
    names = sorted({one.name for one in installed})
    said = []
    for processor, settings in config.processors.items():
        for name in settings.plugins or ():
            if name not in names:
                advice = did_you_mean(name, names, "install it, or take the name out")
                said.append(f"processors.{processor}.plugins: no plugin {name} is installed; {advice}")
    return said


def load_plugins(
    config: Config,
    found: Iterable[Found],
    processor: str,
    *,
    having: str | None = None,
    on_broken: Callable[[Found, str], object] | None = None,
) -> list[tuple[str, Any]]:
    """Make the ``axe.plugins`` packages that a processor uses, leaving out those that are broken.

    ``on_broken`` hears of these, else the log does. With ``having`` only those that have a hook of that name.
    """
    made = []
    for entry in found:
        if not uses(config, processor, entry):
            continue
        try:
            if having is None or hasattr(load(entry), having):
                made.append((entry.name, load_plugin(entry, config.plugins.get(entry.name, {}))[0]))
        except PluginError as error:
            (on_broken or _log_broken)(entry, str(error))
    return made


def _log_broken(plugin: Found, reason: str) -> None:
    get_logger().error("plugin is broken", plugin=plugin.name, reason=reason)


def installed_plugins(config: Config) -> list[tuple[str, Any]]:
    """Make every ``axe.plugins`` package that is installed, for an App, whose processors share them."""
    return load_plugins(config, discover(config).plugins, "")


class Openers:
    """The packages that open what is not built in; they are imported when such a URL is met, and not before."""

    def __init__(self, config: Config, plugins: Callable[[], Plugins]) -> None:
        self._config = config
        self._plugins = plugins
        self._made: dict[str, tuple[Any, list[str]]] = {}

    def ask(self, hook: str, url: str, **given: Any) -> Any:
        """Ask the packages that have ``open_source`` or ``open_store`` in turn; None where none knows the URL.

        Raises:
            PluginError: one of them failed; or none of them knows the URL, and a broken one may.
        """
        if hook not in self._made:
            self._made[hook] = self._make(hook)
        manager, faults = self._made[hook]
        answer = first_answer(manager, hook, self._config.plugins, url=url, **given)
        if answer is None and faults:
            raise _broken("source" if hook == "open_source" else "state", url, faults)
        return answer

    def require_source(self) -> None:
        """Refuse a source that nobody can know, before every worker does; nothing is imported.

        Raises:
            ConfigError: no package has ``open_source``.
            PluginError: likewise, and a broken one may.
        """
        url, plugins = self._config.source, self._plugins()
        if is_built_in(url) or plugins.open_source:
            return
        raise _broken("source", url, plugins.faults) if plugins.faults else unknown_kind(url)

    def _make(self, hook: str) -> tuple[Any, list[str]]:
        plugins = self._plugins()
        manager, faults = new_plugin_manager(), list(plugins.faults)

        def leave_out(_: Found, reason: str) -> None:
            faults.append(reason)

        having = getattr(plugins, hook)
        for name, plugin in load_plugins(self._config, having, "", having=hook, on_broken=leave_out):
            register(manager, plugin, name)
        return manager, faults


def _broken(setting: str, url: str, faults: Sequence[str]) -> PluginError:
    # Only the scheme is shown: the rest may hold a password.
    what = f'`{setting}` "{url.partition(":")[0]}:"'
    return PluginError(f"no plugin that works knows the {what}; broken: {'; '.join(faults)}")
