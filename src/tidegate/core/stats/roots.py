"""Where a condition on a number stops to hold."""

from __future__ import annotations

import math
from collections.abc import Callable

SMALLEST_P = 1e-9
"""Below it nothing is told apart: a search is after places where p is an alpha."""


def bisect(holds: Callable[[float], bool], low: float, high: float, *, width: float = 1e-12) -> float:
    """The point below which `holds` is true and above which it is not, within `width`; it lies in [low, high]."""
    while high - low > width:
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def crossing(rising: Callable[[float], float], low: float, high: float, *, width: float) -> float:
    """
    Where a rising function crosses 0, within `width`; the end of [low, high] that is nearer where it does not.

    One step more than `bisect` takes at most, a third of them where it is nearly straight: ITP, I. F. D. Oliveira and
    R. H. C. Takahashi, ACM Transactions on Mathematical Software 47 (2020) 1-24.
    """
    bottom, top = rising(low), rising(high)
    if bottom > 0 or top <= 0:
        return low if bottom > 0 else high
    room = width * 2.0 ** math.ceil(math.log2(max(1.0, (high - low) / width)))
    pull = 0.2 / (high - low) if high > low else 0.0
    while high - low > width:
        middle, slack = (low + high) / 2, room - (high - low) / 2
        straight = (top * low - bottom * high) / (top - bottom)
        toward = math.copysign(1.0, middle - straight)
        shift = min(pull * (high - low) ** 2, abs(middle - straight))
        guess = straight + toward * shift
        if abs(guess - middle) > slack:
            guess = middle - toward * slack
        found = rising(guess)
        if found > 0:
            high, top = guess, found
        else:
            low, bottom = guess, found
        room /= 2
    return (low + high) / 2


def above(p: float, alpha: float) -> float:
    """How far a p value is above `alpha`, below 0 where it is not: on the scale on which it is nearly straight."""
    return math.log(max(p, SMALLEST_P) / alpha)
