"""What a person sees while a run lasts: a bar on a terminal, a line now and then elsewhere, nothing with --json."""

from __future__ import annotations

import asyncio
from io import StringIO

import pytest
from rich.console import Console

from tests.unit.evals import version
from tidegate.cli import watch
from tidegate.cli.watch import LONGEST_LINE_S, TerminalWatcher, finish
from tidegate.core.errors import Unusable
from tidegate.evals.batch import BatchProgress
from tidegate.evals.runner import Progress
from tidegate.evals.watcher import Planned, Resumed

PLAN = Planned(version(), None, False, cases=100, repeats=3, calls=300, mde=None, max_cost_nano_usd=None)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """Both streams, without a terminal."""
    text = StringIO()
    for name in ("out", "err"):
        monkeypatch.setattr(watch, name, Console(file=text, width=100))
    return text


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [1_000.0]
    monkeypatch.setattr(f"{watch.__name__}.time.monotonic", lambda: moment[0])
    return moment


def step(done: int, *, errors: int = 0) -> Progress:
    return Progress(
        version(), done, 300, passed=done - errors, cost_nano_usd=done * 41_000, errors=errors, concurrency=8
    )


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(said: StringIO, now: list[float]) -> None:
    with TerminalWatcher(quiet=False) as watcher:
        watcher.planned(PLAN)
        said.truncate(0)
        said.seek(0)
        for done in range(1, 301):
            now[0] += 1
            watcher.progressed(step(done, errors=2 if done > 10 else 0))
    lines = said.getvalue().splitlines()
    assert lines[0] == "  v1  15/300  100% pass · 2 errors · $0.000615 · 8 at once"
    assert [line.split()[1] for line in lines] == ["15/300", "45/300", "105/300", "225/300"], (
        "twice as seldom each time"
    )
    assert LONGEST_LINE_S == 300


def test_with_json_nothing_is_said(said: StringIO, now: list[float]) -> None:
    with TerminalWatcher(quiet=True) as watcher:
        watcher.planned(PLAN)
        watcher.resumed(Resumed(version(), 120, 300, 5_000_000, "2026-03-01T12:00:00.000000Z"))
        watcher.batched(version(), BatchProgress(0, 0, 300, 0.0, False, True))
        now[0] += 1_000
        watcher.progressed(step(150))
    assert said.getvalue() == ""


def test_what_need_not_be_paid_again_is_said(said: StringIO) -> None:
    with TerminalWatcher(quiet=False) as watcher:
        watcher.resumed(Resumed(version(), 120, 300, 5_000_000, "2026-03-01T12:00:00.000000Z"))
    expected = "  resumed: 120 of 300 calls of v1 were there, $0.005000, begun 2026-03-01 12:00 UTC\n"
    assert said.getvalue() == expected


def test_a_batch_says_when_it_is_handed_in_when_it_ends_and_now_and_then(said: StringIO, now: list[float]) -> None:
    with TerminalWatcher(quiet=False) as watcher:
        for waited in range(0, 3_601, 60):
            now[0] += 60
            done = 300 if waited == 3_600 else 0
            watcher.batched(version(), BatchProgress(done, 0, 300, waited, False, waited in (0, 3_600)))
    lines = said.getvalue().splitlines()
    assert lines[0] == "  v1  batch · 0 answered · 0:00, of 300"
    assert lines[-1] == "  v1  batch · 300 answered · 1:00:00, of 300"
    assert 5 < len(lines) < 20


async def test_on_a_terminal_a_bar_shows_pass_rate_cost_and_how_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = StringIO()
    console = Console(file=text, width=100, force_terminal=True)
    monkeypatch.setattr(watch, "err", console)
    monkeypatch.setattr(watch, "out", Console(file=StringIO()))
    with TerminalWatcher(quiet=False) as watcher:
        watcher.planned(PLAN)
        watcher.bar.start()
        watcher.progressed(step(150, errors=1))
        watcher.bar.refresh()
    shown = text.getvalue()
    assert "150/300" in shown
    assert "100% pass · 1 error · $0.006150 · 8 at once" in shown


def test_ctrl_c_is_no_verdict_and_says_how_to_go_on() -> None:
    async def interrupted() -> None:
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    with pytest.raises(Unusable, match="the same command goes on from there, and with --fresh") as error:
        finish(interrupted())
    assert error.value.exit_code == 3
