from __future__ import annotations

import importlib
import re
from typing import Any

import msgspec
import pytest

import axe
from axe import config, errors
from axe.hooks import HOOK_NAMES, HostHooks, ProcessorHooks
from axe.store import tables

from .pages import ROOT

REFERENCE = ROOT / "docs/reference"
_NOT_IN_FILE = {"base", "path", "secrets"}


def _section(page: str, heading: str | None) -> str:
    text = (REFERENCE / page).read_text(encoding="utf-8")
    if heading is None:
        return text
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {heading!r}"
    return found[1]


def _settings() -> list[tuple[str, str]]:
    sections: dict[str, type[msgspec.Struct]] = {
        "The top level": config.Config,
        "`[host]`": config.HostConfig,
        "`[topics.NAME]`": config.TopicConfig,
        "`[processors.NAME]`": config.ProcessorConfig,
        "`[log]`": config.LogConfig,
    }
    found = [(heading, name) for heading, kind in sections.items() for name in kind.__struct_fields__]
    inside = {
        "batch": config.BatchConfig,
        "dead_letters": config.LettersConfig,
        "failures.NAME": config.FailureConfig,
        "flood": config.FloodConfig,
        "on_misfit": config.MisfitConfig,
    }
    for inner, kind in inside.items():
        found += [("`[processors.NAME]`", f"{inner}.{name}") for name in kind.__struct_fields__]
    return [(heading, name) for heading, name in found if name not in _NOT_IN_FILE]


@pytest.mark.parametrize(("heading", "name"), _settings())
def test_a_setting_has_a_row_in_its_table(heading: str, name: str) -> None:
    assert f"\n| `{name}` |" in _section("settings.md", heading)


def test_no_setting_is_described_that_is_none() -> None:
    known = {name for _, name in _settings()}

    described = set(re.findall(r"^\| `([^`]+)` \|", _section("settings.md", None), re.MULTILINE))

    assert described == known


@pytest.mark.parametrize("name", sorted(HOOK_NAMES))
def test_a_hook_stands_with_its_arguments(name: str) -> None:
    spec = vars(ProcessorHooks).get(name) or vars(HostHooks)[name]
    arguments = spec.__code__.co_varnames[1 : spec.__code__.co_argcount]

    assert f"| `{name}({', '.join(arguments)})` |" in _section("hooks.md", None)


@pytest.mark.parametrize("table", tables.metadata.sorted_tables, ids=str)
def test_a_table_stands_with_exactly_its_columns(table: Any) -> None:
    section = _section("tables.md", f"`{table.name}`")

    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [column.name for column in table.columns]


@pytest.mark.parametrize("name", sorted(set(axe.__all__)))
def test_a_public_name_is_described(name: str) -> None:
    assert f"\n| `{name}` |" in _section("errors.md", None)


def test_every_error_is_public_and_described() -> None:
    tree = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.AxeError)
    }

    assert tree <= set(axe.__all__)
    assert set(re.findall(r"^\| `(\w+)` \|", _section("errors.md", "Errors"), re.MULTILINE)) == tree


def _commands(group: Any, before: str = "axe") -> list[tuple[str, Any]]:
    found = []
    for name, command in group.commands.items():
        path = f"{before} {name}"
        if getattr(command, "hidden", False):
            continue
        found += _commands(command, path) if hasattr(command, "commands") else [(path, command)]
    return found


def _command_line() -> Any:
    import typer.main

    # Here and not above: the pages are checked as well where the command line cannot be imported.
    cli = importlib.import_module("axe.cli")
    app = next(value for value in vars(cli).values() if isinstance(value, typer.Typer))
    return typer.main.get_command(app)


def test_every_command_is_described() -> None:
    text = _section("commands.md", None)

    missing = [path for path, _ in _commands(_command_line()) if not re.search(rf"^\| `{path}[` ]", text, re.MULTILINE)]

    assert missing == []


def test_every_option_is_named() -> None:
    text = _section("commands.md", None)
    root = _command_line()
    options = {
        option
        for _, command in [("axe", root), *_commands(root)]
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--") and option != "--help" and not getattr(parameter, "hidden", False)
    }

    assert sorted(option for option in options if option not in text) == []


def test_no_command_is_described_that_is_none() -> None:
    described = set(re.findall(r"^\| `(axe [a-z]+(?: [a-z]+)?)", _section("commands.md", None), re.MULTILINE))

    assert described == {path for path, _ in _commands(_command_line())}
