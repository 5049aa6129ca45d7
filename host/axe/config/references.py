"""Secrets that stand elsewhere: `{ env = "NAME" }` and `{ file = "PATH" }` in the place of a value."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checks import Checks
from .masking import looks_secret, passwords_of
from .wording import join

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DEEPEST = 64
_LARGEST_SECRET_FILE = 1 << 20


class References(Checks):
    """Puts secrets in the place of their references, and remembers those that it saw on the way."""

    def __init__(self, where: str, base: Path) -> None:
        super().__init__(where)
        self.base = base
        self.secrets: set[str] = set()

    def settings(self, path: str, value: object) -> dict[str, Any]:
        """Resolve what stands in a table of settings; the table itself is never a reference."""
        return {key: self.resolved(join(path, key), item, key) for key, item in self.table(path, value).items()}

    def resolved(self, path: str, value: object, key: str, *, secret: bool = False, depth: int = 0) -> Any:
        """Put the secrets in the place of their references, lists and inner tables included."""
        secret = secret or looks_secret(key)
        if depth > _DEEPEST:
            raise self.error(path, "is nested too deeply; flatten it")
        if isinstance(value, Mapping):
            table = self.table(path, value)
            if len(table) == 1 and isinstance(table.get("env"), str):
                return self._remember(self._from_environment(path, table["env"]))
            if len(table) == 1 and isinstance(table.get("file"), str):
                return self._remember(self._from_file(path, table["file"]))
            return {
                inner: self.resolved(join(path, inner), item, inner, secret=secret, depth=depth + 1)
                for inner, item in table.items()
            }
        if isinstance(value, list | tuple):
            return [
                self.resolved(f"{path}[{index}]", item, key, secret=secret, depth=depth + 1)
                for index, item in enumerate(value)
            ]
        if isinstance(value, str):
            if secret:
                self._remember(value)
            else:
                self.secrets.update(passwords_of(value))
        return value

    def _remember(self, secret: str) -> str:
        self.secrets.add(secret)
        return secret

    def _from_environment(self, path: str, name: str) -> str:
        if not _VARIABLE.match(name):
            # Not shown: somebody may have written the secret itself here.
            raise self.error(path, "`env` must be the name of an environment variable")
        if name not in os.environ:
            raise self.error(path, f"the environment variable {name} is not set; set it and start again")
        return os.environ[name]

    def _from_file(self, path: str, name: str) -> str:
        try:
            with (self.base / Path(name).expanduser()).open("rb") as file:
                content = file.read(_LARGEST_SECRET_FILE + 1)
            if len(content) > _LARGEST_SECRET_FILE:
                raise self.error(path, f"the file {name!r} is larger than a secret can be")
            return content.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise self.error(path, f"the file {name!r} is not UTF-8 text") from None
        except (OSError, ValueError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no path"
            raise self.error(path, f"the file {name!r} cannot be read ({reason})") from None
