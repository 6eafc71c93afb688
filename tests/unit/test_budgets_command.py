"""`tidegate budgets` without a gateway: what the last one left."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from tidegate import compose
from tidegate.cli.budgets import NONE, budgets_
from tidegate.config import Config, load
from tidegate.core.keys import Key, KeyRing, fingerprint, mint
from tidegate.stores.meter import Meter
from tidegate.system import SystemClock
from tidegate.telemetry.running import RUNNING, RunningCalls
from tidegate.telemetry.spool import SpoolWriter

CONFIG = "budgets: {total: {day: 2}, each_key: {month: 10}, prompts: {support/answer: {hour: 0.5}}}\n"
SHAPE = {
    *("scope", "period", "cap_nano_usd", "spent_nano_usd", "reserved_nano_usd", "left_nano_usd"),
    *("resets_at", "warning", "unpriced_calls"),
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A project whose last gateway spent 1.7 dollars of ann's."""
    file = tmp_path / "tidegate.yaml"
    file.write_text(CONFIG)
    project = load(file)
    spool = SpoolWriter(project.spool, clock=SystemClock(), writer_id="w")
    with ExitStack() as kept:
        running = RunningCalls(project.spool / RUNNING)
        meter = compose._admission(project, SystemClock(), spool, running, kept)
        assert isinstance(meter, Meter)
        hold = meter.admit(key="ann", prompt=None, route=None, models=(), tokens=0, nano_usd=1_800_000_000)
        hold.settle(0, 1_700_000_000, None)
        assert spool.append(b"{}")
        spool.close()
    return file


def test_a_table_says_what_is_spent_and_left(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budgets_(config=config)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["of", "per", "budget", "spent", "held", "left", "begins", "anew"]
    rows = [line.split() for line in lines[1:]]
    assert rows[0][:6] == ["total", "day", "$2.00", "$1.70", "$0.00", "$0.30"]
    assert any(row[:6] == ["key", "ann", "month", "$10.00", "$1.70", "$0.00"] for row in rows)
    assert lines[2].split() == ["80", "%", "are", "spent"]
    assert all(len(line) <= 80 for line in lines)


def test_json_is_a_list_of_budgets(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budgets_(config=config, json=True)
    shown = json.loads(capsys.readouterr().out)
    assert [(one["scope"], one["period"], one["spent_nano_usd"]) for one in shown] == [
        ("total", "day", 1_700_000_000),
        ("prompt support/answer", "hour", 0),
        ("key ann", "month", 1_700_000_000),
    ]
    assert all(one.keys() == SHAPE for one in shown)


def test_no_budgets_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tidegate.yaml").write_text("limits: {total: {concurrent: 1}}\n")
    budgets_(config=tmp_path / "tidegate.yaml")
    assert capsys.readouterr().out.split() == NONE.split()


def test_a_limit_of_a_key_that_nobody_has_is_found() -> None:
    config = Config.model_validate({"limits": {"keys": {"an": {"concurrent": 1}, "ann": {"concurrent": 1}}}})
    token, prefix = mint(bytes(range(38)))
    key = Key(prefix, "ann", "caller", fingerprint(token), "2026-01-01T00:00:00.000000Z", "ada")
    nobody = ("limits", "keys", "an")
    assert list(compose.nobodys(config, KeyRing([key]))) == [(nobody, "no key has this name. Did you mean 'ann'?")]
    assert list(compose.nobodys(config, KeyRing())) == []
