"""examples/rag with the real commands and the simulated provider: judges, their calibration, and the gate that asks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.contract.test_init import exit_code, on_free_port
from tests.gate_schema import gate_json
from tidegate import compose
from tidegate.cli.eval import eval_
from tidegate.cli.gate import gate_
from tidegate.cli.judge import judge_
from tidegate.cli.lint import lint_
from tidegate.cli.render import render_
from tidegate.core.errors import BadInput, NotFound

EXAMPLE = Path(__file__).parents[2] / "examples" / "rag"


@pytest.fixture
def rag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example, and the working directory."""
    folder = tmp_path / "rag"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".tidegate"))
    on_free_port(folder)
    monkeypatch.chdir(folder)
    return folder


def test_the_example_from_labels_to_a_verdict(rag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lint_, strict=True) == 0
    capsys.readouterr()
    assert exit_code(gate_, json=True) == 3, "a metric names a judge that nobody has calibrated"
    assert "not calibrated" in gate_json(capsys.readouterr().out)["reason"]

    assert exit_code(judge_, "calibrate", "grounded", json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["scored"], found["people"], found["gates"]) == (34, 2, None)
    assert found["kappa"]["low"] > 0.6
    judge_("list", json=True)
    listed = {row["judge"]: row for row in json.loads(capsys.readouterr().out)}
    assert (listed["grounded"]["gates"], listed["grounded"]["labels"]) == (None, 34)
    assert "not calibrated" in listed["recall"]["gates"]

    assert exit_code(gate_, json=True) == 0
    report = gate_json(capsys.readouterr().out)
    metrics = {metric["name"]: metric["candidate"] for metric in report["metrics"]}
    assert (report["verdict"], metrics["pass-rate"], metrics["grounded"]) == ("PASS", 1, 1)


def test_a_search_that_finds_the_wrong_passages_is_seen_and_never_passes(
    rag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recall falls to 0; the model answers nothing, so nothing is left to be grounded: neither 0 nor 1, and no PASS."""
    assert exit_code(judge_, "calibrate", "grounded", json=True) == 0
    golden = rag / "prompts/docs/answer/golden.jsonl"
    cases = [json.loads(line) for line in golden.read_text().splitlines()]
    for case in cases:
        case["inputs"]["passages"] = ["Soup tastes best hot."]
    golden.write_text("".join(json.dumps(case) + "\n" for case in cases))
    capsys.readouterr()
    assert exit_code(eval_, "docs/answer", json=True) == 0
    run = json.loads(capsys.readouterr().out)
    scores = {score["name"]: score for result in run["results"] for score in result["scores"]}
    assert scores["recall"]["value"] == 0
    assert (scores["grounded"]["value"], scores["grounded"]["applicable"]) == (None, False)
    assert exit_code(gate_, json=True) == 3
    assert "so there is nothing to gate by" in gate_json(capsys.readouterr().out)["reason"]


def test_judged_answers_are_calls_of_their_own_and_are_not_paid_twice(
    rag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert exit_code(eval_, "docs/answer", json=True) == 0
    capsys.readouterr()
    calls = compose.own_call_log(compose.project()).rows("select origin, count(*) as n from calls group by origin")
    # 8 cases × 2 repeats, twice; two judges, once.
    assert {row["origin"]: row["n"] for row in calls} == {"eval": 32, "judge": 32}


def test_a_change_of_the_judge_asks_for_a_new_calibration(rag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(judge_, "calibrate", "grounded") == 0
    assert "it may gate" in capsys.readouterr().out
    prompt = rag / "judges/grounded/prompt.md"
    prompt.write_text(prompt.read_text().replace("You check answers", "Please check answers"))
    assert exit_code(gate_, json=True) == 3


def test_a_run_is_corrected_by_the_calibration(rag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(eval_, "docs/answer", json=True) == 0
    run = json.loads(capsys.readouterr().out)["id"]
    assert exit_code(judge_, "calibrate", "grounded", run=run, json=True) == 0
    fixed = json.loads(capsys.readouterr().out)["corrected"]
    assert (fixed["run_id"], fixed["scored"], fixed["mean"]) == (run, 16, 1)
    assert fixed["prediction_powered"]["value"] is not None
    assert exit_code(judge_, "calibrate", "grounded", run=run) == 0
    assert "people would give" in capsys.readouterr().out


def test_a_judge_is_rendered_like_any_prompt(rag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    render_("judges/grounded", var=["answer=It is free.", "context=It is free."], json=True)
    assert json.loads(capsys.readouterr().out)["name"] == "judges/grounded"


def test_what_is_missing_is_said(rag: Path) -> None:
    with pytest.raises(NotFound, match="Did you mean 'grounded'"):
        judge_("calibrate", "gruonded")
    with pytest.raises(BadInput, match="needs the name"):
        judge_("calibrate")
    with pytest.raises(NotFound, match=r"judges/recall/labels\.jsonl: no such file"):
        judge_("calibrate", "recall")
    with pytest.raises(BadInput, match="takes no name"):
        judge_("list", "grounded")


def test_a_rubric_is_weighed_by_the_log_probabilities_that_the_provider_gives(
    rag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The simulated judge is 80 % sure of its 5 and gives the rest to 4: 4.8. A pairwise one has nothing to compare."""
    for name, inputs in {
        "right": "answer: string, reference: string",
        "better": "answer_a: string, answer_b: string",
    }.items():
        (rag / "judges" / name).mkdir()
        shown = " ".join(f"{{{{ {part.split(':')[0]} }}}}" for part in inputs.split(", "))
        front = f"description: x\nmodel: simulated/judge-2026-03-01\ninputs: {{{inputs}}}\n"
        (rag / "judges" / name / "prompt.md").write_text(f"---\n{front}---\n{shown}\n")
    suite = rag / "prompts/docs/answer/eval.yaml"
    suite.write_text(
        "checks: [is-json]\njudges:\n"
        "  right: {rubric: judges/right, pass_at: 4, fields: {answer: output.answer}}\n"
        "  better: {pairwise: judges/better}\n"
    )
    assert exit_code(eval_, "docs/answer", json=True) == 0
    scores = {score["name"]: score for score in json.loads(capsys.readouterr().out)["results"][1]["scores"]}
    assert scores["right"]["value"] == pytest.approx(4.8)
    assert scores["better"]["applicable"] is False
