"""
The verdict: a candidate's run against a baseline's run, or against floors when there is no baseline.

    UNUSABLE      more than 2 % of either run's calls ended in errors, a judge that decides was silent as often, or it
                  may not gate: nothing can be said
    FAIL          a guard broke for sure (guards.py), or a metric is surely worse than its margin, or below its floor
    PASS          every gating metric passes, and no guard is in doubt
    INCONCLUSIVE  anything else

"Surely": by core/stats, never by the point estimate. Pure: runs in, report out; stored runs can be judged again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from tidegate.core import stats
from tidegate.core.evaluation import (
    EXIT_CODES,
    CaseVerdict,
    GateReport,
    MetricVerdict,
    Recheck,
    Repeat,
    Run,
    Verdict,
)
from tidegate.core.stats import ALPHA, pairs_needed, within_variance
from tidegate.evals.golden import Case
from tidegate.evals.guards import Break, breaks, outcome
from tidegate.evals.metrics import Asked, Question, question, verdicts
from tidegate.evals.readings import RATE, Gauge, Judge, gauge
from tidegate.evals.said import (
    MAX_ERROR_SHARE,
    because,
    by_case,
    kinds,
    label,
    passed_cases,
    per_call,
    usable,
)
from tidegate.evals.slices import slices

DEFAULT_MARGIN = 0.02

Change = Literal["fixed", "broken", "flaky", "same", "new"]


class Demands(Protocol):
    """What a suite asks of a version (evals/suite.py), or a stored one with other margins (evals/stored.py)."""

    @property
    def must_pass(self) -> frozenset[str]: ...
    @property
    def metrics(self) -> Mapping[str, Asked]: ...
    @property
    def judges(self) -> Collection[Judge]: ...


class Cases(Protocol):
    """The golden set's cases, in its order (evals/golden.py)."""

    @property
    def cases(self) -> Sequence[Case]: ...


class _Default(msgspec.Struct, frozen=True):
    """What is asked of the pass rate where the suite names no metric."""

    margin: float | None = DEFAULT_MARGIN
    floor: float | None = None


def gate(
    candidate: Run,
    baseline: Run | None,
    suite: Demands,
    golden: Cases,
    *,
    mde: float | None = None,
    diff: Sequence[str] = (),
    cost_nano_usd: int = 0,
    alpha: float = ALPHA,
    notes: Sequence[str] = (),
    rechecks: Sequence[Recheck] = (),
) -> GateReport:
    """
    Judges `candidate`, on the cases that both runs have a value for.

    Args:
        baseline: None when only floors apply; a run of the candidate's own digest means that nothing changed.
        suite: of its judges, those that may not gate decide nothing, unless a metric asks for one.
        alpha: one-sided, of this look at the data.
        rechecks: of guards that broke, where they were tried again against this very baseline.
    """
    pointless = [judge.name for judge in suite.judges if judge.relative and baseline is None]
    asked = {name: one for name, one in suite.metrics.items() if name not in pointless} or {RATE: _Default()}
    judges = [
        judge for judge in suite.judges if judge.name in asked or (judge.gates is None and judge.name not in pointless)
    ]
    questions = [question(gauge(name, judges), one, candidate, baseline, golden.cases) for name, one in asked.items()]
    found = breaks(candidate, baseline, suite.must_pass, golden.cases, rechecks)
    idle = [judge.gates for judge in suite.judges if judge.gates is not None and judge.passing is not None]
    unusable = next(_unusable(candidate, baseline, questions, judges, idle), None)
    metrics = [] if unusable else verdicts(questions, alpha)
    verdict, reason = _verdict(candidate, baseline, found, metrics, unusable)
    return GateReport(
        prompt=candidate.prompt,
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        reason=reason,
        baseline=None if baseline is None else label(baseline),
        candidate=label(candidate),
        candidate_digest=candidate.digest,
        metrics=tuple(metrics),
        cases=tuple(_cases(golden.cases, candidate, baseline)),
        mde=mde,
        cost_usd=cost_nano_usd / 1e9,
        run_id=candidate.id,
        baseline_run_id=None if baseline is None else baseline.id,
        passed_cases=passed_cases(candidate),
        total_cases=len(golden.cases),
        baseline_passed_cases=None if baseline is None else passed_cases(baseline),
        diff=tuple(diff),
        per_call=per_call(candidate),
        baseline_per_call=None if baseline is None else per_call(baseline),
        slices=() if unusable else slices(questions, alpha),
        notes=(
            *notes,
            *(f"{name} compares with a baseline, and there is none." for name in pointless),
            *(_tried_again(one, candidate, baseline) for one in rechecks if baseline is not None),
        ),
        alpha=alpha,
        rechecks=tuple(rechecks),
    )


