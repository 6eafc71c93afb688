"""Spool → recorder → lake: what was recorded is what a query gives, once, whatever was in the line."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from tests.contract.telemetry.records import Places, entry, line, small_disk
from tidegate.core.errors import BadInput, Unusable
from tidegate.telemetry import lake as lake_module
from tidegate.telemetry import recorder as recorder_module
from tidegate.telemetry.lake import StoredFile, stored_files
from tidegate.telemetry.record import AttemptRow, CallRow, ContentRow, Entry
from tidegate.telemetry.recorder import crowded, ready
from tidegate.telemetry.spool import Segment, segment_name, segments

WHOLE = CallRow(
    id="0199f0a0-0000-7000-8000-000000000001",
    start="2026-03-01T12:00:00.123456Z",
    project="shop",
    origin="eval",
    operation="chat",
    dialect="openai_chat",
    streamed=True,
    prompt="support/answer",
    version=7,
    digest="ab" * 32,
    environment="staging",
    route="support",
    provider="openai",
    request_model="gpt",
    response_model="gpt-2025",
    system_fingerprint="fp",
    system_digest="cd" * 32,
    outcome="client_closed",
    http_status=499,
    error_type="upstream_timeout",
    error_message="line\nbreak, \x00, \x1b[31m, Zoë 🌊, \"quotes\" and 'more'",
    finish_reason="length",
    input_tokens=2**62,
    output_tokens=0,
    cache_read_input_tokens=1,
    cache_write_input_tokens=2,
    reasoning_output_tokens=3,
    usage_source="provider",
    cost_nano_usd=123_456_789_012_345,
    latency_s=1.25,
    time_to_first_chunk_s=0.1,
    attempts=[AttemptRow("openai/gpt", 0.5, status=503, error_type="upstream_unavailable"), AttemptRow("b/c", 0.75)],
    output_valid=False,
    output_problem="not JSON",
    service="bot",
    conversation_id="c",
    user_id="u",
    trace_id="t",
    tags={"team": "é", "quote'": '"'},
)
CONTENT = ContentRow(
    WHOLE.id, WHOLE.start, '[{"role":"user","content":"\\u0000"}]', "a\x00b\n", {"deep": [{"x": [1, 2.5]}]}
)


def as_values(row: CallRow) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.structs.asdict(row)  # a line leaves out what is as by default
    values["attempts"] = [
        {"status": None, "error_type": None} | msgspec.to_builtins(attempt) for attempt in row.attempts
    ]
    return values


@pytest.mark.parametrize("recorded", [False, True], ids=["in the spool", "in the lake"])
def test_a_record_comes_back_as_it_was_written(places: Places, recorded: bool) -> None:
    """Every field, with hostile text in it, both before and after it is moved."""
    bare = CallRow(id="bare", start="2026-03-01T12:00:00.000000Z")
    places.spool_lines(msgspec.json.encode(Entry(WHOLE, CONTENT)), msgspec.json.encode(Entry(bare)))
    if recorded:
        assert places.recorder().once() == 2
        assert segments(places.spool) == []
    log = places.log()
    found = log.call(WHOLE.id)
    assert found is not None
    content = {"input": CONTENT.input, "output": CONTENT.output, "variables": CONTENT.variables}
    assert found == as_values(WHOLE) | {"content": content}
    assert log.call("bare") == as_values(bare) | {"content": None}
    assert log.call("nobody") is None


def test_columns_have_the_types_that_queries_rely_on(places: Places) -> None:
    places.spool_lines(msgspec.json.encode(Entry(WHOLE, CONTENT)))
    places.recorder().once()
    types = {str(name): kind.replace('"', "") for name, kind, *_ in places.log().sql("DESCRIBE calls").rows}
    assert list(types) == [*CallRow.__struct_fields__, "day"]
    assert types["start"] == "TIMESTAMP WITH TIME ZONE"
    assert types["day"] == "DATE"
    assert types["attempts"] == "STRUCT(target VARCHAR, latency_s DOUBLE, status BIGINT, error_type VARCHAR)[]"
    assert types["tags"] == "MAP(VARCHAR, VARCHAR)"
    assert {types[name] for name in ("cost_nano_usd", "version", "input_tokens")} == {"BIGINT"}
    (row,) = places.log().rows("SELECT start, day, tags['team'] AS team, attempts[1].status AS status FROM calls")
    assert row == {
        "start": datetime(2026, 3, 1, 12, 0, 0, 123456, UTC),
        "day": datetime(2026, 3, 1).date(),  # noqa: DTZ001 -- a day
        "team": "é",
        "status": 503,
    }


def test_other_engines_read_plain_partitioned_delta(places: Places) -> None:
    places.spool_lines(msgspec.json.encode(Entry(WHOLE, CONTENT)))
    places.recorder().once()
    table = DeltaTable(places.lake / "calls")
    kinds = {field.name: str(getattr(field.type, "type", field.type)) for field in table.schema().fields}
    assert set(kinds.values()) == {"string", "long", "double", "boolean", "timestamp", "date"}
    assert table.metadata().partition_columns == ["day"]
    assert table.protocol().min_reader_version == 1
    assert [path.name for path in (places.lake / "calls").glob("day=*")] == ["day=2026-03-01"]
    read = QueryBuilder().register("calls", table).execute("SELECT id, start, version, day FROM calls").read_all()
    row = {name: read.column(name).to_pylist() for name in read.column_names}
    start = datetime(2026, 3, 1, 12, 0, 0, 123_456, UTC)
    assert row == {"id": [WHOLE.id], "start": [start], "version": [7], "day": [start.date()]}


def test_days_are_utc(places: Places) -> None:
    late = datetime(2026, 3, 1, 23, 59, 59, 999_999, UTC)
    places.spool_lines(line(1, start=late), line(2, start=late + timedelta(microseconds=1)))
    places.recorder().once()
    rows = places.log().rows("SELECT day::VARCHAR AS day, count(*) AS calls FROM calls GROUP BY day ORDER BY day")
    assert rows == [{"day": "2026-03-01", "calls": 1}, {"day": "2026-03-02", "calls": 1}]


def test_a_call_is_seen_at_once_and_once_wherever_it_is(places: Places) -> None:
    writer = places.writer()
    recorder = places.recorder()
    for number in range(1, 4):
        writer.append(line(number))
        assert places.count() == (number, number, number), "in an open segment"
        assert recorder.once() == 0
    writer.close()
    assert places.count() == (3, 3, 3), "in a sealed segment"
    assert recorder.once() == 3
    assert places.count() == (3, 3, 3), "in the lake"
    assert recorder.once() == 0
    writer.append(line(4))
    assert places.count() == (4, 4, 4), "in both"
    writer.close()


def test_the_half_written_last_line_is_not_read_yet(places: Places) -> None:
    writer = places.writer()
    writer.append(line(1))
    (segment,) = segments(places.spool)
    with segment.path.open("ab") as file:
        file.write(line(2)[:50])
    assert places.count() == (1, 1, 1)
    writer.close()


def test_without_any_record_there_are_no_rows_but_all_columns(places: Places) -> None:
    log = places.log()
    assert log.sql("SELECT * FROM calls").columns == [*CallRow.__struct_fields__, "day"]
    assert log.sql("SELECT * FROM content").columns == [*ContentRow.__struct_fields__, "day"]
    assert log.calls() == []
    assert not places.lake.exists()
    assert places.recorder().once() == 0


def test_calls_without_content_are_recorded(places: Places) -> None:
    bare = Entry(entry(1).call)
    places.spool_lines(msgspec.json.encode(bare))
    assert places.recorder().once() == 1
    assert places.count() == (1, 1, 0)
    assert segments(places.spool) == []


GOOD = json.loads(line(9, start=datetime(2026, 3, 1, tzinfo=UTC)))


def spoiled(**call: Any) -> bytes:
    return json.dumps({"call": {**GOOD["call"], **call}}).encode()


POISON = {
    "not JSON": b"{oops",
    "cut short": line(9)[:-7],
    "an array": b"[1]",
    "a NUL byte": line(9).replace(b"hello", b"he\x00lo"),
    "a lone surrogate": line(9).replace(b"hello", b"\\ud800"),
    "not UTF-8": line(9).replace(b"hello", b"\xff"),
    "UTF-16": b"\xff\xfe",
    "two documents": b'{"call":{"id":"a"}} {"call":{"id":"b"}}',
    "no call": b'{"call":null}',
    "no id": spoiled(id=None),
    "no start": spoiled(start=None),
    "start is no instant": spoiled(start="yesterday"),
    "start is endless": spoiled(start="infinity"),
    "start is absurd": spoiled(start="0001-01-01T00:00:00Z"),
    "text for a number": spoiled(latency_s="fast"),
    "a number beyond 64 bits": spoiled(input_tokens=2**64),
    "content of another instant": json.dumps(
        {**GOOD, "content": {"call_id": "x", "start": "2020-01-01T00:00:00Z"}}
    ).encode(),
    "content of no call": json.dumps({**GOOD, "content": {"start": GOOD["call"]["start"]}}).encode(),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_poison_is_put_aside_with_its_reason_and_its_neighbours_are_stored(places: Places, poison: bytes) -> None:
    places.spool_lines(line(1), poison, line(2))
    recorder = places.recorder()
    assert recorder.once() == 2
    assert (recorder.stored, recorder.quarantined) == (2, 1)
    assert places.count() == (2, 2, 2)
    (aside,) = (places.spool / "quarantine").iterdir()
    assert aside.name == "writer-00000000.jsonl"
    (kept,) = [json.loads(text) for text in aside.read_bytes().splitlines()]
    assert kept["reason"]
    assert str(places.root) not in kept["reason"]
    if "line" in kept:
        assert kept["line"].encode() == poison
    else:
        assert set(kept) == {"reason", "line_base64"}
    assert segments(places.spool) == []


def test_a_line_that_is_far_too_long_is_put_aside(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_module, "MAX_LINE_BYTES", 1 << 20)
    monkeypatch.setattr("tidegate.telemetry.snapshot.MAX_LINE_BYTES", 1 << 20)
    huge = line(9).replace(b"hello", b"x" * (40 << 20))
    places.spool_lines(line(1), huge, line(2))
    assert places.count() == (2, 2, 2), "queries pass it over"
    recorder = places.recorder()
    assert recorder.once() == 2
    assert recorder.quarantined == 1


def test_a_segment_of_poison_only_goes_away(places: Places) -> None:
    places.spool_lines(*POISON.values())
    recorder = places.recorder()
    assert recorder.once() == 0
    assert recorder.quarantined == len(POISON)
    assert segments(places.spool) == []
    places.spool_lines(line(1), writer="other")
    assert recorder.once() == 1


def test_deeply_nested_variables_are_stored_and_shown(places: Places) -> None:
    deep = line(1).replace(b'{"name":"Zo\xc3\xab"}', b'{"a":' * 5_000 + b"1" + b"}" * 5_000)
    places.spool_lines(deep)
    assert places.recorder().once() == 1
    (row,) = places.log().calls()
    found = places.log().call(row["id"])
    assert found is not None
    assert str(found["content"]["variables"]).count("a") == 5_000


def test_unknown_fields_of_a_newer_line_are_ignored(places: Places) -> None:
    places.spool_lines(json.dumps({**GOOD, "score": {"x": 1}, "call": {**GOOD["call"], "carbon_g": 0.1}}).encode())
    assert places.recorder().once() == 1
    assert places.count()[0] == 1


def test_a_lake_of_an_older_tidegate_gets_the_new_columns(places: Places) -> None:
    places.lake.mkdir()
    old = duckdb.sql("SELECT 'old' AS id, TIMESTAMPTZ '2026-03-01 12:00:00Z' AS start, DATE '2026-03-01' AS day")
    assert old is not None
    write_deltalake(places.lake / "calls", old, partition_by=["day"])
    assert places.log().sql("SELECT id, tags, version FROM calls").rows == [("old", None, None)]
    places.spool_lines(line(1))
    places.recorder().once()
    rows = places.log().rows("SELECT version FROM calls ORDER BY start")
    assert [row["version"] for row in rows] == [None, 1]
    columns = {field.name for field in DeltaTable(places.lake / "calls").schema().fields}
    assert columns == {*CallRow.__struct_fields__, "day"}, "other engines see them too"


def test_a_lake_of_a_newer_tidegate_is_not_written(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    places.spool_lines(line(1))
    places.recorder().once()
    monkeypatch.setattr(lake_module, "SCHEMA_VERSION", 0)
    places.spool_lines(line(2), writer="other")
    with pytest.raises(Unusable, match="newer tidegate"):
        places.recorder().once()
    assert places.count() == (2, 2, 2), "it waits in the spool, and is seen"


@pytest.mark.parametrize("name", ["with space", "Zoë's project", "100%", "a=b", "日本語", "a,b;c#d{e}"])
def test_the_project_may_stand_in_any_usual_folder(tmp_path: Path, name: str) -> None:
    places = Places(tmp_path / name)
    for number in (1, 2):
        places.spool_lines(line(number), writer=f"w{number}")
        places.recorder().once()
    assert places.count() == (2, 2, 2)


@pytest.mark.parametrize("name", ["[x]", "a*b", "what?", "a%20b", "a|b"])
def test_a_folder_that_the_lake_can_not_live_in_is_one_clear_sentence(tmp_path: Path, name: str) -> None:
    places = Places(tmp_path / name)
    places.spool_lines(line(1))
    with pytest.raises(BadInput, match="Rename it"):
        places.recorder().once()


def test_one_recorder_at_a_time(places: Places) -> None:
    places.spool_lines(line(1))
    first, second = places.recorder(), places.recorder()
    with (places.lake / "recorder.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unusable, match="another recorder"):
            first.once()
        stop = threading.Event()
        waiting = threading.Thread(target=second.run, args=(stop,), kwargs={"poll_s": 0.01})
        waiting.start()
        time.sleep(0.1)
        assert second.stored == 0
    deadline = time.monotonic() + 10
    while second.stored == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    waiting.join()
    assert second.stored == 1, "it takes over when the first is gone"


def test_segments_go_in_by_their_number_and_never_past_a_gap(tmp_path: Path) -> None:
    def segment(writer: str, sequence: int, *, sealed: bool = True) -> Segment:
        return Segment(writer, sequence, tmp_path, sealed)

    found = [
        segment("a", 1),
        segment("a", 0),
        segment("a", 2, sealed=False),
        segment("a", 3),
        segment("b", 7),
    ]
    assert ready(found, lambda _: -1) == [segment("a", 0), segment("a", 1), segment("b", 7)]
    (tmp_path / segment_name("b", 6, sealed=True)).touch()
    (tmp_path / segment_name("a", 0, sealed=True)).touch()
    assert ready(found[:1], lambda _: -1) == [], "the listing missed a/0"
    assert ready(found[:1], lambda _: 0) == [segment("a", 1)], "a/0 is in already"
    assert ready([segment("b", 7)], lambda _: -1) == []


def test_a_listing_that_missed_a_segment_loses_nothing(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory read during a rename may show neither name."""
    for number in (1, 2):
        writer = places.writer()
        writer._sequence = number - 1
        writer.append(line(number))
        writer.close()
    real = segments

    def blind(folder: Path) -> list[Segment]:
        return [segment for segment in real(folder) if segment.sequence != 0]

    monkeypatch.setattr(recorder_module, "segments", blind)
    assert places.recorder().once() == 0
    monkeypatch.setattr(recorder_module, "segments", real)
    assert places.recorder().once() == 2
    assert places.count() == (2, 2, 2)


