"""A deploy, split or rollback reaches every gateway within a second, under load, and no call fails: on both stores."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tidegate import compose
from tidegate.prompts.files import load_prompt
from tidegate.prompts.registry import Registry
from tidegate.simulate.stage import Stage, free_port
from tidegate.simulate.traffic import Customers, Sent

PROMPT = "support/answer"
MOVES = 8
"""v2 for all calls, back, v2 for half of them, back; twice."""
LIMIT_S = 1.0
LIFELINE = {"TIDEGATE_LIFELINE": "stdin"}


@dataclass
class Call:
    """One call, and when it was sent."""

    sent_at: float
    answer: Sent


class Gateway:
    """A gateway process with a state folder of its own."""

    def __init__(self, stage: Stage, folder: Path, port: int = 0) -> None:
        port = free_port(port)
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        folder.mkdir(exist_ok=True)
        config = folder / "tidegate.yaml"
        config.write_text(stage.config.read_text() + f"\ngateway: {{port: {port}}}\n")
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "tidegate", "serve", "--only", "gateway", "--config", str(config)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, env={**os.environ, **LIFELINE})

    def wait(self) -> None:
        end = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=1):  # noqa: S310 - our own loopback address
                    return
            except OSError:
                assert time.monotonic() < end, self.log.read_text()
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.02)

    def stop(self) -> float:
        """The seconds it took."""
        began = time.monotonic()
        self.process.terminate()
        assert self.process.wait(10) == 0, self.log.read_text()
        assert self.process.stdin is not None
        self.process.stdin.close()
        return time.monotonic() - began


@pytest.fixture(params=["sqlite", "postgres"])
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The example project with its provider; v1 is live."""
    with Stage(tmp_path / "shop") as stage:
        stage.copy_example("support-bot")
        text = stage.config.read_text()
        stage.config.write_text(text[: text.index("gateway:")] if "gateway:" in text else text)
        monkeypatch.delenv("DATABASE_URL", raising=False)
        if request.param == "postgres":
            monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("postgres").database())
            with stage.config.open("a") as config:
                config.write('\ncontrol: {url: "${env:DATABASE_URL}"}\n')
        stage.start_provider("--latency-ms", "2")
        yield stage


@pytest.fixture
def registry(stage: Stage) -> Iterator[Registry]:
    """As an operator's machine holds it; v1 and v2 are known, v1 is live."""
    project = compose.project(stage.config)
    registry = compose.own_registry(project)
    file = load_prompt(project.prompts, PROMPT)
    registry.register(PROMPT, file.artifact)
    prompt = project.prompts / PROMPT / "prompt.md"
    prompt.write_text(prompt.read_text().replace("system:\n", "system:\nBe brief. ", 1))
    assert registry.register(PROMPT, load_prompt(project.prompts, PROMPT).artifact).name == "v2"
    registry.deploy(PROMPT, "v1", who="test", reason="test", force=True)
    yield registry
    registry.close()


async def traffic(gateway: Gateway, calls: list[Call], stop: asyncio.Event) -> None:
    async with Customers(gateway.url, PROMPT, seed=1) as people:

        async def customer() -> None:
            while not stop.is_set():
                sent_at = time.monotonic()
                calls.append(Call(sent_at, await people.one()))

        await asyncio.gather(customer(), customer())


Move = tuple[float, set[str]]
"""A moment, and the versions that are live from then on."""


async def moves(registry: Registry) -> list[Move]:
    """Deploys, splits and rolls back."""
    done = []
    for number in range(MOVES):
        await asyncio.sleep(0.9 + 0.07 * number)
        if number % 2:
            await asyncio.to_thread(registry.rollback, PROMPT, who="test")
        else:
            options: dict[str, Any] = {"who": "test", "reason": "test", "force": True}
            options["weight"] = 0.5 if number % 4 else None
            await asyncio.to_thread(registry.deploy, PROMPT, "v2", **options)
        (pointer,) = registry.pointers(PROMPT)
        done.append((time.monotonic(), {f"v{version}" for version in pointer.shares}))
    await asyncio.sleep(1.1)
    return done


async def play(gateways: list[Gateway], registry: Registry) -> tuple[list[list[Call]], list[Move]]:
    stop = asyncio.Event()
    calls: list[list[Call]] = [[] for _ in gateways]
    customers = [asyncio.create_task(traffic(one, made, stop)) for one, made in zip(gateways, calls, strict=True)]
    try:
        done = await moves(registry)
    finally:
        stop.set()
        await asyncio.gather(*customers)
    return calls, done


