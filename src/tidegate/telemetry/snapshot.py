"""
One moment of all records, as the views `calls` and `content` of a private in-memory DuckDB that is then locked.

Of each table one version is read, and of the spool exactly those segments that this version does not have yet. The
spool is listed first: a segment that moves meanwhile is in the version, or is read from the spool, or has vanished from
there, and `Moved` says to look again. After the views are made the connection can read their files and nothing
else, write nothing, and change none of its settings, so that SQL from anybody may run on it.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from tidegate.core.errors import BadInput, Refused, Unusable
from tidegate.core.table import Table
from tidegate.telemetry.lake import (
    MAX_LINE_BYTES,
    TABLES,
    LakeReader,
    LakeTable,
    connect,
    first_line,
    literal,
    read_files,
    read_lines,
)
from tidegate.telemetry.spool import Segment, segment_name, segments, whole_lines

LONGEST_S = 30.0
LARGEST_BYTES = 64 << 20
ONLY_SELECT = "one SELECT over the tables calls and content is all that runs here: no files, settings or changes."


class Moved(Exception):
    """Files moved while they were read: take a fresh snapshot."""


class Snapshot:
    """Records up to the moment it was made. For one thread; close it. A query is interrupted after 30 s."""

    def __init__(self, spool: Path, lake: LakeReader, *, since: datetime | None = None) -> None:
        """
        Args:
            since: rows that start earlier may be missing: files that hold only such are not read.
        Raises: Moved; Unusable or BadInput when the lake can not be read.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-"))
        self._connection = connect()
        try:
            self._fill(spool, lake, since)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Frees its memory and its copy of the spool's lines."""
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def rows(self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None = None) -> list[dict[str, Any]]:
        """The rows of our own SQL, by column name; `params` stand in it as `$name` or `?`. Instants are aware, UTC."""
        with self._translated():
            answer = self._connection.execute(sql, dict(params) if isinstance(params, Mapping) else params)
            names = [column[0] for column in answer.description or ()]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def table(self, sql: str, *, limit: int) -> Table:
        """The answer to anybody's SQL, cut to `limit` rows and some 64 MiB. Raises BadInput, Refused, Unusable."""
        with self._translated():
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise Refused(f"SQL: {ONLY_SELECT}")
            answer = self._connection.execute(statements[0])
            names = [column[0] for column in answer.description or ()]
            found: list[tuple[Any, ...]] = []
            left = LARGEST_BYTES
            while row := answer.fetchone():
                left -= _weight(row)
                if left < 0 and not found:
                    raise Refused(f"SQL: one row of the answer is over {LARGEST_BYTES >> 20} MiB. Ask for less of it.")
                if left < 0 or len(found) == limit:
                    return Table(names, found, more=True)
                found.append(row)
            return Table(names, found)

    def calls(self, condition: str | None, limit: int) -> list[dict[str, Any]]:
        """Rows of `calls` for which a SQL expression holds, newest first. Raises BadInput, Refused, Unusable."""
        with self._translated():
            found = self._connection.view("calls")
            found = found if condition is None else found.filter(condition)
            found = found.order("start DESC, id DESC").limit(limit)
            return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]

    def _fill(self, spool: Path, lake: LakeReader, since: datetime | None) -> None:
        listed = segments(spool)
        writers = {segment.writer for segment in listed}
        readable: list[Path] = []
        waiting: dict[str, list[Segment]] = {}
        for table in TABLES:
            state = lake.state(table, writers)
            files = [file.path for file in state.files if since is None or file.newest is None or file.newest >= since]
            missing = [segment for segment in listed if segment.sequence > state.stored_up_to[segment.writer]]
            waiting[table.name] = missing
            readable += files
            self._view(table, files, self._copy(table, missing, waiting))
        readable += self._folder.iterdir()
        for setting in (
            f"allowed_paths = {literal(readable)}",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")

    def _copy(self, table: LakeTable, missing: Sequence[Segment], waiting: Mapping[str, list[Segment]]) -> Path | None:
        """The whole lines of these segments in one file of our own; shared by the tables, which nearly always agree."""
        for name, same in waiting.items():
            if name != table.name and same == missing and missing:
                return self._folder / f"{name}.jsonl"
        if not missing:
            return None
        target = self._folder / f"{table.name}.jsonl"
        with target.open("wb") as file:
            for segment in missing:
                file.write(_lines(segment))
        return target

    def _view(self, table: LakeTable, files: Sequence[Path], waiting: Path | None) -> None:
        parts = [table.nothing]
        if files:
            parts.append(f"SELECT * FROM {read_files(files)}")  # noqa: S608
        if waiting is not None:
            lines = read_lines([waiting], [table], lenient=True)
            row = table.part
            parts.append(
                f"SELECT {table.stored_columns} FROM ({lines})"  # noqa: S608
                f" WHERE {row}.{table.key} IS NOT NULL AND year({row}.start) BETWEEN 1970 AND 9999"
            )
        rows = " UNION ALL BY NAME ".join(parts)
        with _vanishing():
            self._connection.execute(f"CREATE VIEW {table.name} AS SELECT {table.seen_columns} FROM ({rows})")  # noqa: S608

    @contextmanager
    def _translated(self) -> Iterator[None]:
        timer = threading.Timer(LONGEST_S, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            with _vanishing():
                yield
        except duckdb.InterruptException as error:
            raise Unusable(f"SQL: stopped after {LONGEST_S:.0f} s. Ask for fewer rows or a shorter time.") from error
        except duckdb.OutOfMemoryException as error:
            raise Unusable("SQL: needs more than 1 GB of memory. Ask for fewer rows or a shorter time.") from error
        except duckdb.PermissionException as error:
            raise Refused(f"SQL: {ONLY_SELECT}") from error
        except duckdb.Error as error:
            raise BadInput(f"SQL: {_explained(error)}.") from error
        finally:
            timer.cancel()


def _weight(value: Any) -> int:
    """About how many bytes a value of an answer takes."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(_weight(key) + _weight(item) for key, item in value.items())
    return sum(map(_weight, value)) if isinstance(value, list | tuple) else 8


def _lines(segment: Segment) -> bytes:
    """The whole lines of a segment, wherever it is now. Raises Moved when it is gone: into the lake."""
    for path in (segment.path, segment.folder / segment_name(segment.writer, segment.sequence, sealed=True)):
        try:
            data = whole_lines(path.read_bytes())
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Unusable(f"{path}: can not be read: {error.strerror or error}.") from error
        if len(data) <= MAX_LINE_BYTES:
            return data
        return b"".join(line + b"\n" for line in data.split(b"\n")[:-1] if len(line) <= MAX_LINE_BYTES)
    raise Moved


@contextmanager
def _vanishing() -> Iterator[None]:
    try:
        yield
    except duckdb.IOException as error:
        raise Moved from error


def _explained(error: duckdb.Error) -> str:
    """DuckDB's own words on one line: what is wrong, and the nearest names where it knows some."""
    lines = [line.strip() for line in str(error).splitlines()]
    hints = [line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))]
    return " ".join([first_line(error), *hints]).rstrip(". ")
