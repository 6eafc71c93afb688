"""
Few cases: what the mean of bounded values can still be, after values that may all have been the same.

Three equal answers do not prove that a thousand would be equal, though their standard deviation is 0. So one more
value is added, the worst that there can be, and all are weighted at random (Dirichlet, all parameters 1): a bound is
the quantile of that weighted mean. For values 0 and 1 it is Clopper and Pearson's; when n pairs are all equal it is the
rule of three, 1 − α^(1/n); with many values it is the normal bound.

Source: N. Gaffke, Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable,
Mathematical Methods of Statistics 14 (2005) 451-467; studied as a bound by Learned-Miller and Thomas, arXiv:1905.06208.
Its coverage is proved for two values; for others nobody has found an exception, and bench/gate_power.py looks for one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from operator import mul
from statistics import NormalDist

from tidegate.core.stats.robust import Clusters
from tidegate.core.stats.roots import above, crossing

MANY = 400
"""Different values, above which the weighted mean is as good as normal, and the exact integral slow."""


def bounded_p(clusters: Clusters, bound: float, lowest: float) -> float:
    """
    p value of "the mean is at most `bound`", for values that are at least `lowest`.

    A cluster is weighted as a whole. The added one is as large as the cluster in which an average case finds itself.
    """
    n = sum(map(len, clusters))
    size = sum(len(cluster) ** 2 for cluster in clusters) / n
    above = Counter(round(math.fsum(cluster) - len(cluster) * bound, 12) for cluster in clusters)
    above[size * (lowest - bound)] += 1
    return below_zero(above)


def bounded_interval(clusters: Clusters, scale: tuple[float, float], *, alpha: float) -> tuple[float, float]:
    """Of the mean of values on a scale, two-sided at 1 − 2·alpha; for 0 and 1 Clopper and Pearson's."""
    low, high = scale
    mean = math.fsum(map(math.fsum, clusters)) / sum(map(len, clusters))
    mirrored = [[-value for value in cluster] for cluster in clusters]
    fine = (high - low) * 1e-7
    return (
        crossing(lambda end: above(bounded_p(clusters, end, low), alpha), low, mean, width=fine),
        crossing(lambda end: -above(bounded_p(mirrored, -end, -high), alpha), mean, high, width=fine),
    )


def below_zero(terms: Mapping[float, int]) -> float:
    """
    P(Σ aᵢEᵢ ≤ 0) for independent standard exponential Eᵢ; `terms` counts how often each aᵢ occurs.

    J. P. Imhof, Biometrika 48 (1961) 419-426: ½ − ∫ sin θ(u) / (π u ρ(u)) du with θ = Σ atan(aᵢu) and
    ρ = Π √(1 + aᵢ²u²), as an exponential is half a χ² with two degrees of freedom. Over log u the trapezoidal rule
    converges geometrically, in steps that are finer the more terms there are.
    """
    terms = {a: count for a, count in terms.items() if a and count}
    if not terms or min(terms) >= 0 or max(terms) <= 0:
        return float(not any(a > 0 for a in terms))
    if len(terms) > MANY:
        mean = math.fsum(a * count for a, count in terms.items())
        return NormalDist().cdf(-mean / math.sqrt(math.fsum(a * a * count for a, count in terms.items())))
    step = min(0.1, 1 / math.sqrt(sum(terms.values())))
    log_u = math.log(1e-10 / math.fsum(abs(a) * count for a, count in terms.items()))
    integral = log_rho = 0.0
    values, counts = list(terms), list(terms.values())
    while log_rho < 28:
        u = math.exp(log_u)
        scaled = [a * u for a in values]
        log_rho = math.fsum(map(mul, counts, [math.log1p(x * x) for x in scaled])) / 2
        theta = math.fsum(map(mul, counts, map(math.atan, scaled)))
        integral += math.sin(theta) * math.exp(-log_rho)
        log_u += step
    return min(1.0, max(0.0, 0.5 - step * integral / math.pi))
