"""The harness proves itself: what is planted is caught, and nothing is where nothing was planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..services import ServiceMissing
from .conftest import Lent
from .ordeals import ORDEALS, caught
from .planted import BUGS


def _found(lent: Lent, folder: Path, ordeal: str, planted: str | None) -> str | None:
    try:
        return caught(ordeal, folder, planted, lambda: lent.postgresql)
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("ordeal", ORDEALS)
def test_without_a_bug_an_ordeal_brings_nothing_to_light(lent: Lent, tmp_path: Path, ordeal: str) -> None:
    assert _found(lent, tmp_path, ordeal, None) is None


@pytest.mark.parametrize(("name", "ordeal"), [(name, ordeal) for name, bug in BUGS.items() for ordeal in bug.ordeals])
def test_a_planted_bug_is_caught(lent: Lent, tmp_path: Path, name: str, ordeal: str) -> None:
    assert _found(lent, tmp_path, ordeal, name) is not None, BUGS[name].says
