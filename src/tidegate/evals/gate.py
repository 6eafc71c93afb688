"""
The verdict: a candidate's run against a baseline's run, or against floors when there is no baseline.

    UNUSABLE      more than 2 % of either run's calls ended in errors: nothing can be said
    FAIL          a must-pass check breaks reproducibly, or a metric is surely worse than its margin, or below its floor
    PASS          every gating metric passes
    INCONCLUSIVE  anything else

"Breaks reproducibly": fails in every repeat, at least two, of a case that the baseline always passes. "Surely": by the
interval of core/stats.py, never by the point estimate. Pure: runs in, report out; stored runs can be judged again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from tidegate.core.evaluation import (
    EXIT_CODES,
    CaseVerdict,
    CheckResult,
    GateReport,
    MetricVerdict,
    PerCall,
    Repeat,
    Run,
    Verdict,
)
from tidegate.core.stats import ALPHA, Comparison, compare, mcnemar, pairs_needed
from tidegate.evals.golden import Case, GoldenSet
from tidegate.evals.suite import RATE, Metric, Suite

MAX_ERROR_SHARE = 0.02
DEFAULT_MARGIN = 0.02
DEFAULT_FLOOR = 1.0
TOLERANCE = 1e-9
"""A mean of exact shares may miss a floor by rounding."""

Change = Literal["fixed", "broken", "flaky", "same", "new"]


@dataclass(frozen=True, slots=True)
class Break:
    """A check that must pass and fails in every scored repeat of a case that the baseline, if any, always passes."""

    case: Case
    check: str
    repeats: int

    @property
    def reproducible(self) -> bool:
        return self.repeats >= 2


def gate(
    candidate: Run,
    baseline: Run | None,
    suite: Suite,
    golden: GoldenSet,
    *,
    mde: float | None = None,
    diff: Sequence[str] = (),
    cost_nano_usd: int = 0,
    alpha: float = ALPHA,
    notes: Sequence[str] = (),
) -> GateReport:
    """
    Judges `candidate`, on the cases that both runs scored.

    Args:
        baseline: None when only floors apply; a run of the candidate's own digest means that nothing changed.
        alpha: one-sided, of this look at the data.
    """
    cases = [_case(case, candidate, baseline) for case in golden.cases]
    breaks = _breaks(candidate, baseline, suite, golden)
    metrics = () if _unusable(candidate, baseline) else (_pass_rate(candidate, baseline, suite, golden, alpha),)
    verdict, reason = _verdict(candidate, baseline, breaks, metrics)
    return GateReport(
        prompt=candidate.prompt,
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        reason=reason,
        baseline=None if baseline is None else label(baseline),
        candidate=label(candidate),
        candidate_digest=candidate.digest,
        metrics=metrics,
        cases=tuple(cases),
        mde=mde,
        cost_usd=cost_nano_usd / 1e9,
        run_id=candidate.id,
        baseline_run_id=None if baseline is None else baseline.id,
        passed_cases=passed_cases(candidate),
        total_cases=len(cases),
        baseline_passed_cases=None if baseline is None else passed_cases(baseline),
        diff=tuple(diff),
        per_call=per_call(candidate),
        baseline_per_call=None if baseline is None else per_call(baseline),
        notes=tuple(notes),
    )


def undecided_by_noise(report: GateReport) -> bool:
    """Whether more repeats may decide an INCONCLUSIVE verdict: some case is mixed, or was tried only once."""
    return report.verdict == "INCONCLUSIVE" and any(
        case.repeats == 1
        or 0 < case.candidate_passed < case.repeats
        or 0 < (case.baseline_passed or 0) < (case.baseline_repeats or 0)
        for case in report.cases
    )


def usable(run: Run) -> bool:
    """False when more than 2 % of the calls ended in errors."""
    errors = sum(result.error is not None for result in run.results)
    return bool(run.results) and errors <= MAX_ERROR_SHARE * len(run.results)


def label(run: Run) -> str:
    """`v2`, or the digest's beginning where the registry has given no number."""
    return run.digest[:12] if run.version is None else f"v{run.version}"


def passed_cases(run: Run) -> int:
    """Cases that passed in every scored repeat."""
    return sum(all(result.passed for result in results) for results in _scored(run).values())


