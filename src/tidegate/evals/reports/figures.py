"""Numbers of a verdict as people read them, the same in the terminal, on the page and in a comment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tidegate.core.evaluation import MetricVerdict, PerCall
from tidegate.evals.said import SHARE, percent

Scale = tuple[float, float]


def figure(value: float | None, scale: Scale) -> str:
    """A metric's value: `66.7%` of a share, `4.25` of a score; `–` when there is none."""
    if value is None:
        return "–"
    return percent(value) if scale == SHARE else f"{value:.3g}"


def change(value: float | None, scale: Scale, *, unit: bool = False) -> str:
    """A difference of a metric: `+3.3` points of a share, `+0.25` of a score; `–` when there is none."""
    if value is None:
        return "–"
    shown = f"{100 * value:+.1f}{' points' if unit else ''}" if scale == SHARE else f"{value:+.2f}"
    return shown.replace("-", "−")


def interval(bounds: tuple[float, float] | None, scale: Scale) -> str:
    """Of a change: `−19.0 to −5.0`; `–` when there is none."""
    return "–" if bounds is None else " to ".join(change(bound, scale) for bound in bounds)


def asked(metric: MetricVerdict) -> str:
    """What the suite asks of it: `≥ 90%, drop ≤ 2 points`."""
    parts = [f"≥ {figure(metric.floor, metric.scale)}"] if metric.floor is not None else []
    if metric.margin is not None:
        parts.append(f"drop ≤ {100 * metric.margin:g} points" if metric.scale == SHARE else f"drop ≤ {metric.margin:g}")
    return ", ".join(parts) or "–"


def means(before: PerCall | None, after: PerCall | None) -> list[tuple[str, str, str, float | None]]:
    """(name, before, after, relative change) of what one call takes, as far as it is known."""
    rows = []
    for name, kind, show in MEANS:
        old: float | None = getattr(before, kind, None)
        new: float | None = getattr(after, kind, None)
        if new is not None:
            shown = name.replace("per call", "per loop") if after is not None and after.steps is not None else name
            rows.append((shown, "" if old is None else show(old), show(new), (new - old) / old if old else None))
    return rows


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1_000 * value:.0f} ms"


MEANS: Sequence[tuple[str, str, Callable[[float], str]]] = (
    ("cost per call", "cost_usd", "${:.6f}".format),
    ("input tokens", "input_tokens", "{:,.0f}".format),
    ("output tokens", "output_tokens", "{:,.0f}".format),
    ("latency", "latency_s", _seconds),
    ("calls of a loop", "steps", "{:.1f}".format),
)
"""Name, field of PerCall, and how it is written."""
