"""Many cases: a mean, its cluster-robust standard error, and Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tidegate.core.stats.beta import student_cdf

Clusters = Sequence[Sequence[float]]
"""Values by cluster; a case without one is a cluster of its own. Every case weighs the same, whatever its cluster."""


def standard_error(clusters: Clusters) -> float:
    """
    Standard error of the mean of all values; infinite for a single cluster, from which nothing can be known.

    √(C/(C−1) · Σ_c (Σ_{i∈c} (x_i − x̄))²) / n: Miller, arXiv:2411.00640, appendix A, with the factor for finitely many
    clusters (CR1: Cameron and Miller, Journal of Human Resources 50 (2015) 317-372). Alone, cases give s/√n.
    """
    count = len(clusters)
    if count < 2:
        return math.inf
    n = sum(map(len, clusters))
    mean = math.fsum(map(math.fsum, clusters)) / n
    squares = math.fsum((math.fsum(cluster) - len(cluster) * mean) ** 2 for cluster in clusters)
    return math.sqrt(count / (count - 1) * squares) / n


def student_p(clusters: Clusters, bound: float) -> float:
    """p value of "the mean is at most `bound`", by Student's t with C − 1 degrees of freedom."""
    error = standard_error(clusters)
    if math.isinf(error):
        return 1.0
    n = sum(map(len, clusters))
    above = math.fsum(map(math.fsum, clusters)) / n - bound
    if error < 1e-12:
        return float(above <= 0)
    return student_cdf(-above / error, len(clusters) - 1)