def per_call(run: Run) -> PerCall:
    """Means over the run's answered calls."""
    answered = [result for result in run.results if result.error is None]
    cost = _mean(result.cost_nano_usd for result in answered)
    return PerCall(
        cost_usd=None if cost is None else cost / 1e9,
        input_tokens=_mean(result.input_tokens for result in answered),
        output_tokens=_mean(result.output_tokens for result in answered),
        latency_s=_mean(result.latency_s for result in answered),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _scored(run: Run) -> dict[str, list[Repeat]]:
    """Case id → its repeats that have an answer, where there is one."""
    scored: dict[str, list[Repeat]] = defaultdict(list)
    for result in run.results:
        if result.error is None:
            scored[result.case_id].append(result)
    return scored


def _unusable(candidate: Run, baseline: Run | None) -> Run | None:
    return next((run for run in (candidate, baseline) if run is not None and not usable(run)), None)


def _verdict(
    candidate: Run, baseline: Run | None, breaks: Sequence[Break], metrics: Sequence[MetricVerdict]
) -> tuple[Verdict, str]:
    broken_run = _unusable(candidate, baseline)
    if broken_run is not None:
        return "UNUSABLE", _errors(broken_run)
    always = "" if baseline is None else f", which {label(baseline)} always passes"
    reproducible = [found for found in breaks if found.reproducible]
    if reproducible:
        return "FAIL", _break(reproducible, always)
    for verdict in ("FAIL", "INCONCLUSIVE"):
        for metric in metrics:
            if metric.verdict == verdict:
                return metric.verdict, metric.reason
    if breaks:
        first = breaks[0]
        return "INCONCLUSIVE", (
            f"{first.check} must pass, and it failed in the only repeat of '{first.case.id}'{always}; "
            "with two repeats or more the gate could tell a slip from a break."
        )
    if baseline is not None and baseline.digest == candidate.digest:
        return "PASS", f"Nothing changed: {label(candidate)} is the baseline itself."
    return "PASS", " ".join(metric.reason for metric in metrics)


def _errors(run: Run) -> str:
    errors = [result.error for result in run.results if result.error is not None]
    if not errors:
        return f"The run of {label(run)} has no results."
    return (
        f"{len(errors)} of {len(run.results)} calls to {label(run)} ended in errors, and above "
        f"{MAX_ERROR_SHARE:.0%} nothing can be said of it: {errors[0]}"
    )


def _break(breaks: Sequence[Break], always: str) -> str:
    first = breaks[0]
    cases = {found.case.id for found in breaks}
    more = "" if len(cases) == 1 else f" (and {len(cases) - 1} more {'case' if len(cases) == 2 else 'cases'})"
    return f"{first.check} must pass, and it fails in all {first.repeats} repeats of '{first.case.id}'{always}{more}."


def _breaks(candidate: Run, baseline: Run | None, suite: Suite, golden: GoldenSet) -> list[Break]:
    if baseline is not None and baseline.digest == candidate.digest:
        return []
    after, before = _scored(candidate), _scored(baseline) if baseline else {}
    found = []
    for case in golden.cases:
        repeats = after.get(case.id, [])
        for check in _checks(repeats):
            guarded = case.critical or check in suite.must_pass
            always_failed = all(not _passed(result, check) for result in repeats)
            always_passed = baseline is None or (
                case.id in before and all(_passed(result, check) for result in before[case.id])
            )
            if guarded and always_failed and always_passed:
                found.append(Break(case, check, len(repeats)))
    return found


def _checks(repeats: Sequence[Repeat]) -> list[str]:
    return [check.name for check in repeats[0].checks] if repeats else []


def _passed(result: Repeat, name: str) -> bool:
    return all(check.passed for check in result.checks if check.name == name)


def _pass_rate(candidate: Run, baseline: Run | None, suite: Suite, golden: GoldenSet, alpha: float) -> MetricVerdict:
    asked = _asked(suite, baseline)
    after = _items(candidate, golden)
    if baseline is None:
        rate = fmean(after.values())
        verdict, reason = _floor(rate, asked.floor)
        return MetricVerdict(RATE, None, rate, None, None, None, asked.floor, verdict, reason)
    before = _items(baseline, golden)
    pairs = [item for item in after if item in before]
    compared = compare([before[item] for item in pairs], [after[item] for item in pairs], alpha=alpha)
    same = baseline.digest == candidate.digest
    verdict, reason = _floor(compared.candidate, asked.floor)
    if verdict == "PASS" and asked.margin is not None and not same:
        verdict, reason = _margin(compared, asked.margin)
    return MetricVerdict(
        name=RATE,
        baseline=compared.baseline,
        candidate=compared.candidate,
        delta=compared.delta,
        interval=None if same else compared.interval,
        margin=asked.margin,
        floor=asked.floor,
        verdict=verdict,
        reason=reason,
    )


def _asked(suite: Suite, baseline: Run | None) -> Metric:
    """What the suite asks of the pass rate; with nothing to compare with, a floor it does not name is 100 %."""
    metric = suite.metrics.get(RATE, Metric(margin=DEFAULT_MARGIN))
    if baseline is not None:
        return metric
    return Metric(floor=DEFAULT_FLOOR if metric.floor is None else metric.floor)


def _items(run: Run, golden: GoldenSet) -> Mapping[str, float]:
    """Item → mean pass rate: over the repeats of a case, then over the cases of a cluster."""
    scored = _scored(run)
    rates: dict[str, list[float]] = defaultdict(list)
    for case in golden.cases:
        if case.id in scored:
            rates[case.item].append(fmean(result.passed for result in scored[case.id]))
    return {item: fmean(values) for item, values in rates.items()}


def _floor(rate: float, floor: float | None) -> tuple[Verdict, str]:
    if floor is None:
        return "PASS", f"The pass rate is {percent(rate)}."
    if rate < floor - TOLERANCE:
        return "FAIL", f"The pass rate is {percent(rate)}, below its floor of {percent(floor)}."
    return "PASS", f"The pass rate is {percent(rate)}, and its floor is {percent(floor)}."


def _margin(compared: Comparison, margin: float) -> tuple[Verdict, str]:
    low, high = compared.interval
    rates = f"{percent(compared.baseline)} → {percent(compared.candidate)}"
    between = f"the interval of the change is {_points(low)} to {_points(high)} points"
    allowed = f"the margin of {100 * margin:g} points"
    if compared.worse_than(margin):
        chance = f"{compared.fell} of {compared.n} worse, {compared.rose} better, p = {_p(compared):.2g}"
        return "FAIL", f"The pass rate fell ({rates}), surely by more than {allowed}: {between} ({chance})."
    if compared.within(margin):
        return "PASS", f"The pass rate ({rates}) surely did not fall by more than {allowed}: {between}."
    needed = pairs_needed(margin, alpha=compared.alpha)
    if needed is None or compared.n < needed:
        takes = "no number of cases" if needed is None else f"at least {needed} cases"
        return "INCONCLUSIVE", (
            f"{compared.n} {'case' if compared.n == 1 else 'cases'} can not show that the pass rate ({rates}) fell by "
            f"less than {allowed}, which takes {takes}; add cases, widen the margin, or gate on a floor."
        )
    return "INCONCLUSIVE", f"The pass rate ({rates}) may or may not have fallen by more than {allowed}: {between}."


def _p(compared: Comparison) -> float:
    return mcnemar(compared.fell, compared.rose, mid=True)


def percent(share: float) -> str:
    """`100%`, `66.7%`."""
    return f"{share:.1%}".replace(".0%", "%")


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _case(case: Case, candidate: Run, baseline: Run | None) -> CaseVerdict:
    after = [result for result in candidate.results if result.case_id == case.id]
    before = [result for result in baseline.results if result.case_id == case.id] if baseline else []
    scored_after = [result for result in after if result.error is None]
    scored_before = [result for result in before if result.error is None]
    failing = [result for result in scored_after if not result.passed]
    shown = next(iter(failing or scored_after or after), None)
    passed = sum(result.passed for result in scored_after)
    passed_before = sum(result.passed for result in scored_before)
    return CaseVerdict(
        id=case.id,
        baseline_passed=None if baseline is None else passed_before,
        candidate_passed=passed,
        repeats=len(scored_after),
        change=_change(passed, len(scored_after), passed_before, len(scored_before)),
        reason="" if shown is None else because(shown),
        output="" if shown is None else shown.output,
        baseline_output=scored_before[0].output if scored_before else None,
        baseline_repeats=None if baseline is None else len(scored_before),
    )


def because(result: Repeat) -> str:
    """Why a repeat did not pass, in one sentence; empty when it passed."""
    if result.error is not None:
        return f"error: {result.error}"
    failed = [check for check in result.checks if not check.passed]
    return "; ".join(_said(check) for check in failed)


def _said(check: CheckResult) -> str:
    return f"{check.name}: {check.reason}"


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
