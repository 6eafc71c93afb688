"""kill -9 in the middle of a gate: the same command goes on, no call is paid for twice, the verdict is the same."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tidegate import compose
from tidegate.cli.init import make
from tidegate.gateway.edge import HttpReply, Request
from tidegate.simulate.faults import Fault
from tidegate.simulate.server import Simulator

TIDEGATE = [sys.executable, "-m", "tidegate"]
FRIENDLY = "Be warm and friendly."


class Paid(Simulator):
    """A provider that counts what it answers, and after `most` answers makes everybody wait."""

    paid = 0
    most = 10**9

    async def _chat(self, request: Request, reply: HttpReply, fault: Fault) -> None:
        if self.paid >= self.most:
            await asyncio.Event().wait()
        self.paid += 1
        await super()._chat(request, reply, fault)


class Folder:
    """A project whose first version is live, and whose friendly edit waits for a gate."""

    def __init__(self, root: Path, provider: Paid) -> None:
        self.root = root
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
        self.env = kept | {"HOME": str(root.parent)}
        make(root)
        config = root / "tidegate.yaml"
        config.write_text(config.read_text().replace("http://127.0.0.1:4010/v1", provider.url))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen([*TIDEGATE, *words], cwd=self.root, env=self.env, stdout=pipe, stderr=pipe)

    async def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        said, wrong = await asyncio.to_thread(process.communicate, timeout=60)
        return process.returncode, said.decode(), wrong.decode()

    async def befriend(self) -> None:
        assert (await self.run("gate"))[0] == 0
        assert (await self.run("deploy", "support/answer"))[0] == 0
        prompt = self.root / "prompts" / "support" / "answer" / "prompt.md"
        prompt.write_text(prompt.read_text().replace("\n\nuser:", f"\n{FRIENDLY}\n\nuser:"))

    def answers(self) -> int:
        """Lines of unfinished runs, without their heads."""
        return sum(file.read_bytes().count(b'"answer":') for file in (self.root / ".tidegate" / "runs").glob("*"))

    def waits(self) -> bool:
        """Whether a batch has been handed in."""
        return any(b"ticket" in file.read_bytes() for file in (self.root / ".tidegate" / "runs").glob("*"))


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    """What a gate report says that is the same from run to run."""
    cases = [(case["id"], case["change"], case["candidate_passed"], case["output"]) for case in report["cases"]]
    said = {name: report[name] for name in ("verdict", "reason", "metrics", "passed_cases", "diff")}
    plain: dict[str, Any] = json.loads(json.dumps({"cases": cases, **said}))
    return plain


async def test_a_gate_that_was_killed_goes_on_without_paying_twice(tmp_path: Path) -> None:
    provider = Paid()
    async with provider:
        never, killed = Folder(tmp_path / "never", provider), Folder(tmp_path / "killed", provider)
        await never.befriend()
        before = provider.paid
        code, expected, _ = await never.run("gate", "--json")
        calls = provider.paid - before
        assert (code, calls) == (1, 9)

        await killed.befriend()
        before = provider.paid
        provider.most = before + 5
        process = killed.start("gate")
        while killed.answers() < 5:  # noqa: ASYNC110 - it waits for another process
            await asyncio.sleep(0.02)
        process.kill()
        process.communicate()
        provider.most = 10**9
        code, said, wrong = await killed.run("gate")
        assert (code, wrong) == (1, "")
        assert "resumed: 5 of 9 calls of v2 were there" in said
        assert provider.paid - before == calls, "no paid call was made again"
        assert not (killed.root / ".tidegate" / "runs").exists()

        assert verdict(stored(killed)) == verdict(json.loads(expected))

        before = provider.paid
        code, _, _ = await killed.run("gate", "--json")
        assert (code, provider.paid - before) == (1, 9), "a finished run is not gone on with"


async def test_a_gate_that_was_killed_while_a_batch_runs_waits_for_the_same_batch(tmp_path: Path) -> None:
    provider = Paid(batch_s=3600)
    async with provider:
        folder = Folder(tmp_path / "bot", provider)
        process = folder.start("gate", "--batch")
        while not folder.waits():  # noqa: ASYNC110 - it waits for another process
            await asyncio.sleep(0.02)
        process.kill()
        process.communicate()
        alone, batched = provider.paid, provider.batches.answered
        assert (alone, batched) == (1, 8), "one call alone, to know what one costs"
        code, _, wrong = await folder.run("gate")
        assert code == 4
        assert "a batch of v1 is at the provider" in wrong
        provider.batches.batch_s = 0
        code, said, _ = await folder.run("gate", "--batch")
        assert (code, "PASS" in said) == (0, True)
        assert (provider.paid, provider.batches.answered) == (alone, batched)
        made = [one for one in provider.requests if (one.method, one.path) == ("POST", "/v1/batches")]
        assert len(made) == 1


def stored(folder: Folder) -> dict[str, Any]:
    """The last gate's report."""
    with closing(compose.registry(compose.project(folder.root / "tidegate.yaml"))) as registry:
        report = registry.runs("support/answer")[0].gate
    assert report is not None
    return dict(report)
