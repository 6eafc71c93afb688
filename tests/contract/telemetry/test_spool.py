"""The port `Spool`, its file adapter and its fake: whole lines, no error into the call path, nothing uncounted."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.contract.telemetry.records import Places, small_disk
from tidegate.core.errors import BadInput
from tidegate.fakes import FixedClock, MemorySpool
from tidegate.ports import Spool
from tidegate.telemetry import spool as spool_module
from tidegate.telemetry.spool import SpoolWriter, seal_orphan, segment_name, segments


def text_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.*"))]


@pytest.fixture(params=["files", "memory"])
def spool(request: pytest.FixtureRequest, places: Places) -> Spool:
    return places.writer() if request.param == "files" else MemorySpool()


def test_a_line_that_is_taken_is_there(spool: Spool, places: Places) -> None:
    """Every adapter: True, and the line can be read back at once."""
    assert spool.append(b'{"a":1}')
    assert spool.append(b'{"b":2}')
    if isinstance(spool, MemorySpool):
        assert spool.lines == [b'{"a":1}', b'{"b":2}']
    else:
        assert text_of(places.spool) == [b'{"a":1}\n{"b":2}\n']


def test_a_line_is_one_write(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = places.writer()
    writer.append(b"first: opens the segment")
    written: list[bytes] = []
    real = os.write

    def counting(handle: int, data: bytes) -> int:
        written.append(data)
        return real(handle, data)

    monkeypatch.setattr(os, "write", counting)
    writer.append(b"x" * 100_000)
    assert written == [b"x" * 100_000 + b"\n"]
    assert (writer.accepted, writer.shed, writer.bytes) == (2, 0, 25 + 100_001)


def test_close_seals_and_a_later_line_begins_a_new_segment(places: Places) -> None:
    writer = places.writer("w")
    writer.append(b"1")
    assert [segment.sealed for segment in segments(places.spool)] == [False]
    writer.close()
    writer.append(b"2")
    writer.close()
    writer.close()
    found = segments(places.spool)
    assert [(segment.sequence, segment.sealed) for segment in found] == [(0, True), (1, True)]
    assert [segment.path.read_bytes() for segment in found] == [b"1\n", b"2\n"]


def test_without_lines_there_is_no_segment(places: Places) -> None:
    places.writer().close()
    assert segments(places.spool) == []
    assert segments(places.root / "nowhere") == []


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 -- files have no events
            await asyncio.sleep(0.01)


async def test_the_owner_task_seals_old_segments_and_keeps_young_ones(places: Places) -> None:
    clock = FixedClock()
    writer = SpoolWriter(places.spool, clock=clock, writer_id="w", fsync_s=0.01, segment_s=5)
    owner = asyncio.create_task(writer.run())
    writer.append(b"1")
    await asyncio.sleep(0.05)
    assert [segment.sealed for segment in segments(places.spool)] == [False]
    clock.move(5)
    await until(lambda: [segment.sealed for segment in segments(places.spool)] == [True])
    writer.append(b"2")
    assert [segment.sealed for segment in segments(places.spool)] == [True, False]
    owner.cancel()
    with suppress(asyncio.CancelledError):
        await owner
    writer.close()


async def test_the_owner_task_seals_large_segments(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 1_000)
    writer = SpoolWriter(places.spool, clock=FixedClock(), writer_id="w", fsync_s=0.01, segment_s=3_600)
    owner = asyncio.create_task(writer.run())
    writer.append(b"x" * 1_001)
    await until(lambda: [segment.sealed for segment in segments(places.spool)] == [True])
    owner.cancel()
    writer.close()


async def test_dirty_lines_are_synced_in_time(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def counting(handle: int) -> None:
        synced.append(os.fstat(handle).st_size)
        real(handle)

    monkeypatch.setattr(os, "fsync", counting)
    writer = SpoolWriter(places.spool, clock=FixedClock(), writer_id="w", fsync_s=0.01, segment_s=3_600)
    owner = asyncio.create_task(writer.run())
    writer.append(b"1234")
    await until(lambda: bool(synced))
    await asyncio.sleep(0.05)
    assert synced == [5]
    owner.cancel()
    writer.close()


CHILD = """
import os, signal, sys, resource
from pathlib import Path
from tidegate.system import SystemClock
from tidegate.telemetry.spool import SpoolWriter
def writer(folder):
    return SpoolWriter(Path(folder), clock=SystemClock(), writer_id="child")
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD + code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_every_taken_line_survives_kill_9(places: Places) -> None:
    code = """
spool = writer(sys.argv[1])
for number in range(1000):
    assert spool.append(b"line %d" % number)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(code, str(places.spool)).returncode == -9
    (segment,) = segments(places.spool)
    assert not segment.sealed
    assert seal_orphan(segment)
    (sealed,) = segments(places.spool)
    assert sealed.sealed
    assert sealed.path.read_bytes().splitlines() == [b"line %d" % number for number in range(1000)]


def test_a_living_writers_segment_is_left_alone(places: Places) -> None:
    writer = places.writer()
    writer.append(b"1")
    (segment,) = segments(places.spool)
    assert not seal_orphan(segment)
    assert segments(places.spool) == [segment]
    writer.close()
    assert not seal_orphan(segment), "sealed by its writer meanwhile"


def test_an_orphans_torn_last_line_is_cut_off(places: Places) -> None:
    places.spool.mkdir()
    path = places.spool / segment_name("dead", 0, sealed=False)
    path.write_bytes(b'{"a":1}\n{"a":')
    (segment,) = segments(places.spool)
    assert seal_orphan(segment)
    assert text_of(places.spool) == [b'{"a":1}\n']


def test_an_orphan_without_a_whole_line_is_removed(places: Places) -> None:
    places.spool.mkdir()
    (places.spool / segment_name("dead", 0, sealed=False)).write_bytes(b'{"a":')
    assert seal_orphan(segments(places.spool)[0])
    assert text_of(places.spool) == []


def test_a_number_that_is_taken_is_never_written_over(places: Places) -> None:
    places.spool.mkdir()
    taken = places.spool / segment_name("w", 0, sealed=False)
    taken.write_bytes(b"not ours\n")
    writer = places.writer("w")
    writer.append(b"ours")
    writer.close()
    assert taken.read_bytes() == b"not ours\n"
    assert (places.spool / segment_name("w", 1, sealed=True)).read_bytes() == b"ours\n"


def test_a_full_disk_sheds_whole_lines_and_counts_them(places: Places) -> None:
    """A file size limit makes write(2) short and then fail, as a full disk does."""
    code = """
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
spool = writer(sys.argv[1])
taken = [spool.append(b"%04d" % number + b"x" * 995) for number in range(12)]
print(taken.count(True), spool.accepted, spool.shed, spool.problem)
spool.close()
"""
    ended = run(code, str(places.spool))
    assert ended.returncode == 0, ended.stderr
    taken, accepted, shed, problem = ended.stdout.strip().split(" ", 3)
    lines = b"".join(text_of(places.spool)).splitlines()
    assert int(accepted) == 12
    assert int(taken) == int(accepted) - int(shed) == len(lines)
    assert int(shed) > 0
    assert all(len(line) == 999 for line in lines), "no part of a line stays"
    assert "records are being lost: " in problem or problem == "None"


def test_after_a_full_disk_has_room_again_recording_goes_on(places: Places) -> None:
    prefix = small_disk("256k")
    code = """
