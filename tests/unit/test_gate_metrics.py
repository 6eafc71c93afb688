"""Gating metrics beside the pass rate: judges' scores and single checks, several at once, unknown answers, slices."""

# ruff: noqa: E501 – the tables read best with one case a line

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from tidegate.core.evaluation import CheckResult, GateReport, Repeat, Run, Score
from tidegate.evals.gate import gate, planned_mde, undecided_by_noise
from tidegate.evals.golden import Case
from tidegate.evals.reports.figures import figure
from tidegate.evals.suite import Metric

NOW = "2026-03-01T12:00:00.000000Z"


@dataclass(frozen=True)
class Judge:
    name: str = "grounded"
    scale: tuple[float, float] = (1.0, 5.0)
    passing: float | None = None
    gates: str | None = None
    relative: bool = False


@dataclass(frozen=True)
class Demands:
    must_pass: frozenset[str] = frozenset()
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    judges: Collection[Judge] = ()


@dataclass(frozen=True)
class Cases:
    cases: Sequence[Case]


def golden(n: int, *, critical: Collection[int] = (), tags: Mapping[str, range] | None = None) -> Cases:
    return Cases(
        [
            Case(
                f"c{i}", i, {}, None, (), tuple(tag for tag, of in (tags or {}).items() if i in of), None, i in critical
            )
            for i in range(n)
        ]
    )


def run(number: int, cases: Sequence[Sequence[Repeat]]) -> Run:
    results = tuple(
        Repeat(
            f"c{i}",
            k,
            one.output,
            checks=one.checks,
            error=one.error,
            scores=one.scores,
            cost_nano_usd=one.cost_nano_usd,
        )
        for i, repeats in enumerate(cases)
        for k, one in enumerate(repeats)
    )
    return Run(
        f"run-{number}", "support/answer", number, f"{number:064x}", "s", "g", NOW, NOW, max(map(len, cases)), results
    )


def scored(
    value: float | None, *, passed: bool | None = None, applicable: bool = True, name: str = "grounded"
) -> Repeat:
    """With a check that passes."""
    reason = "" if value is not None else "not JSON: 'Well'"
    checks = (CheckResult("is-json", True, ""),)
    return Repeat("", 0, "an answer", checks, scores=(Score(name, value, passed, reason, applicable=applicable),))


def checked(**checks: bool) -> Repeat:
    return Repeat("", 0, "an answer", tuple(CheckResult(name.replace("_", "-"), ok, "") for name, ok in checks.items()))


ERROR = Repeat("", 0, "", error="the provider is down")


def judge_gate(
    before: Sequence[Sequence[Repeat]] | None,
    after: Sequence[Sequence[Repeat]],
    asked: Metric,
    judge: Judge | None = None,
    cases: Cases | None = None,
) -> GateReport:
    return gate(
        run(2, after),
        None if before is None else run(1, before),
        Demands(metrics={"grounded": asked}, judges=[judge or Judge()]),
        cases or golden(len(after)),
    )


def test_a_judge_s_score_falls_and_the_sentence_is_in_its_own_unit() -> None:
    before = [[scored(5), scored(4)]] * 40
    after = [[scored(4), scored(3)]] * 40
    report = judge_gate(before, after, Metric(margin=0.15))
    (metric,) = report.metrics
    assert (report.verdict, metric.baseline, metric.candidate, metric.delta) == ("FAIL", 4.5, 3.5, -1.0)
    assert (metric.scale, metric.cases, metric.missing) == ((1.0, 5.0), 40, 0)
    assert metric.interval is not None
    low, high = metric.interval
    assert report.reason == (
        "The mean score of grounded fell (4.5 → 3.5), surely by more than the margin of 0.15: "
        f"the interval of the change is {low:+.2f} to {high:+.2f} (40 of 40 worse, 0 better, p = 4.5e-13)."
    )


def test_a_judge_s_score_that_stays_passes_once_there_are_cases_enough() -> None:
    """Equal scores bound the drop by 4 · (1 − 0.05^(1/n)): 0.15 takes 79 cases."""
    steady = [[scored(4)]] * 79
    assert judge_gate(steady, steady, Metric(margin=0.15)).verdict == "PASS"
    report = judge_gate(steady[:78], steady[:78], Metric(margin=0.15))
    assert report.verdict == "INCONCLUSIVE"
    assert report.reason == (
        "78 cases can not show that the mean score of grounded (4 → 4) fell by less than the margin of 0.15, which takes "
        "at least 79 cases; add cases, widen the margin, or gate on a floor."
    )