def test_many_segments_are_few_commits(places: Places) -> None:
    for number in range(20):
        places.spool_lines(line(number), writer=f"w{number % 3}-{number}")
    assert places.recorder().once() == 20
    assert DeltaTable(places.lake / "calls").version() <= 2


def test_a_batch_is_bounded(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "BATCH_BYTES", 2 * len(line(0)) + 10)
    for number in range(6):
        places.spool_lines(line(number), writer=f"w{number}")
    assert places.recorder().once() == 6
    assert DeltaTable(places.lake / "calls").version() >= 3
    assert places.count() == (6, 6, 6)


def test_small_files_become_few_under_a_readers_eyes(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction, checkpoint, vacuum: nothing is lost, and a reader that began before is not disturbed."""
    monkeypatch.setattr(recorder_module, "SMALL_FILES", 4)
    recorder = places.recorder()
    places.spool_lines(line(0), writer="w0")
    recorder.once()
    with places.log().snapshot() as before:
        for number in range(1, 12):
            places.spool_lines(line(number), writer=f"w{number}")
            recorder.once()
        assert before.rows("SELECT count(*) AS calls FROM calls") == [{"calls": 1}]
    table = DeltaTable(places.lake / "calls")
    assert len(table.file_uris()) <= 4
    assert list((places.lake / "calls" / "_delta_log").glob("*.checkpoint*.parquet"))
    assert places.count() == (12, 12, 12)
    places.spool_lines(line(0, ago_s=86_400 * 3), line(1, ago_s=86_400 * 3), writer="old")
    recorder.once()
    assert places.count()[0] == 14


def test_only_files_of_about_one_size_are_put_together_today() -> None:
    """Otherwise what is large already is rewritten with each few that come."""
    today, past = date(2026, 3, 2), date(2026, 3, 1)

    def files(day: date, *sizes: int) -> list[StoredFile]:
        return [StoredFile(Path(f"{day}/{number}"), day, size, None) for number, size in enumerate(sizes)]

    few = files(today, *[5_000] * 15, *[500_000] * 15, *[8 << 20] * 20)
    assert crowded(few) == []
    more = files(today, *[5_000] * 16, *[500_000] * 15)
    assert crowded(more) == more[:16]
    old = files(past, 5_000, 500_000, 3 << 20, 60_000, 8 << 20)
    assert crowded([*few, *old]) == old[:4]


@pytest.mark.parametrize("number_of_files", [1, 4])
def test_a_file_says_when_its_last_call_starts(
    places: Places, monkeypatch: pytest.MonkeyPatch, number_of_files: int
) -> None:
    """Queries of the last hour leave older files out by that; also those that were put together."""
    monkeypatch.setattr(recorder_module, "SMALL_FILES", 4)
    newest = datetime(2026, 3, 1, 12, 0, 0, 123_456, UTC)
    for number in range(number_of_files):
        places.spool_lines(line(number, start=newest - timedelta(seconds=number)), writer=f"w{number}")
        places.recorder().once()
    for table in lake_module.TABLES:
        handle = DeltaTable(places.lake / table.name)
        (file,) = stored_files(places.lake, table, handle)
        assert file.newest is not None
        assert newest <= file.newest < newest + timedelta(milliseconds=2)
        assert handle.get_add_actions(flatten=True).column("num_records").to_pylist() == [number_of_files]


def test_past_days_are_compacted_too(places: Places) -> None:
    recorder = places.recorder()
    for number in range(5):
        places.spool_lines(line(number, ago_s=86_400 * 9), line(number), writer=f"w{number}")
        recorder.once()
    files = DeltaTable(places.lake / "calls").file_uris(file_pruning_predicate=f"day < '{datetime.now(UTC):%Y-%m-%d}'")
    assert len(files) < 4
    assert places.count() == (10, 10, 10)


DIES = """
import os, signal, sys
from pathlib import Path
from tidegate.telemetry.recorder import Recorder
last = int(sys.argv[2])
recorder = Recorder(Path(sys.argv[1], "spool"), Path(sys.argv[1], "lake"))
steps = 0
def step(frame, event, argument):
    global steps
    if event in ("return", "c_return") and frame.f_code.co_filename.endswith(("recorder.py", "lake.py", "spool.py")):
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(step)
recorder.once()
sys.setprofile(None)
print(steps)
"""


def killed_at(places: Places, step: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DIES, str(places.root), str(step)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def fill(places: Places) -> None:
    """Sealed segments of two writers, one with poison, and an orphan with a torn end."""
    places.spool_lines(line(1), line(2), writer="a")
    writer = places.writer("a")
    writer._sequence = 1
    writer.append(line(3))
    writer.append(b"poison")
    writer.close()
    places.spool_lines(line(4), writer="b")
    orphan = places.spool / segment_name("c", 0, sealed=False)
    orphan.write_bytes(line(5) + b"\n" + line(6)[:20])


@pytest.mark.parametrize("part", range(4))
def test_killed_at_any_step_every_record_is_in_exactly_once(tmp_path: Path, part: int) -> None:
    """A recorder is killed -9 after its n-th step, another does the rest; the n are spread over the whole run."""
    rehearsal = Places(tmp_path / "rehearsal")
    fill(rehearsal)
    total = int(killed_at(rehearsal, -1).stdout)
    assert rehearsal.count() == (5, 5, 5)
    for number, step in enumerate(range(2 + part * total // 24, total, total // 6)):
        places = Places(tmp_path / str(number))
        fill(places)
        killed = killed_at(places, step)
        assert killed.returncode == -9, killed.stderr
        assert places.count() == (5, 5, 5), f"queried after step {step} of {total}"
        places.recorder().once()
        assert places.count() == (5, 5, 5), f"after step {step} of {total}"
        assert segments(places.spool) == []
        (aside,) = (places.spool / "quarantine").glob("*.jsonl")
        assert len(aside.read_bytes().splitlines()) == 1


def test_killed_between_the_tables_the_second_gets_its_rows_and_the_first_no_more(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places)
    real = recorder_module._Table.append

    def dies_at_content(self: Any, *arguments: Any) -> int:
        if self.table.name == "content":
            raise OSError(5, "the power went")
        return real(self, *arguments)

    monkeypatch.setattr(recorder_module._Table, "append", dies_at_content)
    with pytest.raises(Unusable, match="the power went"):
        places.recorder().once()
    assert places.count() == (5, 5, 5), "calls from the lake, contents from the spool"
    monkeypatch.setattr(recorder_module._Table, "append", real)
    places.recorder().once()
    assert places.count() == (5, 5, 5)
    assert DeltaTable(places.lake / "calls").version() == 1


def test_a_full_disk_stops_the_recorder_and_loses_nothing(places: Places) -> None:
    prefix = small_disk("1m")
    code = """
import sys
from pathlib import Path
from tests.contract.telemetry.records import Places, line
from tidegate.core.errors import Unusable
root = Path(sys.argv[1])
places = Places(root)
for number in range(50):
    places.spool_lines(line(number), writer=f"w{number}")
ballast = (root / "ballast").open("wb", buffering=0)
try:
    while ballast.write(b"x" * 4096): pass
except OSError: pass
ballast.close()
try:
    places.recorder().once()
    raise SystemExit("no error")
except Unusable as error:
    assert "\\n" not in str(error), error
(root / "ballast").unlink()
assert places.count() == (50, 50, 50)
assert places.recorder().once() == 50
assert places.count() == (50, 50, 50)
"""
    ended = subprocess.run(
        [*prefix, str(places.root), sys.executable, "-c", code, str(places.root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert ended.returncode == 0, ended.stderr


@contextmanager
def recording(places: Places) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=places.recorder().run, args=(stop,), kwargs={"poll_s": 0.001})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_queries_while_everything_moves_see_every_call_once(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer seals, a recorder moves and compacts, and each query sees exactly what was appended before it."""
    monkeypatch.setattr(recorder_module, "SMALL_FILES", 3)
    writer = places.writer()
    log = places.log()
    number = 0
    deadline = time.monotonic() + 3
    with recording(places):
        while time.monotonic() < deadline:
            for _ in range(5):
                number += 1
                writer.append(line(number))
            if number % 2:
                writer.close()
            row = log.sql("SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM content) FROM calls").rows[0]
            assert row == (number, number, number)
    assert DeltaTable(places.lake / "calls").version() > 5, "it did move"
    writer.close()


def test_a_lake_that_is_deleted_and_begun_again_is_read_anew(places: Places) -> None:
    log = places.log()
    places.spool_lines(line(1), line(2))
    places.recorder().once()
    assert len(log.calls()) == 2
    shutil.rmtree(places.lake)
    assert log.calls() == []
    places.spool_lines(line(3), writer="new")
    places.recorder().once()
    assert len(log.calls()) == 1


def test_a_failing_lake_is_tried_again(places: Places, caplog: pytest.LogCaptureFixture) -> None:
    """The recorder does not die with the lake; it says what is wrong, and goes on when it is mended."""
    places.spool_lines(line(1))
    places.lake.mkdir()
    (places.lake / "calls").write_text("in the way")
    recorder = places.recorder()
    stop = threading.Event()
    thread = threading.Thread(target=recorder.run, args=(stop,), kwargs={"poll_s": 0.01})
    thread.start()
    deadline = time.monotonic() + 10
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "records wait in the spool" in caplog.text
    (places.lake / "calls").unlink()
    while recorder.stored == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert places.count() == (1, 1, 1)
