"""
What an unfinished run has paid for, so that going on after a crash or Ctrl-C pays for nothing twice.

`.tidegate/runs/<id>.jsonl`: a head that says what is run, then one line per answered call, written as soon as the
answer is there and before anyone sees it. The runner makes the same calls again and is given what is written down, so a
run that went on ends as one that was never interrupted. Failed calls are not kept: they are made again. Of a kill, a
torn last line is cut off. A process holds its journals locked: two gates of one prompt at once do not share one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from tidegate.core.errors import Unusable
from tidegate.core.instant import iso_utc
from tidegate.evals.budget import Budget
from tidegate.evals.judges.evidence import storable
from tidegate.ports import Clock, PromptAnswer, PromptCall
from tidegate.private import make_private

KEPT_S = 3 * 86_400
"""After that an unfinished run is forgotten: too much may have changed at the provider."""
SUFFIX = ".jsonl"
ELSEWHERE = "spent elsewhere, in nano-USD"


class RunKey(msgspec.Struct, frozen=True):
    """What a run measures, and by what: only a journal of just that is gone on with."""

    prompt: str
    digest: str
    suite: str
    golden: str


class _Head(msgspec.Struct):
    key: RunKey
    started_at: str
    spent_nano_usd: int
    """By the same command, before this run began."""


class _Line(msgspec.Struct, omit_defaults=True):
    head: _Head | None = None
    call: str = ""
    eval: bool = False
    """The first call of a repeat: not a judge's, and not an agent's next."""
    answer: PromptAnswer | None = None
    note: str = ""
    text: str = ""


_decode = msgspec.json.Decoder(_Line).decode


def identity(call: PromptCall) -> str:
    """Of a call within a run: whose prompt, case, repeat and judge, with what, as 32 hex digits."""
    who = [call.tags.get(name) for name in ("case", "repeat", "judge")]
    said = [call.prompt, call.digest, call.origin, who, call.variables, call.messages, call.top_logprobs]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Journal:
    """One run's. Blocking, but no call waits for longer than a write(2) of one line."""

    def __init__(self, file: int, path: Path, head: _Head) -> None:
        self.path = path
        self.started_at = head.started_at
        self.resumed = 0
        """Answers of cases that were there when it was opened; 0 once that is known."""
        self.spent_nano_usd = 0
        """What all answers in it cost."""
        self.spent_elsewhere_nano_usd = head.spent_nano_usd
        """By the same command, for runs that are over."""
        self.broken: str | None = None
        """Why nothing more can be written down."""
        self._file = file
        self._answers = 0
        self._known: dict[str, PromptAnswer] = {}
        self._notes: dict[str, str] = {}

    @property
    def waiting(self) -> int:
        """Answers that are there and have not been asked for."""
        return len(self._known)

    def take(self, call: str) -> PromptAnswer | None:
        """The answer to a call by its identity, once; None where it has to be made."""
        return self._known.pop(call, None)

    def holds(self, call: str) -> bool:
        """Whether `take` would find it."""
        return call in self._known

    def put(self, call: str, answer: PromptAnswer, *, own: bool) -> None:
        """Writes down an answer. `own`: to the first call of a repeat. Where that fails, `broken` says why."""
        self._append(_Line(call=call, eval=own, answer=answer))
        self._answers += 1
        self.spent_nano_usd += answer.cost_nano_usd or 0

    def keep(self, call: str, answer: PromptAnswer) -> None:
        """Writes down an answer to a call that is still to be asked for: one of a batch."""
        self.put(call, answer, own=True)
        self._known[call] = answer

    def note(self, name: str, text: str) -> None:
        """Writes down something else; a later text under one name counts."""
        self._notes[name] = text
        self._append(_Line(note=name, text=text))

    def spent_by(self, other: Journal) -> None:
        """Writes down what another run of the command has cost, which is over: its journal goes."""
        if other.spent_nano_usd:
            self.spent_elsewhere_nano_usd += other.spent_nano_usd
            self._append(_Line(note=ELSEWHERE, text=str(self.spent_elsewhere_nano_usd)))

    def noted(self, name: str) -> str | None:
        """The text of a note."""
        return self._notes.get(name)

    def notes(self, beginning: str) -> list[tuple[str, str]]:
        """Names that begin so, each with its text."""
        return [(name, text) for name, text in self._notes.items() if name.startswith(beginning)]

    def discard(self) -> None:
        """The run is whole and stored."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Others may go on with it; where nothing was paid for it goes."""
        if self._file < 0:
            return
        if not (self.spent_elsewhere_nano_usd or self._answers or self._notes):
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def _read(self) -> None:
        """Takes in what is written, and cuts off a torn end."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            whole = 0
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, whole)
                    break
                whole += len(line)
                with suppress(msgspec.DecodeError, UnicodeDecodeError):
                    self._take_in(_decode(line))

    def _take_in(self, line: _Line) -> None:
        if line.note == ELSEWHERE:
            self.spent_elsewhere_nano_usd = int(line.text)
        elif line.note:
            self._notes[line.note] = line.text
        if line.answer is not None and line.call not in self._known:
            self._known[line.call] = line.answer
            self.resumed += line.eval
            self._answers += 1
            self.spent_nano_usd += line.answer.cost_nano_usd or 0

    def _append(self, line: _Line) -> None:
        try:
            _write(self._file, line)
        except OSError as error:
            self.broken = self.broken or f"{self.path}: answers can not be written down: {error.strerror}"


class Journals:
    """The unfinished runs of one project. Blocking."""

    def __init__(self, folder: Path, clock: Clock, *, fresh: bool = False) -> None:
        """`fresh`: forget what there is of a run when it is begun."""
        self._folder = folder
        self._clock = clock
        self._fresh = fresh
        self._open: dict[RunKey, Journal] = {}

    def open(self, key: RunKey, *, run_id: str, budget: Budget) -> Journal:
        """
        The journal of a run: the one that is open, the newest that nobody else goes on with, or a new one.

        Args:
            run_id: names a new one.
            budget: of the command; what was spent before an interruption counts in it.
        Raises: Unusable when it can not be written.
        """
        known = self._open.get(key)
        if known is not None:
            known.resumed = 0
            return known
        elsewhere = budget.spent_nano_usd - self._spent()
        try:
            found = self._found(key)
            self._open[key] = made = found or self._made(key, run_id, elsewhere)
        except OSError as error:
            why = error.strerror or str(error)
            raise Unusable(f"{self._folder}: what a run pays for can not be written down: {why}.") from error
        if found is not None:
            budget.spent_nano_usd = max(elsewhere, found.spent_elsewhere_nano_usd) + self._spent()
        return made

    def get(self, key: RunKey) -> Journal | None:
        """The journal, when it is open."""
        return self._open.get(key)

    def finished(self, key: RunKey) -> None:
        """The run is whole and stored: its journal goes."""
        journal = self._open.pop(key, None)
        if journal is not None:
            for other in self._open.values():
                other.spent_by(journal)
            journal.discard()

    def close(self) -> None:
        """Leaves every unfinished one to whoever goes on; where there is none, nothing is left of the folder either."""
        for journal in self._open.values():
            journal.close()
        self._open.clear()
        with suppress(OSError):
            self._folder.rmdir()
            self._folder.parent.rmdir()

    def _spent(self) -> int:
        """What the runs that are not over cost until now."""
        return sum(journal.spent_nano_usd for journal in self._open.values())

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Closes all at the end of the block."""
        try:
            yield
        finally:
            self.close()

    def _made(self, key: RunKey, run_id: str, spent_nano_usd: int) -> Journal:
        path = self._folder / f"{run_id}{SUFFIX}"
        try:
            file = self._new(path)
        except FileNotFoundError:  # another process has just finished, and took its empty folder away
            file = self._new(path)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        head = _Head(key, iso_utc(self._clock.now_ns()), spent_nano_usd)
        _write(file, _Line(head=head))
        return Journal(file, path, head)

    def _new(self, path: Path) -> int:
        make_private(self._folder)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _found(self, key: RunKey) -> Journal | None:
        """The newest journal of `key`; the old ones of all are thrown away."""
        now = self._clock.now_ns() / 1e9
        for path in sorted(self._folder.glob(f"*{SUFFIX}"), reverse=True):
            file = _locked(path)
            if file is None:
                continue
            head = _head(file)
            old = head is None or now - datetime.fromisoformat(head.started_at).timestamp() > KEPT_S
            if head is None or old or (head.key == key and self._fresh):
                path.unlink(missing_ok=True)
            elif head.key == key:
                journal = Journal(file, path, head)
                journal._read()
                return journal
            os.close(file)
        return None


def _locked(path: Path) -> int | None:
    """The file, open and ours alone; None where another process has it, or it is gone."""
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    if os.fstat(file).st_nlink == 0:  # finished, between our open and our lock
        os.close(file)
        return None
    return file


def _head(file: int) -> _Head | None:
    """What a journal is of; None where that can not be read."""
    first, end, _ = os.pread(file, 1 << 16, 0).partition(b"\n")
    try:
        return _decode(first).head if end else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _write(file: int, line: _Line) -> None:
    """One line by one write(2). Raises OSError, also where there is room for a part of it only."""
    try:
        raw = msgspec.json.encode(line) + b"\n"
    except UnicodeEncodeError:  # half an emoji
        raw = storable(json.dumps(msgspec.to_builtins(line), ensure_ascii=False)).encode() + b"\n"
    if os.write(file, raw) < len(raw):
        raise OSError(28, "No space left on device")
