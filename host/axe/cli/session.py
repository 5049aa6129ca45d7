"""What every command works with: the configuration, what is installed, stores, the source, and the output."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AxeError, ConfigError, PluginError, SourceUnavailable

if TYPE_CHECKING:
    from ..config import Config
    from ..discovery import Discovered, Found
    from ..places import Places
    from ..plugins import Plugins
    from ..probe import Probed
    from ..sources import Source
    from ..store import Store

# Names, topics and reasons are chosen by others: none of them may write to the terminal as it likes.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_WIDE = 10_000
_NARROW = 80

EPILOG = "Everywhere, before or after the command: --config FILE, --json, --debug."
"""What the help of each command ends with."""


class Unread(Exception):
    """Nobody reads the output any more; not an OSError, which typer would make a failure of the work."""


class Session:
    """One run of the command line."""

    def __init__(self, *, debug: bool = False) -> None:
        self.config_path: Path | None = None
        self.json = False
        self.debug = debug
        self._source: Source | None = None
        self._stdout: int | None = None

    # --- what there is

    @cached_property
    def config(self) -> Config:
        """The configuration; from here on log lines go to stderr, without its secrets."""
        from ..config import load
        from ..log import configure

        config = load(self.config_path)
        configure(config.log, debug=self.debug, secrets=config.secrets)
        return config

    @cached_property
    def places(self) -> Places:
        """Where the databases are."""
        from ..places import Places

        # A URL that is not built in brings the code of a plugin into this process.
        self.guard_stdout()
        return Places(self.config, self._seen)

    def _seen(self) -> Plugins:
        from ..probe import seen

        return seen(self.usable_plugins, self.probed_plugins)

    @cached_property
    def usable_plugins(self) -> list[Found]:
        """The packages of ``axe.plugins`` that may run, as far as their metadata tells."""
        from ..discovery import FoundStatus

        return [one for one in self.discovered.plugins if one.status is FoundStatus.FOUND]

    @cached_property
    def probed_plugins(self) -> dict[str, Probed]:
        """What each of these is, by an import in a process of its own."""
        from ..discovery import PLUGINS

        return self._probe(PLUGINS, [one.name for one in self.usable_plugins])

    @cached_property
    def discovered(self) -> Discovered:
        """What is installed, by its metadata."""
        from ..discovery import discover

        return discover(self.config)

    def installed(self) -> dict[str, Found]:
        """Return the installed processors by name; of several claimants one, which says what is wrong."""
        from ..discovery import FoundStatus

        # Of a blocked and an allowed claimant the allowed one has the name.
        ordered = sorted(self.discovered.processors, key=lambda found: found.status is FoundStatus.FOUND)
        return {found.name: found for found in ordered}

    def with_database(self) -> list[str]:
        """List the processors that have, or had, a database."""
        return self.places.processors()

    def each(self, names: Iterable[str], work: Callable[[str], None]) -> list[str]:
        """Do something with each processor; return those where it failed, each with a word on stderr.

        One database that is damaged or away is no reason to leave the others out.
        """
        failed = []
        for name in names:
            try:
                work(name)
            except ConfigError:
                raise
            except AxeError as error:
                self.warn(f"{name}: {error}")
                failed.append(name)
        return failed

    def known(self) -> list[str]:
        """List every processor that is installed or has a database and whose name is possible."""
        from ..config import NAME

        return sorted({name for name in {*self.installed(), *self.with_database()} if NAME.match(name)})

    def require_known(self, names: Iterable[str]) -> list[str]:
        """Check names that somebody typed; each is returned once.

        Raises:
            ConfigError: there is no such processor; names the nearest that there is.
        """
        from ..config import did_you_mean

        known, asked = self.known(), list(dict.fromkeys(names))
        for name in asked:
            if name not in known:
                listed = f"known are {', '.join(known)}" if known else "none is installed and none has a database"
                message = f"there is no processor {ascii(name[:100])[1:-1]}; {did_you_mean(name, known, listed)}"
                raise ConfigError(message)
        return asked

    def probe(self, names: Sequence[str]) -> dict[str, Probed]:
        """Import installed processors aside, in processes of their own, and say what they are."""
        from ..discovery import PROCESSORS

        return self._probe(PROCESSORS, names)

    def _probe(self, group: str, names: Sequence[str]) -> dict[str, Probed]:
        from ..probe import probe

        return probe(self.config.path, [(group, name) for name in names])

    # --- what is opened

    def store(self, name: str, *, create: bool = False, version: int = 1) -> AbstractContextManager[Store | None]:
        """Open a store for a ``with`` block; see ``Places.opened``."""
        return self.places.opened(name, create=create, version=version)

    @property
    def source(self) -> Source:
        """The source, opened once for the whole command."""
        if self._source is None:
            from ..assembly import source

            self._source = source(self.config, "cli", self.places)
        return self._source

    def reachable_source(self) -> Source | None:
        """Return the source, or None with a word on stderr where it cannot be reached now.

        Asked once, so that not every processor waits for a broker that is away.
        """
        try:
            self.source.cluster_id()
        except (PluginError, SourceUnavailable) as error:
            self.warn(str(error))
            return None
        return self.source

    def close(self) -> None:
        """Close what was opened."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    # --- what is said

    @property
    def interactive(self) -> bool:
        """Whether there is somebody to ask."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.json

    def warn(self, message: str) -> None:
        """Say something on stderr, in one line."""
        print(f"axe: {clean(' '.join(message.split()))}", file=sys.stderr)  # noqa: T201

    def ask(self, question: str, plan: Any, *, does: str) -> None:
        """Show a plan and let somebody agree to it; ends the command where nobody does.

        Raises:
            ConfigError: nobody is there; ``does`` says what would be done.
        """
        import typer

        if not self.interactive:
            message = f"{does} and nobody is there to be asked: add --yes, or --dry-run to see the plan"
            raise ConfigError(message)
        console(stderr=True).print(plan)
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            self.warn("nothing was changed")
            raise typer.Exit(1)

    def guard_stdout(self) -> None:
        """With ``--json``, let whatever else writes to stdout (plugins, their children) write to stderr."""
        if not self.json or self._stdout is not None:
            return
        try:
            if sys.stdout.fileno() != 1:
                return
        except (OSError, ValueError):
            return
        sys.stdout.flush()
        self._stdout = os.dup(1)
        os.dup2(2, 1)

    def show(self, document: Any, *tables: Any) -> None:
        """Print the result: the document with ``--json``, else the tables."""
        if not self.json:
            for table in tables:
                made = console()
                # Below that columns of one letter would come out; the terminal breaks the lines better.
                made.width = max(made.width, _NARROW)
                with made.capture() as printed:
                    made.print(table)
                self._write(printed.get())
            return
        self._write(json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n")

    def _write(self, text: str) -> None:
        content = text.encode("utf-8", "backslashreplace")
        try:
            if self._stdout is not None:
                out, self._stdout = self._stdout, None
                with os.fdopen(out, "wb") as file:
                    file.write(content)
            elif hasattr(sys.stdout, "buffer"):
                sys.stdout.buffer.write(content)
                sys.stdout.flush()
            else:
                sys.stdout.write(text)
        except BrokenPipeError as error:
            raise Unread from error


def console(*, stderr: bool = False) -> Any:
    """Make rich's console; where nobody looks at it, lines are not broken."""
    from rich.console import Console

    plain = Console(stderr=stderr, highlight=False)
    return plain if plain.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Any:
    """Make a table; columns that begin with ``#`` hold numbers."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = column.startswith("#")
        # Folded where the terminal is narrow: half an offset would pass for a whole one.
        shown = column.removeprefix("#")
        made.add_column(shown, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        made.add_row(*(Text("-" if cell is None else clean(str(cell))) for cell in row))
    return made


def clean(text: str) -> str:
    """Show control characters instead of sending them to the terminal."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
