"""The verdict table: what two runs say about each other, and the sentence a tired person reads."""

# ruff: noqa: E501 – the tables read best with one case a line

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.evals import lines, load, stored, write
from tidegate.core.evaluation import EXIT_CODES, GateReport, Recheck
from tidegate.evals.gate import gate, undecided_by_noise


def verdict(
    folder: Path,
    before: dict[str, str] | None,
    after: dict[str, str],
    *,
    policy: str = "{}",
    check: str = "is-json",
    critical: str = "",
    clusters: dict[str, str] | None = None,
    same: bool = False,
    rechecks: Sequence[Recheck] = (),
) -> GateReport:
    cases: list[dict[str, Any]] = [
        {"id": name, "critical": name == critical, "cluster": (clusters or {}).get(name), "checks": []}
        for name in after
    ]
    write(folder, eval_yaml=f"checks: [is-json, {{contains: x}}]\ngate: {policy}\n", golden_jsonl=lines(*cases))
    suite, golden = load(folder)
    baseline = None if before is None else stored(suite, golden, before, check=check)
    candidate = stored(suite, golden, after, number=1 if same else 2, check=check)
    return gate(candidate, baseline, suite, golden, cost_nano_usd=5_000, rechecks=rechecks)


MUST = "{must_pass: [is-json]}"
HIGH = "{must_pass: [is-json], metrics: {pass-rate: {floor: 0.9}}}"
FLOOR = "{must_pass: [is-json], metrics: {pass-rate: {floor: 1.0}}}"
LOW = "{metrics: {pass-rate: {floor: 0.5}}}"
WIDE = "{metrics: {pass-rate: {margin: 0.5}}}"
MARGIN = "{metrics: {pass-rate: {margin: 0.1}}}"


