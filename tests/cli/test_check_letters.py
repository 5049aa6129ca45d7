"""``axe check`` foretells which dead letters the next run deletes, in the very numbers, and deletes none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from axe.store.tables import timestamp

from ..services.kafka import KafkaBroker
from .conftest import COUNTER, Project

SETTINGS = "[processors.counter]\nflood = {{ share = 1 }}\ndead_letters = {{ {} }}\n"


class Letters:
    """A processor with dead letters of every age, and what there is of them outside of axe."""

    def __init__(self, project: Project, state: str, source: str = "file:data", topic: str = "studies") -> None:
        self.project, self.state, self.source, self.topic = project, state, source, topic
        project.install("counter", COUNTER.replace("studies", topic))

    def keep(self, settings: str) -> None:
        self.project.configure(SETTINGS.format(settings), state=self.state, source=self.source)

    def have(self, ages: Mapping[int, float], **more: Any) -> None:
        """Add letters of these offsets, rejected so many days ago."""
        now = datetime.now(UTC)
        letter = {"processor": "counter", "topic": self.topic, "partition": 0, "encoding": "base64", "key": None}
        letter |= {"value": "e30=", "headers": [], "timestamp": None, "reason": "no", "error": None, "attempts": 1}
        letter |= {"status": "rejected", "version": 2, **more}
        lines = [
            {**letter, "offset": n, "rejected_at": timestamp(now - timedelta(days=age))} for n, age in ages.items()
        ]
        (self.project.folder / "letters.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        self.project.json("rejections", "import", "counter", "letters.jsonl")

    def foretold(self, code: int = 0) -> list[tuple[str, str]]:
        findings = self.project.json("check", code=code)["findings"]
        return [(one["result"], one["message"]) for one in findings if one["subject"] == "dead letters of counter"]

    def left(self) -> list[int]:
        return [row["offset"] for row in self.project.json("rejections", "list", "counter")["rejections"]]

    def rows(self) -> Any:
        """Everything that a database holds: every file, or every row of every table, its system columns included."""
        if self.state.startswith("sqlite"):
            return self.project.files()
        with psycopg.connect(self.state.replace("+psycopg", "")) as connection:
            tables = connection.execute(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname LIKE 'axe%' ORDER BY 1, 2"
            ).fetchall()
            return {at: connection.execute('SELECT xmin, * FROM "{}"."{}"'.format(*at)).fetchall() for at in tables}


@pytest.fixture(params=["sqlite", "postgresql"])
def letters(request: pytest.FixtureRequest, project: Project) -> Letters:
    state = "sqlite:state" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    made = Letters(project, state)
    made.keep("")
    project.publish("studies", {})
    project.json("run", "--until-end")
    return made


@pytest.mark.parametrize(
    ("settings", "by", "left"),
    [
        ("days = 30", "3 of its dead letters are deleted: 3 by days = 30", [1, 3, 5]),
        ("rows = 2", "4 of its dead letters are deleted: 4 by rows = 2", [3, 5]),
        ("days = 30, rows = 2", "4 of its dead letters are deleted: 3 by days = 30, 1 by rows = 2", [3, 5]),
        ("days = 4.5, rows = 5", "4 of its dead letters are deleted: 4 by days = 4.5", [3, 5]),
    ],
)
def test_what_is_foretold_is_what_is_deleted(letters: Letters, settings: str, by: str, left: list[int]) -> None:
    letters.have({0: 40, 1: 5, 2: 31, 3: 4, 4: 30.5, 5: 0})
    letters.keep(settings)

    foretold = letters.foretold()
    letters.project.json("run", "--until-end")

    export = "`axe rejections export counter FILE` keeps them"
    assert foretold == [("note", f"when counter runs next, {by}; {export}")]
    assert letters.left() == left
    (trim,) = [row for row in letters.project.json("history")["history"] if row["action"] == "trim"]
    assert trim["after"] == {"deleted": int(by.partition(" ")[0])}
    assert letters.foretold() == []


def test_asking_changes_nothing(letters: Letters) -> None:
    letters.have(dict.fromkeys(range(4), 40))
    letters.keep("days = 30, rows = 2")
    before = letters.rows()

    assert letters.foretold()

    assert letters.rows() == before
    assert letters.left() == [0, 1, 2, 3]


def test_nothing_is_said_where_nothing_goes(letters: Letters) -> None:
    letters.have(dict.fromkeys(range(4), 40))

    for settings in ("", "days = 41", "rows = 4"):
        letters.keep(settings)
        assert letters.foretold() == []
    letters.project.configure(
        f"block = ['counter']\n{SETTINGS.format('rows = 1')}", state=letters.state, source=letters.source
    )
    assert letters.foretold() == []


def test_those_that_the_topic_has_not_got_are_told(project: Project, kafka: KafkaBroker, topic: str) -> None:
    out = f"{topic}-refused"
    kafka.create_topic(topic)
    kafka.create_topic(out)
    kafka.produce(topic, "{}")
    letters = Letters(project, "sqlite:state", f"kafka://{kafka.bootstrap}", topic)
    letters.keep("")
    project.json("run", "--until-end")
    letters.have({0: 40, 1: 40, 2: 1})
    letters.have({3: 40, 4: 1}, published_at=timestamp())
    letters.have({5: 40}, status="discarded")

    letters.keep(f"days = 30, topic = '{out}'")

    (there, (result, message)) = letters.foretold()
    assert there == ("ok", f"go to the topic {out}")
    assert result == "note"
    assert "4 of its dead letters are deleted: 4 by days = 30; " in message
    assert (
        f"; the topic {out} has not got 2 of these yet, and never gets what is deleted before it is sent; " in message
    )
