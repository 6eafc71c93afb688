"""Weights, thresholds, sets and templates: what several checks say together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.evals import NOW, ScriptedCaller, lines, load, version, write
from tidegate.core.artifact import Artifact, Output
from tidegate.core.errors import InvalidFile
from tidegate.core.evaluation import CheckResult, Repeat, Run, ToolUse
from tidegate.evals.golden import load_golden
from tidegate.evals.guards import breaks
from tidegate.evals.runner import run_suite
from tidegate.evals.spec import complaint
from tidegate.evals.suite import load_suite, plan
from tidegate.fakes import FixedClock
from tidegate.ports import PromptAnswer, PromptCall


async def judged(folder: Path, answer: PromptAnswer | str, suite: str, **case: Any) -> Repeat:
    """The only case, answered so."""
    write(folder, eval_yaml=suite, golden_jsonl=lines({"id": "a", **case}))
    said = PromptAnswer(answer) if isinstance(answer, str) else answer
    artifact = Artifact((), "p/m", output=Output("json"))
    caller = ScriptedCaller(lambda call: said)
    run = await run_suite(*load(folder), version(), caller, run_id="r", clock=FixedClock(), artifact=artifact)
    return run.results[0]


SET = "checks:\n  - assert-set: [{contains: a}, {contains: b}, {contains: c, weight: 2}]\n"


@pytest.mark.parametrize(
    ("suite", "answer", "passed", "score"),
    [
        (SET, "abc", True, 1.0),
        (SET, "ab", False, 0.5),
        (SET + "    threshold: 0.5\n", "ab", True, 0.5),
        (SET + "    threshold: 0.6\n", "ab", False, 0.5),
        (SET + "    threshold: 0.6\n", "c", False, 0.5),
        (SET + "    threshold: 0\n", "", True, 0.0),
    ],
)
async def test_a_set_is_one_check_with_the_weighted_mean_of_its_checks(
    tmp_path: Path, suite: str, answer: str, passed: bool, score: float
) -> None:
    result = await judged(tmp_path, answer, suite)
    (only,) = result.checks
    assert (only.name, only.passed, only.score, result.passed) == ("assert-set", passed, score, passed)
    if not passed:
        assert only.reason.startswith("2 of 3 fail" if answer == "c" else "1 of 3 fail")


@pytest.mark.parametrize(
    ("threshold", "case", "passed"),
    [
        ("", {}, False),
        ("threshold: 0.7\n", {}, True),
        ("threshold: 0.76\n", {}, False),
        ("threshold: 0.7\n", {"threshold": 1}, False),
        ("", {"threshold": 0.75}, True),
        ("threshold: 1\n", {"threshold": 0}, True),
    ],
)
async def test_with_a_threshold_the_mean_decides(
    tmp_path: Path, threshold: str, case: dict[str, Any], passed: bool
) -> None:
    """contains a (weight 3) passes, contains b (weight 1) fails: 0.75. The case's own threshold wins."""
    suite = threshold + "checks: [{contains: a, weight: 3}, {contains: b}, {contains: c, weight: 0}]\n"
    result = await judged(tmp_path, "a", suite, **case)
    assert [(check.name, check.passed, check.weight) for check in result.checks] == [
        ("contains#1", True, 3),
        ("contains#2", False, 1),
        ("contains#3", False, 0),
    ]
    assert result.passed is passed


async def test_a_graded_check_counts_by_its_score(tmp_path: Path) -> None:
    suite = "threshold: 0.6\nchecks: [{rouge-n: one two three four, threshold: 0.9}, is-json]\n"
    result = await judged(tmp_path, '["one", "two"]', suite)
    assert [check.score for check in result.checks] == [0.5, None]
    assert result.passed


async def test_what_weighs_nothing_decides_nothing(tmp_path: Path) -> None:
    assert (await judged(tmp_path, "", "checks: [{contains: a, weight: 0}]\n")).passed


def test_what_weighs_nothing_breaks_no_critical_case(tmp_path: Path) -> None:
    write(tmp_path, golden_jsonl=lines({"id": "a", "critical": True}))
    golden = load_golden(tmp_path / "golden.jsonl")
    for weight, broken in ((0, False), (1, True)):
        results = tuple(Repeat("a", n, "", (CheckResult("contains", False, "no", weight=weight),)) for n in range(8))
        run = Run("r", "p", 1, "d", "s", "g", NOW, NOW, 8, results)
        assert bool(breaks(run, None, frozenset(), golden.cases)) is broken


def test_what_decides_nothing_can_not_be_a_must(tmp_path: Path) -> None:
    write(
        tmp_path,
        eval_yaml="checks: [{is-json: , weight: 0}]\ngate: {must_pass: [is-json]}\n",
        golden_jsonl='{"id":"a"}',
    )
    with pytest.raises(InvalidFile, match="'is-json' has the weight 0"):
        load_suite(tmp_path)


