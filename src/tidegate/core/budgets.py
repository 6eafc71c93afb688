"""
Budgets: never more money than so much within an hour, a day or a month; integer nano-USD.

A call reserves the most that it may cost before it is made, and is charged what it did cost when it is over. So the sum
of what is spent and what is reserved never passes the cap, however many calls run at once.

Days and months are those of a time zone, and begin at its midnight whatever clocks were set to that day; hours are
UTC's. What was spent is kept by window, not reset: a clock that steps forwards and back finds each window as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from tidegate.core.instant import iso_utc

Period = Literal["hour", "day", "month"]
Charge = tuple[int, list[str]]
"""Nano-USD, and the budgets that pay them: `key alice day`."""
WARN_PERCENT = 80
KEPT_WINDOWS = 3
_S = 1_000_000_000
_HOUR = 3_600 * _S


def window(period: Period, now_ns: int, zone: ZoneInfo) -> tuple[int, int]:
    """The window that an instant is in: its first nanosecond since 1970, and the first one after it."""
    if period == "hour":
        start = now_ns // _HOUR * _HOUR
        return start, start + _HOUR
    midnight = datetime.fromtimestamp(now_ns // _S, zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period == "day":
        first, after = midnight, midnight + timedelta(days=1)
    else:
        first = midnight.replace(day=1)
        after = (first + timedelta(days=32)).replace(day=1)
    return _ns(first), _ns(after)


def _ns(local: datetime) -> int:
    return int(local.astimezone(UTC).timestamp()) * _S


class Budget:
    """The money of one scope within one kind of window. Not for use by more than one thread."""

    __slots__ = (
        "_other",
        "_zone",
        "cap",
        "end",
        "period",
        "reserved",
        "scope",
        "setting",
        "spent",
        "start",
        "unpriced",
        "warn_at",
        "warned",
    )

    def __init__(
        self,
        scope: str,
        period: Period,
        cap: int,
        zone: ZoneInfo,
        spent: Mapping[int, int] | None = None,
        *,
        setting: str,
    ) -> None:
        """
        Args:
            spent: by the start of a window, what an earlier process spent.
            setting: where its cap is given, for people: `budgets.each_key.day`.
        """
        self.scope = scope
        self.setting = setting
        self.period: Period = period
        self.cap = cap
        self.warn_at = -(-cap * WARN_PERCENT // 100)
        self.spent = 0
        """In the window `start` … `end`."""
        self.reserved = 0
        """By calls that are running, whenever they began."""
        self.unpriced = 0
        """Calls since the start of this process whose cost nobody knows."""
        self.warned = False
        self.start = self.end = 0
        self._zone = zone
        self._other = dict(spent or {})

    def turn(self, now_ns: int) -> None:
        """Goes to the window of this instant."""
        if self.start <= now_ns < self.end:
            return
        if self.spent:
            self._other[self.start] = self.spent
        self.start, self.end = window(self.period, now_ns, self._zone)
        self.spent = self._other.pop(self.start, 0)
        self.warned = False
        for old in sorted(self._other)[:-KEPT_WINDOWS]:
            del self._other[old]

    def charge(self, reserved: int, cost: int, now_ns: int) -> bool:
        """Ends a reservation; what it did cost is spent now. True once a window, as 80 % are reached."""
        if not self.start <= now_ns < self.end:
            self.turn(now_ns)
        self.reserved -= reserved
        self.spent += cost
        if self.spent < self.warn_at or self.warned:
            return False
        self.warned = True
        return True

    @property
    def windows(self) -> dict[int, int]:
        """What was spent, by the start of a window."""
        return {**self._other, self.start: self.spent} if self.spent else dict(self._other)

    def state(self) -> BudgetState:
        """As it stands."""
        left = max(0, self.cap - self.spent - self.reserved)
        return BudgetState(
            self.scope,
            self.period,
            cap_nano_usd=self.cap,
            spent_nano_usd=self.spent,
            reserved_nano_usd=self.reserved,
            left_nano_usd=left,
            resets_at=iso_utc(self.end),
            warning=self.spent >= self.warn_at,
            unpriced_calls=self.unpriced,
        )


class BudgetState(msgspec.Struct, frozen=True):
    """One budget at one moment."""

    scope: str
    """`total`, `key NAME`, `prompt NAME` or `model NAME`."""
    period: Period
    cap_nano_usd: int
    spent_nano_usd: int
    """In the window that runs now."""
    reserved_nano_usd: int
    """By calls that are running: the most that they may cost."""
    left_nano_usd: int
    resets_at: str
    warning: bool
    """80 % are spent."""
    unpriced_calls: int
    """Of this process: calls that it let through without knowing what they cost."""
