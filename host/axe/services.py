"""Services: what packages of ``axe.plugins`` run beside the workers, in the host's own process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .config import Config
from .discovery import PLUGINS, Found, load_plugin
from .errors import PluginError
from .hooks import new_plugin_manager, notify, register
from .log import get_logger
from .probe import Probed, probe


class Services:
    """Starts the services of packages that are known to have some, each once.

    That is known from the workers, which import the packages anyway, and of packages that no worker
    uses from a probe. ``given_up`` says that the host ends: nothing is started or learned any more.
    """

    def __init__(
        self, host: Any, config: Config, on_broken: Callable[[Found, str], None], given_up: Callable[[], bool]
    ) -> None:
        self._host = host
        self._config = config
        self._on_broken = on_broken
        self._given_up = given_up
        self._log = get_logger()
        self._serving: set[str] = set()
        self._probed: queue.SimpleQueue[tuple[Found, Probed]] = queue.SimpleQueue()
        self._probing: threading.Thread | None = None

    def start(self, plugin: Found) -> None:
        """Call the ``services`` of a plugin, once; only here and only for it is a plugin imported into the host."""
        if plugin.name in self._serving or self._given_up():
            return
        self._serving.add(plugin.name)
        manager = new_plugin_manager()
        try:
            register(manager, load_plugin(plugin, self._config.plugins.get(plugin.name, {}))[0], plugin.name)
        except PluginError as error:
            self._on_broken(plugin, str(error))
        notify(manager, "services", self._log, host=self._host)

    @property
    def are_probed(self) -> bool:
        """Whether a probe is under way, so that there may be services to come."""
        return self._probing is not None

    def probe(self, plugins: Sequence[Found], known: Mapping[str, Probed]) -> None:
        """Learn about packages that are not known yet, while the workers start; ``hear`` starts what they have."""
        unknown = [one for one in plugins if one.name not in known]
        for one in plugins:
            if one.name in known:
                self._probed.put((one, known[one.name]))
        if not plugins:
            return

        def learn() -> None:
            asked = [(PLUGINS, one.name) for one in unknown]
            probed = probe(self._config.path, asked, given_up=self._given_up)
            for one in unknown:
                if one.name in probed:
                    self._probed.put((one, probed[one.name]))

        self._probing = threading.Thread(target=learn, name="axe probe", daemon=True)
        self._probing.start()

    def hear(self) -> None:
        """Act on what the probe has learned, once it is through."""
        if self._probing is None or self._probing.is_alive():
            return
        self._probing = None
        while not self._probed.empty():
            plugin, probed = self._probed.get()
            if probed.reason is not None:
                self._on_broken(plugin, probed.reason)
            elif "services" in probed.hooks:
                self.start(plugin)

    def join(self) -> None:
        """Wait until the probe has given up, and its processes are gone."""
        if self._probing is not None:
            self._probing.join()
