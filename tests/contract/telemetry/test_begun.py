"""Budgets over crashes: what was spent is known again, calls without an end are charged, all exactly once."""

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.contract.telemetry.records import Places, line
from tidegate import compose
from tidegate.config import Config, Project
from tidegate.core.errors import BadInput, BudgetExhausted, Saturated, Unusable
from tidegate.core.instant import iso_utc
from tidegate.fakes import FixedClock
from tidegate.ports import Hold
from tidegate.stores.meter import Meter
from tidegate.telemetry import begun
from tidegate.telemetry.begun import Begun, encode_begun
from tidegate.telemetry.record import CallRow, Entry
from tidegate.telemetry.spool import CHECKPOINT, ORPHANS, SpoolWriter, seal_orphan, segments

CONFIG = Config.model_validate(
    {"timezone": "Europe/Berlin", "budgets": {"total": {"day": 1, "month": 9}, "each_key": {"hour": 1}}}
)


@dataclass
class Process:
    """A gateway's process as far as budgets go."""

    root: Path
    clock: FixedClock
    number: int

    def __post_init__(self) -> None:
        project = Project(self.root, CONFIG)
        self.kept = ExitStack()
        self.spool = SpoolWriter(project.spool, clock=self.clock, writer_id=f"w{self.number:04d}")
        try:
            meter = compose._admission(project, self.clock, self.spool, self.kept)
        except BaseException:
            self.die()
            raise
        assert isinstance(meter, Meter)
        self.meter = meter
        self.running: dict[str, tuple[Hold, CallRow]] = {}

    def begin(self, call: str, key: str, nano: int) -> None:
        """As gateway/admit.py does."""
        row = CallRow(id=call, start=iso_utc(self.clock.now_ns()), key=key)
        hold = self.meter.admit(call, key=key, prompt=None, route=None, models=("a/b",), tokens=1, nano_usd=nano)
        hold.begun = said = Begun.of(row, hold)
        assert self.spool.begin(encode_begun(said))
        self.running[call] = hold, row

    def end(self, call: str, cost: int, took_s: float = 0.0) -> None:
        """As gateway/record.py does."""
        hold, row = self.running.pop(call)
        row.outcome, row.cost_nano_usd, row.usage_source, row.latency_s = "ok", cost, "provider", took_s
        hold.settle(1, cost, "a/b")
        assert self.spool.append(msgspec.json.encode(Entry(row)))

    def retire(self) -> None:
        """As the spool does when a write fails, or a segment is old."""
        self.spool._retire()

    def seal(self) -> None:
        """As the spool's owner task does every few seconds."""
        self.spool._write_out(len(self.spool._retired), self.spool._checkpoint())

    def die(self) -> None:
        """As `kill -9` does: the kernel closes the files, and nothing else happens."""
        for opened in (*self.spool._retired, *([self.spool._current] if self.spool._current else [])):
            os.close(opened._handle)
        self.spool._retired.clear()
        self.spool._current = None
        self.kept.close()

    def spent(self) -> dict[str, int]:
        return {f"{state.scope} {state.period}": state.spent_nano_usd for state in self.meter.budgets()}


class Crashing(RuleBasedStateMachine):
    """Calls, seals, recorders and crashes in any order."""

    folder: Path

    @initialize()
    def start(self) -> None:
        Crashing.count += 1
        self.root = self.folder / str(Crashing.count)
        self.clock = FixedClock()
        self.number = 0
        self.calls = 0
        self.stored: list[dict[str, Any]] = []
        self.process = Process(self.root, self.clock, 0)
        self.lost = 0

    count = 0

    @rule(key=st.sampled_from(["ann", "bob"]), nano=st.integers(0, 10**7))
    def begin(self, key: str, nano: int) -> None:
        self.calls += 1
        try:
            self.process.begin(f"c{self.calls}", key, nano)
        except (Saturated, BudgetExhausted):
            self.calls -= 1

    @precondition(lambda self: self.process.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(sorted(self.process.running)))
        reserved = self.process.running[call][0].nano_usd
        self.process.end(call, data.draw(st.integers(0, reserved)))

    @rule()
    def retire(self) -> None:
        self.process.retire()

    @rule()
    def seal(self) -> None:
        self.process.seal()

    @rule()
    def record(self) -> None:
        """As the recorder does: what is sealed, or its process dead, leaves the spool."""
        for segment in segments(self.process.spool._folder):
            if segment.sealed or seal_orphan(segment):
                path = segment.path if segment.sealed else segment.path.with_suffix(".jsonl")
                if path.exists():
                    self.stored += entries(path.read_bytes())
                    path.unlink()

    @rule(recorded=st.booleans())
    def crash(self, recorded: bool) -> None:
        self.lost += len(self.process.running)
        self.process.die()
        if recorded:
            self.record()
        self.number += 1
        self.process = Process(self.root, self.clock, self.number)

    @rule(recorded=st.booleans())
    def crash_while_starting(self, recorded: bool) -> None:
        """After the lost calls were closed, before anything says so."""
        self.lost += len(self.process.running)
        self.process.die()
        self.number += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(begun, "write_checkpoint", _dies)
            with pytest.raises(KeyboardInterrupt):
                Process(self.root, self.clock, self.number)
        if recorded:
            self.record()
        self.number += 1
        self.process = Process(self.root, self.clock, self.number)

    @rule(seconds=st.integers(1, 3_000))
    def wait(self, seconds: int) -> None:
        self.clock.move(seconds)

    @invariant()
    def every_call_has_one_record_and_budgets_are_their_sum(self) -> None:
        spool = self.process.spool._folder
        waiting = [entry for segment in segments(spool) for entry in entries(segment.path.read_bytes())]
        calls = [entry["call"] for entry in (*self.stored, *waiting) if "call" in entry]
        assert len({call["id"] for call in calls}) == len(calls) == self.calls - len(self.process.running)
        assert sum(call.get("outcome") == "lost" for call in calls) == self.lost
        assert self.process.spent()["total month"] == sum(call.get("cost_nano_usd") or 0 for call in calls)


