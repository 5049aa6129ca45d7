"""Plugins: the packages of ``axe.plugins`` that are used, by a processor or by the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .config import Config
from .discovery import Found, FoundStatus, discover, load, load_plugin
from .errors import PluginError
from .hooks import new_plugin_manager, register
from .log import get_logger


def uses(config: Config, processor: str, plugin: Found) -> bool:
    """Tell whether a processor uses a package of ``axe.plugins``, as far as its metadata tells."""
    picked = config.processor(processor).plugins
    return plugin.status is FoundStatus.FOUND and (picked is None or plugin.name in picked)


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


def hooks_of_host(config: Config, hook: str) -> Any:
    """Gather the installed plugins that have a hook; the others are imported, and not made.

    Raises:
        PluginError: nobody has the hook, and it may be that a broken plugin should.
    """
    manager = new_plugin_manager()
    broken: list[str] = []

    def leave_out(_: Found, reason: str) -> None:
        broken.append(reason)

    for name, plugin in load_plugins(config, discover(config).plugins, "", having=hook, on_broken=leave_out):
        register(manager, plugin, name)
    if broken and not getattr(manager.hook, hook).get_hookimpls():
        raise PluginError("; ".join(broken))
    return manager
