"""
Charts as Vega-Lite specifications: plain data, the same for the page, a report or a PNG.

A spec names no colour: a series takes the palette's colours in order, everything else comes from `theme`. The page
draws a spec with the theme that the reader chose; `static/tidegate.css` has the same palette for legends (a test
compares them). Times are drawn in the project's time zone: the data holds wall-clock time, and the scale takes it for
UTC.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from tidegate.console import format as human
from tidegate.telemetry.overview import Group, Numbers, Overview, Window

Mode = Literal["light", "dark"]
Spec = dict[str, Any]
Row = dict[str, Any]

PALETTE: Mapping[Mode, Sequence[str]] = {
    "light": ("#3563e9", "#e0750b", "#0d9f6e", "#b8459e", "#7c5cf0", "#0891b2", "#a16207", "#64748b"),
    "dark": ("#7aa2ff", "#ffab4f", "#3ddc9d", "#ef8fd6", "#b09cff", "#4fd1ee", "#e3b341", "#94a3b8"),
}
OUTCOMES: Mapping[Mode, Sequence[str]] = {
    "light": ("#a9bdf5", "#d6314a", "#e3a008", "#9aa3b2"),
    "dark": ("#4a66b5", "#ff5d73", "#e3b341", "#6b7484"),
}
INK: Mapping[Mode, Mapping[str, str]] = {
    "light": {"text": "#667085", "grid": "#eceef2", "axis": "#d5d9e0", "bad": "#d6314a", "band": "#1d2939"},
    "dark": {"text": "#8e97a8", "grid": "#20252e", "axis": "#2f3642", "bad": "#ff5d73", "band": "#e7e9ee"},
}
MAX_SERIES = len(PALETTE["light"])
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
LABEL_SHARE = 0.16
"""The share of the width that a marker's label may take before it must share its row with no other."""


@dataclass(frozen=True)
class Marker:
    """A deployment or rollback, drawn as a vertical line with a label above the plot."""

    at: datetime
    label: str
    alarming: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure of the page: what it is called, its specification, and the legend that the page writes as text."""

    id: str
    title: str
    hint: str
    spec: Spec
    legend: list[tuple[str, int]]
    """Name → index of its colour."""
    wide: bool = False
    tone: Literal["series", "outcome"] = "series"


def theme(mode: Mode) -> Spec:
    """Vega-Lite's `config` for one mode."""
    ink = INK[mode]
    return {
        "background": "transparent",
        "aria": False,
        "font": FONT,
        "padding": {"left": 2, "right": 12, "top": 4, "bottom": 2},
        "view": {"stroke": None},
        "range": {"category": list(PALETTE[mode]), "ordinal": list(OUTCOMES[mode])},
        "axis": {
            "labelColor": ink["text"],
            "labelFontSize": 11,
            "gridColor": ink["grid"],
            "domainColor": ink["axis"],
            "tickColor": ink["axis"],
            "title": None,
            "labelPadding": 6,
        },
        "axisX": {"grid": False, "tickSize": 4, "labelOverlap": True, "labelSeparation": 14},
        "axisY": {"domain": False, "ticks": False, "tickCount": 4, "minExtent": 56},
        "bar": {"binSpacing": 1},
        "line": {"strokeWidth": 2, "strokeCap": "round", "strokeJoin": "round"},
        "style": {
            "marker": {"color": ink["text"], "strokeDash": [3, 3], "strokeWidth": 1},
            "alarm": {"color": ink["bad"], "strokeDash": [3, 3], "strokeWidth": 1.25},
            "marker-label": {"color": ink["text"], "fontSize": 11, "fontWeight": 500},
            "alarm-label": {"color": ink["bad"], "fontSize": 11, "fontWeight": 600},
            "break": {"color": ink["band"], "strokeWidth": 1.25},
            "break-label": {"color": ink["band"], "fontSize": 11, "fontWeight": 600},
            "trend": {"color": ink["text"], "strokeWidth": 1.25},
            "hit": {"color": ink["band"]},
        },
    }


