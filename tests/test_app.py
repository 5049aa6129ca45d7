"""App as a caller meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

import axe


def test_a_database_that_is_gone_does_not_read_as_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "studies.jsonl").write_text("1\n2\n")
    app = axe.App({"source": f"file:{tmp_path}", "state": f"sqlite:{tmp_path / 'state'}"})
    counter = app.processors.add(id="counter", topic="studies", handler=lambda event, state: None)
    assert (counter.offset, dict(counter.state)) == (0, {})
    app.start(until_end=True)
    (tmp_path / "state" / "counter.db").unlink()

    with pytest.raises(axe.StoreMissing, match="existed and is gone"):
        _ = counter.offset
