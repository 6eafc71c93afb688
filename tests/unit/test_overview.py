"""Every number of the Overview, over records in a real spool."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests import seed
from tidegate.console.assets import FOLDER
from tidegate.console.charts import OUTCOMES, PALETTE, Marker, _decimals, overview_charts, shown_groups, sparkline
from tidegate.core.errors import BadInput
from tidegate.telemetry.overview import (
    AUTO,
    WINDOWS,
    Group,
    Numbers,
    Overview,
    Split,
    Window,
    fitting,
    overview,
    preset,
    regressions,
    span,
    wilson,
)
from tidegate.telemetry.record import Entry

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
HOUR = Window(NOW - timedelta(hours=1), NOW, timedelta(minutes=1))


@pytest.fixture
def seeded(tmp_path: Path) -> Iterator[seed.Seeded]:
    with seed.empty(tmp_path, NOW) as project:
        yield project


def minutes_ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def record(seeded: seed.Seeded, minutes: float, **changed: object) -> None:
    seeded.record(Entry(seed.call(seeded, minutes_ago(minutes), **changed)))


def test_numbers_of_a_window(seeded: seed.Seeded) -> None:
    for latency, cost in ((0.1, 1_000), (0.2, 2_000), (0.3, None)):
        record(seeded, 10, latency_s=latency, cost_nano_usd=cost)
    record(seeded, 10, outcome="error", latency_s=9.0, output_valid=None, cost_nano_usd=None, output_tokens=None)
    record(seeded, 10, outcome="lost", latency_s=9.0, output_valid=None, cost_nano_usd=None)
    record(seeded, 10, outcome="rejected", output_valid=None, cost_nano_usd=None)
    record(seeded, 10, outcome="client_closed", output_valid=None, cost_nano_usd=None)
    record(seeded, 10, output_valid=False, latency_s=0.4, cost_nano_usd=3_000)
    total = overview(seeded.call_log, HOUR).total
    assert (total.calls, total.ok, total.errors, total.rejected, total.closed) == (8, 4, 2, 1, 1)
    assert total.p50_s == pytest.approx(0.25)  # answered calls only
    assert total.p95_s == pytest.approx(0.385)
    assert (total.cost_nano_usd, total.priced, total.cost_per_call_nano_usd) == (6_000, 3, 2_000)
    assert (total.checked, total.valid, total.valid_rate) == (4, 3, 0.75)
    assert total.error_rate == 0.25
    assert (total.input_tokens, total.output_tokens) == (8 * 180, 7 * 30)


def test_a_window_without_calls_has_no_rates(seeded: seed.Seeded) -> None:
    data = overview(seeded.call_log, HOUR)
    assert data.total == Numbers()
    assert (data.total.error_rate, data.total.valid_rate, data.total.cost_per_call_nano_usd) == (None, None, None)
    assert (data.buckets, data.groups, data.series) == ([], [], [])


def test_a_window_has_its_start_and_not_its_end(seeded: seed.Seeded) -> None:
    for minutes in (0, 60, 60.01):
        record(seeded, minutes)
    data = overview(seeded.call_log, HOUR)
    assert data.total.calls == 1
    assert data.before.calls == 1
    assert [start for start, _ in data.buckets] == [HOUR.since]


def test_only_live_traffic_counts_unless_asked(seeded: seed.Seeded) -> None:
    record(seeded, 5)
    record(seeded, 5, origin="eval")
    assert overview(seeded.call_log, HOUR).total.calls == 1
    assert overview(seeded.call_log, HOUR, origin=None).total.calls == 2
    assert overview(seeded.call_log, HOUR, origin="eval").total.calls == 1


def test_a_split_by_version_keeps_versions_apart_over_time(seeded: seed.Seeded) -> None:
    record(seeded, 10)
    record(seeded, 10, version=2, output_valid=False)
    record(seeded, 5, version=2)
    data = overview(seeded.call_log, HOUR)
    assert [(group.label, group.numbers.calls, group.numbers.valid) for group in data.groups] == [
        ("v2", 2, 1),
        ("v1", 1, 1),
    ]
    assert data.groups[0].last == minutes_ago(5)
    assert [(start, label, numbers.valid_rate) for start, label, numbers in data.series] == [
        (minutes_ago(10), "v1", 1.0),
        (minutes_ago(10), "v2", 0.0),
        (minutes_ago(5), "v2", 1.0),
    ]


def test_versions_of_several_prompts_carry_their_names(seeded: seed.Seeded) -> None:
    record(seeded, 5)
    record(seeded, 5, prompt="support/triage", version=7)
    record(seeded, 5, prompt=None, version=None)
    labels = {group.label for group in overview(seeded.call_log, HOUR).groups}
    assert labels == {"support/answer v1", "support/triage v7", "no prompt"}
    assert overview(seeded.call_log, HOUR, prompt="support/triage").total.calls == 1


@pytest.mark.parametrize(
    ("split", "labels"),
    [("model", {"support-2026-03-01", "other"}), ("service", {"web", "no service"}), ("origin", {"live"})],
)
def test_other_splits(seeded: seed.Seeded, split: Split, labels: set[str]) -> None:
    record(seeded, 5)
    record(seeded, 5, response_model=None, request_model="other", service="web")
    assert {group.label for group in overview(seeded.call_log, HOUR, split=split).groups} == labels


def test_a_filter_is_data_and_never_sql(seeded: seed.Seeded) -> None:
    record(seeded, 5)
    hostile = "x' OR 1=1 --"
    assert overview(seeded.call_log, HOUR, prompt=hostile, origin=hostile).total.calls == 0


def test_named_windows_end_now_on_whole_buckets() -> None:
    window = preset("15m", NOW + timedelta(seconds=3))
    assert window.until == NOW + timedelta(seconds=15)
    assert window.length == timedelta(minutes=15)
    with pytest.raises(BadInput, match="Did you mean '24h'"):
        preset("24", NOW)


@pytest.mark.parametrize(
    ("length", "step"),
    [
        (timedelta(seconds=30), timedelta(seconds=1)),
        (timedelta(minutes=20), timedelta(seconds=30)),
        (timedelta(days=3), timedelta(hours=2)),
        (timedelta(days=365), timedelta(days=7)),
    ],
)
def test_any_span_gets_buckets_that_can_be_seen(length: timedelta, step: timedelta) -> None:
    assert span(NOW - length, NOW).step == step


@pytest.mark.parametrize("name", WINDOWS)
def test_every_named_window_finds_its_calls(seeded: seed.Seeded, name: str) -> None:
    record(seeded, 5)
    window = preset(name, NOW)
    ((start, numbers),) = overview(seeded.call_log, window).buckets
    assert numbers.calls == 1
    assert start <= minutes_ago(5) < start + window.step


def test_an_impossible_span_is_refused() -> None:
    with pytest.raises(BadInput, match="empty"):
        span(NOW, NOW)
    with pytest.raises(BadInput, match="one year"):
        span(NOW - timedelta(days=400), NOW)


def test_the_automatic_window_begins_with_the_first_call_of_the_day(seeded: seed.Seeded) -> None:
    assert fitting(seeded.call_log, NOW).length >= timedelta(hours=1)
    record(seeded, 20)
    record(seeded, 60 * 30)
    window = fitting(seeded.call_log, NOW)
    assert window.name == AUTO
    assert window.since <= minutes_ago(20) < window.since + window.step
    assert window.until > NOW


def group(version: int, valid: int, checked: int) -> Group:
    return Group(f"v{version}", Numbers(calls=checked, valid=valid, checked=checked), "support/answer", version)


def test_a_version_that_is_worse_beyond_chance_is_named() -> None:
    found = regressions([group(2, 160, 200), group(1, 200, 200)])
    assert [(item.version, item.before_version) for item in found] == [(2, 1)]


@pytest.mark.parametrize(
    "groups",
    [
        [group(2, 199, 200), group(1, 200, 200)],  # within chance
        [group(2, 5, 10), group(1, 10, 10)],  # too few
        [group(2, 200, 200), group(1, 160, 200)],  # better
        [group(1, 160, 200)],
    ],
)
def test_anything_less_is_not(groups: list[Group]) -> None:
    assert regressions(groups) == []


def test_wilson_against_published_values() -> None:
    """Newcombe 1998, table I: 81 of 263 and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_lines_break_where_a_version_was_not_served(seeded: seed.Seeded) -> None:
    for minutes in (30, 29, 5):
        record(seeded, minutes)
    charts = overview_charts(overview(seeded.call_log, HOUR), ZoneInfo("UTC"), [])
    values = [row["v"] for row in charts[0].spec["data"]["values"]]
    assert values == [1.0, 1.0, None, 1.0]