def overview_charts(data: Overview, zone: ZoneInfo, markers: Sequence[Marker]) -> list[Chart]:
    """The Overview's five charts, the one that shows an incident first."""
    shown = shown_groups(data)
    labels = [group.label for group in shown]
    time = _Time(data.window, zone)
    legend = [(label, index) for index, label in enumerate(labels)]
    series = [item for item in data.series if item[1] in labels]
    slowest = max((n.p95_s for _, _, n in series if n.p95_s is not None), default=0.0)
    factor, unit = (1_000, "ms") if slowest < 1 else (1, "s")
    dearest = max((n.cost_per_call_nano_usd or 0 for _, _, n in series), default=0)
    return [
        Chart(
            "validity",
            "Output validity",
            "share of checked answers that have the format their prompt declares",
            _lines(
                time,
                labels,
                series,
                {"": lambda n: n.valid_rate},
                lambda n: f"{human.percent(n.valid_rate)} of {human.count(n.checked)}" if n.checked else None,
                y={"axis": {"format": ".0%"}, "scale": {"domain": [_low(series), 1], "nice": False}},
                weight=lambda n: n.checked,
                markers=markers,
                height=200,
            ),
            legend,
            wide=True,
        ),
        Chart(
            "calls",
            "Calls and errors",
            f"by outcome, per {human.duration_words(data.window.step)}",
            _bars(
                time,
                [name for name, _ in _OUTCOMES],
                [(start, name, of(numbers)) for start, numbers in data.buckets for name, of in _OUTCOMES],
                {start: {name: human.count(of(n)) for name, of in _OUTCOMES if of(n)} for start, n in data.buckets},
                scheme="ordinal",
                markers=markers,
            ),
            [(name, index) for index, (name, of) in enumerate(_OUTCOMES) if index < 2 or of(data.total)],
            tone="outcome",
        ),
        Chart(
            "latency",
            "Latency",
            "p95 solid, p50 dashed; answered calls",
            _lines(
                time,
                labels,
                series,
                {"p95": _times(lambda n: n.p95_s, factor), "p50": _times(lambda n: n.p50_s, factor)},
                lambda n: f"{human.duration(n.p50_s)} / {human.duration(n.p95_s)}" if n.p95_s is not None else None,
                y={"axis": {"labelExpr": f"datum.label + ' {unit}'"}, "scale": {"zero": True}},
                markers=markers,
            ),
            legend,
        ),
        Chart(
            "cost",
            "Cost per request",
            "mean over calls with a known price",
            _lines(
                time,
                labels,
                series,
                {"": lambda n: None if n.cost_per_call_nano_usd is None else n.cost_per_call_nano_usd / 1e9},
                lambda n: human.usd(n.cost_per_call_nano_usd) if n.priced else None,
                y={"axis": {"format": f"$.{_decimals(dearest / 1e9)}f"}, "scale": {"zero": True}},
                markers=markers,
            ),
            legend,
        ),
        Chart(
            "tokens",
            "Tokens",
            f"input and output, per {human.duration_words(data.window.step)}",
            _bars(
                time,
                labels,
                [(start, name, n.input_tokens + n.output_tokens) for start, name, n in series],
                _tips(series, lambda n: f"{human.count(n.input_tokens)} in, {human.count(n.output_tokens)} out"),
                scheme="category",
                markers=markers,
            ),
            legend,
        ),
    ]


def shown_groups(data: Overview) -> list[Group]:
    """The groups with most calls, as many as there are colours, in a steady order: v1 keeps its colour beside v2."""
    return sorted(data.groups[:MAX_SERIES], key=lambda group: (group.prompt or "~", group.version or 0, group.label))


def sparkline(values: Sequence[float | None], width: int = 100, height: int = 24) -> str:
    """The `points` of an SVG polyline; empty when there are fewer than two values."""
    known = [(index, value) for index, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)
    rise = (high - low) or 1.0
    step = width / (len(values) - 1)
    return " ".join(
        f"{index * step:.1f},{height - 2 - (value - low) / rise * (height - 4):.1f}" for index, value in known
    )


class _Time:
    """The x axis: one window, in wall-clock time of the project."""

    def __init__(self, window: Window, zone: ZoneInfo) -> None:
        self.window = window
        self.zone = zone
        self.offset_ms = self.wall(window.since) - int(window.since.timestamp() * 1_000)

    def wall(self, instant: datetime) -> int:
        """Milliseconds of the wall-clock time, as if it were UTC."""
        return int(instant.astimezone(self.zone).replace(tzinfo=UTC).timestamp() * 1_000)

    def axis(self) -> Row:
        length = self.window.length
        clock = "%H:%M:%S" if length <= timedelta(minutes=10) else "%H:%M"
        return {
            "type": "temporal",
            "scale": {"type": "utc", "nice": False},
            "axis": {"format": clock if length <= timedelta(days=2) else "%-d %b", "tickCount": 6},
        }

    def said(self, start: datetime) -> str:
        begin = start.astimezone(self.zone)
        end = (start + self.window.step).astimezone(self.zone)
        day = f"{begin.day} {begin:%b} " if self.window.length > timedelta(hours=12) else ""
        clock = "%H:%M:%S" if self.window.step < timedelta(minutes=1) else "%H:%M"
        return f"{day}{begin.strftime(clock)} – {end.strftime(clock)}"

    def place(self, start: datetime) -> Row:
        return {"t": self.wall(start), "end": self.wall(start + self.window.step)}

    def middle(self, start: datetime) -> int:
        return self.wall(start + self.window.step / 2)

    def hit(self, start: datetime, tip: Mapping[str, str]) -> Row:
        """A bucket as the reader points at it: `from` and `to` lead to its calls."""
        return self.place(start) | {
            "from": f"{start:%Y-%m-%dT%H:%M:%SZ}",
            "to": f"{start + self.window.step:%Y-%m-%dT%H:%M:%SZ}",
            "tip": {"": self.said(start), **tip},
        }


