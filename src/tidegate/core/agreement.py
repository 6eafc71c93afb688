"""
How far a judge agrees with people, and what that means for the numbers it gives.

Pure functions over scores; each names its source. Agreement is corrected for chance: raw agreement is high wherever one
score is common.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its two-sided interval; None where the data can not say."""

    value: float | None
    low: float | None = None
    high: float | None = None


def weighted_kappa(judge: Sequence[float], human: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """
    Cohen's κ with quadratic weights: 1 − Σ(xᵢ − yᵢ)² / n ÷ ΣᵢΣⱼ(xᵢ − yⱼ)² / n². No value where all scores are the same.

    Cohen, Psychological Bulletin 70 (1968) 213-220. On scores that are no categories this is Lin's concordance
    coefficient (Biometrics 45 (1989) 255-268), on two categories the plain κ. The interval is the large-sample one of
    Fleiss, Cohen & Everitt (Psychological Bulletin 72 (1969) 323-327), here by influence functions; its lower end is
    never above 1 − 3/n, as n labels without a disagreement still leave room for one in n/3 (the rule of three).

    Args:
        judge, human: float[n], in the same order of answers.
    """
    n = len(judge)
    if n != len(human):
        raise ValueError(f"{n} scores of the judge, {len(human)} of people")
    if n < 2:
        return Estimate(None)
    mean_x, mean_y = fmean(judge), fmean(human)
    second_x, second_y = fmean(x * x for x in judge), fmean(y * y for y in human)
    apart = fmean((x - y) ** 2 for x, y in zip(judge, human, strict=True))
    by_chance = second_x - 2 * mean_x * mean_y + second_y
    if by_chance < 1e-12:
        return Estimate(None)
    value = 1 - apart / by_chance
    influences = []
    for x, y in zip(judge, human, strict=True):
        one = (x - y) ** 2 - apart
        chance = x * x - 2 * x * mean_y + second_y + y * y - 2 * y * mean_x + second_x - 2 * by_chance
        influences.append(apart / by_chance**2 * chance - one / by_chance)
    spread = _z(level) * math.sqrt(fmean(influence**2 for influence in influences) / n)
    return Estimate(value, max(-1.0, min(value - spread, 1 - 3 / n)), min(1.0, value + spread))


def krippendorff(units: Sequence[Sequence[float | None]]) -> float | None:
    """
    Krippendorff's α for ordinal scores, with missing ones left out; None where no two people scored the same answer, or
    all scores are the same.

    Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), §D with the ordinal metric
    δ²(c, k) = (n_c + … + n_k − (n_c + n_k)/2)².

    Args:
        units: one row an answer, one entry an observer.
    """
    rows = [[score for score in unit if score is not None] for unit in units]
    rows = [row for row in rows if len(row) >= 2]
    totals = Counter(score for row in rows for score in row)
    ranks = sorted(totals)
    n = sum(totals.values())
    if n < 2 or len(ranks) < 2:
        return None
    below = {score: sum(totals[other] for other in ranks if other < score) + totals[score] / 2 for score in ranks}

    def distance(one: float, other: float) -> float:
        return (below[one] - below[other]) ** 2

    observed = 0.0
    for row in rows:
        counts = Counter(row)
        pairs = sum(counts[c] * counts[k] * distance(c, k) for c in counts for k in counts)
        observed += pairs / (len(row) - 1)
    expected = sum(totals[c] * totals[k] * distance(c, k) for c in ranks for k in ranks) / (n - 1)
    return 1 - observed / expected


def wilson(hits: float, n: int, *, level: float = LEVEL) -> Estimate:
    """
    A share and Wilson's score interval, which holds with few observations and at 0 and 1.

    Wilson, Journal of the American Statistical Association 22 (1927) 209-212. No value with n = 0.
    """
    if n == 0:
        return Estimate(None)
    z = _z(level)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    spread = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, 0.0 if hits == 0 else centre - spread, 1.0 if hits == n else centre + spread)


def rogan_gladen(
    passed: tuple[int, int], true_passes: tuple[int, int], true_fails: tuple[int, int], *, level: float = LEVEL
) -> Estimate:
    """
    The pass rate that people would see, from the one a fallible judge sees: (p + q₀ − 1) / (q₀ + q₁ − 1), in [0, 1].

    Rogan & Gladen, American Journal of Epidemiology 107 (1978) 71-76; the variance adds the calibration's own, as Lee
    et al., arXiv:2511.21140 do for judges: [p(1−p)/n + (1−θ)²q₀(1−q₀)/m₀ + θ²q₁(1−q₁)/m₁] / (q₀ + q₁ − 1)². No value
    where the judge tells nothing apart (q₀ + q₁ ≤ 1).

    Args:
        passed: (how many, of how many) answers without labels the judge passes.
        true_passes: (how many, of how many) labelled answers that people pass the judge passes too: q₁.
        true_fails: likewise of those that people fail: q₀.
    """
    (hits, n), (true_pass, passes), (true_fail, fails) = passed, true_passes, true_fails
    if n == 0 or passes == 0 or fails == 0:
        return Estimate(None)
    p, q1, q0 = hits / n, true_pass / passes, true_fail / fails
    power = q0 + q1 - 1
    if power <= 0:
        return Estimate(None)
    value = min(1.0, max(0.0, (p + q0 - 1) / power))
    noise = p * (1 - p) / n + (1 - value) ** 2 * q0 * (1 - q0) / fails + value**2 * q1 * (1 - q1) / passes
    spread = _z(level) * math.sqrt(noise) / power
    return Estimate(value, max(0.0, value - spread), min(1.0, value + spread))


def prediction_powered(
    unlabelled: Sequence[float], judge: Sequence[float], human: Sequence[float], *, level: float = LEVEL
) -> Estimate:
    """
    The mean that people would give, from many scores of the judge and few of people.

    Angelopoulos et al., Science 382 (2023) 669-674, power-tuned as PPI++ (arXiv:2311.01453 §6): λ·mean f(unlabelled) +
    mean(y − λ·f), λ = cov(y, f) / ((1 + n/N)·var f) in [0, 1], with variance λ²var f/N + var(y − λf)/n. A judge that
    knows nothing gets λ = 0: people's own mean is left. No value with fewer than two of each.

    Args:
        unlabelled: float[N], the judge's scores where people gave none.
        judge, human: float[n], both on the labelled answers.
    """
    many, few = len(unlabelled), len(human)
    if many < 2 or few < 2:
        return Estimate(None)
    mean_f, mean_y = fmean(judge), fmean(human)
    shared = sum((f - mean_f) * (y - mean_y) for f, y in zip(judge, human, strict=True)) / (few - 1)
    spread_f = variance([*judge, *unlabelled])
    tuned = shared / ((1 + few / many) * spread_f) if spread_f > 0 else 0.0
    tuned = min(1.0, max(0.0, tuned))
    rest = [y - tuned * f for f, y in zip(judge, human, strict=True)]
    value = tuned * fmean(unlabelled) + fmean(rest)
    noise = tuned**2 * variance(unlabelled) / many + variance(rest) / few
    reach = _z(level) * math.sqrt(noise)
    return Estimate(value, value - reach, value + reach)


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
