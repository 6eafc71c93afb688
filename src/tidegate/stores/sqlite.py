"""
The control store's SQLite file: how it is opened, how a writer takes its turn, what its errors mean.

It runs with the rollback journal, because 3.40's WAL can lose a reset. The file is watched: one that is moved away or
replaced while processes run is noticed at the next transaction, and is never made a second time.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tidegate.core.errors import BadInput, TidegateError, Unusable
from tidegate.private import make_private

POLL_S = 0.1
_WRITES = "tidegate_writes"
"""Execution option of a connection whose transactions write."""


class SqliteFile:
    """What is particular to SQLite under `control.SqlControlStore`."""

    def __init__(self, path: Path, *, busy_s: float, make: bool) -> None:
        self.name = str(path)
        self.advice = "Move it away, and start again."
        self._path = path
        self._busy_s = busy_s
        self._make = make
        self._identity: tuple[int, int] | None = None
        self.engine = create_engine("sqlite://", creator=self._connect, poolclass=QueuePool)
        event.listen(self.engine, "begin", _begin)
        self.reading: Engine = self.engine
        self.looking: Engine = self.engine
        self.writing: Engine = self.engine.execution_options(**{_WRITES: True})

    def replaced(self) -> bool:
        """
        Whether this is another file than at the last call, also at the first one.

        Raises Unusable when there is none any more, BadInput when there is none and none can be made.
        """
        try:
            found = self._path.stat()
        except OSError as error:
            if not self._make:
                raise Unusable(f"{self._path}: the control store is gone: {error.strerror}.") from error
            self._make_folder()
            return True
        self._make = False
        if (found.st_dev, found.st_ino) == self._identity:
            return False
        self._identity = (found.st_dev, found.st_ino)
        return True

    def take_turn(self, connection: Connection) -> None:
        """Nothing is left to do: BEGIN IMMEDIATE made this transaction the only writer."""

    take_migration_turn = take_turn

    def wait(self, timeout_s: float) -> None:
        """A change may come to light after this. SQLite tells nobody: it is asked again."""
        time.sleep(min(POLL_S, timeout_s))

    def translate(self, error: SQLAlchemyError, *, writing: bool) -> TidegateError:
        """A driver's error as one sentence. The transaction it broke was rolled back."""
        name = self.name
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = str(getattr(cause, "sqlite_errorname", ""))
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return Unusable(
                f"{name}: another process has been writing for {self._busy_s:g} s; nothing was changed. Try again."
            )
        if code.startswith("SQLITE_READONLY"):
            return BadInput(f"{name}: can not be written, its folder or itself is read-only; nothing was changed.")
        if code.startswith("SQLITE_CANTOPEN"):
            return BadInput(f"{name}: can not be opened: its folder is read-only, or it is not a file.")
        if code == "SQLITE_NOTADB":
            return BadInput(f"{name}: this is not a database. {self.advice}")
        if code == "SQLITE_FULL":
            return Unusable(f"{name}: the disk is full; nothing was changed. Free some space, and try again.")
        if code.startswith("SQLITE_CORRUPT"):
            return Unusable(f"{name}: the control store is damaged: restore it from a backup.")
        return Unusable(f"{name}: the control store failed, nothing was changed: {cause}.")

    def close(self) -> None:
        self.engine.dispose()

    def _connect(self) -> sqlite3.Connection:
        mode = "rwc" if self._make else "rw"
        connection = sqlite3.connect(
            f"file:{quote(self.name)}?mode={mode}", uri=True, timeout=self._busy_s, check_same_thread=False
        )
        connection.isolation_level = None  # the driver begins nothing by itself: `_begin` says when, and how
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _make_folder(self) -> None:
        try:
            make_private(self._path.parent)
        except OSError as error:
            if self._path.parent.is_file():
                raise BadInput(
                    f"{self._path.parent} is a file; tidegate keeps its state in a folder of that name."
                ) from error
            raise BadInput(f"{self._path.parent}: this folder can not be made: {error.strerror}.") from error


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
