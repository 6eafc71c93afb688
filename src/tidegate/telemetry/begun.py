"""
What budgets survive a crash with: lines that say that a call has begun, and a checkpoint that says what was spent.

    {"begin": {…}}      in the spool, before the first attempt of a call under a budget; its record is its end
    budgets.json        what was spent and which calls were running at one place of the spool

A segment leaves for the lake only after a checkpoint behind it, and the last segments of a process that was killed stay
in `orphans/` until they were read. So checkpoint and later lines always hold everything, and the lake is never asked.
Calls that began and did not end are closed as `lost`, and charged what they had reserved.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from tidegate.core.budgets import Period, charged, window
from tidegate.core.errors import BadInput, Unusable
from tidegate.ports import Hold, Spool
from tidegate.telemetry.record import CallRow, Entry, Origin, paid
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


class Begun(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call under a budget as it begins: what its record would say by then, and what it reserved."""

    id: str
    start: str
    nano_usd: int
    budgets: Sequence[tuple[str, str]]
    """Each with the one model whose answers it pays for, or an empty text."""
    project: str = "default"
    origin: Origin = "live"
    operation: str = "chat"
    dialect: str = "openai_chat"
    streamed: bool = False
    prompt: str | None = None
    version: int | None = None
    digest: str | None = None
    environment: str | None = None
    route: str | None = None
    request_model: str | None = None
    key: str | None = None
    key_prefix: str | None = None

    @classmethod
    def of(cls, row: CallRow, hold: Hold) -> Begun:
        """What `row` says of a call that is about to be made."""
        return cls(
            row.id,
            row.start,
            hold.nano_usd,
            hold.budgets,
            row.project,
            row.origin,
            row.operation,
            row.dialect,
            row.streamed,
            row.prompt,
            row.version,
            row.digest,
            row.environment,
            row.route,
            row.request_model,
            row.key,
            row.key_prefix,
        )

    def lost(self) -> CallRow:
        """The record of a call that nobody saw the end of."""
        same = {name: getattr(self, name) for name in _SHARED}
        return CallRow(
            **same,
            outcome="lost",
            error_type="lost",
            error_message=LOST,
            usage_source="estimated" if self.nano_usd else None,
            cost_nano_usd=self.nano_usd or None,
        )


_SHARED = [name for name in Begun.__struct_fields__ if name in CallRow.__struct_fields__]


class _Line(msgspec.Struct):
    """What is read of any line of the spool."""

    begin: Begun | None = None
    call: CallRow | None = None


class _Begin(msgspec.Struct):
    begin: Begun


class Checkpoint(msgspec.Struct):
    """All that is to be known of the spool before `place`, and of the segments of earlier processes."""

    place: Place
    spent: Spent
    running: list[Begun]
    read: dict[str, int] = {}
    """By writer: the last segment of a process before that one. Nothing of it is to be read again."""


@dataclass
class Restored:
    """Where budgets go on from."""

    spent: Spent = field(default_factory=dict)
    """Without what the lost calls are charged."""
    lost: list[Begun] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


def encode_begun(begun: Begun) -> bytes:
    """The spool line."""
    try:
        return _encode(_Begin(begun))
    except UnicodeEncodeError:  # half a character in a name that is the client's
        asked = (begun.request_model or "").encode("utf-8", "replace").decode()
        return _encode(_Begin(msgspec.structs.replace(begun, request_model=asked)))


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


def write_checkpoint(spool: Path, checkpoint: Checkpoint) -> bool:
    """Replaces it, on disk; False when that can not be."""
    draft = spool / f"{CHECKPOINT}.new"
    try:
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
    checkpoint = _read_checkpoint(spool / CHECKPOINT)
    restored = Restored()
    running: dict[str, Begun] = {}
    if checkpoint is not None:
        restored.spent = checkpoint.spent
        running = {begun.id: begun for begun in checkpoint.running}
    for line in _lines(spool, checkpoint, restored.read):
        if line.begin is not None:
            running[line.begin.id] = line.begin
        elif line.call is not None and (begun := running.pop(line.call.id, None)) is not None:
            _charge(restored.spent, begun, line.call, zone)
    restored.lost = list(running.values())
    return restored


def close_lost(restored: Restored, spool: Spool, zone: ZoneInfo) -> None:
    """Writes the record of each lost call, and charges it what it had reserved."""
    for begun in restored.lost:
        row = begun.lost()
        spool.append(_encode(Entry(row)))
        _charge(restored.spent, begun, row, zone)


def forget_orphans(spool: Path, read: dict[str, int]) -> None:
    """Deletes the segments that a checkpoint says were read."""
    for segment in segments(spool / ORPHANS):
        if segment.sequence <= read.get(segment.writer, -1):
            segment.path.unlink(missing_ok=True)


def _charge(spent: Spent, begun: Begun, row: CallRow, zone: ZoneInfo) -> None:
    cost = charged(paid(row), begun.nano_usd)
    ended = int((datetime.fromisoformat(row.start).timestamp() + row.latency_s) * _S)
    answered = row.attempts[-1].target if row.attempts else None
    for name, only in begun.budgets:
        if not only or only == answered or row.outcome == "lost":
            period: Period = name.rpartition(" ")[2]  # type: ignore[assignment]  # one of the three, by its making
            start, _ = window(period, ended, zone)
            windows = spent.setdefault(name, {})
            windows[start] = windows.get(start, 0) + cost


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
