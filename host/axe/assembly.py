"""Putting the parts together from the configuration: places, stores, sources, processors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .config import Config
from .discovery import Found, FoundStatus, discover, instantiate, load
from .errors import PluginError
from .log import get_logger
from .processor import Processor
from .sources import Source, open_source
from .store import Place, Store, open_place


class Places:
    """The places of a configuration: one for all processors, or one that a processor's own `state` names."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._open: dict[str, Place] = {}

    def of(self, processor: str | None = None) -> Place:
        """Return the place of a processor, or the common one."""
        own = None if processor is None else self._config.processor(processor).state
        url = own or self._config.state
        if url not in self._open:
            self._open[url] = open_place(url, self._config.base)
        return self._open[url]

    def store(self, processor: str) -> Store:
        """Name the store of a processor; nothing is opened yet."""
        return Store(self.of(processor).database(processor), processor)

    def processors(self) -> list[str]:
        """List every processor that has, or had, a database in any of these places."""
        found = set(self.of().processors())
        for name, settings in self._config.processors.items():
            if settings.state is not None and name in self.of(name).processors():
                found.add(name)
        return sorted(found)


def source(config: Config, name: str, places: Places, processor: Processor | None = None) -> Source:
    """Open a source for a processor, by a plugin's hook or one of the built-in ones."""
    if processor is not None:
        for plugin_name, plugin in processor.hooks.list_name_plugin():
            opener = getattr(plugin, "open_source", None)
            settings = config.plugins.get(plugin_name, {})
            opened: Source | None = None if opener is None else opener(config.source, settings)
            if opened is not None:
                return opened
    group = config.processor(name).group or f"axe.{places.of(name).name}.{name}"
    return open_source(config.source, group=group, properties=config.kafka, client_id=f"axe-{name}", base=config.base)


def bind(  # noqa: PLR0913 # the parts of a processor, most of them optional
    config: Config,
    name: str,
    handler: Any,
    *,
    topics: Iterable[str] | None = None,
    version: int | None = None,
    settings: dict[str, Any] | None = None,
    plugins: Sequence[tuple[str, Any]] = (),
) -> Processor:
    """Make the processor of a handler, with the settings of the configuration."""
    configured = config.processor(name)
    own = {**(settings or {}), **configured.settings}
    return Processor(
        name,
        instantiate(handler, own),
        topics=configured.topics or topics,
        version=version,
        plugins=plugins,
        settings=own,
    )


def load_plugins(config: Config, found: Iterable[Found], processor: str) -> list[tuple[str, Any]]:
    """Make the ``axe.plugins`` packages that a processor uses, leaving out broken ones with a word."""
    picked = config.processor(processor).plugins
    made = []
    for entry in found:
        if entry.status is not FoundStatus.FOUND or (picked is not None and entry.name not in picked):
            continue
        try:
            made.append((entry.name, instantiate(load(entry), config.plugins.get(entry.name, {}))))
        except PluginError as error:
            get_logger().error("plugin is broken", plugin=entry.name, reason=str(error))
    return made


def installed_plugins(config: Config) -> list[tuple[str, Any]]:
    """Make every ``axe.plugins`` package that is installed, for an App, whose processors share them."""
    return load_plugins(config, discover(config).plugins, "")


def installed(config: Config) -> list[tuple[str, Any]]:
    """Import the processors that are installed, leaving out broken ones with a word."""
    made = []
    for entry in discover(config).processors:
        if entry.status is not FoundStatus.FOUND:
            continue
        try:
            made.append((entry.name, load(entry)))
        except PluginError as error:
            get_logger().error("processor is broken", processor=entry.name, reason=str(error))
    return made
