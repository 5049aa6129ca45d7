"""``axe run``: the host, with its progress and its result."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..stages import STAGES
from .processors import plugins_table
from .session import Session, clean, console, table

if TYPE_CHECKING:
    from ..host import HostResult

Rows = list[dict[str, Any]]

_RATE_OVER_S = 5.0


def run(
    ctx: typer.Context,
    *,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop once every processor has read what was there at the start.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run only this processor; may be given several times.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show at the end where the time of each processor went, by stage.")
    ] = False,
) -> int:
    """Run the installed processors until stopped.

    Ctrl-C or SIGTERM lets each finish its batch, a second one ends them at once. After SIGHUP it starts anew, with
    what has been installed since.
    """
    session: Session = ctx.obj
    session.guard_stdout()

    # Two processes import the libraries, and this way at the same time.
    from ..fork_server import start_fork_server

    start_fork_server()
    from ..host import Host

    names = _runnable(session, only or [])
    with _progress(session, shown=until_end) as on_progress:
        host = Host(
            session.config, only=names or None, until_end=until_end, on_progress=on_progress, debug=session.debug
        )
        result = host.run()
    _show(session, result, profile=profile)
    return result.exit_code


def _show(session: Session, result: HostResult, *, profile: bool) -> None:
    """Show how the run ended: each processor, each plugin that was left out, and why."""
    columns = ("name", "status", "events", "rejections", "database")
    lines = [[row[column] for column in columns] for row in result.processors]
    tables = [table(("processor", "status", "#events", "#rejections", "database"), lines)]
    if profile:
        tables.append(_stages_table(result.processors))
    if result.plugins:
        tables.append(plugins_table(result.plugins))
    session.show({"processors": result.processors, "plugins": result.plugins}, *tables)
    for row in result.processors:
        # Of a broken one the log has told when it was found.
        if row["reason"] and row["status"] != "broken" and not session.json:
            session.warn(f"{row['name']} {row['status']}: {row['reason']}")


def _stages_table(rows: Rows) -> Any:
    """Show the microseconds of each stage for an event, and how large a part the handler has."""
    lines = []
    for row in rows:
        if (spent := row["stages"]) is not None:
            together = sum(spent.values())
            each = [f"{us:,.2f}" for us in (*spent.values(), together)]
            lines.append([row["name"], *each, f"{spent['dispatch'] / together:.0%}"])
    return table(("µs an event", *(f"#{stage}" for stage in STAGES), "#together", "#handler"), lines)


def _runnable(session: Session, only: list[str]) -> tuple[str, ...]:
    """Check that there is something to run, and the names of ``--only``."""
    from ..discovery import FoundStatus

    installed = session.installed()
    require_installed(session)
    if not set(only) <= set(installed):
        # Only then are databases asked for: a server that is away is for the workers to wait for.
        session.require_known(only)
    for name in only:
        if name not in installed:
            message = f"{name} has a database, but is not installed; install its distribution to run it"
            raise ConfigError(message)
        if installed[name].status is FoundStatus.BLOCKED:
            message = f"{name} is blocked: {installed[name].reason}"
            raise ConfigError(message)
    if all(found.status is FoundStatus.BLOCKED for found in installed.values()):
        message = "every installed processor is blocked: `axe processors` says by what"
        raise ConfigError(message)
    return tuple(dict.fromkeys(only))


def require_installed(session: Session) -> None:
    """Refuse to go on where no processor is installed."""
    if not session.installed():
        message = f"no processor is installed for {sys.executable}: pip install a package that has one"
        raise ConfigError(message)


@contextmanager
def _progress(session: Session, *, shown: bool) -> Iterator[Callable[[Rows], None] | None]:
    """Show bars on stderr for a ``with`` block, where it is a terminal."""
    if not shown or session.json or not sys.stderr.isatty():
        yield None
        return
    from rich import progress
    from rich.text import Text

    bars = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[said]}", markup=False),
        console=console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
    tasks: dict[str, progress.TaskID] = {}
    paces: dict[str, Pace] = {}

    def update(rows: Rows) -> None:
        for row in rows:
            name, events, lag = row["name"], row["events"], row["lag"]
            if name not in tasks:
                tasks[name] = bars.add_task(Text(clean(name)).plain, total=None, said="")
                paces[name] = Pace()
            total = None if lag is None else max(events + lag, 1)
            done = 1 if total == 1 and lag == 0 else events
            bars.update(tasks[name], total=total, completed=done, said=paces[name].said(events, lag))

    with bars:
        yield update


class Pace:
    """How far one processor is and how fast it goes, in words."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._events = _Meter(clock)
        self._read = _Meter(clock)

    def said(self, events: int, lag: int | None) -> str:
        """Say it: events, rate, and where the end is known lag and time left."""
        words = f"{events:,} events  {self._events.rate(events):,.0f}/s"
        if lag is None:
            return words
        # The lag also shrinks by what is no event of this processor, and the end stands still.
        return f"{words}  lag {lag:,}{_time_left(lag, self._read.rate(-lag))}"


class _Meter:
    """How fast a count grows: its rate over the last seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, count: int) -> float:
        """Note a count, and return by how much it has grown per second."""
        now = self._clock()
        self._seen.append((now, count))
        # The oldest one that is kept is at least so old, once there are any.
        while len(self._seen) > 1 and self._seen[1][0] <= now - _RATE_OVER_S:
            self._seen.popleft()
        since, before = self._seen[0]
        return (count - before) / (now - since) if now > since else 0.0


def _time_left(lag: int, rate: float) -> str:
    if not lag or rate <= 0:
        return ""
    minutes, seconds = divmod(round(lag / rate), 60)
    hours, minutes = divmod(minutes, 60)
    return f"  {hours}:{minutes:02}:{seconds:02} left"
