"""
What one metric reads off a run: a value per answer, on a scale, and the answers of which it knows nothing.

    pass-rate       1 for an answer that passed, else 0
    a check's name  the same, for that check alone (a type means all of that type)
    a judge's name  its score, on its own scale

An error is unknown to every metric. A judge without a verdict is unknown to its own metric, and to the pass rate where
it decides whether an answer passes. Where a judge has nothing to judge there is nothing to know, and an answer that
neither a check nor a judge decides about is no pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from tidegate.core.evaluation import Repeat, Run
from tidegate.evals.said import by_case

RATE = "pass-rate"


class Judge(Protocol):
    """What the gate needs to know of a suite's judge (evals/judges/spec.py)."""

    @property
    def name(self) -> str: ...
    @property
    def scale(self) -> tuple[float, float]: ...
    @property
    def passing(self) -> float | None:
        """From which score on an answer passes; None: it only scores."""

    @property
    def relative(self) -> bool:
        """Whether it compares with the baseline's answer, and has nothing to say without one."""

    @property
    def gates(self) -> str | None:
        """The sentence that says why it may not gate; None when it may."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric: its name, its scale, and how it reads an answer."""

    name: str
    scale: tuple[float, float] = (0.0, 1.0)
    judge: Judge | None = None
    deciding: frozenset[str] = frozenset()
    """Judges that decide whether an answer passes."""

    @property
    def width(self) -> float:
        return self.scale[1] - self.scale[0]

    @property
    def is_score(self) -> bool:
        return self.judge is not None

    def read(self, result: Repeat) -> tuple[float | None, ...]:
        """The answer's value, `(None,)` when it is not known, `()` where the metric does not apply."""
        if result.error is not None:
            return (None,)
        if self.judge is not None:
            return _score(result, self.name)
        if self.name != RATE:
            named = [check.passed for check in result.checks if self.name in (check.name, type_of(check.name))]
            return (float(all(named)),) if named else ()
        said = [_score(result, name) for name in self.deciding]
        if result.passed and (None,) in said:
            return (None,)
        decided = any(said) or any(check.weight > 0 for check in result.checks)
        return (float(result.passed),) if decided or not result.passed else ()

    def readings(self, run: Run) -> Readings:
        """Of every case that the metric applies to."""
        found = {
            case_id: tuple(value for result in results for value in self.read(result))
            for case_id, results in by_case(run.results).items()
        }
        return Readings({case_id: values for case_id, values in found.items() if values})


@dataclass(frozen=True, slots=True)
class Readings:
    """One metric of one run: case id → a value per answer, None where it is not known."""

    cases: Mapping[str, Sequence[float | None]]

    @property
    def missing(self) -> int:
        return sum(value is None for values in self.cases.values() for value in values)

    @property
    def total(self) -> int:
        return sum(map(len, self.cases.values()))

    def means(self, *, instead: float | None = None) -> dict[str, float]:
        """Case id → mean of its repeats; unknown ones are left out, or taken to be `instead`."""
        known = {
            case_id: [instead if value is None else value for value in values] for case_id, values in self.cases.items()
        }
        filled = {case_id: [value for value in values if value is not None] for case_id, values in known.items()}
        return {case_id: fmean(values) for case_id, values in filled.items() if values}


def gauge(name: str, judges: Collection[Judge]) -> Gauge:
    """A judge's, by its name; else the pass rate's or a check's."""
    for judge in judges:
        if judge.name == name:
            return Gauge(name, judge.scale, judge)
    return Gauge(name, deciding=frozenset(judge.name for judge in judges if judge.passing is not None))


def type_of(check: str) -> str:
    """`contains` of `contains#2`."""
    return check.partition("#")[0]


def _score(result: Repeat, name: str) -> tuple[float | None, ...]:
    for score in result.scores:
        if score.name == name:
            return (score.value,) if score.applicable else ()
    return (None,)
