"""
The control store's Postgres database: how it is reached, how a writer takes its turn, what its errors mean.

A writer holds an advisory lock of its project from its first statement to its commit, and reads what is committed: so
its transaction is as good as alone. Its commit notifies the project's channel. A listener that hears nothing does no
harm, as whoever waits looks for himself when the time is up: that covers poolers, dead connections and restarts.
The password is in no message: errors are told in words of ours, and the database by host and name.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from typing import Any, cast

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from tidegate.core.errors import BadInput, TidegateError, Unusable

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
STATEMENT_S = 30
IDLE_S = 60
"""A process that hangs between two statements of a transaction loses it after this, and others have their turn."""
CONNECTION = {
    "application_name": "tidegate",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""libpq's options, unless the URL says otherwise: a host that went away without a word is noticed in 15 s."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
_PREAMBLE = re.compile(r'^(connection failed: )?(connection to server [^"]*"[^"]*"( \([^)]*\))?, port \d+ failed: )?')
_LOST = ("08", "57P01", "57P02", "57P03", "25P03")
_NOT_ALLOWED = ("28", "3D000", "42501")


class PostgresDatabase:
    """What is particular to Postgres under `control.SqlControlStore`."""

    def __init__(self, url: str, *, project: str, busy_s: float) -> None:
        target = _parse(url)
        self.name = _named(target)
        self.advice = "Give tidegate a database of its own."
        self._password = str(target.password or "")
        self._busy_s = busy_s
        self._turn = _key(f"tidegate/project/{project}")
        self._channel = f"tidegate_{_key(f'tidegate/channel/{project}') & (2**64 - 1):016x}"
        self.engine = create_engine(
            target,
            pool_pre_ping=True,
            pool_timeout=busy_s,
            pool_recycle=1_800,
            hide_parameters=True,
            connect_args={
                "prepare_threshold": None,  # a pooler between us and Postgres would not know the statement
                **{name: value for name, value in CONNECTION.items() if name not in target.query},
            },
        )
        event.listen(self.engine, "connect", self._configure)
        self.reading: Engine = self.engine.execution_options(isolation_level="REPEATABLE READ")
        self.writing: Engine = self.engine.execution_options(isolation_level="READ COMMITTED")
        self.looking: Engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._listener = Listener(self.engine, self._channel)
        self._seen = False

    def replaced(self) -> bool:
        """Whether the schema has to be looked at: once."""
        seen, self._seen = self._seen, True
        return not seen

    def take_turn(self, connection: Connection) -> None:
        """Waits for the project's other writers, and has this commit announced."""
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:turn), pg_notify(:channel, '')"),
            {"turn": self._turn, "channel": self._channel},
        )

    def take_migration_turn(self, connection: Connection) -> None:
        """Waits for whoever is changing the schema."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _key("tidegate/migrations")})

    def wait(self, timeout_s: float) -> None:
        """Returns at a commit of this project, at the latest when the time is up."""
        self._listener.wait(timeout_s)

    def translate(self, error: SQLAlchemyError, *, writing: bool) -> TidegateError:
        """A driver's error as one sentence."""
        name = self.name
        if isinstance(error, NoConnectionFree):
            return Unusable(f"{name}: every connection of this process is in use. Try again.")
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlstate", None) or ""
        said = self._said(cause)
        if isinstance(error, DBAPIError) and (error.connection_invalidated or code.startswith(_LOST)):
            unknown = " Whether the change was made is not known: look with `tidegate log`." if writing else ""
            return Unusable(f"{name}: the connection to the control store was lost: {said}.{unknown}")
        if code == "55P03":
            return Unusable(
                f"{name}: another process has been writing for {self._busy_s:g} s; nothing was changed. Try again."
            )
        if code == "57014":
            return Unusable(f"{name}: the database took longer than {STATEMENT_S} s; nothing was changed. Try again.")
        if code == "25006":
            return BadInput(f"{name}: is read-only (a standby?); nothing was changed. Name the primary in control.url.")
        if code == "53100":
            return Unusable(f"{name}: the disk is full; nothing was changed. Free some space, and try again.")
        if code.startswith(_NOT_ALLOWED) or _refused(said):
            return BadInput(f"{name}: the control store does not let us in: {said}.")
        if isinstance(cause, psycopg.DataError):
            return BadInput(f"{name}: the control store can not hold this text: {said}.")
        if not code:
            return Unusable(f"{name}: the control store can not be reached: {said}.")
        return Unusable(f"{name}: the control store failed, nothing was changed: {said}.")

    def close(self) -> None:
        self._listener.close()
        self.engine.dispose()

    def _said(self, cause: object) -> str:
        line = next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__
        line = _PREAMBLE.sub("", line).strip().rstrip(".").removeprefix("FATAL:").removeprefix("ERROR:").strip()
        return line.replace(self._password, "********") if len(self._password) > 3 else line

    def _configure(self, connection: psycopg.Connection[Any], _record: object) -> None:
        # By statement, because poolers refuse such settings at the start of a connection.
        connection.execute(f"SET lock_timeout = {int(self._busy_s * 1_000)}")
        connection.execute(f"SET statement_timeout = {STATEMENT_S * 1_000}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {IDLE_S * 1_000}")
        connection.commit()


