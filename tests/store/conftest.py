"""The stores that the tests of this folder run against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .kind import Kind


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    url = "sqlite:state" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    made = Kind(request.param, url, tmp_path)
    yield made
    made.close()
