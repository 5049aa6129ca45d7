"""Fixtures that every test may use: real services, started once a session and only where asked for."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from hypothesis import settings

from .services import ServiceMissing, is_required
from .services.kafka import KafkaBroker, open_kafka
from .services.postgresql import PostgresqlServer, open_postgresql
from .services.secured import SecuredKafka, open_secured_kafka

S = TypeVar("S")

# How long an example takes says something about the machine; each test has a limit of its own.
settings.register_profile("axe", deadline=None)
settings.load_profile("axe")


def _open(service: Callable[[], S]) -> S:
    try:
        return service()
    except ServiceMissing as missing:
        if is_required(missing.part):
            pytest.fail(f"AXE_TEST_REQUIRE names a missing service: {missing}", pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """A broker; tests share it and make topics of their own."""
    broker = _open(open_kafka)
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def secured_kafka() -> Iterator[SecuredKafka]:
    """A broker that wants TLS and passwords; tests share it and make topics of their own."""
    broker = _open(open_secured_kafka)
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A server; tests share it and make databases of their own."""
    server = _open(open_postgresql)
    yield server
    server.close()


@pytest.fixture
def postgresql_url(postgresql: PostgresqlServer) -> str:
    """SQLAlchemy's URL of an empty database."""
    return postgresql.create_database()


@pytest.fixture
def topic() -> str:
    """A name that no other test uses."""
    return f"topic-{uuid.uuid4().hex[:12]}"