@pytest.mark.parametrize(
    ("before", "after", "policy", "expected", "reason"),
    [
        # must_pass, with a baseline
        ({"a": "+++", "b": "+++"}, {"a": "+++", "b": "---"}, FLOOR, "FAIL",
         "is-json must pass, and it fails in all 3 repeats of 'b', which v1 always passes."),
        ({"a": "+++", "b": "+++"}, {"a": "---", "b": "---"}, FLOOR, "FAIL",
         "is-json must pass, and it fails in all 3 repeats of 'a', which v1 always passes (and 1 more case)."),
        ({"a": "++", "b": "+-"}, {"a": "++", "b": "--"}, LOW[:1] + "must_pass: [is-json], " + LOW[1:], "PASS",
         "The pass rate is 50%, and its floor is 50%."),
        ({"a": "+", "b": "+"}, {"a": "+", "b": "-"}, LOW[:1] + "must_pass: [is-json], " + LOW[1:], "INCONCLUSIVE",
         "is-json must pass, and it fails in the only repeat of 'b', which v1 always passes; trying it again would tell a slip from a break."),
        # floors
        ({"a": "++", "b": "++"}, {"a": "++", "b": "++"}, FLOOR, "PASS", "The pass rate is 100%, and its floor is 100%."),
        ({"a": "++", "b": "++"}, {"a": "++", "b": "+-"}, FLOOR, "FAIL", "The pass rate is 75%, below its floor of 100%."),
        # without a baseline
        (None, {"a": "++", "b": "++"}, "{}", "PASS", "The pass rate is 100%, and its floor is 100%."),
        (None, {"a": "++", "b": "+-"}, "{}", "FAIL", "The pass rate is 75%, below its floor of 100%."),
        (None, {"a": "++", "b": "--"}, MUST, "FAIL", "is-json must pass, and it fails in all 2 repeats of 'b'."),
        (None, {"a": "++", "b": "+-"}, MUST, "FAIL", "The pass rate is 75%, below its floor of 100%."),
        (None, {"a": "+", "b": "-"}, LOW[:1] + "must_pass: [is-json], " + LOW[1:], "INCONCLUSIVE",
         "is-json must pass, and it fails in the only repeat of 'b'; with two repeats or more the gate could tell a slip from a break."),
        (None, {"a": "++", "b": "--"}, LOW, "PASS", "The pass rate is 50%, and its floor is 50%."),
        (None, {"a": "++", "b": "--"}, MARGIN, "FAIL", "The pass rate is 50%, below its floor of 100%."),
        # margins
        ({"a": "++"}, {"a": "++"}, "{}", "INCONCLUSIVE",
         "1 case can not show that the pass rate (100% → 100%) fell by less than the margin of 2 points, which takes at least 149 cases; add cases, widen the margin, or gate on a floor."),
        ({f"c{i}": "++" for i in range(200)}, {f"c{i}": "++" for i in range(200)}, "{}", "PASS", None),
        ({f"c{i}": "++" for i in range(200)}, {f"c{i}": "++" if i > 30 else "--" for i in range(200)}, "{}", "FAIL", None),
        ({f"c{i}": "++" for i in range(200)}, {f"c{i}": "++" if i > 30 else "+-" for i in range(200)}, "{}", "FAIL", None),
        ({f"c{i}": "++" for i in range(200)}, {f"c{i}": "++" if i > 3 else "--" for i in range(200)}, "{}", "INCONCLUSIVE", None),
        ({f"c{i}": "+-" for i in range(9)}, {f"c{i}": "++" for i in range(9)}, WIDE, "PASS", None),
        ({"a": "++"}, {"a": "++"}, "{metrics: {pass-rate: {margin: 0}}}", "INCONCLUSIVE", None),
        ({"a": "++"}, {"a": "--"}, "{metrics: {pass-rate: {margin: 0.02, floor: 0.5}}}", "FAIL", "The pass rate is 0%, below its floor of 50%."),
        # errors: a third outcome
        ({"a": "++", "b": "++"}, {"a": "++", "b": "+!"}, FLOOR, "UNUSABLE",
         "1 of 4 calls to v2 ended in errors, and above 2% nothing can be said of it: the provider is down"),
        ({"a": "++", "b": "!+"}, {"a": "++", "b": "--"}, FLOOR, "UNUSABLE",
         "1 of 4 calls to v1 ended in errors, and above 2% nothing can be said of it: the provider is down"),
        (None, {"a": "!!"}, FLOOR, "UNUSABLE", None),
        ({f"c{i}": "++" for i in range(50)}, {f"c{i}": "+!" if i < 2 else "++" for i in range(50)}, FLOOR, "INCONCLUSIVE",
         "2 answers without a value could turn the verdict on the pass rate; run it again."),
        ({f"c{i}": "++" for i in range(50)}, {f"c{i}": "!!" if i < 1 else "++" for i in range(50)}, FLOOR[:-6] + "0.98}}}", "PASS",
         "The pass rate is 100%, and its floor is 98%."),
    ],
)  # fmt: skip
def test_the_verdict_table(
    tmp_path: Path,
    *,
    before: dict[str, str] | None,
    after: dict[str, str],
    policy: str,
    expected: str,
    reason: str | None,
) -> None:
    report = verdict(tmp_path, before, after, policy=policy)
    assert report.verdict == expected, report.reason
    assert report.exit_code == EXIT_CODES[report.verdict]
    if reason is not None:
        assert report.reason == reason


def test_a_check_that_need_not_pass_breaks_nothing(tmp_path: Path) -> None:
    report = verdict(tmp_path, {"a": "++", "b": "++"}, {"a": "++", "b": "--"}, policy="{must_pass: [is-json]," + LOW[1:], check="contains")  # fmt: skip
    assert report.verdict == "PASS"


def test_every_check_of_a_critical_case_must_pass(tmp_path: Path) -> None:
    before, after = {"a": "+++", "b": "+++"}, {"a": "+++", "b": "---"}
    assert verdict(tmp_path, before, after, policy=LOW, check="contains", critical="a").verdict == "PASS"
    report = verdict(tmp_path, before, after, policy=LOW, check="contains", critical="b")
    assert report.verdict == "FAIL"
    assert report.reason == "contains must pass, and it fails in all 3 repeats of 'b', which v1 always passes."


def test_a_whole_broken_case_is_not_hidden_by_the_average(tmp_path: Path) -> None:
    """E7: 99 of 100 cases pass, and the one that must never break breaks."""
    before = {f"c{i}": "++++++" for i in range(100)}
    report = verdict(tmp_path, before, {**before, "c7": "------"}, policy=HIGH)
    assert (report.verdict, report.metrics[0].verdict) == ("FAIL", "PASS")


