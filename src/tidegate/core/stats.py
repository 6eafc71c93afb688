"""
The gate's statistics: a paired comparison of pass rates that stays honest with few cases.

One route for everything: repeats are averaged within a case first (pairing single repeats would count one case several
times: false alarms rise from 5 % to 12.5 %), then the cases are compared in pairs by Tango's score interval. Its two
counts, pairs lost and pairs won, may be fractions here: a case that goes from 3/3 to 2/3 has lost a third of a pair.
As |d| ≤ 1 implies d² ≤ |d|, the interval is exact in form for 0/1 cases and errs on the wide side for the others. It
never has zero width: three equal cases do not prove that a thousand would be equal.
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
    """Candidate minus baseline over `n` pairs. `lost` and `won` are sums of the falls and rises, each in pairs."""

    n: int
    baseline: float
    candidate: float
    delta: float
    interval: tuple[float, float]
    lost: float
    won: float

    def worse_than(self, margin: float) -> bool:
        """True when the drop is surely larger than `margin`."""
        return self.interval[1] < -margin

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
    interval = tango(lost, won, n, alpha=alpha)
    return Comparison(n, fmean(baseline), fmean(candidate), (won - lost) / n, interval, lost, won)


def tango(lost: float, won: float, n: int, *, alpha: float = ALPHA) -> tuple[float, float]:
    """
    Score interval of (won − lost) / n, a difference of paired proportions, two-sided at 1 − 2·alpha.

    Source: T. Tango, Statistics in Medicine 17 (1998) 891-908. The interval holds every Δ whose score statistic
    (won − lost − nΔ) / √(n(2q + Δ − Δ²)) lies within ±z, q being the maximum-likelihood P(lost) under Δ.
    """
    z = NormalDist().inv_cdf(1 - alpha)
    return _solve(lost, won, n, z), _solve(lost, won, n, -z)


def _solve(lost: float, won: float, n: int, target: float) -> float:
    """The Δ at which the score, which falls from +∞ to −∞ over [−1, 1], is `target`; by bisection."""
    low, high = -1.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if _score(lost, won, n, middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _score(lost: float, won: float, n: int, delta: float) -> float:
    linear = (2 * n - won + lost) * delta - won - lost
    product = -lost * delta * (1 - delta)
    q = (math.sqrt(max(linear * linear - 8 * n * product, 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + delta - delta * delta)
    distance = won - lost - n * delta
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def mcnemar_midp(lost: int, won: int) -> float:
    """
    One-sided mid-p value for "worse": P(more than `lost` of the discordant pairs) + half of P(exactly `lost`).

    Source: Fagerland, Lydersen, Laake, BMC Medical Research Methodology 13:91 (2013), who recommend it over the exact
    test. Without a discordant pair it is 0.5: nothing speaks for either side.
    """
    pairs = lost + won
    tail = sum(math.comb(pairs, k) for k in range(lost + 1, pairs + 1))
    return float((tail + math.comb(pairs, lost) / 2) / 2**pairs)


def mde(n: int, repeats: int, *, between: float = BETWEEN_VARIANCE, within: float = WITHIN_VARIANCE) -> float:
    """
    Minimum detectable drop of the pass rate, in (0, 1], with n pairs of `repeats` each (α = 0.05 one-sided, power 0.8).

    (z₁₋α + z₁₋β) · √(ω²/n + 2σ²/(n·K)), Miller, arXiv:2411.00640 §5; repeats only shrink the second term. The two
    variances are planning values, chosen before the data are seen.
    """
    z = NormalDist().inv_cdf(1 - ALPHA) + NormalDist().inv_cdf(POWER)
    return min(1.0, z * math.sqrt((between + 2 * within / repeats) / n))


def pairs_needed(margin: float) -> int | None:
    """The least number of pairs with which equal results can show a drop below `margin`; None for a margin of 0."""
    if margin <= 0:
        return None
    z2 = NormalDist().inv_cdf(1 - ALPHA) ** 2
    return math.floor(z2 * (1 - margin) / margin) + 1
