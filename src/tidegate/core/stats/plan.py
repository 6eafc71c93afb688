"""Before the run: how sure a verdict has to be, which drop can be seen, how many cases a margin takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean, variance

ALPHA = 0.05
"""One-sided error of a verdict; intervals are two-sided at 1 − 2α = 90 %."""
ALPHA_OF_TWO_LOOKS = 0.0304
"""
Per look, when a second look at twice the repeats may follow: together 5 %.

Pocock, Biometrika 64 (1977) 191-199: the level of two looks whose statistics correlate by √½. When nothing changed,
cases differ by the luck of repeats alone, the first look holds half of all repeats, and that is just the correlation.
A true change that differs from case to case is in both looks and raises it, which makes the level safe. O'Brien and
Fleming's 0.0088 for the first look would leave most verdicts to the second, which costs as much again.
"""
POWER = 0.8
BETWEEN_VARIANCE = 0.09
"""Planning value: how much the true effect of a change differs from case to case (sd 0.3 of the scale)."""
WITHIN_VARIANCE = 0.05
"""Planning value: p(1 − p) of one repeat, averaged over sure and shaky cases."""


def mde(
    n: int,
    repeats: int,
    *,
    clusters: int | None = None,
    between: float = BETWEEN_VARIANCE,
    within: float = WITHIN_VARIANCE,
) -> float:
    """
    Minimum detectable drop, as a share of the scale in (0, 1], with n cases of `repeats` each (α one-sided, power 0.8).

    (z₁₋α + z₁₋β) · √(ω²/C + 2σ²/(n·K)), Miller, arXiv:2411.00640 §5; repeats only shrink the second term. A change is
    taken to move the cases of one of the C clusters alike. The variances are chosen before the candidate is seen:
    `between` (ω²) is a planning value, `within` (σ²) one too or the baseline's (`within_variance`).
    """
    z = NormalDist().inv_cdf(1 - ALPHA) + NormalDist().inv_cdf(POWER)
    return min(1.0, z * math.sqrt(between / (clusters or n) + 2 * within / (n * repeats)))


def within_variance(cases: Iterable[Sequence[float]]) -> float:
    """
    How much repeats of one case vary, as far as known: the mean over the cases that have two.

    The planning value stands for one case more, so that three steady cases do not promise a steady thousand.
    """
    return fmean([WITHIN_VARIANCE, *(variance(repeats) for repeats in cases if len(repeats) > 1)])


def pairs_needed(margin: float, *, alpha: float = ALPHA) -> int | None:
    """
    The least number of cases with which equal results show a drop below `margin`, a share of the scale.

    The rule of three, exactly: 1 − α^(1/n) < margin. None for a margin of 0, which no number of cases can show.
    """
    return math.floor(math.log(alpha) / math.log1p(-margin)) + 1 if 0 < margin < 1 else None if margin <= 0 else 1
