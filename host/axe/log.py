"""Logging: structlog on top of the standard library, to stderr, without secrets.

A logger of axe hands its lines to the standard logger ``axe``. Only the command line and the
workers call ``configure``; an ``App`` in somebody's own process leaves structlog and logging
as they are, and the lines arrive as plain text wherever that process sends its logs.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any

import structlog

from .config import LogConfig, looks_secret
from .telling import MASK, keep_secret, masked, raised_at, told

Logger = structlog.stdlib.BoundLogger

_DEEPEST = 8
_LONGEST_ERROR = 200
# No escape sequences and no second line out of a value: a topic or a plugin chose it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*):[^\s@]+@")

_handler: logging.Handler | None = None


def get_logger(**bound: Any) -> Logger:
    """Return a logger with these keys bound; usable before and without ``configure``."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger("axe"),
        # Our own chain, not the global one: that may be the caller's, and its default prints to stdout.
        processors=_first_processors(briefly=True),
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=False,
        **bound,
    )
    return logger


def configure(log: LogConfig, *, debug: bool = False, secrets: Collection[str] = ()) -> None:
    """Send the lines of this process to stderr, in the form and from the level of ``log``.

    For processes that are axe's own. Other libraries, plugins among them, are heard from ``warning`` on.
    ``secrets`` are values that no line shows from now on, wherever in it they stand, tracebacks included.
    Calling it again replaces everything else that the last call set.
    """
    global _handler  # noqa: PLW0603 - the standard library's root logger is global, too
    keep_secret(secrets)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(_final_processors(log)))
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
        _handler.close()
    _handler = handler
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("axe").setLevel(logging.DEBUG if debug else log.level.upper())
    logging.captureWarnings(capture=True)
    if not structlog.is_configured():
        # For plugins that use structlog themselves: its default would print to stdout, into `--json`.
        structlog.configure(
            processors=_first_processors(),
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=False,
        )
    # What logging prints about a failed write is the record as it was before redaction.
    logging.raiseExceptions = False


def _first_processors(*, briefly: bool = False) -> list[structlog.typing.Processor]:
    """List the steps from a call to the standard library's logger; ``briefly`` is for lines of axe's own."""
    return [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        *([_brief] if briefly else []),
        structlog.stdlib.add_log_level,
        _redact,
        _hand_over,
    ]


def _final_processors(log: LogConfig) -> list[structlog.typing.Processor]:
    """List the steps from a line's keys to its text, for our own lines and those of libraries."""
    first: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Plain tracebacks only: the other formatters print local variables, and those hold payloads.
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
        if log.format == "json"
        else structlog.processors.format_exc_info,
    ]
    if log.format == "json":
        return [*first, structlog.processors.JSONRenderer(default=str)]
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return [
        *first,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback),
    ]


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders a line, then blots out every secret that is left in its text."""

    def __init__(self, processors: list[structlog.typing.Processor]) -> None:
        super().__init__(
            processors=processors,
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, _redact],
            keep_exc_info=False,
            keep_stack_info=False,
        )

    def format(self, record: logging.LogRecord) -> str:
        line = _URL_PASSWORD.sub(rf"\1:{MASK}@", super().format(record))
        return masked(line)


def _brief(logger: logging.Logger, _method: str, event_dict: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say what was raised and where, in place of a traceback: that comes with ``--debug``.

    Somebody else's logging, around an ``App``, gets the exception as it is.
    """
    if _handler is None or logger.isEnabledFor(logging.DEBUG) or "exc_info" not in event_dict:
        return event_dict
    given = event_dict.pop("exc_info")
    error = given if isinstance(given, BaseException) else sys.exc_info()[1]
    if given and error is not None:
        event_dict.setdefault("error", told(error)[:_LONGEST_ERROR])
        event_dict["where"] = raised_at(error)
    return event_dict


def _redact(_logger: object, _method: str, event_dict: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Mask the values under keys that sound secret, and make every text one harmless line."""
    return {key: _clean(key, value) for key, value in event_dict.items()}


def _clean(key: str, value: Any, depth: int = 0) -> Any:
    if looks_secret(key):
        return MASK
    if isinstance(value, str):
        return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], value.strip())
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"  # a key or a value of a record, that is
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {inner: _clean(str(inner), item, depth + 1) for inner, item in value.items()}
        if type(value) in (list, tuple):
            return [_clean("", item, depth + 1) for item in value]
    return value


def _hand_over(
    logger: logging.Logger, method: str, event_dict: structlog.typing.EventDict
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the line to the standard library: whole for our formatter, as text for anybody else's."""
    if _handler is not None:
        args, kwargs = structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, method, event_dict)
        return args, dict(kwargs)
    kwargs = {key: event_dict.pop(key) for key in ("exc_info", "stack_info", "stacklevel") if key in event_dict}
    event_dict.pop("level", None)
    words = [str(event_dict.pop("event", "")), *(f"{key}={value!r}" for key, value in event_dict.items())]
    # An argument and not the format: the text may hold a per cent sign.
    return ("%s", " ".join(words)), kwargs