folder = Path(sys.argv[1])
(folder / "ballast").write_bytes(b"x" * 100_000)
spool = writer(folder / "spool")
taken = 0
while spool.append(b"x" * 999):
    taken += 1
assert not spool.append(b"x" * 999)
assert spool.problem.endswith("records are being lost: No space left on device."), spool.problem
(folder / "ballast").unlink()
assert spool.append(b"y" * 999)
assert spool.problem is None
spool.close()
lines = b"".join(path.read_bytes() for path in sorted((folder / "spool").iterdir())).splitlines()
assert [len(line) for line in lines] == [999] * (taken + 1), len(lines)
assert (spool.accepted, spool.shed) == (taken + 3, 2)
"""
    ended = subprocess.run(
        [*prefix, str(places.root), sys.executable, "-c", CHILD + code, str(places.root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_folder_that_vanishes_is_made_again(places: Places) -> None:
    writer = places.writer()
    writer.append(b"1")
    writer.close()
    shutil.rmtree(places.spool)
    assert writer.append(b"2")
    writer.close()
    assert text_of(places.spool) == [b"2\n"]


async def test_a_segment_deleted_under_its_writer_is_replaced(places: Places) -> None:
    writer = places.writer()
    owner = asyncio.create_task(writer.run())
    writer.append(b"1")
    shutil.rmtree(places.spool)
    await asyncio.sleep(0.2)
    assert writer.append(b"2")
    assert len(segments(places.spool)) == 1
    owner.cancel()
    writer.close()


def test_a_place_that_can_not_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    file = tmp_path / "spool"
    file.write_text("in the way")
    for folder in (file, file / "below", Path("/proc/tidegate/spool")):
        with pytest.raises(BadInput) as caught:
            SpoolWriter(folder, clock=FixedClock(), writer_id="w")
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_appending_costs_little(places: Places) -> None:
    """A loose bound (100 µs, ten times the promise), so that a slow machine passes and a fsync per line does not."""
    writer = places.writer()
    data = b"x" * 1_500
    writer.append(data)
    began = time.perf_counter()
    for _ in range(2_000):
        writer.append(data)
    assert (time.perf_counter() - began) / 2_000 < 100e-6
    writer.close()
