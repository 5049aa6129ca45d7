"""Places: where the state of processors is kept, by the URLs of the configuration."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from . import sources
from .config import NAME, Config, masked_url
from .discovery import discover
from .errors import PluginError, StoreError, StoreMissing
from .plugins import Openers, Plugins
from .store import Place, SqlStore, Store, is_built_in, open_place, unknown_kind


def all_built_in(config: Config) -> bool:
    """Tell whether every URL of a configuration is of a kind that needs no package of ``axe.plugins``."""
    states = {config.state, *(one.state for one in config.processors.values() if one.state is not None)}
    return sources.is_built_in(config.source) and all(map(is_built_in, states))


class Places:
    """The places of a configuration: one for all processors, or one that a processor's own `state` names.

    ``plugins`` is asked, once such a URL is met, for the packages that may open it: by itself for every one
    that is installed, as it is imported into this process.
    """

    def __init__(self, config: Config, plugins: Callable[[], Plugins] | None = None) -> None:
        self._config = config
        self.openers = Openers(config, plugins or functools.partial(Plugins.unseen, config))
        self._open: dict[str, Place | PluginPlace] = {}

    def of(self, processor: str | None = None) -> Place | PluginPlace:
        """Return the place of a processor, or the common one."""
        url = self._config.state if processor is None else _state_of(processor, self._config)
        if url not in self._open:
            built_in = is_built_in(url)
            place = open_place(url, self._config.base) if built_in else PluginPlace(url, self._config, self.openers)
            self._open[url] = place
        return self._open[url]

    def store(self, processor: str) -> Store:
        """Name the store of a processor; nothing is opened yet."""
        place = self.of(processor)
        if isinstance(place, PluginPlace):
            return place.store(processor)
        settings = self._config.processor(processor)
        database = place.database(processor)
        return SqlStore(database, processor, cache_mb=settings.cache_mb, undo_mb=settings.undo_mb)

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
            # Before, because a worker may make it at this moment.
            must_be = create or processor in self.of(processor).processors()
            try:
                store.open(version=version, create=create)
            except StoreMissing:
                if must_be:
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
            except (PluginError, StoreError):
                # There may be one: whoever opens it hears what is wrong, and the others are not left out.
                found.add(name)
        return sorted(found)


class PluginPlace:
    """The place of a URL that is not built in: whatever an ``open_store`` hook makes of it."""

    host_is_alone = False
    """Nobody can tell, so rows of other workers are left alone."""

    def __init__(self, url: str, config: Config, openers: Openers) -> None:
        self._url = url
        self._config = config
        self._openers = openers

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
            PluginError: likewise, and a broken one may.
        """
        found: Store | None = self._openers.ask("open_store", self._url, processor=processor)
        if found is None:
            raise unknown_kind(self._url)
        return found

    def host_lock(self) -> None:
        """Take none: who may write is for the store to tell, by owner and epoch."""

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
