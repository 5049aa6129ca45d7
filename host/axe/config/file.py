"""The file of the configuration: which one it is, and what stands in it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def find_file(config: str | Path | None) -> tuple[Path, str]:
    """Return the file to read, absolute, and the variable that names it, if one does."""
    if config is not None:
        return Path(config).absolute(), ""
    if named := os.environ.get("AXE_CONFIG"):
        return Path(named).absolute(), "AXE_CONFIG"
    return Path.cwd() / "axe.toml", ""


def read_toml(path: Path, variable: str) -> dict[str, Any]:
    """Read it; ``variable`` is for the message of an error.

    Raises:
        ConfigError: it does not exist, cannot be read, or is no TOML.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text)
    except FileNotFoundError:
        where = f"{variable} names {path}, which does not exist" if variable else f"no configuration at {path}"
        advice = 'write one with the lines source = "file:FOLDER" and state = "sqlite:FOLDER"'
        message = f"{where}: {advice}, or name another with --config FILE or AXE_CONFIG"
        raise ConfigError(message) from None
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        raise ConfigError(message) from None
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: not valid TOML: {str(error).splitlines()[0]}"
        raise ConfigError(message) from None
    except RecursionError:
        message = f"{path}: nested too deeply; flatten it"
        raise ConfigError(message) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no path"
        message = f"{path}: cannot be read ({reason}); name another with --config FILE or AXE_CONFIG"
        raise ConfigError(message) from error
