"""
The call log: every question about records, answered from the lake and the spool together, so that a call is found the
moment it is written. Each method takes a snapshot of its own; a page that asks several questions shares one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from tidegate.core.errors import Saturated, Unusable
from tidegate.core.table import Table
from tidegate.telemetry.find import ServedBy, served_by
from tidegate.telemetry.lake import LakeReader
from tidegate.telemetry.snapshot import Moved, Snapshot

TRIES = 5
MAX_ROWS = 10_000
AT_ONCE = 4
"""Of questions in anybody's SQL, in one process: each may take a thread and 1 GB for 30 s."""
_DAY = timedelta(days=1)
T = TypeVar("T")


class CallLog:
    """Reads the records of one project; never writes. Blocking. Safe for concurrent calls from any thread."""

    def __init__(self, *, spool: Path, lake: Path) -> None:
        self._spool = spool.resolve()
        self._lake = LakeReader(lake.resolve())
        self._room = threading.BoundedSemaphore(AT_ONCE)

    @contextmanager
    def snapshot(self, since: datetime | None = None) -> Iterator[Snapshot]:
        """
        One moment of the records, for several questions with `.rows(sql, params)`.

        Args:
            since: an aware instant; rows that start earlier may be missing, and whole files of them are not read.
        """
        snapshot = self._take(since)
        try:
            yield snapshot
        except Moved as error:
            raise Unusable(
                f"{self._lake.folder}: files of the lake vanished while they were read. Try again."
            ) from error
        finally:
            snapshot.close()

    def rows(
        self,
        sql: str,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        since: datetime | None = None,
    ) -> list[dict[str, Any]]:
        """
        The rows of one SELECT over `calls` (the fields of CallRow, and `day`) and `content` (those of ContentRow).

        `start` is an aware UTC instant, `attempts` a list of structs, `tags` a map, `variables` JSON text.

        Args:
            params: values for `$name` or `?` in the SQL.
            since: as in `snapshot`; it prunes, the SQL still has to filter.
        """
        return self._ask(lambda snapshot: snapshot.rows(sql, params), since)

    def sql(self, text: str, *, limit: int = MAX_ROWS) -> Table:
        """
        The answer to SQL that anybody wrote: one SELECT, no files, 30 s, 1 GB, `limit` rows, 64 MiB of answer.

        Raises: BadInput when it is not good SQL, Refused when it wants more than that, Unusable when it takes too long,
            Saturated while four such run.
        """
        with self._anybodys():
            return self._ask(lambda snapshot: snapshot.table(text, limit=limit))

    def calls(
        self, where: str | None = None, limit: int = 50, *, since: datetime | None = None
    ) -> list[dict[str, Any]]:
        """
        Calls as plain values of CallRow, newest first.

        Args:
            where: a SQL expression over the columns of `calls`, from anybody.
        Raises: BadInput, Refused, Unusable as `sql` does; with `where` Saturated, too.
        """
        condition = where if where is not None and where.strip() else None
        with self._anybodys() if where else nullcontext():
            return [_plain(row) for row in self._ask(lambda snapshot: snapshot.calls(condition, limit), since)]

    def call(self, call_id: str) -> dict[str, Any] | None:
        """One call as plain values of CallRow and, under `content`, of ContentRow, or None where it was not kept."""
        made = _made_at(call_id)
        if made is not None:
            # Ids carry the time they were made: only the files of that day need to be read.
            found = self._ask(lambda snapshot: _one(snapshot, call_id, made), made - _DAY)
            if found is not None:
                return found
        return self._ask(lambda snapshot: _one(snapshot, call_id, None))

    def served_by(self, since: datetime, prompt: str | None = None) -> list[ServedBy]:
        """Live calls since then by prompt, environment and version; most calls first."""
        return self._ask(lambda snapshot: served_by(snapshot, since, prompt), since)

    @contextmanager
    def _anybodys(self) -> Iterator[None]:
        """Room for one more question of anybody's. Raises Saturated."""
        if not self._room.acquire(blocking=False):
            raise Saturated(f"SQL: {AT_ONCE} questions run already. Wait for one of them.", retry_after_s=1.0)
        try:
            yield
        finally:
            self._room.release()

    def _ask(self, question: Callable[[Snapshot], T], since: datetime | None = None) -> T:
        for _ in range(TRIES):
            snapshot = self._take(since)
            try:
                return question(snapshot)
            except Moved:
                self._lake.forget()
            finally:
                snapshot.close()
        raise Unusable(f"{self._lake.folder}: files vanish while they are read. Is somebody deleting them?")

    def _take(self, since: datetime | None) -> Snapshot:
        for _ in range(TRIES):
            try:
                return Snapshot(self._spool, self._lake, since=since)
            except Moved:
                self._lake.forget()
        raise Unusable(f"{self._lake.folder}: records move faster than they can be read. Try again.")


def _made_at(call_id: str) -> datetime | None:
    """The instant in a UUIDv7; None for any other text."""
    try:
        value = UUID(call_id)
        return datetime.fromtimestamp((value.int >> 80) / 1_000, UTC) if value.version == 7 else None
    except (ValueError, OverflowError):
        return None


def _one(snapshot: Snapshot, call_id: str, made: datetime | None) -> dict[str, Any] | None:
    near = "" if made is None else " AND start BETWEEN $made - INTERVAL 1 DAY AND $made + INTERVAL 1 DAY"
    key: dict[str, Any] = {"id": call_id} if made is None else {"id": call_id, "made": made}
    found = snapshot.rows(f"SELECT * FROM calls WHERE id = $id{near} LIMIT 1", key)  # noqa: S608 -- fixed words
    if not found:
        return None
    content = snapshot.rows(
        "SELECT input, output, variables FROM content WHERE call_id = $id AND start = $start LIMIT 1",
        {"id": call_id, "start": found[0]["start"]},
    )
    return _plain(found[0]) | {"content": _content(content[0]) if content else None}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "day"} | {"start": _iso(row["start"])}


def _content(row: dict[str, Any]) -> dict[str, Any]:
    try:
        variables = msgspec.json.decode(row["variables"]) if row["variables"] else None
    except (msgspec.DecodeError, RecursionError):
        variables = row["variables"]
    return {**row, "variables": variables}


def _iso(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
