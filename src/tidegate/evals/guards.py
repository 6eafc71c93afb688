"""
What must never break, whatever the averages say. These rules are about one case each, and need no statistics of many.

    must_pass   a check that fails in every answered repeat, at least two, of a case that the baseline always passes
    critical    every check is a must_pass; and the case must be seen to pass more often than not, 90 % sure, unless
                that can not be said of the baseline either: 3 of 3 or 5 of 6 do, 2 of 2 and 2 of 3 do not
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidegate.core.evaluation import Repeat, Run
from tidegate.core.stats import mostly
from tidegate.evals.golden import Case
from tidegate.evals.said import by_case, label

SURE = 0.9


@dataclass(frozen=True, slots=True)
class Break:
    """One case that a guard does not let pass; `sure` is False where more repeats could clear it."""

    case: Case
    sure: bool
    reason: str
    """A sentence without its full stop."""


def breaks(candidate: Run, baseline: Run | None, must_pass: frozenset[str], cases: Sequence[Case]) -> list[Break]:
    """Every break, the sure ones first. A version compared with itself breaks nothing."""
    if baseline is not None and baseline.digest == candidate.digest:
        return []
    after = by_case(candidate.results, answered=True)
    before = None if baseline is None else by_case(baseline.results, answered=True)
    always = "" if baseline is None else f", which {label(baseline)} always passes"
    found = []
    for case in cases:
        repeats, earlier = after.get(case.id, []), None if before is None else before.get(case.id, [])
        broken = next(_broken(case, repeats, earlier, must_pass, always), None)
        if broken is None and case.critical:
            broken = _uncertain(case, repeats, earlier)
        if broken is not None:
            found.append(broken)
    return sorted(found, key=lambda one: not one.sure)


def _broken(
    case: Case, repeats: Sequence[Repeat], earlier: Sequence[Repeat] | None, must_pass: frozenset[str], always: str
) -> Iterator[Break]:
    for check in [check.name for check in repeats[0].checks if check.weight > 0] if repeats else []:
        guarded = case.critical or check in must_pass
        always_failed = all(not _passed(result, check) for result in repeats)
        always_passed = earlier is None or (bool(earlier) and all(_passed(result, check) for result in earlier))
        if guarded and always_failed and always_passed:
            if len(repeats) >= 2:
                yield Break(
                    case, True, f"{check} must pass, and it fails in all {len(repeats)} repeats of '{case.id}'{always}"
                )
            else:
                reason = f"{check} must pass, and it failed in the only repeat of '{case.id}'{always}; "
                yield Break(case, False, f"{reason}with two repeats or more the gate could tell a slip from a break")


def _uncertain(case: Case, repeats: Sequence[Repeat], earlier: Sequence[Repeat] | None) -> Break | None:
    chance = _mostly(repeats)
    if chance >= SURE or (earlier is not None and _mostly(earlier) < SURE):
        return None
    passed = sum(result.passed for result in repeats)
    counts = f"'{case.id}' is critical, and it passed {passed} of {len(repeats)} repeats"
    if chance <= 1 - SURE:
        return Break(case, True, f"{counts}: it surely fails more often than not")
    return Break(case, False, f"{counts}, too few to be sure that it mostly passes; 3 of 3 would do, or 5 of 6")


def _mostly(repeats: Sequence[Repeat]) -> float:
    return mostly(sum(result.passed for result in repeats), len(repeats))


def _passed(result: Repeat, name: str) -> bool:
    return all(check.passed for check in result.checks if check.name == name)
