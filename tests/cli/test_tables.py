"""Tables on a terminal that is too narrow for them."""

from __future__ import annotations

import io
import re

from rich.console import Console

from axe.cli.session import table

COLUMNS = ("processor", "status", "positions", "#lag", "#lag s", "#rejections", "worker", "last error")
ROW = ("big-processor", "running", "big[0]@200000", 1234567, 12.345, 1000000, "host-1.example.org:4242", "it died")


def test_on_80_columns_every_letter_of_every_cell_is_there() -> None:
    out = io.StringIO()

    Console(width=80, file=out).print(table(COLUMNS, [ROW]))

    lines = out.getvalue().splitlines()
    assert "\N{HORIZONTAL ELLIPSIS}" not in out.getvalue()
    assert max(map(len, lines)) <= 80
    for letter in set(re.sub(r"\s", "", "".join(map(str, (*COLUMNS, *ROW)))).replace("#", "")):
        assert out.getvalue().count(letter) == "".join(map(str, (*COLUMNS, *ROW))).count(letter)


def test_numbers_are_not_broken() -> None:
    out = io.StringIO()

    Console(width=80, file=out).print(table(COLUMNS, [ROW]))

    assert {"1234567", "12.345", "1000000"} <= set(out.getvalue().split())
