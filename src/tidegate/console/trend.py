"""
One prompt's figures from run to run, as charts: values with their 95 % intervals, a colour for each version.

Runs stand at equal distances, in the order in which they were stored: many come within seconds of each other. A line
joins only runs of one suite and one golden set; where these change it breaks, and the chart says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zoneinfo import ZoneInfo

from tidegate.console import format as human
from tidegate.console.charts import MAX_SERIES, Chart, Row, Spec
from tidegate.console.run_lines import run_name, shown
from tidegate.core.ledger import Deployment
from tidegate.core.run_lines import Figure, RunLine, RunSummary
from tidegate.evals.readings import RATE
from tidegate.evals.summary import KAPPA

Line = tuple[RunLine, RunSummary]

TICKS = 7
MAX_CHARTS = 9
LABEL_SHARE = 0.18
"""Of the width, that a label above the plot takes."""
TITLES: Mapping[str, tuple[str, str]] = {
    RATE: ("Pass rate", "mean over cases, with 95 % intervals (Wilson)"),
    KAPPA: ("Agreement with people", "weighted κ, with 95 % intervals"),
}


def trend_charts(lines: Sequence[Line], moves: Sequence[Deployment], zone: ZoneInfo) -> list[Chart]:
    """
    The pass rate, then each judge's mean.

    Args:
        lines: oldest first.
    """
    names = list(dict.fromkeys(figure.name for _, summary in lines for figure in summary.figures))
    bare = [line for line, _ in lines]
    versions = colours(bare)
    legend = [(name, index) for name, index in versions.items()] if len(versions) <= MAX_SERIES else []
    marks = _marks(bare, moves)
    charts = []
    for number, name in enumerate(names[:MAX_CHARTS]):
        title, hint = TITLES.get(name, (name, "mean score, with 95 % intervals"))
        spec = _spec(
            name, lines, versions, marks if number == 0 else _bare(marks), zone, height=220 if not number else 150
        )
        charts.append(
            Chart(f"trend-{number}", title, hint, spec, [] if number else legend, wide=number == 0 or len(names) == 2)
        )
    return charts


def colours(lines: Sequence[RunLine]) -> dict[str, int]:
    """Version → index of its colour, by number: v1 keeps its colour whatever comes."""
    known = sorted({(line.version or 0, run_name(line)) for line in lines})
    return {name: index % MAX_SERIES for index, (_, name) in enumerate(known)}


def breaks(lines: Sequence[RunLine]) -> list[str]:
    """For each run, oldest first, why it does not compare with the one before; empty where it does."""
    found = []
    before: RunLine | None = None
    for line in lines:
        changed = []
        if before is not None and line.golden_digest != before.golden_digest:
            changed.append("golden set")
        if before is not None and line.suite_digest != before.suite_digest:
            changed.append("suite")
        found.append(f"{' and '.join(changed)} changed" if changed else "")
        before = line
    return found


def _breaks(lines: Sequence[Line]) -> list[str]:
    return breaks([line for line, _ in lines])


def _spec(
    name: str,
    lines: Sequence[Line],
    versions: Mapping[str, int],
    marks: Sequence[Row],
    zone: ZoneInfo,
    *,
    height: int,
) -> Spec:
    rows: list[Row] = []
    segment = 0
    for place, ((line, summary), broken) in enumerate(zip(lines, _breaks(lines), strict=True), start=1):
        segment += bool(broken)
        figure = summary.figure(name)
        if figure is None or figure.value is None:
            continue
        rows.append(
            {
                "i": place,
                "from": place - 0.5,
                "to": place + 0.5,
                "v": figure.value,
                "low": figure.low,
                "high": figure.high,
                "version": run_name(line),
                "segment": segment,
                "run": line.id,
                "tip": _tip(line, summary, figure, zone),
            }
        )
    x: Row = {"field": "i", "type": "quantitative", "axis": _axis(lines, zone)}
    x["scale"] = {"domain": [0.5, len(lines) + 0.5], "nice": False, "zero": False}
    y: Row = {"field": "v", "type": "quantitative"} | _values(rows, lines, name)
    color: Row = {"field": "version", "type": "nominal", "legend": None, "scale": {"domain": list(versions)}}
    hover = {"name": "hover", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}
    hits: Row = {
        "params": [hover],
        "mark": {"type": "rect", "style": "hit"},
        "encoding": {
            "x": {"field": "from"} | {key: x[key] for key in ("type", "axis", "scale")},
            "x2": {"field": "to"},
            "opacity": {"condition": {"param": "hover", "empty": False, "value": 0.06}, "value": 0},
            "tooltip": {"field": "tip"},
        },
    }
    many = len(lines) > 60
    layers: list[Row] = [
        hits,
        *_mark_layers(x, marks),
        {
            "mark": {"type": "rule", "strokeWidth": 1 if many else 2, "opacity": 0.4, "strokeCap": "round"},
            "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": color},
        },
        {
            "mark": {"type": "line", "style": "trend"},
            "encoding": {"x": x, "y": y, "detail": {"field": "segment"}},
        },
        {
            "mark": {"type": "point", "filled": True, "opacity": 1, "size": 18 if many else 60},
            "encoding": {"x": x, "y": y, "color": color},
        },
    ]
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": rows},
        "layer": layers,
    }


def _tip(line: RunLine, summary: RunSummary, figure: Figure, zone: ZoneInfo) -> dict[str, str]:
    begun = human.instant(line.started_at).astimezone(zone)
    said = shown(figure)
    tip = {"": f"{run_name(line)} · {begun.day} {begun:%b %Y, %H:%M}", figure.name: said["text"]}
    if said["interval"]:
        tip["95 % interval"] = said["interval"]
    tip["n"] = str(figure.n)
    if figure.missing:
        tip["unknown"] = str(figure.missing)
    tip["verdict"] = line.verdict or summary.kind
    return tip


def _axis(lines: Sequence[Line], zone: ZoneInfo) -> Row:
    """Dates under some of the runs; clock times when all are of one day."""
    begun = [human.instant(line.started_at).astimezone(zone) for line, _ in lines]
    one_day = begun[0].date() == begun[-1].date()
    step = max(1, -(-len(lines) // TICKS))
    places = list(range(1, len(lines) + 1, step))
    labels = {
        str(place): f"{moment:%H:%M}" if one_day else f"{moment.day} {moment:%b}"
        for place in places
        for moment in [begun[place - 1]]
    }
    said = ", ".join(f"'{place}': '{label}'" for place, label in labels.items())
    return {"values": places, "labelExpr": f"{{{said}}}[datum.value]", "grid": False}


def _values(rows: Sequence[Row], lines: Sequence[Line], name: str) -> Row:
    """The axis of values: a share in percent from below its lowest interval to 100 %, a score on its own scale."""
    scales = [figure.scale for _, summary in lines if (figure := summary.figure(name))]
    bottom, top = scales[-1]
    lows = [row["low"] if row["low"] is not None else row["v"] for row in rows]
    lowest = min(lows, default=bottom)
    low = max(bottom, bottom + (top - bottom) * int(10 * (lowest - bottom) / (top - bottom)) / 10)
    axis: Row = {"format": ".0%"} if (bottom, top) == (0.0, 1.0) else {"format": ".3~r"}
    return {"axis": axis, "scale": {"domain": [min(low, top - (top - bottom) / 5), top], "nice": False, "zero": False}}


def moves_after(lines: Sequence[RunLine], moves: Sequence[Deployment]) -> list[list[Row]]:
    """For each run, oldest first, what was deployed after it and before the next, as a label."""
    begun = [human.instant(line.started_at) for line in lines]
    found: list[list[Row]] = [[] for _ in lines]
    for move in reversed(moves):
        at = sum(moment <= human.instant(move.at) for moment in begun)
        if at:
            verb = "rollback" if move.action == "rollback" else "forced" if move.forced else "deploy"
            where = "" if move.environment == "production" else f" {move.environment}"
            alarming = move.forced or move.action == "rollback"
            found[at - 1].append({"label": f"{verb} v{move.to_version}{where}", "alarming": alarming})
    return found


def _marks(lines: Sequence[RunLine], moves: Sequence[Deployment]) -> list[Row]:
    """Deployments between the runs, and where the runs before do not compare with those after."""
    found: list[Row] = [
        {"i": place + 0.5, "label": move["label"], "style": "alarm" if move["alarming"] else "marker"}
        for place, made in enumerate(moves_after(lines, moves), start=1)
        for move in made
    ]
    found += [
        {"i": place - 0.5, "label": why, "style": "break"} for place, why in enumerate(breaks(lines), start=1) if why
    ]
    return _placed(found, len(lines))


def _placed(marks: list[Row], count: int) -> list[Row]:
    """Gives each label a row above the plot where it runs into no other; one that finds none is left out."""
    free = [-1.0, -1.0, -1.0]
    for mark in sorted(marks, key=lambda mark: mark["i"]):
        share = (mark["i"] - 0.5) / count
        level = next((index for index, until in enumerate(free) if until <= share), None)
        mark["level"] = level
        if level is not None:
            free[level] = share + LABEL_SHARE
        mark["align"] = "right" if share > 1 - LABEL_SHARE else "left"
    return marks


def _bare(marks: Sequence[Row]) -> list[Row]:
    return [mark | {"level": None} for mark in marks]


def _mark_layers(x: Row, marks: Sequence[Row]) -> list[Row]:
    layers: list[Row] = []
    for style in ("marker", "alarm", "break"):
        rows = [mark for mark in marks if mark["style"] == style]
        if rows:
            layers.append({"data": {"values": rows}, "mark": {"type": "rule", "style": style}, "encoding": {"x": x}})
    labelled = [mark for mark in marks if mark["level"] is not None]
    for style, align, level in sorted({(mark["style"], mark["align"], mark["level"]) for mark in labelled}):
        same = [mark for mark in labelled if (mark["style"], mark["align"], mark["level"]) == (style, align, level)]
        layers.append(
            {
                "data": {"values": same},
                "mark": {"type": "text", "style": f"{style}-label", "baseline": "bottom", "align": align, "dx": -1},
                "encoding": {"x": x, "y": {"value": -5 - 14 * level}, "text": {"field": "label"}},
            }
        )
    return layers
