"""A kind of store, for tests that run against each of them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from axe import TopicPartition
from axe.store import Place, open_place
from axe.store.postgresql import schema_name
from axe.store.sql import Store

STUDIES = TopicPartition("studies", 0)
NAME = "study-counter"
ME = "host:1:me"


class Kind:
    """One kind of store: how to open it, and how to harm it from outside."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name = name
        self.url = url
        self.folder = folder
        self.stores: list[Store] = []

    def place(self) -> Place:
        return open_place(self.url, self.folder)

    def store(self, processor: str = NAME) -> Store:
        store = Store(self.place().database(processor), processor)
        self.stores.append(store)
        return store

    def opened(self, processor: str = NAME) -> Store:
        store = self.store(processor)
        store.open()
        return store

    def outside(self, sql: str, processor: str = NAME) -> list[Any]:
        """Run a statement behind axe's back and commit it."""
        if self.name == "sqlite":
            with contextlib.closing(sqlite3.connect(self.path(processor))) as connection, connection:
                return connection.execute(sql).fetchall()
        options = f"-c search_path={schema_name(processor)}"
        engine = create_engine(self.url, connect_args={"options": options})
        try:
            with engine.begin() as outside:
                result = outside.exec_driver_sql(sql)
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            engine.dispose()

    def path(self, processor: str = NAME) -> Path:
        return self.folder / "state" / f"{processor}.db"

    def destroy(self) -> None:
        """Take the database away."""
        if self.name == "sqlite":
            for path in self.path().parent.glob(f"{NAME}.db*"):
                path.unlink()
        else:
            self.outside(f'DROP SCHEMA "{schema_name(NAME)}" CASCADE')

    def close(self) -> None:
        for store in self.stores:
            store.close()
