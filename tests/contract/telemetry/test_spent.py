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

from tests.contract.telemetry.records import Places
from tidegate import compose
from tidegate.config import Config, Project
from tidegate.core.errors import BadInput, BudgetExhausted, Saturated, Unusable
from tidegate.core.instant import iso_utc
from tidegate.fakes import FixedClock
from tidegate.ports import Hold
from tidegate.stores.meter import Meter
from tidegate.telemetry import spent
from tidegate.telemetry.record import CallRow, Entry
from tidegate.telemetry.running import RUNNING, RunningCalls
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
        self.places = RunningCalls(project.spool / RUNNING)
        try:
            meter = compose._admission(project, self.clock, self.spool, self.places, self.kept)
        except BaseException:
            self.die()
            raise
        assert isinstance(meter, Meter)
        self.meter = meter
        self.running: dict[str, tuple[Hold, CallRow]] = {}

    def begin(self, call: str, key: str, nano: int, *, size: int = 0) -> bool:
        """As gateway/admit.py does."""
        row = CallRow(id=call, start=iso_utc(self.clock.now_ns()), key=key, tags={"size": "x" * size})
        hold = self.meter.admit(key=key, prompt=None, route=None, models=("a/b",), tokens=1, nano_usd=nano)
        self.running[call] = hold, row
        return hold.begin(msgspec.json.encode(Entry(row, None, hold.most)))

    def end(self, call: str, cost: int, took_s: float = 0.0, *, until: str = "") -> bool:
        """As gateway/record.py does; `until` the process dies after this step."""
        hold, row = self.running.pop(call)
        row.outcome, row.cost_nano_usd, row.usage_source, row.latency_s = "ok", cost, "provider", took_s
        charge = hold.settle(1, cost, "a/b")
        if until == "settle":
            return False
        recorded = self.spool.append(msgspec.json.encode(Entry(row, None, charge)))
        if until != "append":
            hold.end(recorded=recorded)
        return recorded

    def reserved(self, call: str) -> int:
        most = self.running[call][0].most
        assert most is not None
        return most[0]

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
        self.places.close()
        self.kept.close()

    def spent(self) -> dict[str, int]:
        return {f"{state.scope} {state.period}": state.spent_nano_usd for state in self.meter.budgets()}


STARTING = ("close_lost", "write_checkpoint", "restart", "forget_orphans")
"""The steps of a start that change something, in their order."""


def dies_after(patch: pytest.MonkeyPatch, step: str) -> None:
    """The process dies as this step of its start is done."""
    owner: Any = RunningCalls if step == "restart" else spent
    does = getattr(owner, step)

    def done(*args: Any) -> None:
        does(*args)
        raise KeyboardInterrupt

    patch.setattr(owner, step, done)


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

    @rule(key=st.sampled_from(["ann", "bob"]), nano=st.integers(0, 10**7), size=st.sampled_from([0, 900, 3_000]))
    def begin(self, key: str, nano: int, size: int) -> None:
        self.calls += 1
        try:
            assert self.process.begin(f"c{self.calls}", key, nano, size=size)
        except (Saturated, BudgetExhausted):
            self.calls -= 1

    @precondition(lambda self: self.process.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(sorted(self.process.running)))
        reserved = self.process.reserved(call)
        self.process.end(call, data.draw(st.integers(0, reserved)))

    @precondition(lambda self: self.process.running)
    @rule(data=st.data(), step=st.sampled_from(["settle", "append"]), recorded=st.booleans())
    def crash_at_the_end_of_a_call(self, data: st.DataObject, step: str, recorded: bool) -> None:
        call = data.draw(st.sampled_from(sorted(self.process.running)))
        reserved = self.process.reserved(call)
        self.process.end(call, data.draw(st.integers(0, reserved)), until=step)
        self.lost += step == "settle"
        self.crash(recorded)

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

    @rule(recorded=st.booleans(), step=st.sampled_from(STARTING))
    def crash_while_starting(self, recorded: bool, step: str) -> None:
        self.lost += len(self.process.running)
        self.process.die()
        self.number += 1
        with pytest.MonkeyPatch.context() as patch:
            dies_after(patch, step)
            with pytest.raises(KeyboardInterrupt):
                Process(self.root, self.clock, self.number)
        if recorded:
            self.record()
        self.number += 1
        self.process = Process(self.root, self.clock, self.number)

    @precondition(lambda self: self.process.spool._retired)
    @rule(recorded=st.booleans(), noted=st.booleans())
    def crash_while_sealing(self, recorded: bool, noted: bool) -> None:
        """Before or after the checkpoint, in any case before the segments have gone."""
        checkpoint = self.process.spool._checkpoint()
        assert checkpoint is not None
        if noted:
            assert checkpoint()
        self.crash(recorded)

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


