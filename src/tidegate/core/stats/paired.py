"""
Candidate minus baseline, case by case.

Repeats are averaged within a case before this (pairing single repeats would count one case several times: false alarms
rise from 5 % to 12.5 %). The mean difference is bounded by Tango's score for passes and fails of one answer a side that
stand alone; else by the cluster-robust t. Both want many cases, so each verdict has a second opinion:

    "worse"     is about what was seen. It must also stand the sign-flip test, which is exact: with nothing changed it
                is false in at least 1 − α of all runs, however few the cases and whatever they are.
    "within"    is about what was not seen as well. It must also stand one more case that is as bad as can be: the
                bounded mean.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist, fmean

from tidegate.core.stats.bounded import bounded_p
from tidegate.core.stats.plan import ALPHA
from tidegate.core.stats.robust import Clusters, standard_error, student_p
from tidegate.core.stats.roots import above, crossing
from tidegate.core.stats.sign_flip import sign_flip_p
from tidegate.core.stats.tango import tango_score


@dataclass(frozen=True)
class Comparison:
    """What n pairs say. Differences and margins are in the metric's own unit; its scale is `width` wide."""

    baseline: float
    candidate: float
    differences: Clusters
    width: float
    alpha: float

    @cached_property
    def n(self) -> int:
        return sum(map(len, self.differences))

    @cached_property
    def delta(self) -> float:
        return math.fsum(map(math.fsum, self.differences)) / self.n

    @cached_property
    def fell(self) -> int:
        """Cases that got worse."""
        return sum(value < 0 for cluster in self.differences for value in cluster)

    @cached_property
    def rose(self) -> int:
        return sum(value > 0 for cluster in self.differences for value in cluster)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Of the mean difference, two-sided at 1 − 2·alpha. It never has zero width."""
        fine = self.width * 1e-7
        low = crossing(lambda end: above(self._above(end), self.alpha), -self.width, self.delta, width=fine)
        high = crossing(lambda end: -above(self._below(end), self.alpha), self.delta, self.width, width=fine)
        return low, high

    @cached_property
    def p_changed(self) -> float:
        """p value of "nothing changed", against "worse": exact."""
        return sign_flip_p([math.fsum(cluster) for cluster in self.differences])

    @cached_property
    def p_read(self) -> float:
        """The same as a mid-p: for people, not for verdicts."""
        return sign_flip_p([math.fsum(cluster) for cluster in self.differences], mid=True)

    def p_worse(self, margin: float) -> float:
        """p value of "not worse by more than `margin`"."""
        return max(self._below(-margin), self.p_changed)

    def p_within(self, margin: float) -> float:
        """p value of "worse by `margin` at least": small means non-inferior."""
        return self._above(-margin)

    def worse_than(self, margin: float) -> bool:
        """True when the drop is surely larger than `margin`."""
        return self.p_changed <= self.alpha and self._below(-margin) <= self.alpha

    def within(self, margin: float) -> bool:
        """True when the drop is surely smaller than `margin`: non-inferiority."""
        return self.p_within(margin) <= self.alpha

    def _above(self, bound: float) -> float:
        """p value of "the mean difference is at most `bound`"."""
        return max(_many(self.differences, bound, self.width), bounded_p(self.differences, bound, -self.width))

    def _below(self, bound: float) -> float:
        """p value of "the mean difference is at least `bound`"."""
        mirrored = [[-value for value in cluster] for cluster in self.differences]
        if self.fell + self.rose == 0 or standard_error(mirrored) < 1e-12:
            return bounded_p(mirrored, -bound, -self.width)  # no spread: nothing to tell an error by
        return _many(mirrored, -bound, self.width)


def compare(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    width: float = 1.0,
    alpha: float = ALPHA,
) -> Comparison:
    """
    Compares two versions on the same cases.

    Args:
        baseline, candidate: float[n], n ≥ 1: the mean of a case's repeats, in the same order of cases.
        clusters: n names; cases of one name vary together. Without it every case stands alone.
        width: of the scale, so that no difference is larger: 1 for rates, 4 for scores from 1 to 5.
        alpha: one-sided.
    """
    grouped: dict[Hashable, list[float]] = {}
    for index, (before, after) in enumerate(zip(baseline, candidate, strict=True)):
        grouped.setdefault(index if clusters is None else clusters[index], []).append(after - before)
    return Comparison(fmean(baseline), fmean(candidate), tuple(map(tuple, grouped.values())), width, alpha)


def _many(clusters: Clusters, bound: float, width: float) -> float:
    """p value of "the mean is at most `bound`", as it is with many cases."""
    if all(len(cluster) == 1 and abs(cluster[0]) in (0, width) for cluster in clusters):
        won, lost = (sum(cluster[0] == sign * width for cluster in clusters) for sign in (1, -1))
        return NormalDist().cdf(-tango_score(lost, won, len(clusters), bound / width))
    return student_p(clusters, bound)
