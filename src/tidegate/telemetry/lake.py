"""
The lake: Delta tables on local disk, one row per call and one per kept content, partitioned by the UTC day of `start`.

All that is known about columns stands here once, derived from the structs of `record.py`: how a spool line is read, how
a row is stored, how a query sees it. Stored columns are plain (text, whole numbers, doubles, booleans, UTC instants),
nested ones are JSON text, so that any engine reads them; the views give lists and maps back. A column that an old file
does not have is NULL, a field of a line that is not known here is ignored: both directions of an upgrade work.
"""

from __future__ import annotations

import re
import threading
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import msgspec
from deltalake import DeltaTable, Field, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from tidegate.core.errors import BadInput, Unusable
from tidegate.telemetry.record import CallRow, ContentRow

SCHEMA_VERSION = 1
"""Raised when an older tidegate could no longer write these tables; new columns alone do not."""
MAX_LINE_BYTES = 16 << 20
KEPT_HOURS = 2
"""Files that compaction replaced stay this long for readers that hold an older snapshot."""
_SETTINGS = {
    "delta.logRetentionDuration": f"interval {KEPT_HOURS} hours",
    "delta.deletedFileRetentionDuration": f"interval {KEPT_HOURS} hours",
    "delta.setTransactionRetentionDuration": "interval 30 days",
    "tidegate.schema": str(SCHEMA_VERSION),
}
UNFIT = r"* ? [ ] ^ | \ %20"
_UNFIT = re.compile(r"[*?\[\]^|\\]|%[0-9A-Fa-f]{2}")
"""In a path: DuckDB takes some of these for patterns, and deltalake 1.6 panics on the others."""
_PLAIN: dict[Any, tuple[str, str]] = {
    str: ("VARCHAR", "string"),
    int: ("BIGINT", "long"),
    float: ("DOUBLE", "double"),
    bool: ("BOOLEAN", "boolean"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its type in a spool line, its type in Delta, and the DuckDB type in which queries see it."""

    name: str
    read: str
    stored: str
    seen: str
    default: str | None = None
    """SQL of what a line means that says nothing; None: NULL."""

    @property
    def nested(self) -> bool:
        return self.read == "JSON"


@dataclass(frozen=True, slots=True)
class LakeTable:
    """One Delta table. `part` is the field of a spool line that holds its row, `key` the column that names the call."""

    name: str
    part: str
    key: str
    columns: tuple[Column, ...]

    @property
    def read_type(self) -> str:
        return "STRUCT(" + ", ".join(f"{column.name} {column.read}" for column in self.columns) + ")"

    @property
    def stored_columns(self) -> str:
        """SQL: the row of this table from a line's `part`, ready for Delta."""
        plain = [f"{self._said(column)} AS {column.name}" for column in self.columns]
        return ", ".join([*plain, f"({self.part}.start)::DATE AS day"])

    def _said(self, column: Column) -> str:
        said = f"{self.part}.{column.name}{'::VARCHAR' if column.nested else ''}"
        return said if column.default is None else f"coalesce({said}, {column.default})"

    @property
    def seen_columns(self) -> str:
        """SQL: the columns of the view from stored ones."""
        seen = [
            f"from_json({column.name}, '{_shape(column.seen)}')::{column.seen} AS {column.name}"
            if column.nested and column.seen != "VARCHAR"
            else column.name
            for column in self.columns
        ]
        return ", ".join([*seen, "day"])

    @property
    def nothing(self) -> str:
        """SQL: no rows with all stored columns."""
        types_ = {column.name: "VARCHAR" if column.nested else column.read for column in self.columns} | {"day": "DATE"}
        return "SELECT " + ", ".join(f"NULL::{kind} AS {name}" for name, kind in types_.items()) + " WHERE false"

    @property
    def schema(self) -> Schema:
        return Schema(
            [
                *(Field(column.name, PrimitiveType(column.stored)) for column in self.columns),
                Field("day", PrimitiveType("date")),
            ]
        )


def literal(value: str | Path | Sequence[str | Path]) -> str:
    """A text or a list of texts as SQL, for the places where DuckDB takes no parameters."""
    if isinstance(value, str | Path):
        return "'" + str(value).replace("'", "''") + "'"
    return "[" + ", ".join(literal(item) for item in value) + "]"


def _columns(row: type[msgspec.Struct]) -> tuple[Column, ...]:
    hints = typing.get_type_hints(row)
    return tuple(_column(field, hints[field.name]) for field in msgspec.structs.fields(row))


def _column(field: msgspec.structs.FieldInfo, hint: Any) -> Column:
    if field.name == "start":
        return Column(field.name, "TIMESTAMPTZ", "timestamp", "TIMESTAMPTZ")
    hint, default = _required(hint), _default(field)
    if hint in _PLAIN:
        read, stored = _PLAIN[hint]
        return Column(field.name, read, stored, read, default)
    return Column(field.name, "JSON", "string", _seen(hint), default)


def _default(field: msgspec.structs.FieldInfo) -> str | None:
    made = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if made is None or made is msgspec.NODEFAULT:
        return None
    if isinstance(made, list | dict):
        made = msgspec.json.encode(made).decode()
    return literal(made) if isinstance(made, str) else str(made)


def _seen(hint: Any) -> str:
    """The DuckDB type of a nested value; text where its shape is open."""
    hint = _required(hint)
    if hint in _PLAIN:
        return _PLAIN[hint][0]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        hints = typing.get_type_hints(hint)
        return "STRUCT(" + ", ".join(f"{name} {_seen(of)}" for name, of in hints.items()) + ")"
    if typing.get_origin(hint) is list:
        return f"{_seen(typing.get_args(hint)[0])}[]"
    if typing.get_origin(hint) is dict and typing.get_args(hint)[1] is str:
        return "MAP(VARCHAR, VARCHAR)"
    return "VARCHAR"


def _required(hint: Any) -> Any:
    """`T` of `T | None`; `str` of a Literal of strings."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    return str if typing.get_origin(hint) is typing.Literal else hint


def _shape(seen: str) -> str:
    """A type in the notation of `from_json`."""
    if seen.endswith("[]"):
        return f"[{_shape(seen[:-2])}]"
    if seen.startswith("STRUCT("):
        fields = (part.split(" ", 1) for part in seen[7:-1].split(", "))
        return "{" + ", ".join(f'"{name}": {_shape(kind)}' for name, kind in fields) + "}"
    return f'"{seen}"'


CALLS = LakeTable("calls", "call", "id", _columns(CallRow))
CONTENT = LakeTable("content", "content", "call_id", _columns(ContentRow))
TABLES = (CALLS, CONTENT)

FLAW = (
    "CASE"
    " WHEN call.id IS NULL THEN 'call.id is missing'"
    " WHEN call.start IS NULL THEN 'call.start is missing, or no instant'"
    " WHEN NOT coalesce(year(call.start) BETWEEN 1970 AND 9999, false) THEN 'call.start is not of this age'"
    " WHEN content IS NOT NULL AND content.call_id IS NULL THEN 'content.call_id is missing'"
    " WHEN content IS NOT NULL AND content.start IS DISTINCT FROM call.start THEN 'content.start is not call.start'"
    " END"
)
"""SQL: why a line that is readable JSON can still not be stored, or NULL."""


def read_lines(files: Sequence[Path], tables: Sequence[LakeTable], *, lenient: bool) -> str:
    """
    SQL that reads spool lines: `file`, and one struct per table.

    Args:
        lenient: skip what can not be read; otherwise DuckDB raises InvalidInputException at the first such line.
    """
    columns = ", ".join(f"{table.part}: {literal(table.read_type)}" for table in tables)
    parts = ", ".join(table.part for table in tables)
    return (
        f"SELECT filename AS file, {parts} FROM read_json({literal(files)}, format = 'newline_delimited',"  # noqa: S608
        f" columns = {{{columns}}}, records = true, filename = true, maximum_object_size = {MAX_LINE_BYTES},"
        f" ignore_errors = {str(lenient).lower()})"
    )


def read_files(files: Sequence[Path]) -> str:
    """SQL that reads data files of one table: the columns that any of them has, and `day`."""
    return (
        f"read_parquet({literal(files)}, union_by_name = true, hive_partitioning = true, hive_types = {{'day': DATE}})"
    )


def connect(*, memory: str = "1GB", threads: int = 2) -> duckdb.DuckDBPyConnection:
    """A private in-memory DuckDB on UTC that never loads an extension and never spills to disk."""
    connection = duckdb.connect(
        config={
            "threads": threads,
            "memory_limit": memory,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def open_table(lake: Path, table: LakeTable) -> DeltaTable | None:
    """The table's newest state; None before its first record. Raises BadInput, Unusable when it can not be read."""
    if _UNFIT.search(str(lake)):
        raise BadInput(f"{lake}: records can not be kept below a folder with one of {UNFIT} in its name. Rename it.")
    try:
        return DeltaTable(lake / table.name)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise Unusable(f"{lake / table.name}: can not be read: {first_line(error)}.") from error


def make_table(lake: Path, table: LakeTable) -> DeltaTable:
    """The table, with all columns, created when it is not there yet. Raises Unusable when it is of a newer tidegate."""
    found = open_table(lake, table)
    if found is None:
        return DeltaTable.create(
            lake / table.name,
            schema=table.schema,
            mode="ignore",
            partition_by=["day"],
            configuration=_SETTINGS,
            raise_if_key_not_exists=False,
        )
    version = int(found.metadata().configuration.get("tidegate.schema", 0))
    if version > SCHEMA_VERSION:
        raise Unusable(
            f"{lake / table.name}: was written by a newer tidegate (schema {version}; this one knows {SCHEMA_VERSION})."
            " Install that version to record here; records wait in the spool until then."
        )
    known = {field.name for field in found.schema().fields}
    missing = [field for field in table.schema.fields if field.name not in known]
    if missing:
        found.alter.add_columns(missing)
    return found


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One data file of a table's snapshot."""

    path: Path
    day: date
    size: int
    newest: datetime | None
    """No row starts later; None when that is not known."""


def stored_files(lake: Path, table: LakeTable, handle: DeltaTable) -> list[StoredFile]:
    """The data files of the handle's snapshot."""
    actions = handle.get_add_actions(flatten=True)
    if not actions.num_rows:
        return []
    names = ("path", "partition.day", "size_bytes", "max.start")
    known = actions.column_names
    rows = zip(
        *(actions.column(name).to_pylist() if name in known else [None] * actions.num_rows for name in names),
        strict=True,
    )
    # Delta's statistics are cut to milliseconds.
    return [
        StoredFile(lake / table.name / unquote(path), day, size, newest and newest + timedelta(milliseconds=1))
        for path, day, size, newest in rows
    ]


@dataclass(frozen=True, slots=True)
class TableState:
    """One version of one table: its files, and per writer the newest spool segment that is in them (-1: none)."""

    files: list[StoredFile]
    stored_up_to: dict[str, int]


class LakeReader:
    """Says what is in the lake now. Keeps its handles: following a log costs 1 ms, reading it anew 20. Thread-safe."""

    def __init__(self, lake: Path) -> None:
        self.folder = lake
        self._lock = threading.Lock()
        self._handles: dict[str, tuple[int, DeltaTable]] = {}

    def state(self, table: LakeTable, writers: Iterable[str]) -> TableState:
        """Raises Unusable when the table can not be read."""
        with self._lock:
            handle = self._newest(table)
            if handle is None:
                return TableState([], dict.fromkeys(writers, -1))
            versions = {writer: handle.transaction_version(writer) for writer in writers}
            return TableState(
                stored_files(self.folder, table, handle),
                {writer: -1 if version is None else version for writer, version in versions.items()},
            )

    def forget(self) -> None:
        """Reads everything anew next time."""
        with self._lock:
            self._handles.clear()

    def _newest(self, table: LakeTable) -> DeltaTable | None:
        try:
            log = (self.folder / table.name / "_delta_log").stat().st_ino
        except FileNotFoundError:
            return None
        kept = self._handles.get(table.name)
        if kept is not None and kept[0] == log:
            try:
                kept[1].update_incremental()
                return kept[1]
            except DeltaError:
                del self._handles[table.name]
        handle = open_table(self.folder, table)
        if handle is not None:
            self._handles[table.name] = (log, handle)
        return handle


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's message, without its final full stop."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(". ")