def test_charts_draw_wall_clock_time_of_the_project(seeded: seed.Seeded) -> None:
    record(seeded, 30)
    charts = overview_charts(overview(seeded.call_log, HOUR), ZoneInfo("Asia/Tokyo"), [])
    assert charts[0].spec["usermeta"] == {"offset_ms": 9 * 3_600_000, "step_ms": 60_000}
    middle = minutes_ago(30) + timedelta(hours=9, seconds=30)
    assert charts[0].spec["data"]["values"][0]["t"] == middle.timestamp() * 1_000


def test_only_moves_inside_the_window_are_marked_and_labels_never_collide(seeded: seed.Seeded) -> None:
    record(seeded, 30)
    markers = [Marker(minutes_ago(minutes), f"deploy v{index}") for index, minutes in enumerate((90, 30, 29, 28, 1))]
    spec = overview_charts(overview(seeded.call_log, HOUR), ZoneInfo("UTC"), markers)[0].spec
    texts = [layer for layer in spec["layer"] if layer["mark"]["type"] == "text"]
    placed = {row["label"]: (row["level"], row["align"]) for layer in texts for row in layer["data"]["values"]}
    assert placed == {
        "deploy v1": (0, "left"),
        "deploy v2": (1, "left"),
        "deploy v3": (2, "left"),
        "deploy v4": (0, "right"),
    }