class Listener:
    """A connection that hears the commits of one project. Threads may share it; one of them listens at a time."""

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine = engine
        self._channel = channel
        self._connection: psycopg.Connection[Any] | None = None
        self._listening = threading.Lock()
        self._closed = False
        self._pause_s = FIRST_PAUSE_S
        self._retry_at = 0.0

    def wait(self, timeout_s: float) -> None:
        """Returns at a notification, or when the time is up. While it can not listen it only waits; it never raises."""
        end = time.monotonic() + timeout_s
        if self._listening.acquire(timeout=timeout_s):
            try:
                self._listen(end)
            finally:
                if self._closed:
                    self._drop()
                self._listening.release()

    def close(self) -> None:
        """Closes the connection: now, or when whoever is listening stops."""
        self._closed = True
        if self._listening.acquire(blocking=False):
            self._drop()
            self._listening.release()

    def _listen(self, end: float) -> None:
        try:
            connection = self._connected()
            if connection is not None:
                for _ in connection.notifies(timeout=max(0.0, end - time.monotonic()), stop_after=1):
                    pass
                return
        except (SQLAlchemyError, psycopg.Error):
            self._drop()
            self._retry_at = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        time.sleep(max(0.0, end - time.monotonic()))

    def _connected(self) -> psycopg.Connection[Any] | None:
        if self._connection is None and time.monotonic() >= self._retry_at:
            pooled = self._engine.raw_connection()
            self._connection = cast("psycopg.Connection[Any]", pooled.driver_connection)
            pooled.detach()
            self._connection.rollback()
            self._connection.autocommit = True
            self._connection.execute(f"LISTEN {self._channel}")
            self._pause_s = FIRST_PAUSE_S
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _parse(url: str) -> URL:
    """Raises BadInput; no part of the URL is shown, as any may be the password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise BadInput("control.url: not a URL, such as postgresql://user:password@host:5432/database.") from None
    if parsed.drivername not in SCHEMES:
        raise BadInput(
            "control.url: only Postgres is known, by postgresql://user:password@host:5432/database."
            " Without control.url, SQLite is used."
        )
    return parsed.set(drivername="postgresql+psycopg")


def _named(url: URL) -> str:
    host = url.host or url.query.get("host") or "localhost"
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{host}{port}/{url.database or ''}"


def _key(name: str) -> int:
    """A signed 64-bit number for an advisory lock."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def _refused(said: str) -> bool:
    """Whether the server refused the log-in: libpq gives no code for that."""
    return any(
        words in said
        for words in ("authentication failed", "does not exist", "no password supplied", "pg_hba.conf", "not permitted")
    )