def planned_mde(golden: Cases, repeats: int, baseline: Run | None = None) -> float:
    """The smallest drop of the pass rate that can be seen; a baseline's run tells how much repeats vary."""
    items = {case.item for case in golden.cases}
    readings = gauge(RATE, ()).readings(baseline).cases.values() if baseline is not None else ()
    within = within_variance([value for value in values if value is not None] for values in readings)
    return stats.mde(len(golden.cases), repeats, clusters=len(items), within=within)


def undecided_by_noise(report: GateReport) -> bool:
    """Whether more repeats may decide an INCONCLUSIVE verdict: some case is mixed, or was tried only once."""
    unclear = any(outcome(one, len(report.rechecks)) == "unclear" for one in report.rechecks)
    if report.verdict != "INCONCLUSIVE" or unclear:
        return False
    scored = any(
        metric.verdict == "INCONCLUSIVE" and metric.name != RATE and metric.interval is not None and _enough(metric)
        for metric in report.metrics
    )
    return scored or any(
        case.repeats == 1
        or 0 < case.candidate_passed < case.repeats
        or 0 < (case.baseline_passed or 0) < (case.baseline_repeats or 0)
        for case in report.cases
    )


def _enough(metric: MetricVerdict) -> bool:
    """Whether there are cases enough for the margin, so that only noise is in the way."""
    needed = pairs_needed((metric.margin or 0) / (metric.scale[1] - metric.scale[0]))
    return needed is not None and metric.cases >= needed


def _unusable(
    candidate: Run, baseline: Run | None, questions: Sequence[Question], judges: Collection[Judge], idle: Sequence[str]
) -> Iterator[str]:
    """Why nothing can be said. `idle`: why judges decide nothing that might."""
    runs = [candidate] if baseline is None else [candidate, baseline]
    for run in runs:
        if not usable(run):
            yield _errors(run)
    for judge in judges:
        if judge.gates is not None:
            yield f"{judge.name} may not gate: {judge.gates}"
        for run in runs:
            yield from _silent(judge, run)
    for asked in questions:
        if asked.found(ALPHA) is None:
            versions = " and ".join(label(run) for run in runs)
            nothing = f"No case has a value for {asked.gauge.name} in {versions}, so there is nothing to gate by."
            yield " ".join([nothing, *(idle[:1] if asked.gauge.name == RATE else [])])


def _errors(run: Run) -> str:
    errors = [result.error for result in run.results if result.error is not None]
    if not errors:
        return f"The run of {label(run)} has no results."
    of_kind = f" ({found})" if (found := kinds(run)) else ""
    return (
        f"{len(errors)} of {len(run.results)} calls to {label(run)} ended in errors{of_kind}, and above "
        f"{MAX_ERROR_SHARE:.0%} nothing can be said of it: {errors[0]}"
    )


