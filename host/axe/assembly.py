"""Putting the parts together from the configuration: places, stores, sources, processors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from .config import NAME, Config, masked_url
from .discovery import Found, FoundStatus, discover, instantiate, load, load_plugin
from .errors import PluginError, StoreError, StoreMissing
from .hooks import first_answer, new_plugin_manager, register
from .log import get_logger
from .processor import Processor
from .sources import BUILT_IN, Source, open_source
from .store import Place, SqlStore, Store, is_built_in, open_place, unknown_kind


class Places:
    """The places of a configuration: one for all processors, or one that a processor's own `state` names."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._open: dict[str, Place | PluginPlace] = {}

    def of(self, processor: str | None = None) -> Place | PluginPlace:
        """Return the place of a processor, or the common one."""
        url = self._config.state if processor is None else _state_of(processor, self._config)
        if url not in self._open:
            self._open[url] = open_place(url, self._config.base) if is_built_in(url) else PluginPlace(url, self._config)
        return self._open[url]

    def store(self, processor: str) -> Store:
        """Name the store of a processor; nothing is opened yet."""
        place = self.of(processor)
        if isinstance(place, PluginPlace):
            return place.store(processor)
        return SqlStore(place.database(processor), processor)

    def distinct(self, processors: Iterable[str]) -> list[Place | PluginPlace]:
        """List the places of these processors, each once, however its folder is written."""
        found: dict[Any, Place | PluginPlace] = {}
        for place in map(self.of, processors):
            folder = getattr(place, "folder", None)
            found.setdefault(place if folder is None else folder.resolve(), place)
        return list(found.values())

    @contextmanager
    def opened(self, processor: str, *, create: bool, version: int = 1) -> Iterator[Store | None]:
        """Open a store for a ``with`` block; None where the processor never had one, and none is to be made.

        Raises:
            StoreMissing: it had one, and it is gone.
        """
        store = self.store(processor)
        try:
            try:
                store.open(version=version, create=create)
            except StoreMissing:
                if create or processor in self.of(processor).processors():
                    raise
                yield None
                return
            yield store
        except Exception as error:
            trouble = store.trouble(error)
            if trouble is None:
                raise
            raise trouble from error
        finally:
            store.close()

    def processors(self) -> list[str]:
        """List every processor that has, or had, a database in any of these places."""
        found = set(self.of().processors())
        for name, settings in self._config.processors.items():
            try:
                if settings.state is not None and name in self.of(name).processors():
                    found.add(name)
            except StoreError:
                # There may be one: whoever opens it hears what is wrong, and the others are not left out.
                found.add(name)
        return sorted(found)


class PluginPlace:
    """The place of a URL that is not built in: whatever an ``open_store`` hook makes of it."""

    host_is_alone = False
    """Nobody can tell, so rows of other workers are left alone."""

    def __init__(self, url: str, config: Config) -> None:
        self._url = url
        self._config = config

    @property
    def name(self) -> str:
        """The last part of the URL's path, as for a folder or a database of axe's own, else its scheme."""
        path = re.sub(r"\A[^:]*:(//[^/?#]*)?|[?#].*", "", masked_url(self._url), flags=re.DOTALL)
        return path.rstrip("/").rpartition("/")[2] or self._url.partition(":")[0]

    def prepare(self) -> None:
        """Ask for one store, so that a URL that nobody knows is said before anything runs.

        Raises:
            ConfigError: nobody knows it.
        """
        for name in self._candidates[:1]:
            self.store(name)

    def processors(self) -> list[str]:
        """List the processors that have a store here, of those that are installed or configured."""
        return [name for name in self._candidates if self._has(name)]

    def store(self, processor: str) -> Store:
        """Name the store of a processor; nothing is opened yet.

        Raises:
            ConfigError: no plugin knows the URL.
        """
        found: Store | None = first_answer(
            self._hooks, "open_store", self._config.plugins, url=self._url, processor=processor
        )
        if found is None:
            raise unknown_kind(self._url)
        return found

    def host_lock(self) -> None:
        """Take none: who may write is for the store to tell, by owner and epoch."""

    @cached_property
    def _hooks(self) -> Any:
        return _hooks_of_host(self._config, "open_store")

    @cached_property
    def _candidates(self) -> list[str]:
        names = {found.name for found in discover(self._config).processors} | set(self._config.processors)
        # An impossible name goes to no hook: it may well be a path.
        return sorted(name for name in names if NAME.match(name) and _state_of(name, self._config) == self._url)

    def _has(self, processor: str) -> bool:
        store = self.store(processor)
        try:
            store.open(create=False)
        except StoreMissing:
            return False
        except StoreError:
            # There is one, or nobody can tell: whoever opens it hears what is wrong.
            return True
        finally:
            store.close()
        return True


def _state_of(processor: str, config: Config) -> str:
    return config.processor(processor).state or config.state


def _hooks_of_host(config: Config, hook: str) -> Any:
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


def source(config: Config, name: str, places: Places, processor: Processor | None = None) -> Source:
    """Open a source for a processor, by a plugin's hook or one of the built-in ones."""
    opened: Source | None = None
    if processor is not None:
        opened = first_answer(processor.hooks, "open_source", config.plugins, url=config.source)
    if opened is None and config.source.partition(":")[0] not in BUILT_IN:
        opened = first_answer(_hooks_of_host(config, "open_source"), "open_source", config.plugins, url=config.source)
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
    found: Found | None = None,
) -> Processor:
    """Make the processor of a handler, with the settings of the configuration.

    ``found`` says for the message of an error where an installed handler comes from.

    Raises:
        PluginError: the handler is none; says why.
    """
    configured = config.processor(name)
    own = {**(settings or {}), **configured.settings}
    made = instantiate(handler, own, found)
    try:
        return Processor(
            name,
            made,
            topics=configured.topics or topics,
            version=version,
            plugins=plugins,
            settings=own,
        )
    except Exception as error:
        # Looking at a handler runs code of its own: properties.
        said = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        message = said if found is None else f"{found} cannot run: {said}"
        raise PluginError(message) from error


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


def installed(config: Config, plugins: Sequence[tuple[str, Any]]) -> list[Processor]:
    """Import and bind the processors that are installed, leaving out broken ones with a word."""
    made = []
    for entry in discover(config).processors:
        if entry.status is FoundStatus.BLOCKED:
            continue
        try:
            made.append(bind(config, entry.name, load(entry), plugins=plugins, found=entry))
        except PluginError as error:
            get_logger().error("processor is broken", processor=entry.name, reason=str(error))
    return made