def test_what_a_line_says_of_budgets_is_not_stored(places: Places) -> None:
    writer = places.writer()
    row = CallRow("c", "2026-03-01T12:00:00.000000Z")
    assert writer.append(msgspec.json.encode(Entry(row, None, (7, ["total day"]))))
    assert len(places.log().rows("SELECT id FROM calls")) == 1
    writer.close()
    recorder = places.recorder()
    assert recorder.once() == 1
    assert (recorder.stored, recorder.quarantined) == (1, 0)
    assert len(places.log().rows("SELECT id FROM calls")) == 1


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


def test_no_checkpoint_is_written_while_running_calls_can_not_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power loss, calls that ended before it would stand there again."""
    first = Process(tmp_path, FixedClock(), 1)
    checkpoint = tmp_path / ".tidegate" / "spool" / CHECKPOINT
    before = checkpoint.stat().st_mtime_ns
    monkeypatch.setattr(first.places, "sync", lambda: _full(0))
    first.begin("c1", "ann", 50)
    first.end("c1", 40)
    first.retire()
    first.seal()
    assert checkpoint.stat().st_mtime_ns == before
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


def test_a_disk_that_takes_no_record_refuses_calls_until_it_takes_one_and_forgets_no_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FixedClock()
    first = Process(tmp_path, clock, 1)
    assert first.begin("c1", "ann", 50)
    assert first.begin("c2", "ann", 50)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: _full(handle))
        assert not first.end("c1", 40)
        assert not first.begin("c3", "ann", 50)
        assert not first.end("c3", 0)
    assert not first.begin("c4", "ann", 50)
    assert first.end("c4", 0)
    assert first.begin("c5", "ann", 50)
    first.die()
    second = Process(tmp_path, clock, 2)
    assert second.spent()["total day"] == 50 + 50 + 50, "c1 is charged as if nobody had seen its end"
    second.die()


def test_a_call_whose_record_was_shed_is_not_charged_again_once_a_checkpoint_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FixedClock()
    first = Process(tmp_path, clock, 1)
    assert first.begin("c1", "ann", 50)
    assert first.begin("c2", "ann", 50)
    assert first.end("c2", 30)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: _full(handle))
        assert not first.end("c1", 40)
    first.retire()
    first.seal()
    first.die()
    for number in (2, 3):
        later = Process(tmp_path, clock, number)
        assert later.spent()["total day"] == 70
        later.die()


def test_a_start_that_can_not_write_its_checkpoint_closes_no_call_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FixedClock()
    first = Process(tmp_path, clock, 1)
    first.begin("c1", "ann", 50)
    first.die()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        second = Process(tmp_path, clock, 2)
    assert second.begin("c2", "ann", 50)
    assert second.end("c2", 30)
    second.retire()
    second.seal()
    assert second.begin("c3", "ann", 5)
    second.die()
    third = Process(tmp_path, clock, 3)
    assert third.spent()["total day"] == 85
    assert not (tmp_path / ".tidegate" / "spool" / RUNNING).exists(), "all are closed, and a checkpoint says so"
    third.die()


def _full(handle: int) -> None:
    raise OSError(28, "No space left on device")