def _lines(
    time: _Time,
    labels: Sequence[str],
    series: Sequence[tuple[datetime, str, Numbers]],
    values: Mapping[str, Callable[[Numbers], float | None]],
    tip: Callable[[Numbers], str | None],
    *,
    y: Row,
    markers: Sequence[Marker],
    weight: Callable[[Numbers], int] | None = None,
    height: int = 150,
) -> Spec:
    """One line per series and kind of value; a line ends where its series was not seen for more than three buckets."""
    rows: list[Row] = []
    for label in labels:
        for kind, of in values.items():
            last: datetime | None = None
            for start, name, numbers in series:
                value = of(numbers) if name == label else None
                if value is None:
                    continue
                if last is not None and start - last > 3 * time.window.step:
                    rows.append({"t": time.middle(last + time.window.step), "series": label, "kind": kind, "v": None})
                n = weight(numbers) if weight else 1
                rows.append({"t": time.middle(start), "series": label, "kind": kind, "v": value, "n": n})
                last = start
    tips = _tips(series, tip)
    color: Row = {"field": "series", "type": "nominal", "scale": {"domain": list(labels)}, "legend": None}
    dash: Row = {"field": "kind", "type": "nominal", "legend": None}
    dash["scale"] = {"domain": list(values), "range": [[1, 0], [2, 4]][: len(values)]}
    drawn: Row = {
        "x": {"field": "t"} | time.axis(),
        "y": {"field": "v", "type": "quantitative"} | y,
        "color": color,
        "strokeDash": dash,
    }
    dot: Row = {"field": "n", "type": "quantitative", "legend": None}
    dot["scale"] = {"type": "sqrt", "range": [8, 90 if weight else 14], "domainMin": 0}
    dots = {key: drawn[key] for key in ("x", "y", "color")} | {"size": dot}
    return _framed(
        time,
        {"values": rows},
        [
            {"mark": {"type": "line"}, "encoding": drawn},
            {"mark": {"type": "point", "filled": True, "opacity": 1}, "encoding": dots},
        ],
        [time.hit(start, tips[start]) for start in sorted(tips)],
        markers=markers,
        height=height,
        labels=weight is not None,
    )


def _bars(
    time: _Time,
    names: Sequence[str],
    values: Sequence[tuple[datetime, str, int]],
    tips: Mapping[datetime, Mapping[str, str]],
    *,
    scheme: Literal["category", "ordinal"],
    markers: Sequence[Marker],
) -> Spec:
    """Stacked bars, one per bucket, the first name at the bottom."""
    rows = [
        time.place(start) | {"part": name, "order": names.index(name), "n": value}
        for start, name, value in values
        if value
    ]
    drawn: dict[str, Row] = {
        "x": {"field": "t", "bin": "binned"} | time.axis(),
        "x2": {"field": "end"},
        "y": {"field": "n", "type": "quantitative", "stack": "zero"},
        "color": {"field": "part", "type": "nominal", "legend": None, "scale": {"domain": names, "range": scheme}},
        "order": {"field": "order"},
    }
    drawn["y"]["axis"] = {"labelExpr": "format(datum.value, '~s')"}
    hits = [time.hit(start, tips[start]) for start in sorted(tips)]
    return _framed(time, {"values": rows}, [{"mark": {"type": "bar"}, "encoding": drawn}], hits, markers=markers)


def _tips(
    series: Sequence[tuple[datetime, str, Numbers]], tip: Callable[[Numbers], str | None]
) -> dict[datetime, dict[str, str]]:
    """What the pointer is told of each bucket: a line per series."""
    tips: dict[datetime, dict[str, str]] = {}
    for start, name, numbers in series:
        text = tip(numbers)
        if text is not None:
            tips.setdefault(start, {})[name] = text
    return tips


