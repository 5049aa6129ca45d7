"""What plugins raise and give, in words: one line, and where it came from; without the secrets of the configuration.

A plugin may put the password that it was given into what it raises, and that is stored and shown.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Collection
from pathlib import Path
from types import FrameType

_OURS = str(Path(__file__).parent)
_DEEPEST = 500
MASK = "***"
_SHORTEST_SECRET = 4
# Of every configuration that this process works with.
_secrets: set[str] = set()
_pattern: re.Pattern[str] | None = None


def keep_secret(secrets: Collection[str]) -> None:
    """Let no text that is made here show these, from now on."""
    global _pattern  # noqa: PLW0603 # what a process knows, it knows everywhere
    _secrets.update(secrets)
    # As it is, as repr() shows it, as JSON does. A shorter value would blot out ordinary words.
    forms = {
        form
        for secret in _secrets
        if len(secret) >= _SHORTEST_SECRET
        for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1])
    }
    ordered = sorted(forms, key=len, reverse=True)
    _pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None


def masked(text: str) -> str:
    """Blot out every secret that is to be kept."""
    return _pattern.sub(MASK, text) if _pattern else text


def said(what: object) -> str:
    """Write what a plugin gave as a text; even that may fail."""
    try:
        return masked(str(what))
    except BaseException:  # noqa: BLE001 # the plugin boundary
        return f"a {type(what).__name__} whose text cannot be shown"


def told(error: BaseException) -> str:
    """Write an exception with its kind, in one line."""
    text = " ".join(said(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def trace_of(error: BaseException) -> str:
    """Write the traceback of an exception."""
    return masked("".join(traceback.format_exception(error)))


def raised_at(error: BaseException) -> str | None:
    """Name the place in a plugin's code that an exception came through last: file, line and function.

    The last place of all where no code of a plugin was on the way; None where nothing was raised yet.
    """
    return _innermost(traceback.extract_tb(error.__traceback__, limit=_DEEPEST))


def runs_at(frame: FrameType) -> str | None:
    """Name the place that a thread is at, as ``raised_at`` does."""
    return _innermost(traceback.extract_stack(frame, limit=_DEEPEST))


def stack_at(frame: FrameType) -> str:
    """Name every call that a thread is in, from the plugin's first one to the innermost."""
    frames = traceback.extract_stack(frame, limit=_DEEPEST)
    return " > ".join(map(_place, _called_by_us(frames) or frames))


def _innermost(frames: traceback.StackSummary) -> str | None:
    if not frames:
        return None
    theirs = _called_by_us(frames)
    # Not in a library that the plugin called: its author looks into the plugin first.
    place = [frame for frame in theirs if Path(frame.filename).parent == Path(theirs[0].filename).parent] or frames
    return _place(place[-1])


def _called_by_us(frames: traceback.StackSummary) -> list[traceback.FrameSummary]:
    ours = [frame.filename.startswith(_OURS) for frame in frames]
    called = frames[ours.index(True) :] if True in ours else frames
    return [frame for frame in called if not frame.filename.startswith(_OURS)]


def _place(frame: traceback.FrameSummary) -> str:
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} in {frame.name}"
