"""Budgets over a `kill -9` of the gateway in the middle of calls, in a whole running project."""

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_kill import children
from tidegate import compose
from tidegate.core.budgets import BudgetState
from tidegate.simulate.stage import Stage

MODEL = "simulated/support-2026-03-01"
BUDGETS = "\nbudgets: {total: {day: 1}, models: {simulated/support-2026-03-01: {month: 5}}}\n"
SETTLE_S = 20.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The example project with budgets, every process running, and a provider that takes two seconds."""
    with Stage(tmp_path / "shop") as stage:
        stage.copy_example("support-bot")
        stage.config.write_text(stage.config.read_text() + BUDGETS)
        stage.start_provider("--latency-ms", "2000", "--sigma", "0")
        stage.start_serve()
        yield stage


def call(stage: Stage) -> str | None:
    """One call; its id, or None when the gateway died under it."""
    body = {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": "Question: when?"}]}
    request = urllib.request.Request(  # noqa: S310  our own loopback address
        f"{stage.url('gateway')}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            answer.read()
            return str(answer.headers["x-tidegate-call-id"])
    except (urllib.error.URLError, OSError):
        return None


def budgets(stage: Stage) -> dict[str, BudgetState]:
    project = compose.project(stage.config)
    return {state.scope: state for state in asyncio.run(compose.budgets(project))}


@pytest.mark.timeout(120)
def test_what_was_spent_and_what_was_under_way_survives(stage: Stage) -> None:
    log = compose.own_call_log(compose.project(stage.config))
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda _: call(stage), range(4)))
        assert None not in done
        running = [threads.submit(call, stage) for _ in range(4)]
        until(lambda: budgets(stage)["total"].reserved_nano_usd > 0)
        time.sleep(0.2)
        held = budgets(stage)["total"].reserved_nano_usd
        spent = budgets(stage)["total"].spent_nano_usd
        gateway = children(stage)["gateway"]
        os.kill(gateway, signal.SIGKILL)
        assert [each.result() for each in running] == [None] * 4
    until(lambda: children(stage).get("gateway", gateway) != gateway)
    until(lambda: answers(stage))
    after = budgets(stage)
    assert held > 0
    assert spent > 0
    assert after["total"].spent_nano_usd == after[f"model {MODEL}"].spent_nano_usd == spent + held
    assert after["total"].reserved_nano_usd == 0
    until(lambda: len(log.rows("SELECT id FROM calls")) >= 8)
    time.sleep(1)  # whatever would be counted twice has time to be
    rows = log.rows("SELECT id, outcome, cost_nano_usd FROM calls")
    assert Counter(row["outcome"] for row in rows) == {"ok": 4, "lost": 4}
    assert {row["id"] for row in rows if row["outcome"] == "ok"} == set(done)
    assert sum(row["cost_nano_usd"] for row in rows) == spent + held


def answers(stage: Stage) -> bool:
    try:
        with urllib.request.urlopen(f"{stage.url('gateway')}/livez", timeout=1):  # noqa: S310
            return True
    except OSError:
        return False


def until(holds: Any) -> None:
    end = time.monotonic() + SETTLE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
