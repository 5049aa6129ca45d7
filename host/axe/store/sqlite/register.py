"""The register of a folder: which store it is, and whose databases have to be there."""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

from ...errors import StoreCorrupt, StoreFormat, StoreMissing, StoreUnavailable
from ..tables import timestamp
from . import locks
from .files import unavailable

# Of this file alone: the tables have a format of their own.
_FORMAT = 1


class Register:
    """The file ``axe-store.json``. A database that is entered here and is gone is not made anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "axe-store.json"

    def processors(self) -> list[str]:
        """List the processors that have, or had, a database here."""
        return sorted(self._read()["processors"])

    def store_id(self) -> str:
        """Return the id of this store; made when it is asked for first."""
        found = self._read()
        return str((found if "store_id" in found else self._change(None))["store_id"])

    def has(self, processor: str) -> bool:
        """Tell whether a processor has, or had, a database here."""
        return processor in self._read()["processors"]

    def add(self, processor: str) -> None:
        """Note that a processor has its database from now on."""
        if not self.has(processor):
            self._change(processor)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self._path.read_text())
        except FileNotFoundError:
            made = [path.name for path in self._folder.glob("*.db") if path.exists() and path.stat().st_size]
            if made and self._path.exists():
                # Another worker made it at this moment, and its database after it.
                return self._read()
            if made:
                message = (
                    f"{self._path} is gone, and databases lie beside it: {', '.join(sorted(made)[:5])}; restore it "
                    "from a backup, or move the databases away to begin anew from an empty state"
                )
                raise StoreMissing(message) from None
            return {"processors": {}}
        except NotADirectoryError as error:
            message = f"the state folder {self._folder} is a file, or lies below one; let `state` name a folder"
            raise StoreUnavailable(message) from error
        except OSError as error:
            raise unavailable(self._path, error) from error
        except ValueError as error:
            message = f"{self._path} cannot be read ({error}); restore it from a backup"
            raise StoreCorrupt(message) from error
        if (
            not isinstance(found, dict)
            or not isinstance(found.get("processors"), dict)
            or not isinstance(found.get("format", _FORMAT), int)
            or "store_id" not in found
        ):
            message = f"{self._path} is not what axe wrote; restore it from a backup"
            raise StoreCorrupt(message)
        if found.get("format", _FORMAT) > _FORMAT:
            message = f"{self._path} was written by a newer axe; install that version"
            raise StoreFormat(message)
        return found

    def _change(self, processor: str | None) -> dict[str, dict[str, str]]:
        # Several workers add themselves at the same moment.
        lock = locks.FileLock(self._folder / "axe-store.lock")
        aside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            lock.acquire(time.monotonic() + locks.WAIT_S)
            content: dict[str, object] = {"format": _FORMAT, "store_id": uuid.uuid4().hex, **self._read()}
            if processor is not None:
                content["processors"] = {**self._read()["processors"], processor: timestamp()}
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(content, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise unavailable(self._path, error) from error
        finally:
            lock.close()
        return self._read()
