"""The servers of the whole run, lent to scenarios."""

from __future__ import annotations

import pytest

from tests.services.kafka import KafkaBroker
from tests.services.postgresql import PostgresqlServer

from .trial import Services


class Lent(Services):
    """Servers that others use as well: found when asked for, and not closed here."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__()
        self._request = request

    @property
    def kafka(self) -> KafkaBroker:
        """The broker of the session."""
        broker: KafkaBroker = self._request.getfixturevalue("kafka")
        return broker

    @property
    def postgresql(self) -> PostgresqlServer:
        """The server of the session."""
        server: PostgresqlServer = self._request.getfixturevalue("postgresql")
        return server


@pytest.fixture
def lent(request: pytest.FixtureRequest) -> Lent:
    """The servers of the session, started when first asked for."""
    return Lent(request)
