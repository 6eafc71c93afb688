"""
What scripts read: the JSON of the commands, byte by byte but for instants and ids.

One file per command line. `REWRITE_GOLDEN=1` writes them anew; then read the difference: every key that goes,
or means something else, breaks somebody's script.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tidegate import compose
from tidegate.cli.deploy import deploy_
from tidegate.cli.diff import diff_
from tidegate.cli.log import log_
from tidegate.cli.render import render_
from tidegate.cli.rollback import rollback_
from tidegate.cli.status import status_
from tidegate.core.instant import iso_utc
from tidegate.system import SystemClock
from tidegate.telemetry.record import CallRow, Entry
from tidegate.telemetry.spool import SpoolWriter

FOLDER = Path(__file__).parent / "commands"
P = "support/answer"
PROMPT = """---
model: openai/gpt-4.1-2025-04-14
params: {temperature: 0.2, max_output_tokens: 300}
inputs: {question: string, top: number}
output: {schema: output.schema.json}
tools: [tools/find.json]
retrieval: {index: help-2026-03, top_k: 5}
---
system:
You are a support assistant.

user:
Question: {{ question }} ({{ top }})
"""
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
TOOL = {"name": "find", "description": "Finds an order.", "parameters": {"type": "object", "properties": {}}}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class Desk:
    """A project in which v1 and then v2 were deployed, without any gate run, and somebody who scripts it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = root / "tidegate.yaml"
        self.config.write_text("providers: {openai: {dialect: openai, api_key: sk-none}}\n")
        self.folder = root / "prompts" / P
        (self.folder / "tools").mkdir(parents=True)
        (self.folder / "output.schema.json").write_text(json.dumps(SCHEMA))
        (self.folder / "tools" / "find.json").write_text(json.dumps(TOOL))
        self._capsys = capsys
        self.write(PROMPT)
        self.run(deploy_, P, force=True, reason="first")
        self.write(PROMPT.replace("a support", "a friendly support").replace("0.2", "0.7"))

    def write(self, text: str) -> None:
        (self.folder / "prompt.md").write_text(text)

    def run(self, command: Callable[..., None], *arguments: str, **options: Any) -> str:
        self._capsys.readouterr()
        command(*arguments, config=self.config, json=True, **options)
        return self._capsys.readouterr().out

    def called(self, *versions: int, ago_s: float = 10.0) -> None:
        """Live calls of production."""
        writer = SpoolWriter(compose.project(self.config).spool, clock=SystemClock(), writer_id="golden")
        for index, version in enumerate(versions):
            at = datetime.now(UTC) - timedelta(seconds=ago_s)
            row = CallRow(
                id=f"018f0000-0000-7000-8000-{index:012}",
                start=iso_utc(int(at.timestamp() * 1e9)),
                prompt=P,
                version=version,
                environment="production",
            )
            assert writer.append(msgspec.json.encode(Entry(row)))
        writer.close()


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("TIDEGATE_USER", "anna@shop")
    return Desk(tmp_path, capsys)


def check(name: str, printed: str) -> None:
    seen: dict[str, str] = {}
    text = INSTANT.sub("INSTANT", printed)
    text = ID.sub(lambda found: seen.setdefault(found[0], f"ID{len(seen) + 1}"), text)
    path = FOLDER / f"{name}.json"
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_render(desk: Desk) -> None:
    check("render", desk.run(render_, P, var=["question=Why?", "top=3"]))
    check("render-version", desk.run(render_, P, var=["question=Why?", "top=3"], version="v1"))


def test_deploy_without_a_gate_run(desk: Desk) -> None:
    """What a script does in an emergency: it is forced, and written down as such."""
    check("deploy-forced", desk.run(deploy_, P, force=True, reason="the customer waits"))


def test_a_split_and_its_end(desk: Desk) -> None:
    check("deploy-weight", desk.run(deploy_, P, weight="10%", force=True, reason="try it"))
    check("status-split", desk.run(status_))
    check("log", desk.run(log_, P))
    check("rollback", desk.run(rollback_, P, reason="chats"))


def test_status(desk: Desk) -> None:
    desk.run(deploy_, P, force=True, reason="friendlier")
    desk.called(*[1] * 2, *[2] * 98)
    check("status", desk.run(status_))


def test_status_where_traffic_differs(desk: Desk) -> None:
    desk.run(deploy_, P, force=True, reason="friendlier")
    desk.called(1, 2, 2, 2, ago_s=-5)  # five seconds after the move
    check("status-stray", desk.run(status_))


def test_diff(desk: Desk) -> None:
    check("diff", desk.run(diff_, P))
    desk.run(deploy_, P, force=True, reason="friendlier")
    check("diff-none", desk.run(diff_, P, "v2", "production"))
