"""
The exact test that nothing changed: then every difference could as well have had the other sign.

It asks no distribution, and holds with three cases. For pass/fail pairs it is McNemar's exact test.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from statistics import NormalDist

MANY_SUMS = 4_096
"""Different sums to keep count of: pass rates and judges' scores stay far below, whatever the number of cases."""
MANY_VALUES = 2_000
ROUNDS = 20_000
SEED = 20_260_301
"""Any number; a fixed one, so that a stored run gets the same verdict each time."""


def sign_flip_p(differences: Sequence[float], *, mid: bool = False) -> float:
    """
    One-sided p value for "below 0": the share of all sign patterns whose sum is as low as the observed one, or lower.

    Args:
        differences: one per case, or the sums of clusters, which flip as a whole.
        mid: count the observed sum itself half. Less conservative, for reading, not for deciding (Fagerland, Lydersen,
            Laake, BMC Medical Research Methodology 13:91 (2013), for McNemar's test).

    Source: R. A. Fisher, The Design of Experiments (1935), §21. Exact while the sums can be counted; else ROUNDS seeded
    patterns, (1 + hits) / (1 + rounds) (Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology
    9:39 (2010)); above MANY_VALUES the normal limit with a continuity correction of the smallest difference.
    """
    sizes = [abs(value) for value in differences if abs(value) > 1e-9]
    observed = math.fsum(differences)
    exact = _exact(sizes, observed, mid=mid)
    if exact is not None:
        return exact
    if len(sizes) > MANY_VALUES:
        return NormalDist().cdf((observed + min(sizes)) / math.sqrt(math.fsum(size * size for size in sizes)))
    # A pattern's sum is 2 × (what stays positive) − all.
    least = (observed + math.fsum(sizes)) / 2 + 1e-9
    rng = random.Random(SEED)
    hits = sum(_chosen(sizes, rng) <= least for _ in range(ROUNDS))
    return (1 + hits) / (1 + ROUNDS)


def _exact(sizes: Sequence[float], observed: float, *, mid: bool) -> float | None:
    """By counting how probable each sum is, value after value; None when there are too many sums."""
    chances: dict[float, float] = {0.0: 1.0}
    for size in sorted(sizes):
        grown: dict[float, float] = defaultdict(float)
        for total, chance in chances.items():
            grown[round(total + size, 7)] += chance / 2
            grown[round(total - size, 7)] += chance / 2
        if len(grown) > MANY_SUMS:
            return None
        chances = grown
    low = math.fsum(chance for total, chance in chances.items() if total <= observed - 1e-5)
    level = math.fsum(chance for total, chance in chances.items() if abs(total - observed) < 1e-5)
    return low + (level / 2 if mid else level)


def _chosen(sizes: Sequence[float], rng: random.Random) -> float:
    bits = rng.getrandbits(len(sizes))
    return sum(size for index, size in enumerate(sizes) if bits >> index & 1)
