"""
Calls under a budget while they run: `spool/running`, a file that is mapped into memory.

A call stands there from before its first attempt until its record is in the spool. To write it is to write memory, and
the pages are the kernel's: they outlive the process. Its blocks are allocated before they are mapped, so no write can
find the disk full. It is kept as slots of 1 KiB, and a call that needs more has several in a row:

    0xFF   length, CRC-32   the spool line of the call, as it would be by now; 0xFF is written last, and is in no JSON
"""

from __future__ import annotations

import asyncio
import errno
import logging
import mmap
import os
import struct
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import msgspec

from tidegate.core.errors import Unusable
from tidegate.telemetry.record import Entry

RUNNING = "running"
SLOT = 1 << 10
STEP = 256 << 10
"""The file grows by so much."""
_STANDS = 0xFF
_HEAD = struct.Struct("<II")
_pack = _HEAD.pack
_SAID = 1 + _HEAD.size
_ROOM = SLOT - _SAID
_decode = msgspec.json.Decoder(Entry).decode
log = logging.getLogger("tidegate.telemetry")

Place = tuple[mmap.mmap, int, "list[Place]"]
"""A free place, or one that a call has: where it is, and the list that it goes back to."""


class RunningCalls:
    """
    Implements ports.Running for the one process that holds the budgets. `begin` and `end` belong to one event loop;
    `sync` may be called in any thread.
    """

    def __init__(self, file: Path, *, fsync_s: float = 1.0) -> None:
        """`fsync_s`: how much a power loss may cost."""
        self.over: list[str] = []
        """Ids of calls that stand in the file and are charged all the same: a checkpoint has to say so."""
        self._file = file
        self._fsync_s = fsync_s
        self._handle: int | None = None
        self._free: defaultdict[int, list[Place]] = defaultdict(list)
        """By the number of slots in a row: a power of two, so that what calls bring decides on few lists."""
        self._unwritten = False
        """The last record was not taken by the disk: no call is let through until one is."""
        self._dirty = False

    def begin(self, said: bytes) -> Place | None:
        """A call's place, which is safe from a `kill -9` of this process on return; None when the disk is full."""
        if self._unwritten:
            return None
        size = len(said)
        row = 1 if size <= _ROOM else 1 << ((size + _SAID - 1) // SLOT).bit_length()
        free = self._free[row]
        if not free and not self._grow(row, free):
            return None
        chunk, at, _ = place = free.pop()
        chunk[at + 1 : at + _SAID + size] = _pack(size, crc32(said)) + said
        chunk[at] = _STANDS
        self._dirty = True
        return place

    def end(self, place: Place | None, *, recorded: bool) -> None:
        """
        The call's record was handed to the spool.

        Args:
            place: None when `begin` gave none.
            recorded: whether it stands there. If not, the call stays here for as long as no checkpoint has its money.
        """
        self._unwritten = not recorded
        if place is None:
            return
        chunk, at, free = place
        if recorded:
            chunk[at] = 0
            free.append(place)
        else:
            self.over.append(_read(chunk, at).call.id)

    def restart(self) -> None:
        """Forgets all that stands there; before the first call, once a checkpoint has it."""
        self._file.unlink(missing_ok=True)
        self.over.clear()

    def sync(self) -> None:
        """Has it survive a power loss as it is now, or newer. Raises OSError."""
        if self._handle is not None:
            self._dirty = False
            os.fsync(self._handle)

    async def run(self) -> None:
        """Owner task, until it is cancelled: syncs what has begun."""
        while True:
            await asyncio.sleep(self._fsync_s)
            if self._dirty:
                with suppress(OSError):  # the pages are the kernel's; the next checkpoint tries again
                    await asyncio.to_thread(self.sync)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _grow(self, row: int, free: list[Place]) -> bool:
        """More places of so many slots; False when there is no space, and none is taken."""
        try:
            if self._handle is None:
                self._handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            end, more = os.fstat(self._handle).st_size, max(STEP, row * SLOT)
            begin = -(-end // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
            try:
                if os.pwrite(self._handle, bytes(more), begin) < more:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                chunk = mmap.mmap(self._handle, more, offset=begin)
            except OSError:
                os.ftruncate(self._handle, end)
                raise
        except OSError as error:
            log.error("%s: calls under a budget are refused: %s", self._file, error.strerror or error)
            return False
        free.extend((chunk, at, free) for at in range(more - row * SLOT, -1, -row * SLOT))
        return True


def read_running(file: Path) -> tuple[list[Entry], int]:
    """
    The calls that stand in the file, and how many there were that can not be read: a power loss may cut one in two.

    Raises: Unusable when the file can not be read.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise Unusable(
            f"{file}: the calls that were running can not be read: {error.strerror}. Put it back, or delete it to "
            "forget them."
        ) from error
    found: list[Entry] = []
    torn = at = 0
    while at < len(data):
        if data[at] == _STANDS:
            try:
                found.append(_read(data, at))
            except (ValueError, struct.error):
                torn += 1
        at += SLOT
    return found, torn


def _read(data: mmap.mmap | bytes, at: int) -> Entry:
    """The call that stands there. Raises ValueError, struct.error when it can not be read."""
    size, check = _HEAD.unpack_from(data, at + 1)
    said = data[at + _SAID : at + _SAID + size]
    if crc32(said) != check:
        raise ValueError("torn")
    return _decode(said)
