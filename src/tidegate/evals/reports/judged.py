"""What every report is made of: one prompt's run, with its verdict when a gate judged it, and where its cases stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tidegate.core.evaluation import CaseVerdict, GateReport, Repeat, Run
from tidegate.evals.said import because

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
                steps=shown.tool_calls,
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
