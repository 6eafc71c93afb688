"""
Judgements that were made already: the same answer to the same case is never judged twice by the same judge.

The key holds all that a judgement depends on (asking.token_of). It is a cache: whoever deletes the file pays again, and
a line that can not be read is a judgement that is not there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

from tidegate.core.evaluation import Score
from tidegate.private import make_private

MAX_BYTES = 64 << 20
"""Of the file; beyond it, it is begun anew."""


class Judgements(Protocol):
    """Scores by their keys."""

    def get(self, key: str) -> Score | None: ...
    def put(self, key: str, score: Score) -> None: ...


class _Line(msgspec.Struct):
    key: str
    score: Score


_decoder = msgspec.json.Decoder(_Line)


class JudgementFile:
    """Implements Judgements over one file of JSON lines, read at the first question; several processes may append."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Score] | None = None

    def get(self, key: str) -> Score | None:
        return self._read().get(key)

    def put(self, key: str, score: Score) -> None:
        """Keeps a judgement; where it can not be written it is kept for this process alone."""
        self._read()[key] = score
        try:
            self._append(msgspec.json.encode(_Line(key, score)) + b"\n")
        except (OSError, UnicodeEncodeError):
            return

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        make_private(self._path.parent)
        opened = os.open(self._path, flags, 0o600)
        try:
            if os.fstat(opened).st_size + len(line) > MAX_BYTES:
                os.ftruncate(opened, 0)
            os.write(opened, line)
        finally:
            os.close(opened)

    def _read(self) -> dict[str, Score]:
        if self._known is None:
            self._known = {}
            try:
                lines = self._path.read_bytes().split(b"\n")
            except OSError:
                lines = []
            for line in lines:
                try:
                    found = _decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
                self._known[found.key] = found.score
        return self._known
