"""
The recorder: moves sealed spool segments into the lake, exactly once, whatever is killed when.

One process owns a lake at a time, by the flock on `recorder.lock`. A segment goes into each table in a commit that also
says "writer W is in up to sequence N" (a Delta transaction identifier), so after any crash each table itself says what
it has. A segment is deleted when it is in every table and on disk. DuckDB parses lines and writes files, Delta keeps
the log; a line that can not be stored is put aside into `spool/quarantine/` with the reason, and its neighbours are
stored.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from itertools import groupby
from pathlib import Path
from uuid import uuid4

import duckdb
import msgspec
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from tidegate.core.errors import TidegateError, Unusable
from tidegate.telemetry.lake import (
    FLAW,
    TABLES,
    LakeTable,
    StoredFile,
    connect,
    first_line,
    literal,
    make_table,
    read_files,
    read_lines,
    stored_files,
)
from tidegate.telemetry.spool import (
    Segment,
    exclusive,
    prepare,
    seal_orphan,
    segment_name,
    segments,
    sync_folder,
)

BATCH_BYTES = 32 << 20
SMALL_FILES = 16
"""So many files of about one size, less than COMPACTED_BYTES, become one."""
SMALL_FILES_OF_A_PAST_DAY = 4
COMPACTED_BYTES = 4 << 20
MAYBE_UNSYNCED = 8
"""More commits than one batch makes: so many may a killed recorder have left without fsync."""
LONGEST_PAUSE_S = 5.0
REST_S = 30.0
"""After so long without a segment everything is closed, for its memory."""
_POISON = (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.OutOfRangeException)
_QUIET = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_PARQUET = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE_BYTES '16MB'"
_log = logging.getLogger(__name__)


class Recorder:
    """Blocking; for one thread. `stored` and `quarantined` count lines since this object was made."""

    def __init__(self, spool: Path, lake: Path) -> None:
        """Raises BadInput when a folder can not be made or written."""
        prepare(spool)
        prepare(lake)
        self.stored = 0
        self.quarantined = 0
        self._spool = spool.resolve()
        self._lake = lake.resolve()
        self._lock = self._lake / "recorder.lock"
        self._tables: dict[str, _Table] = {}
        self._kept: duckdb.DuckDBPyConnection | None = None
        self._stored_at = 0.0

    def once(self) -> int:
        """
        Moves every segment that is sealed, or whose process is dead.

        Returns: how many calls were stored. Raises Unusable when the lake can not be written (nothing is lost: records
        wait in the spool), or when another recorder is at work here.
        """
        with self._owner() as owner:
            if not owner:
                raise Unusable(f"{self._lake}: another recorder is at work here. Stop it, or let it do this.")
            return self._drain()

    def run(self, stop: threading.Event, *, poll_s: float = 0.25) -> None:
        """Moves segments as they come until `stop` is set; waits for its turn, and tries again when the lake fails."""
        while not stop.is_set():
            with self._owner() as owner:
                if owner:
                    self._keep_draining(stop, poll_s)
            stop.wait(poll_s)

    def _keep_draining(self, stop: threading.Event, poll_s: float) -> None:
        pause = poll_s
        while not stop.is_set():
            try:
                self._drain()
                pause = poll_s
                if time.monotonic() - self._stored_at > REST_S:
                    self._rest()
            except TidegateError as error:
                self._rest()
                pause = min(pause * 2, LONGEST_PAUSE_S)
                _log.warning("%s Trying again in %.1f s; records wait in the spool.", error, pause)
            stop.wait(pause)

    @contextmanager
    def _owner(self) -> Iterator[bool]:
        self._lock.touch()
        with exclusive(self._lock) as owner:
            try:
                yield owner
            finally:
                self._rest()

    def _rest(self) -> None:
        self._tables.clear()
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """Made anew it costs 15 ms, and as much again for its memory: kept from batch to batch."""
        if self._kept is None:
            self._kept = connect(memory="4GB", threads=1)
            self._kept.execute("SET preserve_insertion_order = false")  # or it takes no limit for a row group's bytes
        return self._kept

    def _drain(self) -> int:
        with _translated(self._lake):
            for segment in segments(self._spool):
                if not segment.sealed:
                    seal_orphan(segment)
            total = 0
            for batch in self._batches():
                total += self._store(batch)
            return total

    def _batches(self) -> Iterator[list[Segment]]:
        found = segments(self._spool)
        if not any(segment.sealed for segment in found):
            return
        for table in TABLES:
            if table.name not in self._tables:
                self._tables[table.name] = _Table(self._lake, table)
        batch: list[Segment] = []
        size = 0
        for segment in ready(found, self._stored_up_to):
            here = segment.path.stat().st_size
            if batch and size + here > BATCH_BYTES:
                yield batch
                batch, size = [], 0
            batch.append(segment)
            size += here
        if batch:
            yield batch

    def _stored_up_to(self, writer: str) -> int:
        return min(table.stored_up_to(writer) for table in self._tables.values())

    def _store(self, batch: Sequence[Segment]) -> int:
        connection = self._connection
        files = [segment.path for segment in batch]
        if _refusal(connection, files) is not None:
            for segment in batch:
                self.quarantined += put_aside(segment)
            reason = _refusal(connection, files)
            if reason is not None:
                raise Unusable(f"{files[0].parent}: a batch can be neither stored nor put aside: {reason}.")
        stored = 0
        for table in self._tables.values():
            rows = table.append(connection, batch)
            stored += rows if table.table.name == "calls" else 0
        connection.execute("DROP TABLE batch")
        for table in self._tables.values():
            table.persist()
        for segment in batch:
            segment.path.unlink()
        for table in self._tables.values():
            table.tidy(connection)
        self.stored += stored
        self._stored_at = time.monotonic()
        return stored


class _Table:
    """One Delta table under the recorder's lock: the handle is the only one that writes."""

    def __init__(self, lake: Path, table: LakeTable) -> None:
        self.table = table
        self._lake = lake
        self._folder = lake / table.name
        self._handle = make_table(lake, table)
        self._persisted = max(-1, self._handle.version() - MAYBE_UNSYNCED)
        """The version up to which everything is known to be on disk."""

    def stored_up_to(self, writer: str) -> int:
        version = self._handle.transaction_version(writer)
        return -1 if version is None else version

    def append(self, connection: duckdb.DuckDBPyConnection, batch: Sequence[Segment]) -> int:
        """Commits the staged rows of the segments that are not in yet, and that they are; returns how many rows."""
        missing = [segment for segment in batch if segment.sequence > self.stored_up_to(segment.writer)]
        if not missing:
            return 0
        table = self.table
        chosen = f"{table.part} IS NOT NULL AND list_contains({literal([segment.path for segment in missing])}, file)"
        rows = f"SELECT {table.stored_columns} FROM batch WHERE {chosen}"  # noqa: S608 -- our own words
        newest = {segment.writer: segment.sequence for segment in missing}
        self._commit(
            self._write(connection, rows, new=True),
            [Transaction(writer, sequence, _now_ms()) for writer, sequence in newest.items()],
        )
        return int(connection.sql(f"SELECT count(*) FROM batch WHERE {chosen}").fetchall()[0][0])  # noqa: S608

    def _write(self, connection: duckdb.DuckDBPyConnection, rows: str, *, new: bool) -> list[AddAction]:
        """Writes the rows of a SELECT into one file per day, which belongs to the table once it is committed."""
        added = []
        days = f"SELECT day, count(*), min(start), max(start) FROM ({rows}) GROUP BY day"  # noqa: S608
        for day, count, oldest, newest in connection.sql(days).fetchall():
            path = f"day={day}/{uuid4()}.parquet"
            file = self._folder / path
            file.parent.mkdir(exist_ok=True)
            of_day = f"SELECT * EXCLUDE (day) FROM ({rows}) WHERE day = DATE '{day}'"  # noqa: S608
            connection.execute(f"COPY ({of_day}) TO {literal(file)} ({_PARQUET})")
            stats = {
                "numRecords": count,
                "minValues": {"start": _cut(oldest)},
                "maxValues": {"start": _cut(newest)},
            }
            size = file.stat().st_size
            added.append(AddAction(path, size, {"day": str(day)}, _now_ms(), new, json.dumps(stats)))
        return added

    def _commit(self, actions: Sequence[AddAction | RemoveAction], transactions: Sequence[Transaction] = ()) -> None:
        self._handle.create_write_transaction(
            list(actions),
            mode="append",
            schema=self._handle.schema(),
            partition_by=["day"],
            commit_properties=CommitProperties(app_transactions=list(transactions)),
            post_commithook_properties=_QUIET,
        )
        self._handle.update_incremental()

    def persist(self) -> None:
        """fsyncs every file of the commits since the last time: Delta does not, and the spool is deleted next."""
        log = self._folder / "_delta_log"
        folders = {log, self._folder}
        for version in range(self._persisted + 1, self._handle.version() + 1):
            commit = log / f"{version:020}.json"
            if not commit.exists():  # older than the checkpoint, and cleaned up
                continue
            _sync(commit)
            for line in commit.read_bytes().splitlines():
                added = self._folder / json.loads(line).get("add", {}).get("path", "_delta_log")
                if added.is_file():
                    _sync(added)
                    folders.add(added.parent)
        for folder in folders:
            sync_folder(folder)
        self._persisted = self._handle.version()

    def tidy(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Many small files become few; the log gets a checkpoint; what nobody reads any more is deleted."""
        files = crowded(stored_files(self._lake, self.table, self._handle))
        if not files:
            return
        rows = f"SELECT * FROM {read_files([file.path for file in files])}"  # noqa: S608 -- our own words
        added = self._write(connection, rows, new=False)
        removed = [
            RemoveAction(
                file.path.relative_to(self._folder).as_posix(), False, _now_ms(), file.size, {"day": str(file.day)}
            )
            for file in files
        ]
        self._commit([*added, *removed])
        self.persist()
        self._handle.create_checkpoint()
        log = self._folder / "_delta_log"
        for file in (*log.glob("*.checkpoint*.parquet"), log / "_last_checkpoint"):
            _sync(file)
        sync_folder(log)
        self._handle.vacuum(dry_run=False, full=True, post_commithook_properties=_QUIET)
        self.persist()
        self._handle.cleanup_metadata()


def crowded(files: Sequence[StoredFile]) -> list[StoredFile]:
    """
    The small files that are to become one per day.

    Today's only with others of about their size (within a factor of 16): a row is rewritten as its file grows to the
    next size, not whenever new files come.
    """
    small = [file for file in files if file.size < COMPACTED_BYTES]
    today = max((file.day for file in small), default=None)

    def group(file: StoredFile) -> tuple[date, int]:
        return file.day, file.size.bit_length() // 4 if file.day == today else 0

    counts = Counter(group(file) for file in small)
    return [
        file
        for file in small
        if counts[group(file)] >= (SMALL_FILES if file.day == today else SMALL_FILES_OF_A_PAST_DAY)
    ]


def ready(found: Sequence[Segment], stored_up_to: Callable[[str], int]) -> list[Segment]:
    """
    The sealed segments that may go in now: of each writer, those before its first open one, in order.

    A commit says "up to N", so no segment may be left behind it. A listing can miss a file that is renamed meanwhile; a
    number that it does not show is therefore looked for by name.
    """
    chosen = []
    for writer, group in groupby(sorted(found), key=lambda segment: segment.writer):
        expected = stored_up_to(writer) + 1
        for segment in group:
            missed = any(_exists(segment, sequence) for sequence in range(expected, segment.sequence))
            if missed or not segment.sealed:
                break
            chosen.append(segment)
            expected = segment.sequence + 1
    return chosen


def _exists(neighbour: Segment, sequence: int) -> bool:
    # In this order: a segment that is sealed between the two looks is found by the second.
    return any(
        (neighbour.folder / segment_name(neighbour.writer, sequence, sealed=sealed)).exists()
        for sealed in (False, True)
    )


def put_aside(segment: Segment) -> int:
    """
    Moves the lines of a sealed segment that can not be stored to `quarantine/<segment>.jsonl`; returns how many.

    The quarantine is written first and whole, then the segment without those lines: killed in between, the same is done
    again.
    """
    lines = [line + b"\n" for line in segment.path.read_bytes().split(b"\n")[:-1]]
    folder = segment.folder / "quarantine"
    folder.mkdir(exist_ok=True)
    scratch = folder / f"{segment.name}.scratch"
    with connect() as connection:
        refused = dict(_refused(connection, scratch, lines, 0))
    scratch.unlink()
    if not refused:
        return 0
    _replace(
        folder / f"{segment.name}.jsonl",
        b"".join(_explained(lines[index], reason) + b"\n" for index, reason in refused.items()),
    )
    _replace(segment.path, b"".join(line for index, line in enumerate(lines) if index not in refused))
    _log.warning("%d records could not be stored; they and the reasons are in %s.", len(refused), folder)
    return len(refused)


def _refused(
    connection: duckdb.DuckDBPyConnection, scratch: Path, lines: Sequence[bytes], first: int
) -> Iterator[tuple[int, str]]:
    """(index, reason) of every line that can not be stored, by halving: few are bad, so few tries find them."""
    scratch.write_bytes(b"".join(lines))
    reason = _refusal(connection, [scratch])
    if reason is None:
        return
    if len(lines) == 1:
        yield first, reason
        return
    middle = len(lines) // 2
    yield from _refused(connection, scratch, lines[:middle], first)
    yield from _refused(connection, scratch, lines[middle:], first + middle)


def _refusal(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> str | None:
    """Parses files of lines into the table `batch`; why that can not be done, or why a row of it can not be stored."""
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE batch AS {read_lines(files, TABLES, lenient=False)}")
    except _POISON as error:
        text = re.sub(r',? (?:(?:in|while reading) file "[^"]*"|in line [0-9]+)', "", first_line(error))
        return text.partition(": ")[2] or text
    flaws = f"SELECT {FLAW} AS flaw FROM batch WHERE flaw IS NOT NULL LIMIT 1"  # noqa: S608 -- fixed words
    row = connection.execute(flaws).fetchone()
    return None if row is None else str(row[0])


def _explained(line: bytes, reason: str) -> bytes:
    body = line.removesuffix(b"\n")
    try:
        return msgspec.json.encode({"reason": reason, "line": body.decode()})
    except UnicodeDecodeError:
        return msgspec.json.encode({"reason": reason, "line_base64": base64.b64encode(body).decode()})


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    sync_folder(path.parent)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _cut(instant: datetime) -> str:
    """An instant as Delta's statistics say it."""
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _sync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _translated(lake: Path) -> Iterator[None]:
    try:
        yield
    except (DeltaError, duckdb.Error, OSError) as error:
        raise Unusable(f"{lake}: records can not be stored: {first_line(error)}.") from error
