"""What the judges of a run said, in one line each: how many answers they scored, how high, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tidegate.core.agreement import krippendorff
from tidegate.core.evaluation import Run, Score


@dataclass(frozen=True, slots=True)
class Tally:
    """One judge over all answers of a run."""

    name: str
    mean: float | None
    """Of the scored answers."""
    scored: int
    unscored: int
    unscored_because: str
    """The first reason; empty where there is none."""
    not_applicable: int
    passed: int | None
    """None where the judge decides nothing."""
    alike: float | None
    """Share of answers on which all its calls (jurors, votes, both orders) said the same; None with one call each."""
    alpha: float | None
    """Krippendorff's, among these calls."""
    cost_nano_usd: int | None


def tallies(run: Run) -> list[Tally]:
    """One for each judge, in the suite's order."""
    scores: dict[str, list[Score]] = {}
    for result in run.results:
        for score in result.scores:
            scores.setdefault(score.name, []).append(score)
    return [_tally(name, found) for name, found in scores.items()]


def _tally(name: str, scores: Sequence[Score]) -> Tally:
    values = [score.value for score in scores if score.value is not None]
    verdicts = [score.passed for score in scores if score.passed is not None]
    several = [score.parts for score in scores if sum(part is not None for part in score.parts) > 1]
    costs = [score.cost_nano_usd for score in scores]
    return Tally(
        name=name,
        mean=fmean(values) if values else None,
        scored=len(values),
        unscored=sum(score.value is None and score.applicable for score in scores),
        unscored_because=next((score.reason for score in scores if score.value is None and score.applicable), ""),
        not_applicable=sum(not score.applicable for score in scores),
        passed=sum(verdicts) if verdicts else None,
        alike=fmean(len(set(parts) - {None}) == 1 for parts in several) if several else None,
        alpha=krippendorff(several),
        cost_nano_usd=None if None in costs else sum(cost or 0 for cost in costs),
    )
