"""Putting the parts together from the configuration: sources, processors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .config import Config
from .discovery import Found, FoundStatus, discover, instantiate, load
from .errors import PluginError
from .hooks import first_answer
from .log import get_logger
from .places import Places
from .processor import Processor
from .sources import Source, is_built_in, open_source
from .sources.member import Convoys
from .telling import told
from .turns import Turn, Turns


class Neighbours:
    """What the processors of one process share: one reading of their topics, and turns. One alone shares nothing."""

    def __init__(self, processors: int) -> None:
        self.convoys = Convoys() if processors > 1 else None
        self._turns = Turns() if processors > 1 else None

    def turn(self) -> Turn | None:
        """Make the turn of one of them."""
        return None if self._turns is None else Turn(self._turns)


def source(
    config: Config, name: str, places: Places, processor: Processor | None = None, neighbours: Neighbours | None = None
) -> Source:
    """Open a source for a processor, by a plugin's hook or one of the built-in ones.

    With ``neighbours`` it reads together with those among them that have the same topics.
    """
    opened: Source | None = None
    if processor is not None:
        opened = first_answer(processor.hooks, "open_source", config.plugins, url=config.source)
    if opened is None and not is_built_in(config.source):
        opened = places.openers.ask("open_source", config.source)
    if opened is not None:
        return opened
    group = config.processor(name).group or f"axe.{places.of(name).name}.{name}"
    opened = open_source(config.source, group=group, properties=config.kafka, client_id=f"axe-{name}", base=config.base)
    if processor is None or neighbours is None or neighbours.convoys is None:
        return opened
    road = (frozenset(processor.types), config.processor(name).batch.bytes)
    return neighbours.convoys.member(opened, road, processor.events_as)


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
        said = str(error) if isinstance(error, PluginError) else told(error)
        message = said if found is None else f"{found} cannot run: {said}"
        raise PluginError(message) from error


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
