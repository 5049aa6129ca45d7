"""A scenario under way: what it works with, what it has injected, and what it has measured."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests import oracle
from tests.services.kafka import KafkaBroker, open_kafka
from tests.services.postgresql import PostgresqlServer, open_postgresql
from tests.services.proxy import Proxy

from .running import AxeRun, Feed, wait_until


class Services:
    """The servers of all scenarios, each started when first asked for."""

    def __init__(self) -> None:
        self._kafka: KafkaBroker | None = None
        self._postgresql: PostgresqlServer | None = None

    @property
    def kafka(self) -> KafkaBroker:
        """The broker."""
        self._kafka = self._kafka or open_kafka()
        return self._kafka

    @property
    def postgresql(self) -> PostgresqlServer:
        """The database server."""
        self._postgresql = self._postgresql or open_postgresql()
        return self._postgresql

    def close(self) -> None:
        """Stop them."""
        for service in (self._kafka, self._postgresql):
            if service is not None:
                service.close()


class Trial:
    """What a scenario is given; everything it opens through this is closed at its end."""

    def __init__(
        self, services: Services, folder: Path, *, times: int, seed: int, on_fault: Callable[[int], None] | None = None
    ) -> None:
        self.times = times
        self.chance = random.Random(seed)
        self.folder = folder
        self.faults = 0
        self.events = 0
        self.recoveries_s: list[float] = []
        self.notes: list[str] = []
        self.stack = ExitStack()
        self._services = services
        self._on_fault = on_fault

    @property
    def kafka(self) -> KafkaBroker:
        """The broker, shared with other scenarios."""
        return self._services.kafka

    @property
    def postgresql(self) -> PostgresqlServer:
        """The database server, shared with other scenarios."""
        return self._services.postgresql

    def feed(self, count: int, **options: Any) -> Feed:
        """Make a topic with so many events in each partition; as a context manager the feed goes on."""
        topic = f"faults-{uuid.uuid4().hex[:12]}"
        self.kafka.create_topic(topic, 2)
        feed = Feed(self.kafka, topic, **options)
        feed.produce(count)
        return feed

    def axe(self, feed: Feed, *, name: str = "axe", brokers: str | None = None, **options: Any) -> AxeRun:
        """Make an `axe run` of the oracle on a feed."""
        run = AxeRun(self.folder / name, f"kafka://{brokers or self.kafka.bootstrap}", feed.topic, **options)
        self.stack.callback(run.close)
        return run

    def proxy(self, target: tuple[str, int] | str, port: int = 0) -> Proxy:
        """Put a proxy before a service."""
        proxy = Proxy(target, port)
        self.stack.callback(proxy.close)
        return proxy

    def fault(self) -> None:
        """Count a fault."""
        self.faults += 1
        if self._on_fault is not None:
            self._on_fault(self.faults)

    @contextmanager
    def recovery(self, run: AxeRun, goal: Callable[[], int] | None = None) -> Iterator[None]:
        """Measure from here to the end of the block, where the run has to commit past where it was, or to a goal."""
        since, before = time.monotonic(), run.position()
        wanted = before + 1 if goal is None else goal()
        yield
        wait_until(lambda: run.position() >= wanted, 60, f"not caught up after 60 s: {run.position()} of {wanted}")
        self.recoveries_s.append(time.monotonic() - since)

    def judge(self, location: str | Path, events: oracle.Input, **options: Any) -> oracle.Judgement:
        """Let the oracle look."""
        judged = oracle.verify(location, events, **options)
        if options.get("complete", True):
            self.events += judged.events
        return judged


def quantile(values: list[float], share: float) -> float:
    """Return the smallest value that so many are not above."""
    ordered = sorted(values)
    return ordered[max(0, -(-round(share * 100) * len(ordered) // 100) - 1)]
