"""Numbers, money and time as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tidegate.console import format as human

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (0, "0"),
        (9_999, "9,999"),
        (12_345, "12.3k"),
        (999_950, "1000k"),
        (4_560_000, "4.56M"),
        (7e9, "7.00B"),
    ],
)
def test_counts_stay_short(value: float | None, said: str) -> None:
    assert human.count(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0.0004, "0.4 ms"),
        (0.312, "312 ms"),
        (0.9996, "1.00 s"),
        (1.24, "1.24 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
    ],
)
def test_durations_have_a_unit_that_fits(seconds: float | None, said: str) -> None:
    assert human.duration(seconds) == said


@pytest.mark.parametrize(
    ("nano", "said"),
    [
        (None, "–"),
        (0, "$0"),
        (1, "$0.000000001"),
        (58_600, "$0.0000586"),
        (42_100_000, "$0.0421"),
        (12_300_000_000, "$12.30"),
    ],
)
def test_money_keeps_three_digits_however_small(nano: float | None, said: str) -> None:
    assert human.usd(nano) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "–"),
        (1.0, "100 %"),
        (0.0, "0 %"),
        (0.984, "98.4 %"),
        (0.9997, "99.97 %"),
        (0.9999999, "> 99.999 %"),
        (0.0000001, "< 0.001 %"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float | None, said: str) -> None:
    assert human.percent(share) == said


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (112, 100, "+12 %"),
        (90, 100, "−10 %"),
        (420, 100, "× 4.2"),
        (100, 100.1, "± 0 %"),
        (1, 0, None),
        (1, None, None),
    ],
)
def test_a_change_needs_something_to_compare_with(now: float, before: float | None, said: str | None) -> None:
    assert human.change(now, before) == said


def test_rates_change_in_points() -> None:
    assert human.points(0.918, 1.0) == "−8.2 pts"
    assert human.points(None, 1.0) is None


def test_times_are_local_and_as_short_as_the_day_allows() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert human.local("2026-11-23T14:03:21.5Z", berlin, NOW) == "15:03:21"
    assert human.local("2026-11-22T23:30:00Z", berlin, NOW) == "00:30:00"
    assert human.local("2026-11-21T14:03:21Z", berlin, NOW) == "21 Nov 15:03:21"
    assert human.local("2025-11-21T14:03:21Z", berlin, NOW) == "21 Nov 2025, 15:03"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "just now"), (42, "42 s ago"), (180, "3 min ago"), (7_200, "2 h ago"), (1_000_000, "12 d ago")],
)
def test_ages_have_one_unit(seconds: int, said: str) -> None:
    assert human.ago(NOW - timedelta(seconds=seconds), NOW) == said


@pytest.mark.parametrize(
    ("text", "pretty"),
    [('{"a":[1]}', '{\n  "a": [\n    1\n  ]\n}'), ("12", None), ("Sure! {}", None), ("[" * 100_000, None)],
)
def test_only_whole_json_is_indented(text: str, pretty: str | None) -> None:
    assert human.pretty_json(text) == pretty
