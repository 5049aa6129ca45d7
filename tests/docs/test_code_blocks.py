from __future__ import annotations

import json
import re
import shlex
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest

import axe
from axe import config

from .pages import ROOT, Block, blocks, labelled


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_python_block_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec", dont_inherit=True)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_a_json_block_is_json_or_a_document_a_line(block: Block) -> None:
    try:
        json.loads(block.text)
    except ValueError:
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_toml_block_is_toml(block: Block) -> None:
    tomllib.loads(block.text)


def _configurations() -> list[Block]:
    return [block for block in blocks("toml") if "source" in tomllib.loads(block.text)]


@pytest.mark.parametrize("block", _configurations(), ids=str)
def test_an_axe_toml_block_is_a_configuration(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r'env = "(\w+)"', block.text):
        monkeypatch.setenv(name, "postgresql+psycopg://axe@localhost/axe")
    (tmp_path / "axe.toml").write_text(block.text)

    config.load(tmp_path / "axe.toml")


@pytest.mark.parametrize(
    "block", [block for block in blocks("toml") if "source" not in tomllib.loads(block.text)], ids=str
)
def test_any_other_toml_block_is_of_a_pyproject_or_fits_into_an_axe_toml(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tomllib.loads(block.text)
    for name in re.findall(r'env = "(\w+)"', block.text):
        monkeypatch.setenv(name, "secret")

    if "project" in table:
        assert set(table["project"]["entry-points"]) <= {"axe.processors", "axe.plugins"}
    else:
        config.load({"source": "memory:", "state": "memory:", **table})


def _namespace(block: Block) -> dict[str, Any]:
    module = types.ModuleType("docs")
    exec(compile(block.text, str(block), "exec", dont_inherit=True), vars(module))  # our own page
    return vars(module)


def test_the_handler_of_the_readme_counts_what_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("topics").mkdir()
    for line in labelled("events").text.splitlines():
        words = shlex.split(line.removeprefix("$ "))
        if words[0] == "echo":
            with Path(words[3]).open("a") as file:
                file.write(words[1] + "\n")
    Path("axe.toml").write_text(labelled("axe.toml").text)
    app = axe.App("axe.toml")
    counter = app.processors.add(id="visit-counter", handler=_namespace(labelled("handler"))["VisitCounter"])
    rejected: list[axe.Rejection] = []
    app.on_reject(rejected.append)

    app.start(until_end=True)

    assert dict(counter.state) == {"/home": 2, "/about": 1}
    assert [rejection.reason for rejection in rejected] == ["a visit without a page"]
    assert Path("state/visit-counter.db").exists()


def test_the_tests_of_the_how_to_page_pass(tmp_path: Path) -> None:
    kit, alone, files, reporter = (block for block in blocks("python") if block.page.name == "test-a-processor.md")

    _namespace(kit)["test_a_study_is_counted"]()
    _namespace(alone)["test_a_handler_by_itself"]()
    _namespace(files)["test_studies_are_counted_by_phase"](tmp_path)
    _namespace(reporter)["test_a_page_says_where_and_nothing_of_the_payload"]()


def test_the_tutorial_stops_at_the_event_that_it_says(tmp_path: Path) -> None:
    page = ROOT / "docs/tutorial.md"
    handler = next(block for block in blocks("python") if block.page == page)
    events = next(block for block in blocks("json") if block.page == page)
    (tmp_path / "studies.jsonl").write_text(events.text)
    settings = {"processors": {"studies": {"backoff_s": [0, 0]}}}
    app = axe.App({"source": f"file:{tmp_path}", "state": f"sqlite:{tmp_path / 'state'}", **settings})
    studies = app.processors.add(id="studies", handler=_namespace(handler)["Studies"])
    failures: list[axe.Failure] = []
    app.on_error(failures.append)

    app.start(until_end=True)

    assert studies.offset == 1
    assert [failure.decision for failure in failures] == [axe.Decision.RETRY, axe.Decision.STOP]


def test_the_python_blocks_that_need_no_files_run() -> None:
    for block in blocks("python"):
        if block.page.parent.name in ("how-to", "docs") and "from studies" not in block.text and "import" in block.text:
            _namespace(block)


def test_the_two_commands_stand_in_the_readme() -> None:
    (first, second) = (
        block.text.strip() for block in blocks("console") if block.page.name == "README.md" and "-m venv" in block.text
    )

    assert "./plugins/axe-studies" in first
    assert first.endswith("state study-counter")
    assert f"test_command='{second}'" in (ROOT / ".ci/run").read_text()
