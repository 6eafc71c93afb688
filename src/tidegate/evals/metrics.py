"""
Gating metrics: what is asked of each, what two runs say, and whether that is a PASS, a FAIL or too little to tell.

    floor    the candidate's own figure, as it is
    margin   non-inferiority: FAIL when it is surely worse than the margin, PASS when it surely is not

A FAIL of one metric fails the gate, so the p values of "worse" are adjusted for the number of metrics (Holm). A PASS
takes all of them, each at α: nothing to adjust (Berger, Technometrics 24 (1982) 295-300).

Where answers are unknown, the question is asked three times: without them, and with all of them as bad and as good for
the candidate as they could be. A verdict that would not stand all three is no verdict.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from tidegate.core.evaluation import MetricVerdict, Run, Verdict
from tidegate.core.stats import Comparison, bounded_interval, compare, holm, pairs_needed
from tidegate.evals.golden import Case
from tidegate.evals.readings import RATE, Gauge, Readings
from tidegate.evals.said import SHARE, percent

DEFAULT_FLOOR = 1.0
TOLERANCE = 1e-9
"""A mean of exact shares may miss a floor by rounding."""


class Asked(Protocol):
    """At most `margin` worse than the baseline, and at least `floor`, in the metric's own unit."""

    @property
    def margin(self) -> float | None: ...
    @property
    def floor(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """One gating metric over two runs, or over one where there is nothing to compare with."""

    gauge: Gauge
    margin: float | None
    floor: float | None
    after: Readings
    before: Readings | None
    cases: Sequence[Case]
    same: bool
    """Both runs are of one version: nothing changed."""

    @property
    def missing(self) -> int:
        return self.after.missing + (self.before.missing if self.before else 0)

    def found(self, alpha: float, *, better: bool | None = None) -> Found | None:
        """
        What the known answers say; None without a case that both runs have a value for.

        Args:
            better: take every unknown answer as the best there can be for the candidate, or (False) as the worst.
        """
        low, high = self.gauge.scale
        fill = None if better is None else (high, low) if better else (low, high)
        after = self.after.means(instead=fill and fill[0])
        if self.before is None:
            ids = [case.id for case in self.cases if case.id in after]
            return Found(self, fmean(after[id_] for id_ in ids), None) if ids else None
        before = self.before.means(instead=fill and fill[1])
        pairs = [case for case in self.cases if case.id in after and case.id in before]
        if not pairs:
            return None
        compared = compare(
            [before[case.id] for case in pairs],
            [after[case.id] for case in pairs],
            clusters=[case.item for case in pairs],
            width=self.gauge.width,
            alpha=alpha,
        )
        return Found(self, compared.candidate, compared)


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured for one question."""

    question: Question
    candidate: float
    compared: Comparison | None

    @property
    def under_floor(self) -> bool:
        floor = self.question.floor
        return floor is not None and self.candidate < floor - TOLERANCE

    @property
    def p_worse(self) -> float:
        """Of "worse than the margin"; 1 where there is no margin to be worse than."""
        margin = self.question.margin
        return 1.0 if margin is None or self.compared is None or self.question.same else self.compared.p_worse(margin)

    def verdict(self, p_worse: float, alpha: float) -> Verdict:
        """Args: p_worse: adjusted for all metrics."""
        margin = self.question.margin
        if self.under_floor or p_worse <= alpha:
            return "FAIL"
        if self.compared is None and self.question.floor is None:
            return "INCONCLUSIVE"
        if margin is None or self.compared is None or self.question.same or self.compared.within(margin):
            return "PASS"
        return "INCONCLUSIVE"


def question(gauge: Gauge, asked: Asked, candidate: Run, baseline: Run | None, cases: Sequence[Case]) -> Question:
    """
    What is asked of one metric.

    A first version must reach its floor; one that the suite does not name is 100 % of a share, and a judge's own mark.
    """
    after = gauge.readings(candidate)
    judge = gauge.judge
    if baseline is None:
        floor = asked.floor
        if floor is None:
            floor = DEFAULT_FLOOR if judge is None else judge.passing
        return Question(gauge, None, floor, after, None, cases, same=False)
    before = gauge.readings(baseline)
    same = baseline.digest == candidate.digest
    return Question(gauge, asked.margin, asked.floor, after, before, cases, same=same)


def verdicts(questions: Sequence[Question], alpha: float) -> list[MetricVerdict]:
    """One verdict per question, of which each has a case to be answered by."""
    plain = _decide(questions, alpha, better=None)
    doubted = [plain]
    if any(question.missing for question in questions):
        doubted += [_decide(questions, alpha, better=better) for better in (False, True)]
    return [_metric(found, [look[index][1] for look in doubted], p, alpha) for index, (found, _, p) in enumerate(plain)]


def _decide(questions: Sequence[Question], alpha: float, *, better: bool | None) -> list[tuple[Found, Verdict, float]]:
    """Question by question: what was found, the verdict, and the adjusted p value of "worse"."""
    found = [one for question in questions if (one := question.found(alpha, better=better)) is not None]
    tested = [one.question.margin is not None and not one.question.same for one in found]
    adjusted = iter(holm([one.p_worse for one, is_tested in zip(found, tested, strict=True) if is_tested]))
    p_values = [next(adjusted) if is_tested else 1.0 for is_tested in tested]
    return [(one, one.verdict(p, alpha), p) for one, p in zip(found, p_values, strict=True)]


def _metric(found: Found, looks: Sequence[Verdict], p_worse: float, alpha: float) -> MetricVerdict:
    question, compared = found.question, found.compared
    verdict: Verdict = looks[0] if len(set(looks)) == 1 else "INCONCLUSIVE"
    reason = _Words(found, alpha).say(looks[0], p_worse)
    if verdict != looks[0]:
        answers = f"{question.missing} {'answer' if question.missing == 1 else 'answers'}"
        reason = f"{answers} without a value could turn the verdict on {_name(question.gauge)}; run it again."
    means = question.after.means()
    values = [[means[case.id] for case in group if case.id in means] for group in _clusters(question.cases)]
    return MetricVerdict(
        name=question.gauge.name,
        baseline=None if compared is None else compared.baseline,
        candidate=found.candidate,
        delta=None if compared is None else compared.delta,
        interval=None if compared is None or question.same else compared.interval,
        margin=question.margin,
        floor=question.floor,
        verdict=verdict,
        reason=reason,
        scale=question.gauge.scale,
        cases=sum(case.id in means for case in question.cases) if compared is None else compared.n,
        missing=question.missing,
        candidate_interval=bounded_interval([one for one in values if one], question.gauge.scale, alpha=alpha),
    )


def _clusters(cases: Sequence[Case]) -> list[list[Case]]:
    grouped: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        grouped[case.item].append(case)
    return list(grouped.values())


class _Words:
    """The sentence for a verdict, in the metric's own unit."""

    def __init__(self, found: Found, alpha: float) -> None:
        self.found = found
        self.alpha = alpha
        self.gauge = found.question.gauge
        self.name = _name(self.gauge)
        self.share = self.gauge.scale == SHARE

    def say(self, verdict: Verdict, p_worse: float) -> str:
        question, compared = self.found.question, self.found.compared
        floor = question.floor
        if floor is not None and (self.found.under_floor or compared is None or question.margin is None):
            return self._floor(floor)
        if compared is None:
            figure = f"{_upper(self.name)} is {self.value(self.found.candidate)}"
            return f"{figure}, and there is nothing to compare it with: give it a floor, or name a baseline."
        if question.margin is None or question.same:
            return f"{_upper(self.name)} is {self.value(self.found.candidate)}."
        return self._margin(compared, question.margin, verdict, p_worse)

    def _floor(self, floor: float) -> str:
        figure = f"{_upper(self.name)} is {self.value(self.found.candidate)}"
        if self.found.under_floor:
            return f"{figure}, below its floor of {self.value(floor)}."
        return f"{figure}, and its floor is {self.value(floor)}."

    def _margin(self, compared: Comparison, margin: float, verdict: Verdict, p_worse: float) -> str:
        low, high = compared.interval
        figures = f"{self.value(compared.baseline)} → {self.value(compared.candidate)}"
        between = f"the interval of the change is {self.change(low)} to {self.change(high)}{self.unit}"
        allowed = f"the margin of {self.size(margin)}"
        if verdict == "FAIL":
            chance = f"{compared.fell} of {compared.n} worse, {compared.rose} better, p = {compared.p_read:.2g}"
            return f"{_upper(self.name)} fell ({figures}), surely by more than {allowed}: {between} ({chance})."
        if verdict == "PASS":
            return f"{_upper(self.name)} ({figures}) surely did not fall by more than {allowed}: {between}."
        if compared.worse_than(margin):
            return (
                f"{_upper(self.name)} ({figures}) seems to have fallen by more than {allowed}, but one of several "
                f"metrics does so by chance too often to be sure (p = {p_worse:.2g} among them all)."
            )
        needed = pairs_needed(margin / self.gauge.width, alpha=self.alpha)
        units = len(compared.differences)
        if needed is None or units < needed:
            takes = "no number of cases" if needed is None else f"at least {needed} cases"
            clustered = "" if units == compared.n else f" in {units} {'cluster' if units == 1 else 'clusters'}"
            return (
                f"{compared.n} {'case' if compared.n == 1 else 'cases'}{clustered} can not show that {self.name} "
                f"({figures}) fell by less than {allowed}, which takes {takes}; add cases, widen the margin, or gate "
                "on a floor."
            )
        return f"{_upper(self.name)} ({figures}) may or may not have fallen by more than {allowed}: {between}."

    def value(self, value: float) -> str:
        return percent(value) if self.share else f"{value:.3g}"

    def change(self, value: float) -> str:
        return f"{100 * value:+.1f}" if self.share else f"{value:+.2f}"

    def size(self, margin: float) -> str:
        return f"{100 * margin:g} points" if self.share else f"{margin:g}"

    @property
    def unit(self) -> str:
        return " points" if self.share else ""


def _name(gauge: Gauge) -> str:
    if gauge.is_score:
        return f"the mean score of {gauge.name}"
    return "the pass rate" if gauge.name == RATE else f"the pass rate of {gauge.name}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
