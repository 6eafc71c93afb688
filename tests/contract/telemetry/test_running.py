"""
Contract of ports.Running, and its file: what stands there survives, what is torn or foreign is seen, and it can not
fill up.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tidegate.core.errors import Unusable
from tidegate.fakes import MemoryRunning
from tidegate.ports import Running
from tidegate.telemetry.record import CallRow, Entry
from tidegate.telemetry.running import SLOT, STEP, RunningCalls, read_running


def said(call: str, size: int = 0) -> bytes:
    """A call, said in at least so many bytes."""
    tags = {"size": "x" * size, "half": "\\ÿ\u0000"}
    return msgspec.json.encode(Entry(CallRow(call, "2026-03-01T12:00:00.000000Z", tags=tags), None, (5, ["total day"])))


def standing(file: Path) -> list[str]:
    found, torn = read_running(file)
    assert torn == 0
    return [entry.call.id for entry in found]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "running"


@pytest.mark.parametrize("adapter", [RunningCalls, MemoryRunning])
def test_a_call_has_a_place_of_its_own_until_it_ends(file: Path, adapter: Any) -> None:
    running: Running = adapter() if adapter is MemoryRunning else adapter(file)
    first, second = running.begin(said("a")), running.begin(said("b"))
    assert None is not first != second is not None
    running.end(first, recorded=True)
    assert running.begin(said("c")) not in (None, second)


def test_what_began_and_did_not_end_stands_there_as_it_was_said(file: Path) -> None:
    running = RunningCalls(file)
    places = {call: running.begin(said(call)) for call in ("a", "b", "c")}
    assert standing(file) == ["a", "b", "c"]
    running.end(places["b"], recorded=True)
    assert standing(file) == ["a", "c"]
    running.begin(said("d"))
    assert standing(file) == ["a", "d", "c"], "a place is used again"
    assert msgspec.json.encode(read_running(file)[0][0]) == said("a")
    running.close()


@pytest.mark.parametrize("size", [*range(SLOT - 200, SLOT), 2 * SLOT - 10, 3 * SLOT, 40_000, 2 * STEP])
def test_a_call_of_any_length_fits_between_others(file: Path, size: int) -> None:
    running = RunningCalls(file)
    before, long, after = (running.begin(said(call, n)) for call, n in (("a", 0), ("long", size), ("b", 0)))
    assert sorted(standing(file)) == ["a", "b", "long"]
    running.end(long, recorded=True)
    assert standing(file) == ["a", "b"], "what is left of it is no call"
    again = running.begin(said("again", size))
    assert sorted(standing(file)) == ["a", "again", "b"]
    for place in (before, after, again):
        running.end(place, recorded=True)
    assert standing(file) == []
    running.close()


def test_it_grows_as_calls_run_at_once_and_not_as_they_follow_each_other(file: Path) -> None:
    running = RunningCalls(file)
    many = 3 * STEP // SLOT
    places = [running.begin(said(str(number))) for number in range(many)]
    assert len(set(standing(file))) == many
    for place in places:
        running.end(place, recorded=True)
    for number in range(2 * many):
        running.end(running.begin(said(str(number))), recorded=True)
    assert file.stat().st_size == 3 * STEP
    assert file.stat().st_blocks * 512 >= 3 * STEP, "the blocks are the file's: no write can find the disk full"
    running.close()


def test_a_full_disk_refuses_a_call_and_leaves_no_half_of_a_step(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = RunningCalls(file)
    places = [running.begin(said(str(number))) for number in range(STEP // SLOT)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert running.begin(said("more")) is None
        assert file.stat().st_size == STEP
        running.end(places[0], recorded=True)
        assert running.begin(said("instead")) is not None, "there is a place"
    assert running.begin(said("more")) is not None
    running.close()


def test_a_folder_that_can_not_be_written_refuses_calls(tmp_path: Path) -> None:
    running = RunningCalls(tmp_path / "gone" / "running")
    assert running.begin(said("a")) is None
    running.end(None, recorded=True)
    (tmp_path / "gone").mkdir()
    assert running.begin(said("a")) is not None
    running.close()


def test_what_is_torn_is_seen_and_the_others_are_read(file: Path) -> None:
    running = RunningCalls(file)
    for call in ("a", "b", "c"):
        running.begin(said(call))
    running.close()
    whole = file.read_bytes()
    for at in range(SLOT, SLOT + 9 + len(said("b"))):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        found, torn = read_running(file)
        assert [entry.call.id for entry in found] == ["a", "c"], at
        assert torn == (at > SLOT), "without its mark a call has not begun"


def test_a_file_that_is_cut_anywhere_is_read_up_to_there(file: Path) -> None:
    running = RunningCalls(file)
    running.begin(said("a"))
    running.begin(said("long", SLOT))
    running.close()
    whole = file.read_bytes()
    for size in range(0, 4 * SLOT, 7):
        file.write_bytes(whole[:size])
        assert len(read_running(file)[0]) <= 2
    for foreign in (b"\xff", b"\xff" * 5_000, b"{}\n" * 5_000, os.urandom(20_000), bytes(STEP + 1)):
        file.write_bytes(foreign)
        assert read_running(file)[0] == []


def test_a_file_that_can_not_be_read_stops_the_start(file: Path) -> None:
    assert read_running(file) == ([], 0)
    file.mkdir()
    with pytest.raises(Unusable, match="delete it to forget them"):
        read_running(file)


def test_what_a_later_process_adds_stands_behind_what_is_there(file: Path) -> None:
    first = RunningCalls(file)
    first.begin(said("a"))
    first.close()
    second = RunningCalls(file)
    second.begin(said("b"))
    assert standing(file) == ["a", "b"]
    second.close()
    third = RunningCalls(file)
    third.restart()
    third.begin(said("c"))
    assert standing(file) == ["c"]
    third.close()


async def test_what_began_is_on_disk_within_the_time_of_a_power_loss(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, synced = RunningCalls(file, fsync_s=0.001), asyncio.Event()
    loop, real = asyncio.get_running_loop(), os.fsync

    def fsync(handle: int) -> None:
        real(handle)
        loop.call_soon_threadsafe(synced.set)

    monkeypatch.setattr(os, "fsync", fsync)
    owner = asyncio.create_task(running.run())
    running.begin(said("a"))
    await asyncio.wait_for(synced.wait(), 5)
    owner.cancel()
    await asyncio.wait([owner])
    running.close()


DIES = """
import os, signal, sys
from pathlib import Path
from tidegate.telemetry.running import RunningCalls
from tests.contract.telemetry.test_running import said
running = RunningCalls(Path(sys.argv[1]))
for number in range(600):
    place = running.begin(said(str(number), 2_000 if number % 7 == 0 else 0))
    if number % 2:
        running.end(place, recorded=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_outlives_a_process_that_is_killed(file: Path) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, str(file)], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert sorted(standing(file), key=int) == [str(number) for number in range(0, 600, 2)]


def full(handle: int, data: bytes, at: int) -> int:
    os.ftruncate(handle, at + len(data) // 2)
    return len(data) // 2