def test_versions_keep_their_colours_whatever_their_traffic() -> None:
    data = overview_of([group(2, 9, 9), group(10, 5, 5), group(1, 1, 1)])
    assert [item.label for item in shown_groups(data)] == ["v1", "v2", "v10"]


def overview_of(groups: list[Group]) -> Overview:
    return Overview(HOUR, "version", Numbers(), Numbers(), [], groups, [])


def test_legends_have_the_colours_of_the_charts() -> None:
    """The style sheet repeats the palette: `--series-0: light-dark(#light, #dark)`."""
    sheet = (FOLDER / "tidegate.css").read_text("utf-8")
    for name, colours in (("series", PALETTE), ("outcome", OUTCOMES)):
        for index, pair in enumerate(zip(colours["light"], colours["dark"], strict=True)):
            assert f"--{name}-{index}: light-dark({pair[0]}, {pair[1]});" in sheet


def test_a_sparkline_skips_what_is_not_known() -> None:
    assert sparkline([1, None, 3]) == "0.0,22.0 100.0,2.0"
    assert sparkline([1, None]) == ""
    assert sparkline([2, 2]) == "0.0,22.0 100.0,22.0"


def _luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_every_text_colour_can_be_read_on_every_ground(mode: int) -> None:
    """WCAG 2 AA: 4.5 to 1."""
    sheet = (FOLDER / "tidegate.css").read_text("utf-8")
    tokens = {name: pair[mode] for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", sheet)}
    grounds = ("page", "surface", "raised", "sunken")
    pairs = [(text, ground) for text in ("text", "muted", "faint", "accent") for ground in grounds]
    pairs += [(tone, ground) for tone in ("good", "warn", "bad") for ground in (*grounds, f"{tone}-soft")]
    pairs += [("accent", "accent-soft"), ("on-accent", "accent")]
    for text, ground in pairs:
        dark, light = sorted(_luminance(tokens[name]) for name in (text, ground))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"


@pytest.mark.parametrize(
    ("highest", "decimals"), [(0.000116, 5), (0.0000649, 5), (0.012, 3), (0.4, 2), (12.0, 2), (0.0, 2), (1e-12, 9)]
)
def test_amounts_on_an_axis_have_all_the_same_decimals(highest: float, decimals: int) -> None:
    assert _decimals(highest) == decimals