def _framed(
    time: _Time,
    data: Row,
    layers: list[Row],
    hits: list[Row],
    *,
    markers: Sequence[Marker],
    height: int = 150,
    labels: bool = False,
) -> Spec:
    """What all charts share: width, markers, and one invisible area per bucket that answers to the pointer."""
    x = {"field": "t"} | time.axis()
    # The ends of the window, unseen: an explicit domain and the x2 of a bucket do not agree in Vega-Lite 6.
    ends = [{"t": time.wall(time.window.since)}, {"t": time.wall(time.window.until)}]
    window = {"data": {"values": ends}, "mark": {"type": "rule", "opacity": 0}, "encoding": {"x": x}}
    hover = {"name": "hover", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}
    zoom = {"name": "zoom", "select": {"type": "interval", "encodings": ["x"]}}
    areas: Row = {
        "data": {"values": hits},
        "params": [hover, zoom],
        "mark": {"type": "rect", "style": "hit"},
        "encoding": {
            "x": {"bin": "binned"} | x,
            "x2": {"field": "end"},
            "opacity": {"condition": {"param": "hover", "empty": False, "value": 0.06}, "value": 0},
            "tooltip": {"field": "tip"},
        },
    }
    inside = [marker for marker in markers if time.window.since <= marker.at < time.window.until]
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "usermeta": {"offset_ms": time.offset_ms, "step_ms": int(time.window.step.total_seconds() * 1_000)},
        "data": data,
        "layer": [window, areas, *layers, *_marker_layers(x, _place_labels(time, inside), labels=labels)],
    }


def _marker_layers(x: Row, placed: Sequence[Row], *, labels: bool) -> list[Row]:
    """One line per marker; its label stands above the plot, so that it never covers data."""
    layers: list[Row] = []
    for style in ("marker", "alarm"):
        rows = [row for row in placed if row["style"] == style]
        if rows:
            layers.append({"data": {"values": rows}, "mark": {"type": "rule", "style": style}, "encoding": {"x": x}})
    if not labels:
        return layers
    for style, align, level in sorted({(row["style"], row["align"], row["level"]) for row in placed}):
        same = [row for row in placed if (row["style"], row["align"], row["level"]) == (style, align, level)]
        layers.append(
            {
                "data": {"values": same},
                "mark": {"type": "text", "style": f"{style}-label", "baseline": "bottom", "align": align, "dx": -1},
                "encoding": {"x": x, "y": {"value": -5 - 14 * level}, "text": {"field": "label"}},
            }
        )
    return layers


def _place_labels(time: _Time, markers: Sequence[Marker]) -> list[Row]:
    """Gives each label a row on which it does not run into the one before; the last rows hold what is too much."""
    free: list[float] = [-1.0, -1.0, -1.0]
    rows = []
    for marker in sorted(markers, key=lambda marker: marker.at):
        share = (marker.at - time.window.since) / time.window.length
        level = next((index for index, until in enumerate(free) if until <= share), len(free) - 1)
        free[level] = share + LABEL_SHARE
        rows.append(
            {
                "t": time.wall(marker.at),
                "label": marker.label,
                "style": "alarm" if marker.alarming else "marker",
                "level": level,
                "align": "right" if share > 1 - LABEL_SHARE else "left",
            }
        )
    return rows


def _low(series: Sequence[tuple[datetime, str, Numbers]]) -> float:
    """Where the validity axis begins: low enough to show every value, high enough to show a drop of a few points."""
    lowest = min((n.valid_rate for _, _, n in series if n.valid_rate is not None), default=1.0)
    return max(0.0, min(0.8, math.floor((lowest - 0.05) * 10) / 10))


def _decimals(highest: float) -> int:
    """Of the numbers on an axis from 0 to `highest`, so that each tells itself from the next and all look alike."""
    return min(9, max(2, math.ceil(-math.log10(highest / 4)))) if highest else 2


def _times(of: Callable[[Numbers], float | None], factor: float) -> Callable[[Numbers], float | None]:
    def scaled(numbers: Numbers) -> float | None:
        value = of(numbers)
        return None if value is None else value * factor

    return scaled


_OUTCOMES: Sequence[tuple[str, Callable[[Numbers], int]]] = (
    ("ok", lambda n: n.ok),
    ("error", lambda n: n.errors),
    ("rejected", lambda n: n.rejected),
    ("client closed", lambda n: n.closed),
)
