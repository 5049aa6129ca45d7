"""The two processors, each handler by itself and both in an App."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, select

import axe
from axe.testing import make_event
from axe_studies import CreateStudy, StudyCounter
from axe_studies.create import studies

TOPICS = Path(__file__).parent.parent / "example" / "topics"
CREATED = {
    "type": "study_created", "id": "ST-1", "at": "2024-01-02T08:00:00Z", "title": "A or B", "phase": "II",
    "sponsor": "Harbour Trials",
}  # fmt: skip


def event(value: dict[str, Any] | None, key: bytes | None = None) -> axe.Event:
    return make_event(value, topic="studies", key=key)


def counted(*phases: str | None) -> dict[str, int]:
    state: Any = {}
    for phase in phases:
        StudyCounter().on_event(event({**CREATED, "phase": phase}), state)
    return dict(state)


def test_studies_are_counted_by_phase() -> None:
    assert counted("I", "III", "I") == {"I": 2, "III": 1}


def test_a_study_without_a_phase_is_rejected() -> None:
    with pytest.raises(axe.Reject, match="a study without a phase"):
        counted(None)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def handle(connection: Connection, *events: axe.Event) -> list[Any]:
    """Start the processor, give it events, and return the rows of its table."""
    processor, state = CreateStudy(), SimpleNamespace(connection=connection)
    processor.on_start(state)  # type: ignore[arg-type]  # only the connection of a State is used
    for one in events:
        processor.on_event(one, state)  # type: ignore[arg-type]
    return list(connection.execute(select(studies).order_by(studies.c.id)))


def test_a_created_study_becomes_a_row(connection: Connection) -> None:
    assert handle(connection, event(CREATED)) == [
        ("ST-1", "A or B", "II", "Harbour Trials", datetime(2024, 1, 2, 8), None)
    ]  # fmt: skip


def test_the_same_study_again_is_written_over(connection: Connection) -> None:
    [row] = handle(connection, event(CREATED), event({**CREATED, "title": "A or C"}))

    assert row.title == "A or C"


def test_a_closed_study_says_when(connection: Connection) -> None:
    closed = {"type": "study_closed", "id": "ST-1", "at": "2024-05-02T08:00:00Z"}

    [row] = handle(connection, event(CREATED), event({**closed, "id": "ST-2"}), event(closed))

    assert row.closed_at == datetime(2024, 5, 2, 8)


def test_a_tombstone_deletes_the_study_of_its_key(connection: Connection) -> None:
    [row] = handle(connection, event(CREATED), event({**CREATED, "id": "ST-2"}), event(None, b"ST-1"), event(None))

    assert row.id == "ST-2"


def test_starting_again_keeps_the_table(connection: Connection) -> None:
    handle(connection, event(CREATED))

    assert len(handle(connection)) == 1


def test_both_processors_read_the_example_to_its_end(tmp_path: Path) -> None:
    rejections: list[axe.Rejection] = []
    app = axe.App({"source": f"file:{TOPICS}", "state": f"sqlite:{tmp_path}"})
    app.on_reject(rejections.append)
    app.processors.add(id="study-counter", topic="studies/study_created", handler=StudyCounter())
    app.processors.add(id="create-study", topic="studies", handler=CreateStudy())

    app.start(until_end=True)

    events = [json.loads(line) for line in (TOPICS / "studies.jsonl").read_text().splitlines()]
    phases = Counter(one["phase"] for one in events if one["type"] == "study_created")
    assert phases.pop(None) == 3
    assert dict(app.processors["study-counter"].state) == phases
    assert [app.processors[name].offset for name in ("study-counter", "create-study")] == [12_000, 12_000]
    assert [rejection.reason for rejection in rejections] == ["a study without a phase"] * 3
    engine = create_engine(f"sqlite:///{tmp_path / 'create-study.db'}")
    with engine.connect() as connection:
        rows = connection.execute(select(studies)).all()
    engine.dispose()
    assert len(rows) == phases.total() + 3
    assert sum(row.closed_at is not None for row in rows) == sum(one["type"] == "study_closed" for one in events)
