"""The call log: stable pages, anybody's SQL on a short leash, and answers within their time."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.contract.telemetry.records import Places, iso, line
from tidegate.core.errors import BadInput, Refused, TidegateError, Unusable
from tidegate.telemetry import snapshot as snapshot_module
from tidegate.telemetry.find import served_by
from tidegate.telemetry.lake import LakeReader, LakeTable, TableState

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ten_calls(places: Places, in_lake: int) -> Places:
    """Ten calls, some at the same instant."""
    lines = [line(number, start=NOON + timedelta(seconds=number // 3), version=number % 2 + 1) for number in range(10)]
    if in_lake:
        places.spool_lines(*lines[:in_lake], writer="first")
        places.recorder().once()
    if in_lake < 10:
        places.spool_lines(*lines[in_lake:], writer="second")
    return places


@pytest.fixture(params=[0, 5, 10], ids=["spool", "both", "lake"])
def stored(request: pytest.FixtureRequest, places: Places) -> Places:
    return ten_calls(places, request.param)


@pytest.fixture
def mixed(places: Places) -> Places:
    return ten_calls(places, 5)


def test_calls_are_newest_first(stored: Places) -> None:
    rows = stored.log().calls()
    assert len(rows) == 10
    assert [(row["start"], row["id"]) for row in rows] == sorted(
        ((row["start"], row["id"]) for row in rows), reverse=True
    )
    assert rows[0]["start"] == iso(NOON + timedelta(seconds=3))


def test_a_condition_filters_and_limits_what_a_page_counts(stored: Places) -> None:
    log = stored.log()
    assert {row["version"] for row in log.calls("version = 2 -- the newest", 3)} == {2}
    assert len(log.calls("version = 2", 3)) == 3
    assert len(log.calls("id IN (SELECT call_id FROM content WHERE output LIKE 'hell%')")) == 10
    assert log.calls("false") == []
    assert len(log.calls("  ")) == 10


def test_a_day_prunes_to_its_partition(stored: Places) -> None:
    log = stored.log()
    assert log.sql("SELECT count(*) FROM calls WHERE day = '2026-03-01'").rows == [(10,)]
    assert log.sql("SELECT count(*) FROM calls WHERE day = '2026-03-02'").rows == [(0,)]
    assert log.rows("SELECT count(*) AS n FROM calls WHERE start >= $at", {"at": NOON}, since=NOON) == [{"n": 10}]
    later = NOON + timedelta(days=1)
    assert log.rows("SELECT count(*) AS n FROM calls WHERE start >= $at", {"at": later}, since=later) == [{"n": 0}]


def test_since_reads_no_file_of_older_calls(places: Places) -> None:
    for days in range(3):
        places.spool_lines(line(days, start=NOON + timedelta(days=days)), writer=f"w{days}")
        places.recorder().once()
    for path in (places.lake / "calls" / "day=2026-03-01").glob("*.parquet"):
        path.write_bytes(b"unreadable")
    since = NOON + timedelta(hours=1)
    assert places.log().rows("SELECT count(*) AS n FROM calls WHERE start >= ?", [since], since=since) == [{"n": 2}]


def test_one_snapshot_answers_for_one_moment(stored: Places) -> None:
    with stored.log().snapshot() as moment:
        stored.spool_lines(line(99), writer="late")
        stored.recorder().once()
        assert moment.rows("SELECT count(*) AS n FROM calls") == [{"n": 10}]
        assert moment.rows("SELECT count(*) AS n FROM content") == [{"n": 10}]
    assert stored.log().sql("SELECT count(*) FROM calls").rows == [(11,)]


@pytest.mark.parametrize("table", ["calls", "content"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_segment_that_moves_while_a_snapshot_is_taken_is_neither_lost_nor_doubled(
    mixed: Places, monkeypatch: pytest.MonkeyPatch, table: str, when: str
) -> None:
    """The recorder runs whole at a seam of `Snapshot`: before or after one table's version is looked at."""
    moved: list[int] = []

    class Moving(LakeReader):
        def state(self, asked: LakeTable, writers: Iterable[str]) -> TableState:
            def move(now: str) -> None:
                if (asked.name, now) == (table, when) and not moved:
                    moved.append(mixed.recorder().once())

            move("before")
            found = super().state(asked, writers)
            move("after")
            return found

    monkeypatch.setattr("tidegate.telemetry.queries.LakeReader", Moving)
    assert mixed.count() == (10, 10, 10)
    assert moved == [5]


def test_a_file_that_vanishes_for_good_is_one_clear_sentence(places: Places) -> None:
    places.spool_lines(line(1))
    places.recorder().once()
    log = places.log()
    for path in (places.lake / "calls").glob("day=*/*.parquet"):
        path.unlink()
    with pytest.raises(Unusable, match="vanish"):
        log.calls()


def test_served_by_counts_live_calls_of_the_window_by_prompt_environment_and_version(places: Places) -> None:
    places.spool_lines(
        line(1, version=1),
        line(2, version=2),
        line(3, version=2),
        line(4, version=2, origin="eval"),
        line(5, version=2, ago_s=400),
        line(6, version=None),
        line(7, prompt=None, version=None),
        line(8, prompt="other", version=1, outcome="error"),
        line(9, version=2, environment="staging"),
    )
    expected = {("support/answer", 1): 1, ("support/answer", 2): 2, ("other", 1): 1}
    assert served(places, 300) == expected
    places.recorder().once()
    assert served(places, 300) == expected
    assert served(places, 500)["support/answer", 2] == 3


