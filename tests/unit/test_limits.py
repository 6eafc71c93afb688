"""Rates never let through more in any minute, and windows of budgets are those of a time zone."""

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.budgets import Period, window
from tidegate.core.limits import SLOTS_PER_S, SPAN_S, Rate

# --- rates --------------------------------------------------------------------------------------------------------


@given(
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 900), st.integers(1, 20)), min_size=1, max_size=200),
)
def test_in_no_minute_passes_more_than_the_limit(limit: int, steps: list[tuple[int, int]]) -> None:
    rate, now, passed = Rate(limit), 0.0, []
    for tenths, amount in steps:
        now += tenths / 27
        if rate.has(now, amount):
            rate.take(now, amount)
            passed.append((now, amount))
    for began, _ in passed:
        assert sum(amount for at, amount in passed if began <= at < began + SPAN_S) <= limit


@given(limit=st.integers(1, 20), starts=st.lists(st.integers(0, 300), max_size=40), amount=st.integers(1, 20))
def test_whoever_waits_as_long_as_told_passes(limit: int, starts: list[int], amount: int) -> None:
    rate, now = Rate(limit), 0.0
    for start in starts:
        now = round(now + start / SLOTS_PER_S, 1)
        if rate.has(now, 1):
            rate.take(now, 1)
    if amount <= limit and not rate.has(now, amount):
        wait = rate.wait_s(now, amount)
        assert 0 < wait <= SPAN_S + 1 / SLOTS_PER_S
        assert rate.has(round(now + wait, 1), amount)


def test_what_was_estimated_is_put_right_as_long_as_it_counts() -> None:
    rate = Rate(100)
    part = rate.take(0, 90)
    rate.correct(part, 10, -80)
    assert rate.has(10, 90)
    assert not rate.has(10, 91)
    late = rate.take(10, 90)
    over = 10 + SPAN_S + 1 / SLOTS_PER_S
    rate.correct(late, over, -90)
    assert rate.has(over, 100)
    rate.correct(late, over, 70)  # it was more than thought: that counts from now on
    assert not rate.has(over, 31)
    assert rate.has(over + SPAN_S + 1 / SLOTS_PER_S, 100)


# --- windows ------------------------------------------------------------------------------------------------------


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("zone", "period", "at", "start", "end"),
    [
        ("UTC", "hour", "2026-03-01T12:34:56+00:00", "2026-03-01T12:00+00:00", "2026-03-01T13:00+00:00"),
        ("Europe/Berlin", "day", "2026-03-29T12:00+02:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        ("Europe/Berlin", "day", "2026-10-25T12:00+01:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
        ("Europe/Berlin", "month", "2026-03-31T23:59+02:00", "2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00"),
        ("UTC", "day", "2028-02-29T23:59:59+00:00", "2028-02-29T00:00+00:00", "2028-03-01T00:00+00:00"),
        ("UTC", "month", "2026-12-31T23:59:59+00:00", "2026-12-01T00:00+00:00", "2027-01-01T00:00+00:00"),
        ("Pacific/Kiritimati", "day", "2026-03-01T12:00+00:00", "2026-03-01T10:00+00:00", "2026-03-02T10:00+00:00"),
        ("Etc/GMT+12", "day", "2026-03-01T12:00+00:00", "2026-03-01T12:00+00:00", "2026-03-02T12:00+00:00"),
        # Midnight does not exist there on that day, and comes twice here. Long past, so that no law changes it.
        ("Africa/Cairo", "day", "2024-04-26T12:00+03:00", "2024-04-26T00:00+02:00", "2024-04-27T00:00+03:00"),
        ("America/Havana", "day", "2024-11-03T12:00-05:00", "2024-11-03T00:00-04:00", "2024-11-04T00:00-05:00"),
    ],
)
def test_windows_are_those_of_the_zone(zone: str, period: Period, at: str, start: str, end: str) -> None:
    assert window(period, ns(at), ZoneInfo(zone)) == (ns(start), ns(end))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Africa/Cairo"])
@pytest.mark.parametrize("period", ["hour", "day", "month"])
def test_windows_follow_each_other_without_gap_or_overlap(zone: str, period: Period) -> None:
    here, at, found = ZoneInfo(zone), ns("2026-01-01T00:00+00:00"), []
    while at < ns("2026-12-31T00:00+00:00"):
        found.append(window(period, at, here))
        at += 1_800 * 10**9 * (1 if period == "hour" else 5)
    assert all(start <= at < end for start, end in found for at in (start, end - 1))
    windows = sorted(set(found))
    assert all(before[1] == after[0] for before, after in pairwise(windows))
    assert all(window(period, at, here) == one for one in windows for at in (one[0], one[1] - 1))
