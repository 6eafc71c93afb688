"""Records, and where they go in a test: one project's spool and lake."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tidegate.core.ids import uuid7
from tidegate.system import SystemClock
from tidegate.telemetry.queries import CallLog
from tidegate.telemetry.record import CallRow, ContentRow, Entry
from tidegate.telemetry.recorder import Recorder
from tidegate.telemetry.spool import SpoolWriter


def iso(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def call_id(number: int, start: datetime) -> str:
    return uuid7(int(start.timestamp() * 1_000), number)


def entry(number: int, *, ago_s: float = 0.0, start: datetime | None = None, **fields: Any) -> Entry:
    """A call with content; `number` makes its id, the same number the same id at the same start."""
    at = start or datetime.now(UTC) - timedelta(seconds=ago_s)
    known: dict[str, Any] = {"prompt": "support/answer", "version": 1} | fields
    call = CallRow(id=call_id(number, at), start=iso(at), **known)
    return Entry(call, ContentRow(call.id, call.start, '[{"role":"user","content":"hi"}]', "hello", {"name": "Zoë"}))


def line(number: int, **fields: Any) -> bytes:
    return msgspec.json.encode(entry(number, **fields))


def small_disk(size: str) -> list[str]:
    """A command prefix that runs a program with a small file system of its own on its first argument, or a skip."""
    prefix = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"']
    if shutil.which("unshare") is None:
        pytest.skip("needs `unshare`")
    if subprocess.run([*prefix, "/mnt", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    return prefix


@dataclass
class Places:
    """The folders of one project's telemetry."""

    root: Path

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    def writer(self, name: str = "writer") -> SpoolWriter:
        return SpoolWriter(self.spool, clock=SystemClock(), writer_id=name, fsync_s=0.02, segment_s=0.05)

    def recorder(self) -> Recorder:
        return Recorder(self.spool, self.lake)

    def log(self) -> CallLog:
        return CallLog(spool=self.spool, lake=self.lake)

    def spool_lines(self, *lines: bytes, writer: str = "writer") -> None:
        """One sealed segment with these lines."""
        spool = self.writer(writer)
        for text in lines:
            assert spool.append(text)
        spool.close()

    def count(self) -> tuple[int, int, int]:
        """(calls, distinct ids, contents) as a query sees them."""
        log = self.log()
        found = log.sql("SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM content) FROM calls").rows[0]
        return int(found[0]), int(found[1]), int(found[2])