def entries(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(one) for one in data.splitlines()]


def test_whatever_crashes_when(tmp_path: Path) -> None:
    class Here(Crashing):
        folder = tmp_path

    Here.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    Here.TestCase("runTest").runTest()


def test_lines_that_say_that_a_call_begins_are_no_records(places: Places) -> None:
    said = encode_begun(Begun("c", "2026-03-01T12:00:00.000000Z", 5, [("total day", "")]))
    writer = places.writer()
    for number in range(3):
        assert writer.begin(said)
        assert writer.append(line(number))
    writer.close()
    assert (writer.accepted, writer.shed) == (3, 0)
    assert len(places.log().rows("SELECT id FROM calls")) == 3
    recorder = places.recorder()
    assert recorder.once() == 3
    assert (recorder.stored, recorder.quarantined) == (3, 0)
    assert len(places.log().rows("SELECT id FROM calls")) == 3


def test_a_segment_of_nothing_else_goes_away(places: Places) -> None:
    writer = places.writer()
    writer.begin(encode_begun(Begun("c", "2026-03-01T12:00:00.000000Z", 5, [])))
    writer.close()
    assert places.recorder().once() == 0
    assert not segments(places.spool)
    assert places.log().rows("SELECT id FROM calls") == []


def test_a_lost_call_is_a_record_and_is_charged_in_its_own_window(tmp_path: Path) -> None:
    clock = FixedClock()
    first = Process(tmp_path, clock, 1)
    first.begin("c1", "ann", 700)
    first.begin("c2", "ann", 50)
    first.end("c2", 40)
    first.die()
    clock.move(3_600)
    second = Process(tmp_path, clock, 2)
    assert second.spent() == {"total day": 740, "total month": 740, "key ann hour": 0}
    (lost,) = [entry["call"] for entry in entries(second.spool._current.path.read_bytes())]  # type: ignore[union-attr]
    assert (lost["id"], lost["outcome"], lost["key"], lost["cost_nano_usd"]) == ("c1", "lost", "ann", 700)
    second.die()


def test_a_checkpoint_in_the_middle_of_a_segment_counts_no_line_twice(tmp_path: Path) -> None:
    clock = FixedClock()
    first = Process(tmp_path, clock, 1)
    first.begin("c1", "ann", 50)
    first.retire()
    first.end("c1", 40)
    first.begin("c2", "ann", 50)
    first.end("c2", 30)
    first.seal()
    first.begin("c3", "ann", 50)
    first.end("c3", 20)
    first.die()
    second = Process(tmp_path, clock, 2)
    assert second.spent()["total day"] == 90
    second.die()


def test_what_can_not_be_read_does_not_begin_from_zero(tmp_path: Path) -> None:
    Process(tmp_path, FixedClock(), 1).die()
    (tmp_path / ".tidegate" / "spool" / CHECKPOINT).write_text("{")
    with pytest.raises(Unusable, match="delete it to begin from zero"):
        Process(tmp_path, FixedClock(), 2)


def test_one_process_at_a_time_keeps_them(tmp_path: Path) -> None:
    first = Process(tmp_path, FixedClock(), 1)
    with pytest.raises(BadInput, match="another tidegate command"):
        Process(tmp_path, FixedClock(), 2)
    first.die()


def test_where_the_checkpoint_can_not_be_written_the_lines_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FixedClock()
    first = Process(tmp_path, clock, 1)
    first.begin("c1", "ann", 50)
    first.end("c1", 40)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        first.retire()
        first.seal()
    first.die()
    (sealed,) = [segment for segment in segments(first.spool._folder) if segment.sealed]
    sealed.path.unlink()  # the recorder has it
    second = Process(tmp_path, clock, 2)
    assert second.spent()["total day"] == 40
    assert not segments(first.spool._folder / ORPHANS), "read, and noted"
    second.die()


def test_a_full_disk_loses_no_count(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, said = places.writer(), encode_begun(Begun("c", "2026-03-01T12:00:00.000000Z", 5, []))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: _full(handle))
        assert not writer.begin(said)
        assert not writer.append(line(1))
    assert (writer.accepted, writer.shed) == (1, 1)
    assert writer.begin(said)
    assert writer.append(line(2))
    assert (writer.accepted, writer.shed) == (2, 1)
    writer.close()
    assert places.recorder().once() == 1


def _dies(*_: object) -> bool:
    raise KeyboardInterrupt


def _full(handle: int) -> None:
    raise OSError(28, "No space left on device")