def took(calls: list[Call], moves: list[Move]) -> list[float]:
    """For each move, how long after it the last call was sent that another version served; 0 when none was."""
    ends = [moment for moment, _ in moves[1:]] + [float("inf")]
    late = []
    for (moment, versions), end in zip(moves, ends, strict=True):
        after = [call for call in calls if moment < call.sent_at < end - 0.3]  # the next move is made a little earlier
        assert {call.answer.version for call in after} >= versions
        others = (call.sent_at - moment for call in after if call.answer.version not in versions)
        late.append(max(others, default=0.0))
    return late


@pytest.mark.timeout(90)
def test_every_gateway_serves_what_was_deployed_within_a_second(
    stage: Stage, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = "postgres" if "DATABASE_URL" in os.environ else "sqlite"
    # On SQLite one folder is one store, and one gateway holds it.
    folders = [stage.folder] if store == "sqlite" else [tmp_path / "one", tmp_path / "two"]
    gateways = [Gateway(stage, folder) for folder in folders]
    try:
        for gateway in gateways:
            gateway.wait()
        calls, done = asyncio.run(play(gateways, registry))
    finally:
        ends = [gateway.stop() for gateway in gateways]
    failed = [call for made in calls for call in made if not call.answer.complete]
    figures = [took(made, done) for made in calls]
    rows = ["  ".join(f"{seconds:.3f}" for seconds in one) for one in figures]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{store}: {sum(map(len, calls))} calls, {len(failed)} failed; seconds from each move to the last call"
            " that another version served, per gateway:\n  " + "\n  ".join(rows) + "\n"
        )
    assert failed == []
    assert max(seconds for one in figures for seconds in one) < LIMIT_S
    assert max(ends) < 2
    for gateway in gateways:
        assert gateway.log.read_text() == ""


@pytest.fixture
def outage(stage: Stage, request: pytest.FixtureRequest) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """Takes the control store away, and gives it back."""
    if "DATABASE_URL" in os.environ:
        server = request.getfixturevalue("postgres")
        yield server.stop, server.start
        if server.stopped:
            server.start()
    else:
        control = stage.folder / ".tidegate" / "control.db"
        away = control.with_suffix(".away")
        yield lambda: control.rename(away), lambda: away.rename(control)


@pytest.mark.timeout(90)
def test_everything_starts_and_serves_without_the_control_store_and_finds_it_again(
    stage: Stage, registry: Registry, outage: tuple[Callable[[], object], Callable[[], object]]
) -> None:
    gone, back = outage
    before = Gateway(stage, stage.folder, stage.ports["gateway"])
    before.wait()
    until((stage.folder / ".tidegate" / "snapshot.json").exists)
    gone()
    until(lambda: readyz(before.url)["control_store"] == "unreachable")
    assert one_call(before.url).version == "v1"
    before.stop()
    assert before.log.read_text().count("\n") == 1
    assert "the control store can not be read, serving the last snapshot: " in before.log.read_text()

    with stage.config.open("a") as config:
        config.write(f"\nconsole: {{port: {stage.ports['console']}}}\n")
    stage.start_serve()
    url = stage.url("gateway")
    assert readyz(url)["status"] == "degraded"
    assert readyz(url)["prompts"]["source"] == "file"
    assert one_call(url).version == "v1"
    with pytest.raises(urllib.error.HTTPError, match="503") as page:
        urllib.request.urlopen(f"{stage.url('console')}/prompts", timeout=20)  # noqa: S310 - our own loopback address
    assert "the control store" in page.value.read().decode()
    page.value.close()
    back()
    until(lambda: readyz(url)["status"] == "ok")
    registry.deploy(PROMPT, "v2", who="test", reason="test", force=True)
    until(lambda: one_call(url).version == "v2")
    log = (stage.folder / ".serve.log").read_text()
    assert "serving the snapshot of" in log
    assert log.count("WARNING") == 1
    assert "s3cret" not in log


def one_call(url: str) -> Sent:
    async def call() -> Sent:
        async with Customers(url, PROMPT, seed=1) as people:
            return await people.one()

    return asyncio.run(call())


def readyz(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310 - our own loopback address
        found: dict[str, Any] = json.load(answer)
        return found


def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