async def test_checks_see_tools_money_and_what_the_prompt_promises(tmp_path: Path) -> None:
    suite = (
        "checks: [output-valid, {cost: 0.01}, {latency: 900}, {'trajectory:tool-used': find}, {finish-reason: stop}]\n"
    )
    used = ToolUse("find", {"id": "\ud800"})
    answer = PromptAnswer("{}", None, "c", "stop", 10_000_000, 0.9, tool_calls=(used,))
    result = await judged(tmp_path, answer, suite)
    assert result.passed, result.checks
    assert result.tool_calls == (ToolUse("find", {"id": "\ufffd"}),)


@pytest.mark.parametrize(("suite", "asked"), [("checks: [{perplexity: 2}]", 1), ("checks: [is-json]", 0)])
async def test_log_probabilities_are_asked_for_where_a_check_needs_them(tmp_path: Path, suite: str, asked: int) -> None:
    write(tmp_path, eval_yaml=suite, golden_jsonl='{"id": "a"}')
    calls: list[PromptCall] = []
    caller = ScriptedCaller(lambda call: calls.append(call) or PromptAnswer("1"))  # type: ignore[func-returns-value]
    await run_suite(*load(tmp_path), version(), caller, run_id="r", clock=FixedClock())
    assert [call.top_logprobs for call in calls] == [asked]


@pytest.mark.parametrize(
    ("check", "expected", "answer"),
    [
        ("{contains-all: '{{ expected.words }}'}", {"words": ["a, b", "c"]}, "c a, b"),
        ("{equals: '{{ expected }}'}", {"a": [1, None]}, '{"a": [1, null]}'),
        ("{equals: '{{ expected.n }}'}", {"n": 5}, "5"),
        ("{contains: '{{ expected.a }}-{{ expected.b }}'}", {"a": 1, "b": "x"}, "1-x"),
        ("{equals: '{{ expected.b }}'}", {"b": True}, "true"),
        ("{word-count: '{{ expected.n }}'}", {"n": 2}, "two words"),
        ("{word-count: {max: 3, min: 1}}", None, "two words"),
        ("{assert-set: [{contains: '{{ expected.w }}'}], threshold: 1}", {"w": "x"}, "x"),
        ("{'trajectory:tool-args-match': {name: f, args: '{{ expected.args }}'}}", {"args": {"id": 7}}, "x"),
    ],
)
async def test_values_are_filled_in_from_the_case(tmp_path: Path, check: str, expected: Any, answer: str) -> None:
    """What is one expression alone keeps its type: a list stays a list, a map a map."""
    said = PromptAnswer(answer, tool_calls=(ToolUse("f", {"id": 7}),))
    result = await judged(tmp_path, said, f"checks: [{check}]", expected=expected)
    assert result.passed, result.checks


def test_a_problem_inside_of_a_set_says_where(tmp_path: Path) -> None:
    suite = "checks:\n  - is-json\n  - assert-set: [{contains: a}, {contians: b}, {assert-set: [{regex: '('}]}]\n"
    write(tmp_path, eval_yaml=suite, golden_jsonl='{"id":"a"}')
    with pytest.raises(InvalidFile) as caught:
        load_suite(tmp_path)
    places = [(problem.line, problem.field) for problem in caught.value.problems]
    assert places == [(3, "checks[1].assert-set[1]"), (3, "checks[1].assert-set[2][0]")]


def test_a_template_inside_of_a_set_that_can_not_be_filled_names_its_case(tmp_path: Path) -> None:
    write(tmp_path, eval_yaml="checks:\n  - assert-set: [{contains: '{{ expected.x }}'}]\n", golden_jsonl='{"id":"a"}')
    with pytest.raises(InvalidFile, match=r"eval.yaml:2: checks\[0\].assert-set\[0\]: .*'a'"):
        plan(*load(tmp_path))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"contains": "a", "regex": "b"}, "two checks in one map, 'contains' and 'regex'"),
        ({"threshold": 0.5}, "a check is a name"),
        ({"contians": "a", "weight": 2}, "Did you mean 'contains'?"),
        ({"assert-set": []}, "takes a list of checks"),
        ({"assert-set": ["is-json"], "threshold": 2}, "threshold is a score from 0 to 1"),
        ({"assert-set": ["is-json"], "alpha": 2}, "may stand threshold and weight, not 'alpha'"),
        ({"assert-set": ["is-json"], "weight": "2"}, "weight is a number"),
    ],
)
def test_a_check_of_a_wrong_shape_says_what_shape_it_has(written: Any, said: str) -> None:
    found = complaint(written)
    assert found is not None
    assert said in found


@pytest.mark.parametrize(
    "change",
    [
        "checks: [{contains: a, weight: 2}]",
        "checks: [{contains: a}]\nthreshold: 0.5",
        "checks: [{assert-set: [{contains: a}]}]",
        "checks: [{assert-set: [{contains: a}], threshold: 0.5}]",
    ],
)
def test_options_are_in_the_digest(tmp_path: Path, change: str) -> None:
    write(tmp_path, golden_jsonl='{"id":"a"}')
    plain = load_suite(write(tmp_path, eval_yaml="checks: [{contains: a}]")).digest
    assert load_suite(write(tmp_path, eval_yaml=change)).digest != plain


def test_a_result_without_a_score_counts_as_one_or_nothing() -> None:
    assert [CheckResult("x", passed, "").graded for passed in (True, False)] == [1.0, 0.0]
