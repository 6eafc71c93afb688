"""
The gate's statistics: a paired comparison of pass rates that stays honest with few cases.

One route for everything: repeats are averaged within a case first (pairing single repeats would count one case several
times: false alarms rise from 5 % to 12.5 %), then the cases are compared in pairs by Tango's score interval. Its two
counts, pairs lost and pairs won, may be fractions here: a case that goes from 3/3 to 2/3 has lost a third of a pair.
As |d| ≤ 1 implies d² ≤ |d|, the interval is exact in form for 0/1 cases and errs on the wide side for the others. It
never has zero width: three equal cases do not prove that a thousand would be equal. A continuity correction of half a
pair keeps its one-sided error near α down to ten cases, where the plain interval reaches 2α.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

ALPHA = 0.05
"""One-sided error of a verdict; intervals are two-sided at 1 − 2α = 90 %."""
ALPHA_OF_TWO_LOOKS = 0.0304
"""Per look, when a second look at twice the data may follow: together 5 % (Pocock, Biometrika 64 (1977) 191-199)."""
POWER = 0.8
BETWEEN_VARIANCE = 0.09
"""Planning value: how much the true effect of a change differs from case to case (sd 0.3)."""
WITHIN_VARIANCE = 0.05
"""Planning value: p(1 − p) of one repeat, averaged over sure and shaky cases."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus baseline over `n` pairs; `fell` and `rose` count the pairs that changed."""

    n: int
    baseline: float
    candidate: float
    delta: float
    interval: tuple[float, float]
    fell: int
    rose: int
    alpha: float

    def worse_than(self, margin: float) -> bool:
        """
        True when the drop is surely larger than `margin`.

        The sign test must agree: it is exact, so that with nothing changed this is false in at least 1 − α of all runs,
        however few the cases.
        """
        return self.interval[1] < -margin and mcnemar(self.fell, self.rose) <= self.alpha

    def within(self, margin: float) -> bool:
        """True when the drop is surely smaller than `margin`: non-inferiority."""
        return self.interval[0] > -margin


def compare(baseline: Sequence[float], candidate: Sequence[float], *, alpha: float = ALPHA) -> Comparison:
    """
    Compares two versions on the same cases.

    Args:
        baseline, candidate: float[n], n ≥ 1, each in [0, 1]: the mean of a case's repeats, in the same order of cases.
        alpha: one-sided; the interval is two-sided at 1 − 2·alpha.
    """
    differences = [after - before for before, after in zip(baseline, candidate, strict=True)]
    lost = -math.fsum(d for d in differences if d < 0)
    won = math.fsum(d for d in differences if d > 0)
    n = len(differences)
    return Comparison(
        n=n,
        baseline=fmean(baseline),
        candidate=fmean(candidate),
        delta=(won - lost) / n,
        interval=tango(lost, won, n, alpha=alpha),
        fell=sum(d < 0 for d in differences),
        rose=sum(d > 0 for d in differences),
        alpha=alpha,
    )


def tango(lost: float, won: float, n: int, *, alpha: float = ALPHA, correction: float = 0.5) -> tuple[float, float]:
    """
    Score interval of (won − lost) / n, a difference of paired proportions, two-sided at 1 − 2·alpha.

    Source: T. Tango, Statistics in Medicine 17 (1998) 891-908. The interval holds every Δ whose score statistic
    (won − lost − nΔ) / √(n(2q + Δ − Δ²)) lies within ±z, q being the maximum-likelihood P(lost) under Δ. The numerator
    is brought nearer to 0 by `correction` pairs; 0 gives the published interval.
    """
    z = NormalDist().inv_cdf(1 - alpha)

    def end(target: float) -> float:
        # The score falls from +∞ to −∞ over [−1, 1].
        low, high = -1.0, 1.0
        while high - low > 1e-11:
            middle = (low + high) / 2
            if _score(lost, won, n, middle, correction=correction) > target:
                low = middle
            else:
                high = middle
        return round((low + high) / 2, 10)

    return end(z), end(-z)


def _score(lost: float, won: float, n: int, delta: float, *, correction: float) -> float:
    linear = (2 * n - won + lost) * delta - won - lost
    product = -lost * delta * (1 - delta)
    q = (math.sqrt(max(linear * linear - 8 * n * product, 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + delta - delta * delta)
    raw = won - lost - n * delta
    distance = math.copysign(max(abs(raw) - correction, 0.0), raw)
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def mcnemar(fell: int, rose: int, *, mid: bool = False) -> float:
    """
    One-sided p value for "worse": how often a fair coin gives `fell` or more falls among the pairs that changed.

    `mid` counts the observed outcome half: less conservative, for reading, not for deciding (Fagerland, Lydersen,
    Laake, BMC Medical Research Methodology 13:91 (2013)). Without a changed pair it is 1 (mid: 0.5).
    """
    pairs = fell + rose
    tail = sum(math.comb(pairs, k) for k in range(fell, pairs + 1))
    return float((tail - (math.comb(pairs, fell) / 2 if mid else 0)) / 2**pairs)


def mde(n: int, repeats: int, *, between: float = BETWEEN_VARIANCE, within: float = WITHIN_VARIANCE) -> float:
    """
    Minimum detectable drop of the pass rate, in (0, 1], with n pairs of `repeats` each (α = 0.05 one-sided, power 0.8).

    (z₁₋α + z₁₋β) · √(ω²/n + 2σ²/(n·K)), Miller, arXiv:2411.00640 §5; repeats only shrink the second term. The two
    variances are planning values, chosen before the data are seen.
    """
    z = NormalDist().inv_cdf(1 - ALPHA) + NormalDist().inv_cdf(POWER)
    return min(1.0, z * math.sqrt((between + 2 * within / repeats) / n))


def pairs_needed(margin: float, *, alpha: float = ALPHA) -> int | None:
    """The least number of pairs with which equal results show a drop below `margin`; None for a margin of 0."""
    if margin <= 0:
        return None
    # With nothing lost or won the interval ends where n·m − ½ = z·√(n·m(1 − m)).
    spread = NormalDist().inv_cdf(1 - alpha) * math.sqrt(margin * (1 - margin))
    root = (spread + math.sqrt(spread * spread + 2 * margin)) / (2 * margin)
    return math.floor(root * root) + 1
