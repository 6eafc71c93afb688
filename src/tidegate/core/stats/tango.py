"""Pass/fail pairs, one answer a side: Tango's score interval."""

from __future__ import annotations

import math
from statistics import NormalDist

from tidegate.core.stats.roots import bisect


def tango(lost: float, won: float, n: int, *, alpha: float) -> tuple[float, float]:
    """
    Score interval of (won − lost) / n, a difference of paired proportions, two-sided at 1 − 2·alpha.

    Source: T. Tango, Statistics in Medicine 17 (1998) 891-908. It holds every Δ whose score lies within ±z.
    """
    z = NormalDist().inv_cdf(1 - alpha)
    low = bisect(lambda delta: tango_score(lost, won, n, delta) > z, -1.0, 1.0)
    return low, bisect(lambda delta: tango_score(lost, won, n, delta) > -z, -1.0, 1.0)


def tango_score(lost: float, won: float, n: int, delta: float) -> float:
    """
    How many standard errors the observed (won − lost) / n lies above `delta`; falls from +∞ to −∞ over [−1, 1].

    (won − lost − nΔ) / √(n(2q + Δ − Δ²)), q being the maximum-likelihood P(lost) under Δ (Tango 1998, equation 5).
    """
    linear = (2 * n - won + lost) * delta - won - lost
    product = -lost * delta * (1 - delta)
    q = (math.sqrt(max(linear * linear - 8 * n * product, 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + delta - delta * delta)
    distance = won - lost - n * delta
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)
