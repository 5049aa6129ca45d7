"""Commands of others: the ``commands(cli)`` hook of packages under ``axe.plugins``."""

from __future__ import annotations

import sys
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

_GROUP = "axe.plugins"


def add_commands(app: typer.Typer, given: list[str]) -> None:
    """Let every installed package of ``axe.plugins`` add its commands; a broken one only warns.

    Our own commands do without: nobody else's code runs for ``axe status``. Only the help of
    everything and the names that we do not know ask the packages.
    """
    ours = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    words = _command_words(given)
    if (words and words[0] in ours) or not _any_installed():
        return
    from ..config import load as load_config
    from ..errors import AxeError

    try:
        config = load_config(_config_path(given))
        from ..discovery import FoundStatus, discover, instantiate, load

        found = discover(config).plugins
    except AxeError as error:
        # `axe --help` works without a configuration; which packages are allowed, only that tells.
        _warn(f"commands of plugins are left out: {error}") if words else None
        return
    for entry in found:
        if entry.status is not FoundStatus.FOUND:
            continue
        try:
            plugin: Any = instantiate(load(entry), config.plugins.get(entry.name, {}), entry)
            if hasattr(plugin, "commands"):
                plugin.commands(app)
        except AxeError as error:
            _warn(str(error))
        except Exception as error:  # noqa: BLE001 - the plugin boundary
            _warn(f"{entry} cannot add its commands: {type(error).__name__}: {error}")


def _any_installed() -> bool:
    return any(_GROUP in (_entry_points(one) or "") for one in distributions())


def _entry_points(distribution: Any) -> str | None:
    try:
        text: str | None = distribution.read_text("entry_points.txt")
    except UnicodeDecodeError:
        return None
    return text


def _config_path(given: list[str]) -> str | None:
    for index, word in enumerate(given):
        if word == "--config":
            return given[index + 1] if index + 1 < len(given) else None
        if word.startswith("--config="):
            return word.partition("=")[2]
    return None


def _command_words(given: list[str]) -> list[str]:
    path = _config_path(given)
    return [word for word in given if not word.startswith("-") and word != path]


def _warn(message: str) -> None:
    print(f"axe: warning: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
