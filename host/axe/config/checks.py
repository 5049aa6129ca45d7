"""What any table of a configuration must be, and how it is said that one is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .model import NAME
from .wording import did_you_mean, join, kind_of

_TOO_LONG_TO_SHOW = 10**18


class Checks:
    """Those of one configuration; ``where`` is what its errors begin with."""

    def __init__(self, where: str) -> None:
        self.where = where

    def error(self, path: str, problem: str) -> ConfigError:
        """Say what is wrong with the setting at a path."""
        return ConfigError(f"{self.where}: {path}: {problem}")

    def wrong_type(self, path: str, expected: str, found: object) -> ConfigError:
        """Say what was expected, and of what kind is what stands there: a secret, perhaps, and so never the value."""
        got = kind_of(found)
        if isinstance(found, int | float) and not isinstance(found, bool) and "number" in expected:
            got = str(found) if isinstance(found, float) or abs(found) < _TOO_LONG_TO_SHOW else "a larger one"
        elif isinstance(found, str) and '"' in expected:
            got = "another text"
        return self.error(path, f"expected {expected}, got {got}")

    def check_name(self, path: str, name: str, *, shown: bool = True) -> None:
        """Refuse what is no name of a processor or plugin; without ``shown`` the path does not have it."""
        if not NAME.match(name):
            what = "is no name" if shown else "expected a name"
            raise self.error(path, f"{what}: a small letter, then at most 62 of a-z, 0-9, '_' and '-'")

    def refuse_unknown_keys(self, path: str, table: Mapping[str, Any], known: tuple[str, ...] | list[str]) -> None:
        """Refuse a key that is no setting, and advise the nearest that is."""
        for key in self.table(path, table):
            if key not in known:
                advice = did_you_mean(key, known, f"known are {', '.join(known)}")
                raise self.error(join(path, key), f"unknown setting; {advice}")

    def table(self, path: str, value: object) -> dict[str, Any]:
        """Return a table whose keys are text, and refuse anything else."""
        if not isinstance(value, Mapping):
            raise self.wrong_type(path, "a table", value)
        for key in value:
            if not isinstance(key, str):
                raise self.error(path or "the top level", "has a key that is no text")
        return dict(value)
