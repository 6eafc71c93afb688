"""`tidegate calls` and `tidegate sql`: for people in 100 columns, for programs as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.contract.telemetry.records import Places, entry, line
from tidegate.cli.calls import calls_
from tidegate.cli.output import out
from tidegate.cli.sql import show, sql_
from tidegate.core.errors import BadInput, NotFound, Refused
from tidegate.core.table import Table
from tidegate.telemetry.record import AttemptRow

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "request_model": "openai/a-model-with-a-very-long-name-2026-03-01",
    "input_tokens": 12_345,
    "output_tokens": 300,
    "cost_nano_usd": 123_000,
    "latency_s": 1.234,
    "http_status": 200,
    "attempts": [AttemptRow("openai/x", 1.2, status=200)],
    "tags": {"team": "a"},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "tidegate.yaml"
    file.write_text("timezone: Europe/Berlin\n")
    places = Places(tmp_path / ".tidegate")
    places.spool_lines(
        line(1, start=NOON, outcome="ok", output_valid=True, **FIELDS),
        line(
            2,
            start=NOON,
            outcome="error",
            error_type="upstream_unavailable",
            error_message="\x1b[2J\x07boom: no connection to the provider",
            **FIELDS,
        ),
        line(3, start=NOON, outcome="client_closed", prompt=None, version=None),
        line(4, start=NOON, outcome="ok", prompt="a/very/long/name/of/a/prompt\x1b", version=123, service="\x9b31m"),
    )
    return file


def ident(number: int) -> str:
    return entry(number, start=NOON).call.id


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_list_fits_its_terminal_and_obeys_nothing_stored(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(out, "width", width)
    calls_(config=config)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0].startswith("call     time           prompt or model")
    assert len(lines) == 5
    assert max(cell_len(text) for text in lines) <= width
    assert "\x1b" not in shown
    assert "␛[2J␇" in shown or width == 80


def test_a_line_says_what_was_called_what_came_of_it_and_what_it_cost(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 80)
    Places(config.parent / ".tidegate").spool_lines(
        line(5, start=NOON, outcome="ok", output_valid=False, **FIELDS), writer="later"
    )
    calls_(config=config)
    assert [text.partition(" 03-01 13:00:00 ")[2] for text in capsys.readouterr().out.splitlines()[1:]] == [
        "support/answer v1  invalid  1.23 s 12k→300   $0.000123",
        "a/very/long/… v123 ok       0.00 s –         –",
        "–                  closed   0.00 s –         –",
        "support/answer v1  error    1.23 s upstream_unavailable",
        "support/answer v1  ok       1.23 s 12k→300   $0.000123",
    ]


def test_a_call_that_failed_says_why_as_far_as_there_is_room(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 120)
    calls_(config=config, where="outcome = 'error'")
    (failed,) = capsys.readouterr().out.splitlines()[1:]
    assert failed.endswith("error    1.23 s upstream_unavailable: ␛[2J␇boom: no connection …")


def test_one_call_is_shown_whole_by_id_or_its_end(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls_(ident(2), config=config)
    shown = capsys.readouterr().out
    for expected in (
        "␛[2J␇boom",
        "openai/x, 200, 1.20 s",
        "hello",
        '{"name":"Zoë"}',
        "tag team",
        "13:00:00.000000 CET",
    ):
        assert expected in shown
    assert "\x1b" not in shown
    calls_(ident(2)[-8:], config=config)
    assert capsys.readouterr().out == shown


def test_a_call_that_is_not_there_or_not_clear(config: Path) -> None:
    with pytest.raises(NotFound, match="no call"):
        calls_("\x1b[31mnobody", config=config)
    with pytest.raises(BadInput, match="too short"):
        calls_("3", config=config)
    places = Places(config.parent / ".tidegate")
    places.spool_lines(line(5, start=datetime(2026, 3, 2, tzinfo=UTC)), line(5, start=NOON), writer="more")
    with pytest.raises(BadInput, match="several"):
        calls_(ident(5)[-8:], config=config)


def test_json_is_one_record_per_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls_(config=config, where="outcome = 'ok'", json=True)
    rows = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [row["version"] for row in rows] == [123, 1]
    assert rows[1]["attempts"] == [{"target": "openai/x", "latency_s": 1.2, "status": 200, "error_type": None}]
    calls_(ident(1), config=config, json=True)
    assert json.loads(capsys.readouterr().out)["content"]["variables"] == {"name": "Zoë"}


def test_a_tail_prints_what_comes_after_even_when_it_began_before(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(config.parent / ".tidegate")
    coming = [line(7, start=datetime(2026, 2, 1, tzinfo=UTC)), line(8)]

    def pause(_: float) -> None:
        if not coming:
            raise KeyboardInterrupt
        places.spool_lines(coming.pop(0), writer=f"later{len(coming)}")

    monkeypatch.setattr("time.sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        calls_(config=config, follow=True, limit=1, json=True)
    rows = [json.loads(text)["id"] for text in capsys.readouterr().out.splitlines()]
    assert [int(row[-3:], 16) for row in rows] == [4, 7, 8]


def test_no_calls_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tidegate.yaml").write_text("{}")
    calls_(config=tmp_path / "tidegate.yaml")
    assert capsys.readouterr().out.startswith("No calls yet.")
    calls_(config=tmp_path / "tidegate.yaml", json=True)
    assert capsys.readouterr().out == ""


def test_sql_as_a_table_json_and_csv(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT outcome, error_message, start, count(*) AS n FROM calls WHERE version = 1 GROUP BY ALL ORDER BY 1"
    sql_(query, config=config)
    shown = capsys.readouterr().out
    assert "␛[2J␇boom" in shown
    assert "\x1b" not in shown
    assert shown.splitlines()[2].split() == ["ok", "–", "2026-03-01T12:00:00Z", "1"]
    sql_(query, config=config, json=True)
    rows = json.loads(capsys.readouterr().out)
    assert rows[1] == {"outcome": "ok", "error_message": None, "start": "2026-03-01T12:00:00Z", "n": 1}
    sql_(query, config=config, csv=True)
    table = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert table[0] == ["outcome", "error_message", "start", "n"]
    assert table[2] == ["ok", "", "2026-03-01T12:00:00Z", "1"]


def test_sql_that_is_wider_than_the_terminal_has_a_line_for_each_value(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(["prompt", "n"], [("support/answer", 1), (None, 20)])
    show(table, width=17)
    assert capsys.readouterr().out.splitlines() == [
        *("row 1", "  prompt  support/answer", "  n       1"),
        *("row 2", "  prompt  –", "  n       20"),
    ]
    show(table, width=18)
    assert capsys.readouterr().out.splitlines() == ["prompt           n", "support/answer   1", "–               20"]


def test_sql_says_when_rows_were_cut(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql_("SELECT range FROM range(10001)", config=config, csv=True)
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 10_001
    assert "first 10,000 rows" in captured.err


def test_sql_refuses_what_is_not_about_records(config: Path) -> None:
    with pytest.raises(Refused):
        sql_("COPY calls TO '/tmp/x'", config=config)
    with pytest.raises(BadInput, match="choose one"):
        sql_("SELECT 1", config=config, json=True, csv=True)
