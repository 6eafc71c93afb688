"""What every report is made of: one prompt's run, with its verdict when a gate judged it, and where its cases stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tidegate.core.evaluation import CaseVerdict, GateReport, MetricVerdict, PerCall, Repeat, Run
from tidegate.evals.gate import because, percent
from tidegate.evals.readings import RATE

Outcome = Literal["passes", "fails", "unanswered"]


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, as seen from the project's folder."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt. Without `report` the run was only measured: nothing is said to have changed."""

    run: Run
    report: GateReport | None = None
    baseline: Run | None = None
    prompt_file: str = ""
    """prompt.md as seen from the project's folder."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Case id → its line in the golden set."""

    @property
    def cases(self) -> Sequence[CaseVerdict]:
        """Those that changed or do not pass first; otherwise in the golden set's order."""
        cases = measured(self.run) if self.report is None else self.report.cases
        return sorted(cases, key=_calm)


def measured(run: Run) -> list[CaseVerdict]:
    """The cases of a run that was compared with nothing."""
    found: dict[str, list[Repeat]] = {}
    for result in run.results:
        found.setdefault(result.case_id, []).append(result)
    cases = []
    for case_id, results in found.items():
        scored = [result for result in results if result.error is None]
        shown = next((result for result in scored if not result.passed), (scored or results)[0])
        cases.append(
            CaseVerdict(
                id=case_id,
                baseline_passed=None,
                candidate_passed=sum(result.passed for result in scored),
                repeats=len(scored),
                change="new",
                reason=because(shown),
                output=shown.output,
            )
        )
    return cases


def outcome(case: CaseVerdict) -> Outcome:
    """Of the candidate: passes in every repeat, fails in some, or has no answer at all."""
    if not case.repeats:
        return "unanswered"
    return "passes" if case.candidate_passed == case.repeats else "fails"


def _calm(case: CaseVerdict) -> int:
    good = outcome(case) == "passes"
    if case.change == "broken":
        return 0
    return 1 if not good else 2 if case.change not in ("same", "new") else 3


def figure(metric: MetricVerdict, value: float | None) -> str:
    """A metric's value: `66.7%` of a rate, `4.25` of a score; `–` when there is none."""
    if value is None:
        return "–"
    return percent(value) if metric.name == RATE else f"{value:.3g}"


def change(metric: MetricVerdict, value: float | None, *, unit: bool = False) -> str:
    """A difference of a metric: `+3.3` points of a rate, `+0.25` of a score; `–` when there is none."""
    if value is None:
        return "–"
    if metric.name == RATE:
        return f"{100 * value:+.1f}{' points' if unit else ''}".replace("-", "−")
    return f"{value:+.3g}".replace("-", "−")


def asked(metric: MetricVerdict) -> str:
    """What the suite asks of it: `≥ 90%, drop ≤ 2 points`."""
    parts = [f"≥ {figure(metric, metric.floor)}"] if metric.floor is not None else []
    if metric.margin is not None:
        points = metric.name == RATE
        parts.append(f"drop ≤ {100 * metric.margin:g} points" if points else f"drop ≤ {metric.margin:g}")
    return ", ".join(parts) or "–"


def means(before: PerCall | None, after: PerCall | None) -> list[tuple[str, str, str, float | None]]:
    """(name, before, after, relative change) of what one call takes, as far as it is known."""
    rows = []
    for name, kind, show in MEANS:
        old: float | None = getattr(before, kind, None)
        new: float | None = getattr(after, kind, None)
        if new is None:
            continue
        relative = (new - old) / old if old else None
        rows.append((name, "" if old is None else show(old), show(new), relative))
    return rows


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1_000 * value:.0f} ms"


MEANS: Sequence[tuple[str, str, Callable[[float], str]]] = (
    ("cost per call", "cost_usd", "${:.6f}".format),
    ("input tokens", "input_tokens", "{:,.0f}".format),
    ("output tokens", "output_tokens", "{:,.0f}".format),
    ("latency", "latency_s", _seconds),
)
"""Name, field of PerCall, and how it is written."""