def served(places: Places, seconds: float) -> dict[tuple[str, int], int]:
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    with places.log().snapshot(since) as rows:
        found = served_by(rows, since)
    return {(item.prompt, item.version): item.calls for item in found if item.environment is None}


OUT_OF_BOUNDS = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_parquet('/tmp/x.parquet')",
    "SELECT * FROM duckdb_secrets()",
    "COPY calls TO '{out}'",
    "COPY (SELECT 1) TO '{out}' (FORMAT csv)",
    "EXPLAIN ANALYZE COPY calls TO '{out}'",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET threads = 64",
    "PRAGMA enable_profiling",
    "CREATE TABLE x AS SELECT 1",
    "CREATE OR REPLACE VIEW calls AS SELECT 1",
    "DROP VIEW calls",
    "INSERT INTO calls VALUES (1)",
    "DELETE FROM calls",
    "CALL pragma_version()",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW calls",
    "",
    "   -- nothing",
]


@pytest.mark.parametrize("text", OUT_OF_BOUNDS)
def test_sql_reads_the_records_and_nothing_else(mixed: Places, tmp_path: Path, text: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(TidegateError) as caught:
        mixed.log().sql(text.format(out=out))
    assert isinstance(caught.value, Refused | BadInput)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    assert not out.exists()
    assert len(mixed.log().calls()) == 10


ESCAPES = [
    "1=1) UNION SELECT * FROM calls --",
    "true; DROP VIEW calls",
    "true) OR (true",
    "(SELECT count(*) FROM read_text('/etc/passwd')) > 0",
    "nope = 1",
    "outcome = 'error",
    "version = ?",
    "version = $x",
    "true, false",
]


@pytest.mark.parametrize("where", ESCAPES)
def test_a_condition_is_one_expression_over_the_records(mixed: Places, where: str) -> None:
    with pytest.raises((BadInput, Refused)) as caught:
        mixed.log().calls(where)
    assert "\n" not in str(caught.value)


def test_a_hostile_id_is_only_an_id(mixed: Places) -> None:
    assert mixed.log().call("' OR true --") is None


def test_a_wrong_name_is_answered_with_the_near_ones(mixed: Places) -> None:
    with pytest.raises(BadInput, match=r'latency_z.*"latency_s"'):
        mixed.log().sql("SELECT latency_z FROM calls")


def test_rows_are_capped_and_say_so(mixed: Places) -> None:
    table = mixed.log().sql("SELECT id FROM calls", limit=4)
    assert (len(table.rows), table.more) == (4, True)
    table = mixed.log().sql("SELECT id FROM calls", limit=10)
    assert (len(table.rows), table.more) == (10, False)


def test_an_answer_is_cut_where_it_gets_large(mixed: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows alone bound nothing: 60 of 50 MB took the console 6 GB."""
    monkeypatch.setattr(snapshot_module, "LARGEST_BYTES", 5_000)
    values = ("repeat('a', 1000)", "repeat('a', 1000)::BLOB", "[repeat('a', 1000)]", "{'a': repeat('a', 1000)}")
    for value in values:
        table = mixed.log().sql(f"SELECT {value} FROM range(100)")  # noqa: S608
        assert (3 <= len(table.rows) <= 5, table.more) == (True, True)
    assert len(mixed.log().sql("SELECT id FROM calls").rows) == 10
    with pytest.raises(Refused, match="one row of the answer"):
        mixed.log().sql("SELECT repeat('a', 10000)")


def test_a_few_questions_at_once_are_enough(mixed: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take 1 GB and a thread for 30 s: somebody who may only read must not keep others from a rollback."""
    monkeypatch.setattr(snapshot_module, "LONGEST_S", 1.0)
    log = mixed.log()
    endless = "count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = -1"
    asks = [lambda: log.sql(f"SELECT {endless}"), lambda: log.calls(f"(SELECT {endless}) > 0")] * 4
    with ThreadPoolExecutor(len(asks)) as many:
        errors = [asked.exception() for asked in [many.submit(ask) for ask in asks]]
    assert sorted(type(error).__name__ for error in errors) == ["Saturated"] * 4 + ["Unusable"] * 4
    assert len(log.sql("SELECT id FROM calls").rows) == 10  # and all of them have left


def test_a_query_without_end_is_stopped(mixed: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "LONGEST_S", 0.2)
    with pytest.raises(Unusable, match="stopped after"):
        mixed.log().sql("SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = -1")


def test_a_query_that_eats_memory_is_stopped(mixed: Places) -> None:
    with pytest.raises(Unusable, match="memory"):
        mixed.log().sql("SELECT list(a.range) FROM range(400000000) a")


def test_nothing_is_left_behind(mixed: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    log = mixed.log()
    log.calls()
    with pytest.raises(BadInput):
        log.sql("SELECT nope")
    assert list(scratch.iterdir()) == []