@pytest.mark.parametrize(
    ("asked", "judge", "verdict", "reason"),
    [
        (Metric(floor=4.0), Judge(), "PASS", "The mean score of grounded is 4.2, and its floor is 4."),
        (Metric(floor=4.5), Judge(), "FAIL", "The mean score of grounded is 4.2, below its floor of 4.5."),
        (Metric(margin=0.1), Judge(passing=4.0), "PASS", "The mean score of grounded is 4.2, and its floor is 4."),
        (Metric(margin=0.1), Judge(), "INCONCLUSIVE", "The mean score of grounded is 4.2, and there is nothing to compare it with: give it a floor, or name a baseline."),
    ],
)  # fmt: skip
def test_a_first_version_s_score_needs_a_floor(asked: Metric, judge: Judge, verdict: str, reason: str) -> None:
    report = judge_gate(None, [[scored(4)], [scored(4)], [scored(4)], [scored(4)], [scored(5)]], asked, judge)
    assert (report.verdict, report.reason) == (verdict, reason)
    assert report.metrics[0].candidate_interval is not None


def test_a_judge_of_shares_speaks_in_percent_as_the_reports_do() -> None:
    cases = [[scored(0.85)]] * 5
    report = judge_gate(None, cases, Metric(floor=0.9), Judge(scale=(0.0, 1.0)))
    assert report.reason == "The mean score of grounded is 85%, below its floor of 90%."
    assert figure(report.metrics[0].candidate, report.metrics[0].scale) == "85%"


def test_a_judge_that_compares_has_no_say_about_a_first_version() -> None:
    cases = [[scored(None, applicable=False)]] * 5
    demands = Demands(
        metrics={"grounded": Metric(margin=0.1)}, judges=[Judge(scale=(0, 1), passing=0.5, relative=True)]
    )
    report = gate(run(2, cases), None, demands, golden(5))
    assert (report.verdict, [metric.name for metric in report.metrics]) == ("PASS", ["pass-rate"])
    assert report.notes == ("grounded compares with a baseline, and there is none.",)


def test_a_judge_that_may_not_gate_makes_the_verdict_unusable_only_where_it_is_asked() -> None:
    cases = [[scored(4)]] * 5
    raw = Judge(gates="the judge 'grounded' is not calibrated: label answers.")
    report = judge_gate(cases, cases, Metric(floor=3), raw)
    assert (report.verdict, report.exit_code) == ("UNUSABLE", 3)
    assert report.reason == "grounded may not gate: the judge 'grounded' is not calibrated: label answers."
    silent = gate(run(2, cases), None, Demands(metrics={"pass-rate": Metric(floor=1)}, judges=[raw]), golden(5))
    assert silent.verdict == "PASS"


def test_a_silent_judge_makes_the_verdict_unusable() -> None:
    """More than 2 % unscored; what does not apply is not counted."""
    known, silent = [[scored(4)] * 2] * 49, [[scored(None), scored(4)]]
    assert judge_gate(None, [*known, *silent], Metric(floor=3)).verdict == "PASS"
    report = judge_gate(None, [*known, [scored(None), scored(None)], [scored(None)] * 2], Metric(floor=3))
    assert (report.verdict, report.exit_code) == ("UNUSABLE", 3)
    assert report.reason == (
        "grounded gave no verdict on 4 of 102 answers of v2, and above 2% nothing can be said of it: not JSON: 'Well'"
    )
    beside = [[scored(None, applicable=False)] * 2] * 20
    assert judge_gate(None, [*known, *beside], Metric(floor=3)).verdict == "PASS"


def test_a_metric_without_a_single_value_is_unusable() -> None:
    nothing = [[scored(None, applicable=False)]] * 3
    report = judge_gate(None, nothing, Metric(floor=3))
    assert (report.verdict, report.reason) == (
        "UNUSABLE", "No case has a value for grounded in v2, so there is nothing to gate by."
    )  # fmt: skip


