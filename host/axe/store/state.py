"""What a handler holds in its hands: values, a connection, a session, a cursor; one transaction."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import Connection

from ..errors import StateError
from .connection import StateConnection
from .text import unstorable
from .value_cache import UNKNOWN, ValueCache
from .values import KEYS, LOAD, REMOVE, SAVE, copied, from_json, to_json

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_SCALARS = (int, str, float, bool, type(None))
_UNREAD: Any = object()
_ABSENT: Any = object()
# In the place of a key among the changes: an event got hold of a list or dict, which it may have changed in place.
_ENTANGLED: Any = object()


class State(MutableMapping[str, Any]):
    """The state of one processor: a mapping of strings to what a JSON document can hold, and SQL.

    Everything done through it, and the position past the event, become durable together or not at all.
    A value that was read and changed in place is written too. What each way costs is in docs/state.md.
    """

    def __init__(self, connection: StateConnection, new_cursor: Callable[[], Any], cache: ValueCache) -> None:
        self._connection = connection
        self._new_cursor = new_cursor
        self._driver = new_cursor()
        self._driver.is_hosts = True
        self._cache = cache
        self._dialect = connection.dialect
        self._live: dict[str, Any] = {}
        self._stored: dict[str, str | None] = {}
        self._handed_out: StateConnection | None = None
        self._cursor: Any = None
        self._session: Session | None = None
        self._given: list[str] = []
        self.isolated = False
        self.changes: list[tuple[Any, Any]] = []
        """What events of this batch changed, the last one last: keys with their values before."""
        self.watched = connection.handed_out
        """Whether ``end_event`` has to look at what an event left: it may have used SQL, or set a list or dict."""

    # --- values

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key."""
        value = self.get(key, _ABSENT)
        if value is _ABSENT:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default."""
        try:
            value = self._live[key]
        except KeyError:
            value = self._load(key)
        if type(value) in _SCALARS:
            return value
        if value is _ABSENT:
            return default
        # A list or dict, which the handler may change in place.
        self.changes.append((_ENTANGLED, None))
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        """Set the value of a key; it is checked and written when the event or the batch ends."""
        live = self._live
        try:
            before = live[key]
        except (KeyError, TypeError):
            if type(key) is not str:
                message = f"a key of the state is a string, not {type(key).__name__}"
                raise StateError(message) from None
            before = _UNREAD
        self.changes.append((key, before))
        live[key] = value
        if type(value) not in _SCALARS and value is not before and value is not _ABSENT:
            self._given.append(key)
            self.watched = True

    def __delitem__(self, key: str) -> None:
        """Remove a key."""
        if key not in self:
            raise KeyError(key)
        self[key] = _ABSENT

    def clear(self) -> None:
        """Remove every key."""
        # The mixin's way looks for a first key again and again.
        for key in list(self):
            self[key] = _ABSENT

    def __contains__(self, key: object) -> bool:
        """Tell whether a key has a value."""
        if type(key) is not str:
            return False
        value = self._live.get(key, _UNREAD)
        return (self._load(key) if value is _UNREAD else value) is not _ABSENT

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        stored = [row[0] for row in KEYS.run(self._driver, self._dialect).fetchall()]
        known = set(stored)
        keys = stored + [key for key in self._live if key not in known]
        return (key for key in keys if self._live.get(key) is not _ABSENT)

    def __len__(self) -> int:
        """Count the keys."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Show what this is, without what it holds."""
        return f"<State with {len(self._live)} values touched>"

    def _load(self, key: Any) -> Any:
        if not isinstance(key, str):
            # SQLite would find the value of "1" for 1.
            return _ABSENT
        # Without a version a handler may have written values by SQL of its own.
        text = UNKNOWN if self._connection.version is None else self._cache.find(key)
        if text is UNKNOWN:
            row = LOAD.run(self._driver, self._dialect, key_=key).fetchone()
            text = None if row is None else row[0]
        self._stored[key] = text
        value = _ABSENT if text is None else from_json(text)
        self._live[key] = value
        return value

    # --- SQL

    @property
    def connection(self) -> Connection:
        """A SQLAlchemy connection inside the event's transaction."""
        connection = self._handed_out
        return self._hand_out() if connection is None else connection

    @property
    def cursor(self) -> Any:
        """A DBAPI cursor inside the same transaction, without SQLAlchemy's cost per call."""
        if self._cursor is None:
            self._hand_out()
            self._cursor = self._new_cursor()
        return self._cursor

    @property
    def session(self) -> Session:
        """A SQLAlchemy session inside the same transaction; flushed by the host at the end of the event."""
        if self._session is None:
            connection = self._hand_out()
            # The import costs a tenth of a second, which who uses no session need not pay.
            from .session import StateSession

            # A flush that fails rolls back what the session joined: the batch, or, where each event is to
            # be undone alone, a savepoint of the session's own.
            self._session = StateSession(
                bind=connection,
                join_transaction_mode="create_savepoint" if self.isolated else "rollback_only",
                # One that a handler kept is no session any more, instead of one that nobody flushes.
                close_resets_only=False,
            )
        return self._session

    def _hand_out(self) -> StateConnection:
        """Note that events may use SQL from here on."""
        if self._over:
            _refuse_over()
        self._connection.hand_out()
        self.watched = True
        self._handed_out = self._connection
        return self._connection

    # --- for the host

    _over = False

    def end_event(self) -> None:
        """Look at what the event left: flush and close its session, and let go of its lists and dicts.

        Raises:
            StateError: a savepoint of the handler's own is still open, or a value is not JSON.
        """
        if self._given:
            self._let_go_of_given()
        if self._session is not None:
            if self.isolated:
                self._session.finish()  # type: ignore[attr-defined] # only StateSession is ever kept there
            else:
                self._session.flush()
            self.drop_session()
        if self._connection.get_nested_transaction() is not None:
            # Rolled back by a later event, it would take along the events between.
            message = "the handler left a savepoint (begin_nested) open; end it in the handler"
            raise StateError(message)

    def _let_go_of_given(self) -> None:
        """Put copies in the place of what the event set.

        Else one list under two keys would be one or two by where a batch happens to end, and a value by
        what a handler later does with the event that it came from.
        """
        for key in self._given:
            value = self._live.get(key)
            if type(value) not in _SCALARS and value is not _ABSENT:
                self._live[key] = copied(key, value)
        self._given.clear()
        self.watched = self._connection.handed_out

    def end(self) -> Mapping[str, str | None]:
        """Refuse whatever a handler that kept this state wants of it: nobody would write it.

        Returns the texts of the keys that were met, as they are stored once what was written is committed.
        """
        self.drop_session()
        stored = self._stored
        self._live = self._stored = over = _Over()
        self.changes = []
        self._driver, self._cursor, self._handed_out = over, None, None
        self._over = True
        return stored

    def drop_session(self) -> None:
        """Forget the event's session, whatever is in it."""
        session, self._session = self._session, None
        if session is not None:
            session.discard()  # type: ignore[attr-defined] # only StateSession is ever kept there

    def undo_event(self, mark: int) -> bool:
        """Take back the changes since there were ``mark`` of them; False if the event may have done more than that."""
        since = self.changes[mark:]
        if self._connection.handed_out or any(key is _ENTANGLED for key, _ in since):
            return False
        for key, value in reversed(since):
            if value is _UNREAD:
                del self._live[key]
            else:
                self._live[key] = value
        del self.changes[mark:]
        self._given.clear()
        return True

    def write(self) -> None:
        """Write the values that differ from what is stored.

        Raises:
            StateError: a value is not what a JSON document can hold.
        """
        changed, removed = [], []
        for key, value in self._live.items():
            stored = self._stored.get(key, _UNREAD)
            if value is _ABSENT:
                if stored is not None:
                    removed.append({"key_": key})
                self._stored[key] = None
                continue
            text = to_json(key, value)
            if text != stored:
                if type(stored) is not str and unstorable(key):
                    message = f"the key {key!a} holds a NUL or half a surrogate pair, which no database stores"
                    raise StateError(message)
                changed.append({"key": key, "value": text})
                self._stored[key] = text
        if removed:
            REMOVE.run_many(self._driver, self._dialect, removed)
        if changed:
            # Of many keys, neighbours share pages of the index: a tenth less CPU time than in the order of the events.
            changed.sort(key=operator.itemgetter("key"))
            SAVE.run_many(self._driver, self._dialect, changed)

    def bypass(self, nothing: ValueCache) -> None:
        """Read from the database whatever is not read yet: what was known before may not be so."""
        self._cache = nothing

    def forget(self) -> None:
        """Forget what was read and set, so that it is read from the database again."""
        self._live.clear()
        self._stored.clear()
        self._given.clear()
        self.changes.clear()


def _refuse_over(*_: object) -> NoReturn:
    message = "this state belongs to a batch that has ended: use the one that the hook is called with"
    raise StateError(message)


class _Over(dict[Any, Any]):
    """The values of a state whose batch has ended."""

    execute = get = __getitem__ = __setitem__ = __contains__ = __iter__ = __len__ = _refuse_over
