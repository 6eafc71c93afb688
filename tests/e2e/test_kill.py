"""`kill -9` of any process, at any moment: no acknowledged call is lost or counted twice, and everything comes back."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tidegate import compose
from tidegate.prompts.files import load_prompt
from tidegate.simulate.stage import Stage
from tidegate.simulate.traffic import Customers, Sent

PROMPT = "support/answer"
SETTLE_S = 20.0
ENOUGH = 100
"""So many calls have to be acknowledged, however slow the machine is today."""
LONGEST_S = 60.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The example project, v1 live, every process running."""
    with Stage(tmp_path / "shop") as stage:
        stage.copy_example("support-bot")
        stage.start_provider("--latency-ms", "15")
        project = compose.project(stage.config)
        file = load_prompt(project.prompts, PROMPT)
        with closing(compose.registry(project)) as registry:
            version = registry.register(PROMPT, file.artifact)
            registry.deploy(PROMPT, version.name, who="test", reason="test", force=True)
        stage.start_serve()
        yield stage


def children(stage: Stage) -> dict[str, int]:
    """Process name → pid of the supervised processes that live now."""
    parent = stage.pid("serve")
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(status[1]) == parent and b"--only" in command:
            found[command[command.index(b"--only") + 1].decode()] = int(entry.name)
    return found


async def traffic(stage: Stage, seconds: float, kill: list[tuple[float, str]]) -> list[Sent]:
    """Customers call all the while, and until enough was acknowledged; at each moment of `kill` one process dies."""
    sent: list[Sent] = []
    began = time.monotonic()

    def over() -> bool:
        passed = time.monotonic() - began
        return passed > LONGEST_S or (passed > seconds and sum(call.complete for call in sent) > ENOUGH)

    async def customers(seed: int) -> None:
        async with Customers(stage.url("gateway"), PROMPT, seed=seed) as people:
            while not over():
                await people.send(4, concurrency=2, done=sent.append)
                if sent[-1].status == 0:
                    await asyncio.sleep(0.05)

    async def killer() -> None:
        for moment, name in kill:
            await asyncio.sleep(max(0.0, moment - (time.monotonic() - began)))
            os.kill(children(stage)[name], signal.SIGKILL)

    await asyncio.gather(killer(), *(customers(seed) for seed in range(4)))
    return sent


@pytest.mark.timeout(180)
def test_killing_each_process_during_traffic_loses_no_acknowledged_call(stage: Stage) -> None:
    moments = [
        (0.6, "gateway"),
        (1.5, "recorder"),
        (2.2, "console"),
        (3.0, "gateway"),
        (4.2, "recorder"),
        (5.0, "gateway"),
    ]
    before = children(stage)
    sent = asyncio.run(traffic(stage, 7.0, moments))
    acknowledged = [call.call_id for call in sent if call.complete]
    assert len(acknowledged) > ENOUGH
    assert any(call.status == 0 for call in sent), (
        "no call was under way when the gateway died: the test proves nothing"
    )

    log = compose.own_call_log(compose.project(stage.config))
    deadline = time.monotonic() + SETTLE_S
    missing: set[str | None] = set(acknowledged)
    stored: Counter[str] = Counter()
    while missing and time.monotonic() < deadline:
        stored = Counter(row["id"] for row in log.rows("select id from calls"))
        missing = set(acknowledged) - stored.keys()
        time.sleep(0.2)
    assert missing == set()
    assert {call: count for call, count in stored.items() if count > 1} == {}

    after = children(stage)
    assert set(after) == {"gateway", "recorder", "console"}
    assert all(after[name] != before[name] for name in after)


@pytest.mark.timeout(60)
def test_the_children_die_with_the_supervisor(stage: Stage) -> None:
    pids = children(stage).values()
    os.kill(stage.pid("serve"), signal.SIGKILL)
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        assert time.monotonic() < deadline, "a child outlived its supervisor"
        time.sleep(0.1)