def test_unknown_answers_count_as_bad_and_as_good_and_must_not_matter() -> None:
    """5e.11: 1 of 60 scores is missing. As a 1 it brings the mean below 4.45, as a 5 it does not."""
    cases = [[scored(4.5)]] * 59 + [[scored(None)]]
    report = judge_gate(None, cases, Metric(floor=4.45))
    assert (report.verdict, report.metrics[0].missing) == ("INCONCLUSIVE", 1)
    assert report.reason == (
        "1 answer without a value could turn the verdict on the mean score of grounded; run it again."
    )
    assert judge_gate(None, cases, Metric(floor=4.4)).verdict == "PASS"
    assert judge_gate(None, cases, Metric(floor=4.6)).verdict == "FAIL"


def test_a_deciding_judge_without_a_verdict_is_unknown_to_the_pass_rate() -> None:
    cases = [[scored(5, passed=True)]] * 59 + [[scored(None)]]
    demands = Demands(metrics={"pass-rate": Metric(floor=1.0)}, judges=[Judge(passing=4.0)])
    report = gate(run(2, cases), None, demands, golden(60))
    assert (report.verdict, report.metrics[0].candidate, report.metrics[0].missing) == ("INCONCLUSIVE", 1.0, 1)
    only_scores = Demands(metrics=demands.metrics, judges=[Judge()])
    assert gate(run(2, cases), None, only_scores, golden(60)).verdict == "PASS"


@pytest.mark.parametrize("applicable", [True, False])
def test_an_answer_that_nothing_decides_about_is_no_pass(applicable: bool) -> None:
    """Its only judge may not gate, only scores, or has nothing to judge; its only check has no weight."""
    bare = msgspec.structs.replace(
        scored(4 if applicable else None, applicable=applicable), checks=(CheckResult("a", True, "", None, 0),)
    )
    judges = [Judge(gates="the judge 'grounded' is not calibrated.", passing=3.0), Judge()]
    judges += [] if applicable else [Judge(passing=3.0)]
    for judge in judges:
        demands = Demands(metrics={"pass-rate": Metric(floor=1)}, judges=[judge])
        report = gate(run(2, [[bare]] * 5), None, demands, golden(5))
        why = f" {judge.gates}" if judge.gates else ""
        assert report.reason == f"No case has a value for pass-rate in v2, so there is nothing to gate by.{why}"
        some = gate(run(2, [[bare]] * 4 + [[scored(4, passed=True)]]), None, demands, golden(5))
        assert (some.verdict, some.metrics[0].cases) == ("PASS", 1)


def test_one_check_is_a_metric_by_its_name_or_type() -> None:
    before = [[checked(is_json=True, contains=True)]] * 40
    after = [[checked(is_json=i >= 20, contains=True)] for i in range(40)]
    for name, verdict in (("is-json", "FAIL"), ("contains", "PASS")):
        demands = Demands(metrics={name: Metric(margin=0.1)})
        report = gate(run(2, after), run(1, before), demands, golden(40))
        assert (report.verdict, report.metrics[0].name) == (verdict, name)
        assert f"he pass rate of {name}" in report.reason
    numbered = [[Repeat("", 0, "x", (CheckResult("contains", True, ""), CheckResult("contains#2", False, "")))]] * 3
    both = gate(run(2, numbered), None, Demands(metrics={"contains": Metric(floor=0.5)}), golden(3))
    assert (both.verdict, both.metrics[0].candidate) == ("FAIL", 0.0)


def test_among_several_metrics_a_slight_suspicion_is_not_enough() -> None:
    """7 of 40 cases fell, 1 rose: alone p is 0.035; among three metrics, by Holm, 0.11."""
    before = [[checked(a=i != 39, b=True, c=True)] for i in range(40)]
    after = [[checked(a=i >= 7, b=True, c=True)] for i in range(40)]
    alone = gate(run(2, after), run(1, before), Demands(metrics={"a": Metric(margin=0.0)}), golden(40))
    assert alone.verdict == "FAIL"
    metrics = {name: Metric(margin=0.0 if name == "a" else 0.2) for name in "abc"}
    several = gate(run(2, after), run(1, before), Demands(metrics=metrics), golden(40))
    assert [metric.verdict for metric in several.metrics] == ["INCONCLUSIVE", "PASS", "PASS"]
    assert several.verdict == "INCONCLUSIVE"
    assert "one of several metrics does so by chance too often to be sure" in several.reason