@pytest.mark.parametrize(
    ("recheck", "expected", "reason"),
    [
        (None, "INCONCLUSIVE", "fails in all 2 repeats of 'c7', which v1 always passes; trying it again would tell a slip from a break."),
        ((0, 8, 8, 8), "FAIL", "fails in all 10 repeats of 'c7', which v1 always passes."),
        ((3, 8, 8, 8), "FAIL", "fails in 7 of 10 repeats of 'c7', which v1 always passes."),
        ((2, 8, 7, 8), "FAIL", "fails in 8 of 10 repeats of 'c7', which v1 passes in 9 of 10."),
        ((5, 8, 8, 8), "INCONCLUSIVE", "fails in 5 of 10 repeats of 'c7', which v1 always passes: too often for a slip, and too seldom to be sure that it broke."),
        ((7, 8, 8, 8), "PASS", None),
        ((5, 8, 7, 8), "PASS", None),
        ((0, 2, 2, 2), "INCONCLUSIVE", "fails in all 4 repeats of 'c7', which v1 always passes: too often for a slip, and too seldom to be sure that it broke."),
        ((0, 0, 8, 8), "INCONCLUSIVE", "fails in all 2 repeats of 'c7', which v1 always passes: too often for a slip, and too seldom to be sure that it broke."),
    ],
)  # fmt: skip
def test_one_break_among_many_guards_is_luck_until_it_was_tried_again(
    tmp_path: Path, recheck: tuple[int, int, int, int] | None, expected: str, reason: str | None
) -> None:
    """Two repeats of a case that passes half of the time break it in 1 of 16 gates, and there are 100 of them."""
    before = {f"c{i}": "++" for i in range(100)}
    rechecks = [] if recheck is None else [Recheck("c7", "is-json", *recheck)]
    report = verdict(tmp_path, before, {**before, "c7": "--"}, policy=HIGH, rechecks=rechecks)
    assert report.verdict == expected, report.reason
    assert reason is None or report.reason == f"is-json must pass, and it {reason}"
    assert len(report.notes) == len(rechecks)


def test_rechecks_share_alpha(tmp_path: Path) -> None:
    """4 of 8 that fail are proof for one guard, and not for one of two."""
    before = {f"c{i}": "++" for i in range(100)}
    after = {**before, "c7": "--", "c8": "--"}
    rechecks = [Recheck("c7", "is-json", 4, 8, 8, 8), Recheck("c8", "is-json", 8, 8, 8, 8)]
    assert verdict(tmp_path, before, after, policy=HIGH, rechecks=rechecks).verdict == "INCONCLUSIVE"
    assert verdict(tmp_path, before, {**before, "c7": "--"}, policy=HIGH, rechecks=rechecks[:1]).verdict == "FAIL"


def test_more_breaks_than_luck_makes_are_sure_at_once(tmp_path: Path) -> None:
    """Of 40 guards asked twice, luck breaks 2.5 on average and 8 seldom; cases of one cluster are one piece of luck."""
    before = {f"c{i}": "++" for i in range(40)}
    after = {**before, **{f"c{i}": "--" for i in range(8)}}
    report = verdict(tmp_path, before, after, policy=HIGH.replace("0.9", "0.5"))
    assert (report.verdict, report.reason[-19:]) == ("FAIL", "(and 7 more cases).")
    clusters = {f"c{i}": "one" for i in range(8)}
    report = verdict(tmp_path, before, after, policy=HIGH.replace("0.9", "0.5"), clusters=clusters)
    assert report.verdict == "INCONCLUSIVE"


def test_a_metric_that_fails_needs_no_recheck(tmp_path: Path) -> None:
    before = {f"c{i}": "++" for i in range(100)}
    report = verdict(tmp_path, before, {**before, "c7": "--"}, policy=FLOOR)
    assert report.verdict == "FAIL"
    assert report.reason == (
        "is-json must pass, and it fails in all 2 repeats of 'c7', which v1 always passes. "
        "The pass rate is 99%, below its floor of 100%."
    )


def test_a_neutral_change_passes(tmp_path: Path) -> None:
    """E29: the gate asks "not worse", so a refactoring that changes nothing is no FAIL; E26: nor is noise."""
    before = {f"c{i}": "+-" if i % 5 == 0 else "++" for i in range(60)}
    after = {f"c{i}": "+-" if i % 5 == 1 else "++" for i in range(60)}
    assert verdict(tmp_path, before, after, policy="{metrics: {pass-rate: {margin: 0.2}}}").verdict == "PASS"


