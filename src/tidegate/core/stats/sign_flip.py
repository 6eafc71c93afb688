"""
The exact test that nothing changed: then every difference could as well have had the other sign.

It asks no distribution, and holds with three cases. For pass/fail pairs it is McNemar's exact test.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist

WORK = 5_000_000
"""Steps of counting that are worth an exact answer: 0.3 s."""
FINEST = 240
"""Means of repeats, and sums of them, are whole numbers of some 1/1 … 1/240."""
FEW = 12
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

    Source: R. A. Fisher, The Design of Experiments (1935), §21. Exact for means of repeats and for few cases; else of
    ROUNDS seeded patterns, (1 + hits) / (1 + rounds) (Phipson and Smyth, Statistical Applications in Genetics and
    Molecular Biology 9:39 (2010)); above MANY_VALUES the normal limit, continuity-corrected by the smallest difference.
    """
    observed = math.fsum(differences)
    unit = _unit(differences)
    if unit is not None:
        return _counted([round(value * unit) for value in differences], mid=mid)
    sizes = [abs(value) for value in differences if abs(value) > 1e-9]
    if len(sizes) > MANY_VALUES:
        return NormalDist().cdf((observed + min(sizes)) / math.sqrt(math.fsum(size * size for size in sizes)))
    # A pattern's sum is 2 × (what stays positive) − all.
    least = (observed + math.fsum(sizes)) / 2
    patterns, rng = 2 ** len(sizes), random.Random(SEED)
    exact = len(sizes) <= FEW
    chosen = range(patterns) if exact else (rng.getrandbits(len(sizes)) for _ in range(ROUNDS))
    sums = [_chosen(sizes, bits) - least for bits in chosen]
    hits = sum(value < 1e-9 for value in sums) - (sum(abs(value) < 1e-9 for value in sums) / 2 if mid else 0)
    return hits / patterns if exact else (1 + hits) / (1 + ROUNDS)


def _unit(differences: Sequence[float]) -> int | None:
    """The least q for which all differences are whole numbers of 1/q, if counting them is not too much work."""
    for q in range(1, FINEST + 1):
        if all(abs(value * q - round(value * q)) < 1e-6 for value in differences):
            changed = [abs(value) for value in differences if value]
            return q if len(changed) * math.fsum(changed) * q <= WORK else None
    return None


def _counted(values: Sequence[int], *, mid: bool) -> float:
    """Exact: how probable each sum of what stays positive is, value after value."""
    chances = [1.0]
    for size in sorted(abs(value) for value in values if value):
        zeros = [0.0] * size
        chances = [(stays + flips) / 2 for stays, flips in zip(chances + zeros, zeros + chances, strict=True)]
    least = (sum(values) + sum(map(abs, values))) // 2
    return math.fsum(chances[:least]) + (chances[least] / 2 if mid else chances[least])


def _chosen(sizes: Sequence[float], bits: int) -> float:
    return sum(size for index, size in enumerate(sizes) if bits >> index & 1)
