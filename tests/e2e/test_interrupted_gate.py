"""Ctrl-C while a gate runs: exit code 3, how to go on, and no report that could be taken for a verdict."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from tidegate.cli.init import make
from tidegate.simulate.server import Latency, Simulator

TIDEGATE = [sys.executable, "-m", "tidegate"]


async def test_an_interrupted_gate_leaves_no_verdict(tmp_path: Path) -> None:
    folder = tmp_path / "bot"
    make(folder)
    config = folder / "tidegate.yaml"
    reports = ["--html", "r/gate.html", "--junit", "r/gate.xml", "--markdown", "r/gate.md"]
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")} | {"HOME": str(tmp_path)}

    def run() -> subprocess.Popen[bytes]:
        words = [*TIDEGATE, "gate", *reports]
        return subprocess.Popen(words, cwd=folder, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    async def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
        _, said = await asyncio.to_thread(process.communicate, timeout=60)
        return process.returncode, said.decode()

    async with Simulator() as quick:
        config.write_text(config.read_text().replace("http://127.0.0.1:4010/v1", quick.url))
        assert await ended(run()) == (0, "")
    assert len(list((folder / "r").iterdir())) == 3
    prompt = folder / "prompts" / "support" / "answer" / "prompt.md"
    prompt.write_text(prompt.read_text().replace("web shop", "bookshop"))
    async with Simulator(latency=Latency(first_byte_s=60, sigma=0)) as slow:
        config.write_text(config.read_text().replace(quick.url, slow.url))
        process = run()
        while not slow.requests:  # noqa: ASYNC110 - it waits for another process
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        code, said = await ended(process)
    assert (code, "Traceback" in said) == (3, False)
    assert "interrupted" in said
    assert "the same command goes on from there" in said
    left = {file.name: file.read_text() for file in (folder / "r").iterdir()}
    assert left.keys() == {"gate.xml", "gate.md"}, "no page, and what says that there is no verdict"
    assert "<error" in left["gate.xml"]
    assert "interrupted" in left["gate.md"]
    assert "PASS" not in left["gate.md"]
