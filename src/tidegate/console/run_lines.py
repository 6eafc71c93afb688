"""Runs as lists and charts show them: their figures, made once for each run and kept beside it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from tidegate.console import format as human
from tidegate.core.errors import NotFound, TidegateError
from tidegate.core.run_lines import Figure, RunFilter, RunLine, RunSummary
from tidegate.evals.readings import RATE
from tidegate.evals.reports.figures import figure as shown_figure
from tidegate.evals.said import SHARE
from tidegate.evals.summary import KAPPA, summarise
from tidegate.prompts.registry import Registry

log = logging.getLogger("tidegate.console")


def run_lines(
    registry: Registry, wanted: RunFilter, *, limit: int, before: str | None = None
) -> list[tuple[RunLine, RunSummary]]:
    """Newest first. The first look at a run reads its answers; the store keeps what it finds."""
    lines = registry.run_lines(wanted, limit=limit, before=before)
    made = {line.id: _summary(registry, line) for line in lines if line.summary is None}
    if made:
        try:
            registry.keep_summaries(made)
        except TidegateError as error:  # a store that can only be read: they are made again at the next look
            log.warning("the figures of %d runs could not be kept: %s", len(made), error)
    return [(line, line.summary or made[line.id]) for line in lines]


def shown_line(line: RunLine, summary: RunSummary) -> dict[str, Any]:
    """A run for a row: what `.json` gives, and what the template shows."""
    main = summary.figure(KAPPA if summary.kind == "calibration" else RATE)
    figure = None if main is None else shown(main)
    if figure is not None and summary.kind == "calibration":
        figure["text"] = "–" if main is None or main.value is None else f"κ {main.value:.2f}"
    return {
        **msgspec.to_builtins(line),
        "summary": msgspec.to_builtins(summary),
        "kind": summary.kind,
        "name": run_name(line),
        "took_s": (human.instant(line.finished_at) - human.instant(line.started_at)).total_seconds(),
        "figure": figure,
        "judges": [shown(one) for one in summary.figures if one.name not in (RATE, KAPPA)],
    }


def shown(figure: Figure) -> dict[str, Any]:
    """A figure with its text, and its interval as places on its scale from 0 to 100."""
    bottom, top = figure.scale

    def place(value: float) -> float:
        return round(100 * (value - bottom) / (top - bottom), 2)

    known = figure.value is not None
    return {
        "name": figure.name,
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "n": figure.n,
        "missing": figure.missing,
        "text": shown_figure(figure.value, figure.scale),
        "interval": f"{shown_figure(figure.low, figure.scale)} to {shown_figure(figure.high, figure.scale)}"
        if figure.low is not None
        else "",
        "span": _span(figure),
        "places": [place(end) for end in (figure.value, figure.low, figure.high) if end is not None] if known else [],
    }


def _span(figure: Figure) -> str:
    """The interval where there is little room: `49–77 %`, `3.8–4.28`."""
    if figure.low is None or figure.high is None:
        return ""
    if figure.scale == SHARE:
        return f"{100 * figure.low:.0f}–{100 * figure.high:.0f} %"
    return f"{figure.low:.2f} – {figure.high:.2f}".replace("-", "−")


def run_name(line: RunLine) -> str:
    """`v2`, or the digest's beginning where the registry has given no number."""
    return line.digest[:12] if line.version is None else f"v{line.version}"


def texts(registry: Registry, line: RunLine) -> tuple[str, str]:
    """Of its suite and its golden set; empty where the store has none."""
    found = []
    for digest in (line.suite_digest, line.golden_digest):
        try:
            found.append(registry.document(digest))
        except NotFound:
            found.append("")
    return found[0], found[1]


def _summary(registry: Registry, line: RunLine) -> RunSummary:
    return summarise(registry.run(line.id), *texts(registry, line))
