"""The command ``axe``: one file for each group of commands, errors told in one line.

Libraries that take long to import are imported inside the commands: ``axe --help`` does without them.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..errors import AxeError, ConfigError
from . import check, history, hold, processors, rejections, reset, run, state, status, undo
from .session import EPILOG, Session, Unread

_WITH_VALUE = ("--config",)
_FLAGS = ("--json", "--debug")
_INTERRUPTED = 130
_PIPE_CLOSED = 141

app = typer.Typer(
    name="axe",
    help="A host for event processors: state out of Kafka, every event exactly once.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: rich would take as long to import as everything else together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(ctx: typer.Context, asked: bool) -> None:
    if not asked:
        return
    from .. import __version__

    session: Session = ctx.obj
    # Told already: it is eager, too, and stands in front.
    session.json = ctx.params.get("json", False)
    session.show({"version": __version__}, f"axe {__version__}")
    raise typer.Exit


@app.callback()
def _everywhere(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The configuration; else AXE_CONFIG, else axe.toml here.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", is_eager=True, help="Print one JSON document on stdout, and nothing else.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug lines.")] = False,
    version: Annotated[  # noqa: ARG001 # its callback does it
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version of axe.")
    ] = False,
) -> None:
    session: Session = ctx.obj
    session.config_path, session.json, session.debug = config, json, debug


for _command, _name in (
    (run.run, "run"),
    (processors.processors, "processors"),
    (check.check, "check"),
    (status.status, "status"),
    (reset.reset, "reset"),
    (hold.pause, "pause"),
    (hold.resume, "resume"),
    (state.state, "state"),
    (history.history, "history"),
    (undo.undo, "undo"),
):
    app.command(_name, epilog=EPILOG)(_command)
app.add_typer(rejections.app, name="rejections", epilog=EPILOG)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit: 0 fine, 1 the work failed, 2 wrong usage or configuration."""
    given = hoisted(sys.argv[1:] if arguments is None else arguments)
    session = Session(debug="--debug" in given)
    code = 1
    try:
        try:
            code = _run(given, session)
            sys.stdout.flush()
        finally:
            session.close()
    except AxeError as error:
        code = _tell(str(error), session, code=2 if isinstance(error, ConfigError) else 1)
    except (KeyboardInterrupt, EOFError):
        code = _INTERRUPTED
    except (Unread, BrokenPipeError):
        code = _silence()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        closed = error.errno == errno.EPIPE
        code = _silence() if closed else _tell(f"{where}{error.strerror or error}", session)
    except Exception as error:  # noqa: BLE001 - the outermost place: no traceback without --debug
        code = _tell_unexpected(error, session, given)
    sys.exit(code)


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Move the options that every command knows to the front, where they are declared once."""
    front: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return [*front, *rest, word, *waiting]
        if word in _FLAGS or word.startswith(tuple(f"{option}=" for option in _WITH_VALUE)):
            front.append(word)
        elif word in _WITH_VALUE and not waiting:
            # Alone, that it is what is wrong; in front of a command it would take that for its value.
            return [word]
        elif word in _WITH_VALUE:
            front += [word, waiting.pop(0)]
        else:
            rest.append(word)
    return [*front, *rest]


def _run(given: list[str], session: Session) -> int:
    from .extensions import add_commands

    add_commands(app, given)
    result = app(given, prog_name="axe", standalone_mode=False, obj=session)
    return result if isinstance(result, int) else 0


def _tell(message: str, session: Session, *, code: int = 1) -> int:
    """Print an error as one line, with its traceback below ``--debug``."""
    if session.debug:
        traceback.print_exc()
    print(f"axe: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return code


def _tell_unexpected(error: Exception, session: Session, given: list[str]) -> int:
    if type(error).__name__ == "Abort":
        return _INTERRUPTED
    # typer's own errors: since 0.2x their classes are private, what they offer is not.
    said: Any = getattr(error, "format_message", None)
    if said is None:
        return _tell(f"unexpected {type(error).__name__}: {error}; --debug shows where", session)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(said(), file=sys.stderr)  # noqa: T201
        return 2
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else _path(given)
    message = said().rstrip(".")
    message += f"{' See' if message.endswith('?') else '; see'} {path} --help"
    return _tell(message[:1].lower() + message[1:], session, code=2)


def _path(given: list[str]) -> str:
    """Name the command that a command line means, where an error of its options does not tell."""
    path: list[str] = ["axe"]
    command: Any = typer.main.get_command(app)
    waiting = list(given)
    while waiting:
        word = waiting.pop(0)
        if word in _WITH_VALUE:
            del waiting[:1]
        elif (inner := getattr(command, "commands", {}).get(word)) is not None:
            path.append(word)
            command = inner
    return " ".join(path)


def _silence() -> int:
    """Keep the interpreter from complaining at its exit that nobody reads on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _PIPE_CLOSED
