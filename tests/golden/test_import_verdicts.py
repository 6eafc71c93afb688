"""
Imported promptfoo configurations say pass and fail exactly where promptfoo says so.

One file per configuration, in the style of promptfoo's own examples. Beside what is given it holds, by case, a scripted
answer and, read off promptfoo's source by hand, its verdict and the checks that fail. Imported, such a project is
linted, and its suite is run by the runner; nothing but the models is scripted. What does not carry over is listed.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden.test_importing import sections
from tests.importing import made_by
from tests.unit.evals import ScriptedCaller, version
from tidegate.cli.lint import lint
from tidegate.core.evaluation import Repeat, ToolUse
from tidegate.evals.folder import read
from tidegate.evals.runner import run_suite
from tidegate.fakes import FixedClock
from tidegate.ports import PromptAnswer, PromptCall
from tidegate.prompts.files import load_prompt
from tidegate.prompts.render import render

CASES = sorted((Path(__file__).parent / "verdicts").glob("*.txt"))
CONFIG = """
providers:
  openai: {dialect: openai, base_url: "http://127.0.0.1:1/v1", api_key: "${env:KEY}"}
  anthropic: {dialect: anthropic, base_url: "http://127.0.0.1:1", api_key: "${env:KEY}"}
prices: {openai/*: {input: 1, output: 1}, anthropic/*: {input: 1, output: 1}}
"""
TOLD = {"no-must-pass"}
"""What lint may say of an imported project: a suite of promptfoo's asks nothing of a gate."""


def answer(case: dict[str, Any]) -> PromptAnswer:
    """`{say, tools: [[name, arguments]], usd, ms, finish}`"""
    uses = tuple(
        ToolUse(name, arguments, id=f"call-{at}") for at, (name, arguments) in enumerate(case.get("tools", ()))
    )
    cost = case.get("usd")
    return PromptAnswer(
        str(case.get("say", "")),
        finish_reason=case.get("finish", "tool_calls" if uses else "stop"),
        cost_nano_usd=None if cost is None else round(cost * 1e9),
        latency_s=case.get("ms", 100) / 1000,
        tool_calls=uses,
    )


def judgement(call: PromptCall, judged: dict[str, Any]) -> PromptAnswer:
    """What the judge that is called says of the case, in the words of its kind."""
    said = judged[call.tags["case"]].pop(call.tags["judge"]) == "pass"
    quote = "" if not said else str(call.variables["context"]).split("\n")[1] if "context" in call.variables else ""
    token = re.search(r'"id": "([0-9a-f]{16})"', call.messages[-1]["content"])
    assert token is not None
    verdict = {
        "reason": "so it is",
        "verdict": "pass" if said else "fail",
        "claims": [{"claim": "a claim", "supported": said, "quote": quote}],
        "sentences": [{"sentence": 1, "attributed": said, "quote": quote}],
    }
    return PromptAnswer(json.dumps({"id": token[1], **verdict}), cost_nano_usd=1)


def verdict(repeat: Repeat) -> dict[str, Any]:
    fails = [check.name for check in repeat.checks if not check.passed and check.weight > 0]
    fails += [score.name for score in repeat.scores if score.passed is False]
    assert repeat.error is None
    assert all(score.value is not None for score in repeat.scores if score.applicable)
    return {"verdict": "pass" if repeat.passed else "fail", "fails": fails}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
async def test_an_imported_suite_says_what_promptfoo_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = sections(path.read_text("utf-8"))
    for heading, text in written.items():
        if heading.startswith("given "):
            Path(heading.removeprefix("given ")).write_text(text, "utf-8")
    made = made_by(shlex.split(next(iter(written)))[1:], Path("prompts"))
    assert made.get("listed", "") == written.get("listed", "")

    Path("tidegate.yaml").write_text(CONFIG)
    report = lint(Path("tidegate.yaml"))
    assert [notice for notice in report.notices if notice.rule not in TOLD] == []

    names = sorted({Path(name.removeprefix("made prompts/")).parent.as_posix() for name in made if "eval.yaml" in name})
    stated = {
        heading.removeprefix("cases of "): yaml.safe_load(text)
        for heading, text in written.items()
        if heading.startswith("cases of ")
    }
    assert sorted(stated) == names
    judged = yaml.safe_load(written.get("judged", "{}"))
    for name, cases in stated.items():
        prompt = load_prompt(Path("prompts"), name)
        suite, golden = read(prompt, render)
        # As after `tidegate judge calibrate`: a judge that nobody held against people decides nothing.
        suite = replace(suite, judges=tuple(replace(judge, gates=None) for judge in suite.judges))

        def say(call: PromptCall, cases: dict[str, Any] = cases) -> PromptAnswer:
            return judgement(call, judged) if call.origin == "judge" else answer(cases[call.tags["case"]])

        run = await run_suite(
            suite,
            golden,
            version(),
            ScriptedCaller(say),
            run_id="r",
            clock=FixedClock(),
            repeats=range(1),
            artifact=prompt.artifact,
        )
        assert {repeat.case_id: verdict(repeat) for repeat in run.results} == {
            case_id: {"verdict": case["verdict"], "fails": case.get("fails", [])} for case_id, case in cases.items()
        }
    assert not any(judged.values()), "a judge was not asked"
