"""What plugins raise and give, in words: one line, and where it came from."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import FrameType

_OURS = str(Path(__file__).parent)
_DEEPEST = 500


def said(what: object) -> str:
    """Write what a plugin gave as a text; even that may fail."""
    try:
        return str(what)
    except BaseException:  # noqa: BLE001 # the plugin boundary
        return f"a {type(what).__name__} whose text cannot be shown"


def told(error: BaseException) -> str:
    """Write an exception with its kind, in one line."""
    text = " ".join(said(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def raised_at(error: BaseException) -> str | None:
    """Name the place in a plugin's code that an exception came through last: file, line and function.

    The last place of all where no code of a plugin was on the way; None where nothing was raised yet.
    """
    return _innermost(traceback.extract_tb(error.__traceback__, limit=_DEEPEST))


def runs_at(frame: FrameType) -> str | None:
    """Name the place that a thread is at, as ``raised_at`` does."""
    return _innermost(traceback.extract_stack(frame, limit=_DEEPEST))


def _innermost(frames: traceback.StackSummary) -> str | None:
    if not frames:
        return None
    ours = [frame.filename.startswith(_OURS) for frame in frames]
    called = frames[ours.index(True) :] if True in ours else frames
    theirs = [frame for frame in called if not frame.filename.startswith(_OURS)]
    # Not in a library that the plugin called: its author looks into the plugin first.
    place = [frame for frame in theirs if Path(frame.filename).parent == Path(theirs[0].filename).parent] or frames
    last = place[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno} in {last.name}"
