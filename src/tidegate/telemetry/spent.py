"""
What was spent, over crashes: a checkpoint, the records behind it, and the calls that were running.

    budgets.json        what was spent at one place of the spool
    *.open, *.jsonl     the record of a call under a budget says what it was charged
    running             the calls that have no record yet (running.py)

A segment leaves for the lake only after a checkpoint behind it, and the last segments of a process that was killed stay
in `orphans/` until they were read. So checkpoint and later lines always hold everything, and the lake is never asked.
Calls that began and did not end are closed as `lost`, and charged what they had reserved.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from tidegate.core.budgets import Charge, Period, window
from tidegate.core.errors import BadInput, Unusable
from tidegate.ports import Spool
from tidegate.telemetry.record import CallRow, Entry
from tidegate.telemetry.running import RUNNING, RunningCalls, read_running
from tidegate.telemetry.spool import (
    CHECKPOINT,
    ORPHANS,
    Place,
    exclusive,
    segment_name,
    segments,
    sync_folder,
    whole_lines,
)

Spent = dict[str, dict[int, int]]
"""Budget → start of a window → nano-USD."""
LOST = "the gateway ended while this call was running; it is charged the most that it could cost"
LOCK = "budgets.lock"
_S = 1_000_000_000
log = logging.getLogger("tidegate.telemetry")


class _Call(msgspec.Struct):
    id: str
    start: str
    latency_s: float = 0.0


class _Line(msgspec.Struct):
    """What is read of any line of the spool."""

    call: _Call
    charge: Charge | None = None


class Checkpoint(msgspec.Struct):
    """All that is to be known of the spool before `place`, and of the segments of earlier processes."""

    place: Place
    spent: Spent
    over: list[str] = []
    """Calls whose money is in `spent`, and that still stand among the running ones."""
    read: dict[str, int] = {}
    """By writer: the last segment of a process before that one. Nothing of it is to be read again."""


@dataclass
class Restored:
    """Where budgets go on from."""

    spent: Spent = field(default_factory=dict)
    """Without what the lost calls are charged."""
    lost: list[Entry] = field(default_factory=list)
    """As they stood: what they are charged is the most that they may have cost."""
    over: list[str] = field(default_factory=list)
    """All that stand there still, these among them."""
    read: dict[str, int] = field(default_factory=dict)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


@contextmanager
def only_one(spool: Path) -> Iterator[None]:
    """While it is held no other process makes calls under these budgets. Raises BadInput when one does."""
    lock = spool / LOCK
    lock.touch()
    with exclusive(lock) as ours:
        if not ours:
            raise BadInput(
                "another tidegate command is making calls under the budgets of this folder. Wait until it is done, or "
                "start `tidegate serve` first: then all calls go through it."
            )
        yield


def write_checkpoint(spool: Path, checkpoint: Checkpoint, running: RunningCalls) -> bool:
    """Replaces it, on disk; False when that can not be."""
    draft = spool / f"{CHECKPOINT}.new"
    try:
        running.sync()  # else a power loss could bring back calls that ended before the checkpoint
        with draft.open("wb") as file:
            file.write(_encode(checkpoint))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(spool / CHECKPOINT)
        sync_folder(spool)
    except OSError as error:
        log.error("%s: what was spent can not be noted: %s", draft, error.strerror or error)
        return False
    return True


def restore(spool: Path, zone: ZoneInfo) -> Restored:
    """
    What was spent up to now, and the calls whose process died. Only reads; for the one process that holds the folder.

    Raises: Unusable when the checkpoint can not be read.
    """
    # In this order: a call that ends meanwhile is among the running ones, or else its record is found.
    running, torn = read_running(spool / RUNNING)
    checkpoint = _read_checkpoint(spool / CHECKPOINT)
    restored = Restored() if checkpoint is None else Restored(checkpoint.spent)
    over = set() if checkpoint is None else set(checkpoint.over)
    if torn:
        log.warning("%s: calls that were running can not be read, and are charged nothing: %d", spool / RUNNING, torn)
    for line in _lines(spool, checkpoint, restored.read):
        over.add(line.call.id)
        _charge(restored.spent, line.call, line.charge, zone)
    restored.lost = [entry for entry in running if entry.call.id not in over]
    restored.over = [entry.call.id for entry in running]
    return restored


def close_lost(restored: Restored, spool: Spool, zone: ZoneInfo) -> None:
    """Writes the record of each lost call, and charges it what it had reserved."""
    for entry in restored.lost:
        row, nano_usd = entry.call, entry.charge[0] if entry.charge else 0
        row.outcome, row.error_type, row.error_message = "lost", "lost", LOST
        row.cost_nano_usd = nano_usd or None
        row.usage_source = "estimated" if nano_usd else None
        spool.append(_encode(entry))
        _charge(restored.spent, row, entry.charge, zone)


def forget_orphans(spool: Path, read: dict[str, int]) -> None:
    """Deletes the segments that a checkpoint says were read."""
    for segment in segments(spool / ORPHANS):
        if segment.sequence <= read.get(segment.writer, -1):
            segment.path.unlink(missing_ok=True)


def _charge(spent: Spent, call: _Call | CallRow, charge: Charge | None, zone: ZoneInfo) -> None:
    if charge is None:
        return
    ended = int((datetime.fromisoformat(call.start).timestamp() + call.latency_s) * _S)
    nano_usd, names = charge
    for name in names:
        period: Period = name.rpartition(" ")[2]  # type: ignore[assignment]  # one of the three, by its making
        start, _ = window(period, ended, zone)
        windows = spent.setdefault(name, {})
        windows[start] = windows.get(start, 0) + nano_usd


def _read_checkpoint(file: Path) -> Checkpoint | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Unusable(
            f"{file}: what was spent can not be read: {error}. Put it back, or delete it to begin from zero."
        ) from error


def _lines(spool: Path, checkpoint: Checkpoint | None, read: dict[str, int]) -> Iterator[_Line]:
    """The lines behind the checkpoint, oldest first; notes in `read` which segments there were."""
    before = {} if checkpoint is None else dict(checkpoint.read)
    # The recorder gives a segment its second name before the first one goes, so in this order none is missed.
    found = {(segment.writer, segment.sequence) for folder in (spool, spool / ORPHANS) for segment in segments(folder)}
    for writer, sequence in sorted(found):
        read[writer] = sequence
        offset = 0
        if checkpoint is not None and writer == checkpoint.place.writer:
            if sequence < checkpoint.place.sequence:
                continue
            offset = checkpoint.place.offset if sequence == checkpoint.place.sequence else 0
        elif sequence <= before.get(writer, -1):
            continue
        for line in _whole(spool, writer, sequence)[offset:].split(b"\n"):
            try:
                yield _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # the recorder puts it aside, with the reason


def _whole(spool: Path, writer: str, sequence: int) -> bytes:
    """The whole lines of a segment, wherever the recorder has it by now."""
    kept = spool / ORPHANS / segment_name(writer, sequence, sealed=True)
    first, then = (spool / segment_name(writer, sequence, sealed=sealed) for sealed in (False, True))
    for path in (kept, first, then, kept):
        with suppress(FileNotFoundError):
            return whole_lines(path.read_bytes())
    return b""
