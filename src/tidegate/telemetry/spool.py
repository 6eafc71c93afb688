"""
The spool: where records wait between the process that made them and the lake.

Each process appends to a segment file of its own, `<writer>-<sequence>.open`, and holds its flock for as long as it may
write; a sealed segment is renamed to `.jsonl` and gets no more lines. So a reader may take the whole lines of any file
at any time, and an `.open` file whose lock is free belongs to a process that is dead. This file hides names, locks,
short writes and fsync. It imports nothing heavy: it is part of the gateway's process.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tidegate.core.errors import BadInput
from tidegate.ports import Clock
from tidegate.private import make_private

SEGMENT_BYTES = 32 << 20
CHECKPOINT = "budgets.json"
ORPHANS = "orphans"
_NAME = re.compile(r"(?P<writer>.+)-(?P<sequence>[0-9]{8,18})\.(?P<state>open|jsonl)\Z")


log = logging.getLogger("tidegate.telemetry")


@dataclass(frozen=True, order=True, slots=True)
class Segment:
    """One spool file as a listing saw it; `sequence` counts up within a writer. Sorts by writer, then sequence."""

    writer: str
    sequence: int
    folder: Path
    sealed: bool

    @property
    def path(self) -> Path:
        """Where it was when it was listed; an open segment may have been sealed since."""
        return self.folder / segment_name(self.writer, self.sequence, sealed=self.sealed)

    @property
    def name(self) -> str:
        return segment_name(self.writer, self.sequence, sealed=True).removesuffix(".jsonl")


class Place(NamedTuple):
    """A place between two lines: in segment `sequence` of a writer, after so many bytes."""

    writer: str
    sequence: int
    offset: int


def segment_name(writer: str, sequence: int, *, sealed: bool) -> str:
    """The file name of a segment."""
    return f"{writer}-{sequence:08d}.{'jsonl' if sealed else 'open'}"


def segments(folder: Path) -> list[Segment]:
    """All segments in the folder, sorted; none without a folder. One that is being sealed meanwhile may be missed."""
    found = set()
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.match(entry.name)
            if match:
                sequence = int(match["sequence"])
                found.add(Segment(match["writer"], sequence, folder, sealed=match["state"] == "jsonl"))
    return sorted(found)


def whole_lines(data: bytes) -> bytes:
    """`data` up to and with its last line feed: what follows is still being written, or never was."""
    return data[: data.rfind(b"\n") + 1]


def prepare(folder: Path) -> None:
    """Makes the spool's folder and tries to write there. Raises BadInput in one sentence when that can not be."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        make_private(folder)
        probe.touch()
        probe.unlink()
    except FileExistsError as error:
        raise BadInput(f"{folder}: records go here, but this is a file. Move it out of the way.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{folder}: records can not be written here: {reason}. Make the folder writable.") from error


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Holds the flock of an existing file, if nobody else does; yields whether. Raises FileNotFoundError."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield _is(path, handle)
    finally:
        os.close(handle)


def seal_orphan(segment: Segment) -> bool:
    """
    Cuts an open segment whose process is dead to whole lines and seals it; False while its process lives.

    Where budgets are kept it stays in `orphans/` too, for the process that goes on with them.
    """
    try:
        with exclusive(segment.path) as dead:
            if dead:
                data = whole_lines(segment.path.read_bytes())
                os.truncate(segment.path, len(data))
                if data and (segment.folder / CHECKPOINT).exists():
                    keep_orphan(segment.path)
                _seal(segment.path, len(data))
            return dead
    except FileNotFoundError:
        return False


