"""Several questions at once: what a p value is worth when others were asked beside it."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """
    Adjusted p values, in the given order: at most α of families of true nulls have one of α or below.

    For verdicts. Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(_ascending(p_values)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """
    Adjusted p values, in the given order: of those at α or below, a share of α is expected to be false.

    For tables of slices, which only point. Source: Benjamini and Hochberg, Journal of the Royal Statistical Society B
    57 (1995) 289-300; it holds under positive dependence too, such as cases with several tags (Benjamini and Yekutieli,
    Annals of Statistics 29 (2001) 1165-1188).
    """
    adjusted = [0.0] * len(p_values)
    lowest = 1.0
    order = _ascending(p_values)
    for rank in range(len(p_values), 0, -1):
        index = order[rank - 1]
        lowest = min(lowest, p_values[index] * len(p_values) / rank)
        adjusted[index] = lowest
    return adjusted


def _ascending(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=lambda index: p_values[index])