def test_every_metric_has_to_pass() -> None:
    cases = [[checked(a=True, b=i > 0)] for i in range(10)]
    demands = Demands(metrics={"a": Metric(floor=1.0), "b": Metric(floor=1.0)})
    report = gate(run(2, cases), None, demands, golden(10))
    assert [metric.verdict for metric in report.metrics] == ["PASS", "FAIL"]
    assert report.reason == "The pass rate of b is 90%, below its floor of 100%."


@pytest.mark.parametrize(
    ("before", "after", "verdict", "reason"),
    [
        (None, "+++", "PASS", None),
        (None, "++", "INCONCLUSIVE", "'c0' is critical, and it passed 2 of 2 repeats, too few to be sure that it mostly passes; 3 of 3 would do, or 5 of 6."),
        ("+++", "++-", "INCONCLUSIVE", "'c0' is critical, and it passed 2 of 3 repeats, too few to be sure that it mostly passes; 3 of 3 would do, or 5 of 6."),
        ("++++++", "+-++++", "PASS", None),
        ("++++++", "+-----", "FAIL", "'c0' is critical, and it passed 1 of 6 repeats: it surely fails more often than not."),
        ("+++", "---", "FAIL", "is-json must pass, and it fails in all 3 repeats of 'c0', which v1 always passes."),
        ("+-+", "++-", "PASS", None),
        ("++", "++", "PASS", None),
    ],
)  # fmt: skip
def test_a_critical_case_must_be_seen_to_pass(before: str | None, after: str, verdict: str, reason: str | None) -> None:
    def cases(marks: str) -> list[list[Repeat]]:
        return [[checked(is_json=mark == "+") for mark in marks]]

    demands = Demands(metrics={"pass-rate": Metric(floor=0.0)})
    baseline = None if before is None else run(1, cases(before))
    report = gate(run(2, cases(after)), baseline, demands, golden(1, critical=[0]))
    assert report.verdict == verdict, report.reason
    if reason:
        assert report.reason == reason


def test_a_doubtful_critical_case_is_worth_more_repeats() -> None:
    demands = Demands(metrics={"pass-rate": Metric(floor=0.0)})
    cases = [[checked(is_json=True), checked(is_json=False), checked(is_json=True)]]
    assert undecided_by_noise(gate(run(2, cases), None, demands, golden(1, critical=[0])))


def test_noise_in_scores_is_worth_more_repeats_where_cases_are_enough() -> None:
    before = [[scored(3 + i % 3)] * 2 for i in range(100)]
    after = [[scored(3 + (i + 1) % 3)] * 2 for i in range(100)]
    report = judge_gate(before, after, Metric(margin=0.15))
    assert (report.verdict, undecided_by_noise(report)) == ("INCONCLUSIVE", True)
    few = judge_gate(before[:20], after[:20], Metric(margin=0.15))
    assert (few.verdict, undecided_by_noise(few)) == ("INCONCLUSIVE", False)


def test_slices_point_to_the_tag_that_hurts_and_decide_nothing() -> None:
    tags = {"german": range(20), "english": range(20, 60), "both": range(60), "one": range(1)}
    before = [[checked(is_json=True)]] * 60
    after = [[checked(is_json=i >= 10)] for i in range(60)]
    demands = Demands(metrics={"pass-rate": Metric(margin=0.5)})
    report = gate(run(2, after), run(1, before), demands, golden(60, tags=tags))
    assert report.verdict == "PASS"
    first, second, third = report.slices
    assert (first.tag, first.cases, first.baseline, first.candidate, first.worse) == ("german", 20, 1.0, 0.5, True)
    assert (second.tag, second.worse) == ("both", True)
    assert (third.tag, third.worse, third.p_worse) == ("english", False, 0.5)
    assert first.p_worse == pytest.approx(0.5**11 * 3 / 2), "mid-p of ten losses, the least of three, which tie"
    assert gate(run(1, after), run(1, after), demands, golden(60, tags=tags)).slices == ()


def test_the_baseline_s_noise_plans_the_run() -> None:
    steady, shaky = [[checked(a=True)] * 3] * 30, [[checked(a=k % 2 == 0) for k in range(3)]] * 30
    cases = golden(30)
    assert planned_mde(cases, 3, run(1, steady)) < planned_mde(cases, 3) < planned_mde(cases, 3, run(1, shaky))
    clustered = Cases([replace(case, cluster=str(i // 10)) for i, case in enumerate(cases.cases)])
    assert planned_mde(clustered, 3) > 2 * planned_mde(cases, 3)
