"""
Rates: never more than so much within any 60 seconds, whatever 60 seconds one looks at.

A bucket that refills (GCRA) would let twice its size through within one minute. So what was taken is kept, summed over
tenths of a second, until a minute has passed: at most 601 sums, and each is added and dropped once.
"""

from __future__ import annotations

from collections import deque

SPAN_S = 60
SLOTS_PER_S = 10
_SPAN = SPAN_S * SLOTS_PER_S

Part = list[int]
"""What was taken within one tenth of a second: [its number, how much]."""


def slot(monotonic_s: float) -> int:
    """The tenth of a second that a monotonic instant is in."""
    return int(monotonic_s * SLOTS_PER_S)


class Rate:
    """At most `limit` per minute. `now` is a slot, and never goes back."""

    __slots__ = ("_parts", "limit", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        """Within the last minute, and rounded up to it by less than a tenth of a second."""
        self._parts: deque[Part] = deque()

    def has(self, now: int, amount: int) -> bool:
        """Whether `amount` more may be taken now."""
        parts = self._parts
        oldest = now - _SPAN
        while parts and parts[0][0] < oldest:
            self.taken -= parts.popleft()[1]
        return self.taken + amount <= self.limit

    def take(self, now: int, amount: int) -> Part:
        """Takes it, whether there is room or not; the part is what `correct` needs."""
        self.taken += amount
        parts = self._parts
        if parts and parts[-1][0] == now:
            part = parts[-1]
            part[1] += amount
            return part
        part = [now, amount]
        parts.append(part)
        return part

    def correct(self, part: Part, now: int, by: int) -> None:
        """It was more than what was taken, or less; what is older than a minute is no matter unless it was more."""
        if part[0] >= now - _SPAN:
            part[1] += by
            self.taken += by
        elif by > 0:
            self.take(now, by)

    def wait_s(self, now: int, amount: int) -> float:
        """Seconds until `amount` may be taken, if nothing else is; 60 where that is never."""
        over = self.taken + amount - self.limit
        for at, taken in self._parts:
            over -= taken
            if over <= 0:
                return max(1, at + _SPAN + 1 - now) / SLOTS_PER_S
        return float(SPAN_S)
