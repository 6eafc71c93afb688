"""Where a condition on a number stops to hold."""

from __future__ import annotations

from collections.abc import Callable


def bisect(holds: Callable[[float], bool], low: float, high: float, *, width: float = 1e-12) -> float:
    """The point below which `holds` is true and above which it is not, within `width`; it lies in [low, high]."""
    while high - low > width:
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2
