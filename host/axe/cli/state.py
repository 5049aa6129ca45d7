"""``axe state``: the values of a processor."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..errors import AxeError
from .session import Session, table


def state(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The processor.")],
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Only the value of this key.")] = None,
) -> None:
    """Show the values of a processor.

    They are as they are committed now, and the worker is not disturbed.

    With --json: an object of all values, or the value of KEY alone.
    """
    from ..config import did_you_mean

    session: Session = ctx.obj
    (name,) = session.require_known([name])
    with session.store(name) as store:
        values = {} if store is None else store.values(key)
        if key is not None and key not in values:
            there = [] if store is None else list(store.values())
            advice = did_you_mean(key, there, f"`axe state {name}` lists what it has")
            message = f"{name} has no value {key}; {advice}"
            raise AxeError(message)
    rows = [(found, json.dumps(value, ensure_ascii=False)) for found, value in values.items()]
    session.show(values if key is None else values[key], table(("key", "value"), rows))
