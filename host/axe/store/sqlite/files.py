"""What the operating system refuses about the files of a state folder: trouble to wait out, not a failure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ...errors import StoreUnavailable

_LOCAL_DISK = "let `state` name a folder on a local disk"
_WHAT_TO_DO = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EACCES: "mend its permissions, or set `state`",
    errno.EPERM: "mend its permissions, or set `state`",
    errno.EISDIR: "move that folder away",
    # What network file systems say about flock.
    errno.ENOLCK: _LOCAL_DISK,
    errno.ENOTSUP: _LOCAL_DISK,
}


def unavailable(path: Path, error: OSError) -> StoreUnavailable:
    """Say what is refused about a file, and what to do."""
    what_to_do = _WHAT_TO_DO.get(error.errno or 0, "see to the disk and the permissions")
    return StoreUnavailable(f"{path} cannot be used: {error.strerror or error}; {what_to_do}")


def make_folder(folder: Path) -> None:
    """Make a folder, for its owner only.

    Raises:
        StoreUnavailable: it cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied", str(folder))
    except OSError as error:
        message = f"the state folder {folder} cannot be used: {error.strerror}; set `state` or its permissions"
        raise StoreUnavailable(message) from error
