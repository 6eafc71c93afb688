"""The incomplete beta function, and the distributions that are made of it."""

from __future__ import annotations

import math


def beta_cdf(x: float, a: float, b: float) -> float:
    """P(X ≤ x) of a Beta(a, b) variable. Continued fraction: DLMF 8.17.22, evaluated by Lentz's method."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    tiny = 1e-300
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d = 1 / _away(1 + step * d, tiny)
            c = _away(1 + step / c, tiny)
            fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return math.exp(log_front) * fraction / a


def student_cdf(t: float, df: float) -> float:
    """P(T ≤ t) of Student's t with `df` > 0 degrees of freedom. Abramowitz and Stegun 26.7.1."""
    # The smaller of the two arguments keeps its digits.
    inside = t * t < df
    outside = 1 - beta_cdf(t * t / (df + t * t), 0.5, df / 2) if inside else beta_cdf(df / (df + t * t), df / 2, 0.5)
    return outside / 2 if t < 0 else 1 - outside / 2


def _away(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
