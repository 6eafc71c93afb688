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


class Rate:
    """At most `limit` per minute. `now` is in monotonic seconds, and never goes back."""

    __slots__ = ("_next", "_part", "_parts", "limit", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        """Within the last minute, and rounded up to it by less than a tenth of a second."""
        self._parts: deque[Part] = deque()
        self._part: Part
        """The last of them, which is current until `_next`."""
        self._next = 0.0

    def has(self, now: float, amount: int) -> bool:
        """Whether `amount` more may be taken now."""
        if now >= self._next:
            self._turn(now)
        return self.taken + amount <= self.limit

    def take(self, now: float, amount: int) -> Part:
        """Takes it, whether there is room or not; the part is what `correct` needs."""
        if now >= self._next:
            self._turn(now)
        part = self._part
        part[1] += amount
        self.taken += amount
        return part

    def correct(self, part: Part, now: float, by: int) -> None:
        """It was more than what was taken, or less; what is older than a minute is no matter unless it was more."""
        if now >= self._next:
            self._turn(now)
        if part[0] >= self._part[0] - _SPAN:
            part[1] += by
            self.taken += by
        elif by > 0:
            self.take(now, by)

    def wait_s(self, now: float, amount: int) -> float:
        """Seconds until `amount` may be taken, if nothing else is; 60 where that is never."""
        over = self.taken + amount - self.limit
        for at, taken in self._parts:
            over -= taken
            if over <= 0:
                return max(1, at + _SPAN + 1 - int(now * SLOTS_PER_S)) / SLOTS_PER_S
        return float(SPAN_S)

    def _turn(self, now: float) -> None:
        """Begins another tenth of a second; what was taken a minute ago does not count any more."""
        at, parts = int(now * SLOTS_PER_S), self._parts
        while parts and parts[0][0] < at - _SPAN:
            self.taken -= parts.popleft()[1]
        self._part, self._next = [at, 0], (at + 1) / SLOTS_PER_S
        parts.append(self._part)