class SpoolWriter:
    """
    Implements ports.Spool for one process. `append` and `run` belong to one event loop; `close` comes after them.

    `accepted` counts every line handed over, `shed` those that could not be written, `bytes` what was. `problem` is the
    sentence to show while lines are shed, else None.
    """

    def __init__(
        self, folder: Path, *, clock: Clock, writer_id: str, fsync_s: float = 1.0, segment_s: float = 5.0
    ) -> None:
        """
        Args:
            writer_id: unique to this start of this process: the lake takes every (writer, sequence) once, for ever.
            fsync_s: how much a power loss may cost.
            segment_s: the age at which a segment is sealed and handed to the recorder.
        Raises: BadInput when the folder can not be made or written.
        """
        prepare(folder)
        self.accepted = 0
        self.shed = 0
        self.bytes = 0
        self.problem: str | None = None
        self.before_seal: Callable[[], Callable[[], bool]] | None = None
        """
        Asked on the loop what a thread is to do before segments leave for the lake: to note what they said. Where that
        fails they stay in `orphans/` too.
        """
        self._folder = folder
        self._clock = clock
        self._writer = writer_id
        self._fsync_s = fsync_s
        self._segment_s = segment_s
        self._sequence = 0
        self._current: _Open | None = None
        self._retired: deque[_Open] = deque()
        self._disk = threading.Lock()
        """Held around fsync, rename and close: the owner's thread and `close` never meet on one descriptor."""

    def append(self, line: bytes) -> bool:
        """
        Writes one line with one write(2); about 5 µs for 1.5 KB. It is safe from a `kill -9` of this process on return.

        Args:
            line: one JSON document without a line feed.
        Returns: False when it could not be written; it is then counted as shed, and no part of it stays.
        """
        self.accepted += 1
        try:
            current = self._current or self._open()
            current.append(line)
        except OSError as error:
            self.shed += 1
            if self.problem is None:
                log.error("%s: records are being lost: %s; calls are served all the same", self._folder, error.strerror)
            self.problem = f"{self._folder}: records are being lost: {error.strerror or error}."
            self._retire_failed()
            return False
        self.bytes += len(line) + 1
        if self.problem is not None:
            log.warning("%s: records are kept again; %d were lost since the start", self._folder, self.shed)
            self.problem = None
        return True

    @property
    def place(self) -> Place:
        """Where the next line will stand."""
        current = self._current
        sequence = self._sequence if current is None else self._sequence - 1
        return Place(self._writer, sequence, 0 if current is None else current.size)

    async def run(self) -> None:
        """Owner task, until it is cancelled: fsyncs what is dirty, and seals what is old or large."""
        while True:
            await asyncio.sleep(min(self._fsync_s, self._segment_s))
            current = self._current
            if current is not None and current.size:
                old = self._clock.monotonic() - current.opened_at >= self._segment_s
                if old or current.size > SEGMENT_BYTES or current.lost:
                    self._retire()
            if self._retired or (self._current is not None and self._current.dirty):
                await asyncio.to_thread(self._write_out, len(self._retired), self._checkpoint())

    def close(self) -> None:
        """Seals everything. A later `append` would begin a new segment."""
        self._retire()
        self._write_out(len(self._retired), self._checkpoint())

    def _checkpoint(self) -> Callable[[], bool] | None:
        """What has to be done before the segments that are retired now are sealed."""
        return self.before_seal() if self.before_seal is not None and self._retired else None

    def _open(self) -> _Open:
        while True:
            path = self._folder / segment_name(self._writer, self._sequence, sealed=False)
            self._sequence += 1
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                continue
            except FileNotFoundError:
                make_private(self._folder)
                continue
            # Until the lock is held the file looks like an orphan, and a recorder may have taken it.
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            if not _is(path, handle):
                os.close(handle)
                continue
            self._current = _Open(path, handle, self._clock.monotonic())
            return self._current

    def _retire(self) -> None:
        if self._current is not None:
            self._retired.append(self._current)
            self._current = None

    def _retire_failed(self) -> None:
        """An empty segment is kept for the next try; a written one is sealed, so that the recorder can make room."""
        if self._current is not None and (self._current.size or self._current.torn):
            self._retire()

    def _write_out(self, sealing: int, first: Callable[[], bool] | None) -> None:
        with self._disk:
            noted = first is None or first()
            for _ in range(min(sealing, len(self._retired))):
                retired = self._retired.popleft()
                if not noted:
                    with suppress(OSError):
                        keep_orphan(retired.path)
                retired.seal()
            current = self._current
            if current is not None and current.dirty:
                current.sync()


class _Open:
    """A segment that is being written."""

    def __init__(self, path: Path, handle: int, opened_at: float) -> None:
        self.path = path
        self.opened_at = opened_at
        self.size = 0
        self.dirty = False
        self.torn = False
        """A part of a line stands at the end and could not be cut off."""
        self._handle = handle

    @property
    def lost(self) -> bool:
        """Somebody deleted the file under us."""
        return os.fstat(self._handle).st_nlink == 0

    def append(self, line: bytes) -> None:
        data = line + b"\n"
        written = os.write(self._handle, data)
        if written != len(data):
            self.torn = True
            os.ftruncate(self._handle, self.size)
            self.torn = False
            raise OSError(errno.ENOSPC, "the disk took a part of a line only")
        self.size += written
        self.dirty = True

    def sync(self) -> None:
        self.dirty = False
        with suppress(OSError):  # the lines are in the page cache; the next one tries again
            os.fsync(self._handle)

    def seal(self) -> None:
        if self.dirty:
            self.sync()
        with suppress(OSError):
            _seal(self.path, self.size)
        os.close(self._handle)


def keep_orphan(segment: Path) -> None:
    """Gives a segment a second name, which no recorder deletes. Raises OSError."""
    orphans = segment.parent / ORPHANS
    orphans.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        os.link(segment, orphans / f"{segment.stem}.jsonl")
    sync_folder(orphans)


def _seal(path: Path, size: int) -> None:
    if size == 0:
        path.unlink()
        return
    path.rename(path.with_suffix(".jsonl"))
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power loss."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
