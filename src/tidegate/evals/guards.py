"""
What must never break, whatever the averages say. These rules are about one case each.

    must_pass   a check that fails in every answered repeat of a case that the baseline always passes
    critical    every check is a must_pass; and the case must be seen to pass more often than not, 90 % sure, unless
                that can not be said of the baseline either: 3 of 3 or 5 of 6 do, 2 of 2 and 2 of 3 do not

A check that is only mostly met does the former by luck, sooner or later, and with it the gate. So breaks are sure at
once only where luck would do as much in fewer than α of gates. Otherwise these cases are tried again by themselves, on
both sides, and the new repeats decide alone: nobody has picked those for how they came out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tidegate.core.evaluation import Recheck, Repeat, Run
from tidegate.core.stats import ALPHA, fewer, mostly
from tidegate.evals.golden import Case
from tidegate.evals.said import by_case, label

SURE = 0.9
RECHECK_REPEATS = 8
"""Of each side. After 8 that pass, 8 that fail are proof enough for 640 guards at once, and 4 for one."""
MOST_RECHECKED = 10
"""Cases; of more than that, the pass rate tells."""

Outcome = Literal["broken", "slip", "unclear"]


@dataclass(frozen=True, slots=True)
class Break:
    """One case that a guard does not let pass; `sure` is False where more repeats could clear it."""

    case: Case
    sure: bool
    reason: str
    """What was seen: a sentence without its full stop."""
    doubt: str = ""
    """What keeps that from being sure, to be said behind it."""
    recheck: str | None = None
    """The check that can be tried again, where that would tell a slip from a break."""


@dataclass(frozen=True, slots=True)
class _Tally:
    """How often something passes, of how many answered repeats."""

    passed: int
    of: int

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(self.passed + other.passed, self.of + other.of)


@dataclass(frozen=True, slots=True)
class _Guard:
    """One check of a case that must pass: how often it does, and how often it did before."""

    case: Case
    check: str
    now: _Tally
    then: _Tally | None

    @property
    def broke(self) -> bool:
        return self.now.passed == 0 and (self.then is None or self.then.passed == self.then.of > 0)

    @property
    def luck(self) -> float:
        """How often it breaks at most where nothing changed, whatever its chance to pass; with K repeats 4^-K."""
        passes, fails = 0 if self.then is None else self.then.of, self.now.of
        share = passes / (passes + fails)
        return float(share**passes * (1 - share) ** fails) if passes else 0.0


def breaks(
    candidate: Run,
    baseline: Run | None,
    must_pass: frozenset[str],
    cases: Sequence[Case],
    rechecks: Sequence[Recheck] = (),
) -> list[Break]:
    """Every break, the sure ones first. A version compared with itself breaks nothing."""
    if baseline is not None and baseline.digest == candidate.digest:
        return []
    after = by_case(candidate.results, answered=True)
    before = None if baseline is None else by_case(baseline.results, answered=True)
    rival = "" if baseline is None else label(baseline)
    guards = [
        _Guard(case, check, _tally(repeats, check), None if before is None else _tally(before.get(case.id, []), check))
        for case in cases
        if (repeats := after.get(case.id, []))
        for check in _checks(case, repeats, must_pass)
    ]
    known = {(one.case_id, one.check): one for one in rechecks}
    untried = [one for one in guards if one.broke and (one.case.id, one.check) not in known]
    sure = _luck(guards, untried) <= ALPHA
    found = [_untried(one, rival, sure=sure) for one in untried]
    for one in guards:
        recheck = known.get((one.case.id, one.check))
        if recheck is not None and one.then is not None:
            found += _tried(one, one.then, rival, recheck, outcome(recheck, len(rechecks)))
    told = {one.case.id for one in found}
    critical = [case for case in cases if case.critical and case.id not in told]
    for case in critical:
        now = _tally(after.get(case.id, []), None)
        then = None if before is None else _tally(before.get(case.id, []), None)
        again = any(one.case_id == case.id for one in rechecks)
        found += _uncertain(case, now, then, alpha=0.0 if again else ALPHA / len(critical))
    return sorted(found, key=lambda one: not one.sure)


def outcome(recheck: Recheck, count: int) -> Outcome:
    """What a recheck says, as one of `count`: together they find a break that is none in at most α of gates."""
    by_luck = fewer(recheck.candidate_passed, recheck.repeats, recheck.baseline_passed, recheck.baseline_repeats)
    if by_luck <= ALPHA / count:
        return "broken"
    slip = recheck.candidate_passed >= RECHECK_REPEATS - 1 or recheck.baseline_passed < recheck.baseline_repeats
    return "slip" if slip else "unclear"


def rechecked(suspected: Sequence[Break], candidate: Run, baseline: Run) -> tuple[Recheck, ...]:
    """What came of the breaks that were tried again; the runs are of those new repeats alone."""
    after, before = (by_case(run.results, answered=True) for run in (candidate, baseline))
    made = []
    for case_id, check in ((one.case.id, one.recheck) for one in suspected if one.recheck is not None):
        now, then = (_tally(side.get(case_id, []), check) for side in (after, before))
        made.append(Recheck(case_id, check, now.passed, now.of, then.passed, then.of))
    return tuple(made)


def _checks(case: Case, repeats: Sequence[Repeat], must_pass: frozenset[str]) -> list[str]:
    """The checks of a case that must pass."""
    return [one.name for one in repeats[0].checks if one.weight > 0 and (case.critical or one.name in must_pass)]


def _luck(guards: Sequence[_Guard], broken: Sequence[_Guard]) -> float:
    """
    How often luck breaks as many guards at once, at most.

    Of independent events, b or more happen in at most μ^b / b! of all times, where μ of them are expected: that bounds
    the mean number of subsets of b. Cases of one cluster, and checks of one case, are one event.
    """
    expected, count = sum(one.luck for one in guards), len({one.case.item for one in broken})
    return float(expected**count / math.factorial(count))


def _untried(guard: _Guard, rival: str, *, sure: bool) -> Break:
    why = _why(guard, guard.now, guard.then, rival)
    if sure and guard.now.of > 1:
        return Break(guard.case, True, why)
    if guard.then is None:
        return Break(guard.case, False, why, "; with two repeats or more the gate could tell a slip from a break")
    return Break(guard.case, False, why, "; trying it again would tell a slip from a break", guard.check)


def _tried(guard: _Guard, then: _Tally, rival: str, recheck: Recheck, said: Outcome) -> Iterator[Break]:
    """The reason counts all repeats, old and new."""
    now = guard.now + _Tally(recheck.candidate_passed, recheck.repeats)
    why = _why(guard, now, then + _Tally(recheck.baseline_passed, recheck.baseline_repeats), rival)
    if said == "broken":
        yield Break(guard.case, True, why)
    elif said == "unclear":
        yield Break(guard.case, False, why, ": too often for a slip, and too seldom to be sure that it broke")


def _why(guard: _Guard, now: _Tally, then: _Tally | None, rival: str) -> str:
    times = f"{now.of - now.passed} of {now.of}" if now.passed else f"all {now.of}"
    where = "the only repeat" if now.of == 1 else f"{times} repeats"
    reason = f"{guard.check} must pass, and it fails in {where} of '{guard.case.id}'"
    if then is None:
        return reason
    often = "always passes" if then.passed == then.of else f"passes in {then.passed} of {then.of}"
    return f"{reason}, which {rival} {often}"


def _uncertain(case: Case, now: _Tally, then: _Tally | None, *, alpha: float) -> Iterator[Break]:
    chance = mostly(now.passed, now.of)
    if chance >= SURE or (then is not None and mostly(then.passed, then.of) < SURE):
        return
    counts = f"'{case.id}' is critical, and it passed {now.passed} of {now.of} repeats"
    if chance <= 1 - SURE and (then is None or fewer(now.passed, now.of, then.passed, then.of) <= alpha):
        yield Break(case, True, f"{counts}: it surely fails more often than not")
    else:
        yield Break(case, False, counts, ", too few to be sure that it mostly passes; 3 of 3 would do, or 5 of 6")


def _tally(results: Sequence[Repeat], check: str | None) -> _Tally:
    """Of one check, or of whole repeats."""
    return _Tally(sum(_passed(result, check) for result in results), len(results))


def _passed(result: Repeat, check: str | None) -> bool:
    if check is None:
        return result.passed
    return all(one.passed for one in result.checks if one.name == check)