def test_many_repeats_of_one_case_are_not_many_cases(tmp_path: Path) -> None:
    """E27: 100 lost repeats of one case are one lost pair."""
    before, after = {"a": "+" * 100, "b": "+" * 100}, {"a": "-" * 100, "b": "+" * 100}
    assert verdict(tmp_path, before, after).verdict == "INCONCLUSIVE"


def test_cases_of_one_cluster_are_one_pair(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(40)]
    before, after = dict.fromkeys(names, "++"), dict.fromkeys(names, "--")
    assert verdict(tmp_path, before, after).verdict == "FAIL"
    assert verdict(tmp_path, before, after, clusters=dict.fromkeys(names, "one template")).verdict == "INCONCLUSIVE"


def test_the_same_version_is_no_change(tmp_path: Path) -> None:
    """Even with three cases, and even where the live version is not perfect."""
    outcomes = {"a": "++", "b": "+-", "c": "--"}
    report = verdict(tmp_path, outcomes, outcomes, policy=MUST, same=True)
    assert (report.verdict, report.reason) == ("PASS", "Nothing changed: v1 is the baseline itself.")
    assert report.metrics[0].interval is None
    assert verdict(tmp_path, outcomes, outcomes, policy=FLOOR, same=True).verdict == "FAIL", "a floor stays a floor"


def test_the_report_tells_each_case(tmp_path: Path) -> None:
    before = {"a": "++", "b": "++", "c": "--", "d": "+-", "e": "--", "f": "++"}
    after = {"a": "++", "b": "--", "c": "++", "d": "++", "e": "--", "f": "+-"}
    report = verdict(tmp_path, before, after, policy=FLOOR)
    assert {case.id: case.change for case in report.cases} == {
        "a": "same", "b": "broken", "c": "fixed", "d": "flaky", "e": "same", "f": "flaky"
    }  # fmt: skip
    broken = report.cases[1]
    assert (broken.baseline_passed, broken.baseline_repeats, broken.candidate_passed, broken.repeats) == (2, 2, 0, 2)
    assert (broken.output, broken.baseline_output, broken.reason) == ("- b", "+ b", "is-json: not JSON")
    assert report.cases[5].output == "- f", "the failing repeat is the one to see"
    assert (report.passed_cases, report.baseline_passed_cases, report.total_cases) == (3, 3, 6)
    assert (report.baseline, report.candidate, report.run_id, report.baseline_run_id) == ("v1", "v2", "run-2", "run-1")
    assert report.cost_usd == 5e-6
    assert report.per_call is not None
    assert report.baseline_per_call is not None
    assert (report.baseline_per_call.input_tokens, report.per_call.input_tokens) == (100, 200)
    metric = report.metrics[0]
    assert metric.baseline == pytest.approx(7 / 12)
    assert metric.delta == pytest.approx(0.0)
    assert metric.interval is not None


def test_without_a_baseline_every_case_is_new(tmp_path: Path) -> None:
    report = verdict(tmp_path, None, {"a": "+-"}, policy=FLOOR)
    case = report.cases[0]
    assert (case.change, case.baseline_passed, case.baseline_output) == ("new", None, None)
    assert report.baseline is None
    assert report.metrics[0].delta is None


def test_the_report_has_the_keys_that_scripts_read(tmp_path: Path) -> None:
    plain = msgspec.to_builtins(verdict(tmp_path, {"a": "++"}, {"a": "++"}))
    assert plain.keys() >= {"verdict", "exit_code", "baseline", "candidate", "metrics", "cases", "mde", "cost_usd"}
    assert plain["metrics"][0].keys() >= {"name", "baseline", "candidate", "delta", "interval", "margin", "verdict"}


@pytest.mark.parametrize(
    ("before", "after", "worth"),
    [
        ({"a": "++", "b": "++"}, {"a": "++", "b": "++"}, False),
        ({"a": "++", "b": "++"}, {"a": "+-", "b": "++"}, True),
        ({"a": "+-", "b": "++"}, {"a": "++", "b": "++"}, True),
        ({"a": "+"}, {"a": "+"}, True),
        ({"a": "--", "b": "++"}, {"a": "--", "b": "++"}, False),
    ],
)
def test_more_repeats_are_worth_their_money_only_where_a_case_is_mixed(
    tmp_path: Path, before: dict[str, str], after: dict[str, str], worth: bool
) -> None:
    report = verdict(tmp_path, before, after)
    assert report.verdict == "INCONCLUSIVE"
    assert undecided_by_noise(report) is worth
