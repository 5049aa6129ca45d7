"""What a runner is made of: the parts of one processor, put together from its settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from .adoption import Adoption
from .batch import Batches
from .config import Config
from .deaths import Deaths
from .dispatch import Dispatcher
from .event import RECORD_FORM
from .failpoints import failpoint
from .flood import Flood
from .log import get_logger
from .order import KeyOrder
from .outage import Outage
from .presence import Presence
from .processor import Processor, Status
from .reading import Reading
from .relay import Relay, open_topic
from .retention import Retention
from .retries import Retries
from .sources import Source
from .store import Store
from .trial import Trial
from .turns import Turn
from .upkeep import Chore, Upkeep


class Parts:
    """Those of one runner, each used by its thread alone.

    Raises:
        ConfigError: its dead letters cannot go to the topic that its settings name.
    """

    def __init__(  # noqa: PLR0913 # what they are made of, by name
        self,
        processor: Processor,
        store: Store,
        source: Source,
        config: Config,
        *,
        alone: bool = True,
        turn: Turn | None = None,
        on_status: Callable[[Status, str | None], None] | None = None,
    ) -> None:
        name = processor.name
        self.processor, self.store, self.source = processor, store, source
        self.settings, self.wait_s = config.processor(name), config.host.wait_s
        self.log = log = get_logger(processor=name)
        # A source of a plugin may hold its records as they are.
        form = getattr(source, "form", RECORD_FORM)
        self.reading = Reading(source, form)
        self.trial = Trial(processor, self.settings, log)
        self.presence = Presence(store, log, alone=alone, on_status=on_status)
        worker = self.presence.worker
        self.adoption = Adoption(processor, self.settings, log, store=store, source=source, worker=worker)
        self.deaths = Deaths(store, self.settings.batch, worker, alone=None if turn is None else turn.alone)
        self.batches = Batches(
            processor,
            self.settings.batch,
            log,
            store=store,
            reading=self.reading,
            dispatcher=Dispatcher(processor, config, form),
            trial=self.trial,
            deaths=self.deaths,
            flood=Flood(self.settings.flood),
            order=KeyOrder() if self.settings.order == "key" else None,
            worker=worker,
        )
        self.relay = self._made_relay(alone=alone)
        self.upkeep = Upkeep(
            processor,
            log,
            store=store,
            source=source,
            reading=self.reading,
            batches=self.batches,
            chores=self._chores(),
        )
        self.retries = Retries(
            processor, log, store=store, reading=self.reading, batches=self.batches, deaths=self.deaths
        )
        self.outage = Outage(log)
        self.turn: AbstractContextManager[None] = turn or nullcontext()

    def _made_relay(self, *, alone: bool) -> Relay | None:
        name = self.processor.name
        opened = open_topic(name, self.settings.dead_letters.topic, self.processor.types, self.source)
        if opened is None:
            return None
        return Relay(name, opened, self.log, store=self.store, batches=self.batches, alone=alone)

    def _chores(self) -> list[Chore]:
        letters, chores = self.settings.dead_letters, list[Chore]()
        if self.relay is not None:
            chores.append(self.relay)
        if letters.days is not None or letters.rows is not None:
            worker = self.presence.worker
            chores.append(Retention(letters, self.log, store=self.store, reading=self.reading, worker=worker))
        return chores

    def let_go(self) -> None:
        """Hold no positions any more, nor anything that goes with them: they are adopted anew, if at all."""
        failpoint("in_revoke")
        self.reading.let_go()
        self.trial.end()
        self.batches.let_go()
