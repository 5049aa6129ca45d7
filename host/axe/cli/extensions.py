"""Commands of others: the ``commands(cli)`` hook of packages under ``axe.plugins``."""

from __future__ import annotations

import sys
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    from ..config import Config
    from ..discovery import Found

_GROUP = "axe.plugins"
_LIMIT_S = 5.0


def add_commands(app: typer.Typer, given: list[str]) -> None:
    """Let every installed package of ``axe.plugins`` add its commands; a broken one only warns.

    Our own commands do without: nobody else's code runs for ``axe status``. Only the help of
    everything and the names that we do not know ask the packages, and a probe first: one that
    ends its process, or does not end, must not take the help with it.
    """
    ours = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    words = _command_words(given)
    is_ours = words[0] in ours if words else "--version" in given
    if is_ours or not _any_installed():
        return
    from ..config import load as load_config
    from ..errors import AxeError

    try:
        config = load_config(_config_path(given))
        from ..discovery import FoundStatus, discover
        from ..probe import import_limit_s, probe

        limit_s = min(_LIMIT_S, import_limit_s())
        found = [one for one in discover(config).plugins if one.status is FoundStatus.FOUND]
    except AxeError as error:
        # `axe --help` works without a configuration; which packages are allowed, only that tells.
        _warn(f"commands of plugins are left out: {error}") if words else None
        return
    probed = probe(config.path, [(_GROUP, one.name) for one in found], limit_s=limit_s)
    for entry in found:
        reason = probed[entry.name].reason
        if reason is not None:
            _warn(reason if reason.startswith(str(entry)) else f"{entry}: {reason}")
        elif "commands" in probed[entry.name].hooks:
            _add_commands_of(entry, config, app)


def _add_commands_of(entry: Found, config: Config, app: typer.Typer) -> None:
    from ..discovery import load_plugin
    from ..errors import AxeError

    try:
        plugin: Any = load_plugin(entry, config.plugins.get(entry.name, {}))[0]
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