def _silent(judge: Judge, run: Run) -> Iterator[str]:
    """A judge that gave no verdict on more than 2 % of the answers it was asked about."""
    answered = [result for result in run.results if result.error is None]
    readings = [value for result in answered for value in Gauge(judge.name, judge.scale, judge).read(result)]
    unscored = readings.count(None)
    if unscored > MAX_ERROR_SHARE * len(readings):
        reasons = [
            score.reason
            for result in answered
            for score in result.scores
            if score.name == judge.name and score.value is None
        ]
        why = f": {reasons[0]}" if reasons else "."
        yield (
            f"{judge.name} gave no verdict on {unscored} of {len(readings)} answers of {label(run)}, and above "
            f"{MAX_ERROR_SHARE:.0%} nothing can be said of it{why}"
        )


def _verdict(
    candidate: Run,
    baseline: Run | None,
    found: Sequence[Break],
    metrics: Sequence[MetricVerdict],
    unusable: str | None,
) -> tuple[Verdict, str]:
    """The first that holds, the worst first."""
    if unusable:
        return "UNUSABLE", unusable
    sure = [one for one in found if one.sure]
    if sure:
        return "FAIL", _broken(sure)
    failed = next((metric.reason for metric in metrics if metric.verdict == "FAIL"), None)
    if failed is not None:
        suspected = [one for one in found if one.recheck]
        return "FAIL", f"{_broken(suspected)} {failed}" if suspected else failed
    if found:
        return "INCONCLUSIVE", f"{found[0].reason}{found[0].doubt}."
    for metric in metrics:
        if metric.verdict == "INCONCLUSIVE":
            return "INCONCLUSIVE", metric.reason
    if baseline is not None and baseline.digest == candidate.digest:
        return "PASS", f"Nothing changed: {label(candidate)} is the baseline itself."
    return "PASS", " ".join(metric.reason for metric in metrics)


def _broken(found: Sequence[Break]) -> str:
    more = len({one.case.id for one in found}) - 1
    others = "" if not more else f" (and {more} more {'case' if more == 1 else 'cases'})"
    return f"{found[0].reason}{others}."


def _tried_again(recheck: Recheck, candidate: Run, baseline: Run) -> str:
    """What came of one recheck, as a sentence."""
    now = f"{label(candidate)} passes {recheck.candidate_passed} of {recheck.repeats} more"
    then = f"{label(baseline)} {recheck.baseline_passed} of {recheck.baseline_repeats}"
    return f"{recheck.check} of '{recheck.case_id}' was tried again: {now}, {then}."


def _cases(cases: Sequence[Case], candidate: Run, baseline: Run | None) -> Iterator[CaseVerdict]:
    after, before = by_case(candidate.results), {} if baseline is None else by_case(baseline.results)
    for case in cases:
        earlier = None if baseline is None else before.get(case.id, [])
        yield _case(case.id, after.get(case.id, []), earlier)


def _case(case_id: str, after: Sequence[Repeat], before: Sequence[Repeat] | None) -> CaseVerdict:
    answered = [result for result in after if result.error is None]
    earlier = [result for result in before or () if result.error is None]
    failing = [result for result in answered if not result.passed]
    shown = next(iter(failing or answered or after), None)
    passed, passed_before = sum(result.passed for result in answered), sum(result.passed for result in earlier)
    return CaseVerdict(
        id=case_id,
        baseline_passed=None if before is None else passed_before,
        candidate_passed=passed,
        repeats=len(answered),
        change=_change(passed, len(answered), passed_before, len(earlier)),
        reason="" if shown is None else because(shown),
        output="" if shown is None else shown.output,
        baseline_output=earlier[0].output if earlier else None,
        baseline_repeats=None if before is None else len(earlier),
        steps=() if shown is None else shown.tool_calls,
        baseline_steps=earlier[0].tool_calls if earlier else (),
    )


def _change(passed: int, repeats: int, passed_before: int, repeats_before: int) -> Change:
    if repeats_before == 0:
        return "new"
    always, always_before = passed == repeats > 0, passed_before == repeats_before
    if (always and always_before) or (passed == 0 and passed_before == 0):
        return "same"
    if always_before and passed == 0:
        return "broken"
    if always and passed_before == 0:
        return "fixed"
    return "flaky"
