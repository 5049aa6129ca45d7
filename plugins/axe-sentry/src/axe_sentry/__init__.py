"""Reports the failures of processors to Sentry.

What leaves the machine: the exception with its message and its stack (files, lines, source), and
where it happened (processor, topic, partition, offset, attempt, decision). Keys, values and
headers leave only with ``payload = true``; local variables never do.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from axe import ConfigError, Failure, hookimpl

__all__ = ["Sentry"]

_KNOWN: dict[str, type] = {"dsn": str, "environment": str, "payload": bool, "release": str}
_NAMES = {str: "a text", bool: "true or false"}
_FLUSH_S = 2.0
_MAX_WAITING = 100
_MAX_PAYLOAD = 10_000


class Sentry:
    """Reports each failure as one Sentry event, from a thread of the SDK's own.

    When Sentry cannot be reached, a bounded number of reports waits and the rest is dropped:
    nothing here holds a worker up, but for two seconds at its end.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _check(settings)
        # Not before: the SDK costs a worker 7 MB, and a package without settings ends in the line above.
        import sentry_sdk
        from sentry_sdk.utils import BadDsn

        self._payload_bytes = _MAX_PAYLOAD if settings.get("payload") else None
        try:
            # A client of our own, never bound to a scope: a processor that uses the SDK itself
            # keeps its own client and scopes, and neither sees the other's events. Without
            # integrations nothing is patched, and neither argv nor installed modules are sent.
            # send_default_pii is off unless set, and setting it warns of its end.
            self._client = sentry_sdk.Client(
                dsn=settings["dsn"],
                environment=settings.get("environment"),
                release=settings.get("release", ""),  # None would run git to guess one
                default_integrations=False,
                auto_enabling_integrations=False,
                auto_session_tracking=False,
                include_local_variables=False,
                send_client_reports=False,
                enable_backpressure_handling=False,
                max_breadcrumbs=0,
                spotlight=False,
                shutdown_timeout=_FLUSH_S,
                transport_queue_size=_MAX_WAITING,
            )
        except BadDsn as error:
            # The reason quotes parts of the DSN, which is a secret of sorts.
            raise ConfigError("plugins.sentry.dsn: not a Sentry DSN (https://KEY@HOST/PROJECT)") from error

    @hookimpl
    def on_error(self, failure: Failure) -> None:
        """Hand the failure to the SDK's thread; the first failure of an event and the last one both come."""
        from sentry_sdk.scope import Scope
        from sentry_sdk.utils import event_from_exception

        exception = failure.exception
        event, hint = event_from_exception(
            (type(exception), exception, exception.__traceback__),
            client_options=self._client.options,
            mechanism={"type": "axe", "handled": True},
        )
        where = failure.where(payload_bytes=self._payload_bytes)
        event["extra"] = where.pop("record", {})
        event["tags"] = {name: str(value) for name, value in where.items() if name != "attempt"}
        event["contexts"] = {"axe": where}
        # An empty scope: the current one would add what a processor noted for its own reports.
        self._client.capture_event(event, hint, Scope())

    @hookimpl
    def on_stop(self) -> None:
        """Give what still waits up to two seconds to leave."""
        self._client.flush(timeout=_FLUSH_S)


def _check(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(sorted(_KNOWN))}"
            raise ConfigError(f"plugins.sentry.{name}: unknown setting{hint}")
        if not isinstance(value, _KNOWN[name]):
            raise ConfigError(f"plugins.sentry.{name}: must be {_NAMES[_KNOWN[name]]}")
    if not settings.get("dsn"):
        raise ConfigError('plugins.sentry.dsn: missing; set it, for example to { env = "SENTRY_DSN" }')
