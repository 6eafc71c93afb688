"""
The SQL behind every number of the Overview: one scan of `calls` for a window, one for the window before it.

The statement is fixed text; what varies is bound as parameters, the split included, so no filter can become SQL. A
split adds grouping sets to the same scan: totals, time buckets, groups, and groups over time come back together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, cast

from tidegate.core.errors import BadInput, nearest

Split = Literal["version", "model", "service", "origin"]
SPLITS: dict[Split, str] = {
    "version": "prompt version",
    "model": "model",
    "service": "service",
    "origin": "origin",
}
WINDOWS: dict[str, tuple[timedelta, timedelta]] = {
    "15m": (timedelta(minutes=15), timedelta(seconds=15)),
    "1h": (timedelta(hours=1), timedelta(minutes=1)),
    "24h": (timedelta(hours=24), timedelta(minutes=30)),
    "7d": (timedelta(days=7), timedelta(hours=3)),
}
"""Name → (length, width of one time bucket): about sixty buckets each."""
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
AUTO = "auto"
LONGEST_FIT = timedelta(days=1)
MAX_SPAN = timedelta(days=366)
MIN_CHECKED = 20
"""Fewer checked answers than this say nothing about a version."""


class Rows(Protocol):
    """What this module needs of the call log."""

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class Window:
    """A span of time, UTC, `since` ≤ start < `until`, cut into buckets of `step`."""

    since: datetime
    until: datetime
    step: timedelta
    name: str = "custom"

    @property
    def length(self) -> timedelta:
        return self.until - self.since


@dataclass(frozen=True)
class Numbers:
    """Counts and sums of some calls. Seconds, nano-USD; a rate is None where there is nothing to divide by."""

    calls: int = 0
    ok: int = 0
    errors: int = 0
    """Outcomes `error` and `lost`: what a user of the product felt as broken."""
    rejected: int = 0
    closed: int = 0
    p50_s: float | None = None
    """Latency of calls with outcome `ok`."""
    p95_s: float | None = None
    cost_nano_usd: int = 0
    priced: int = 0
    """Calls whose price is known."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    checked: int = 0
    """Calls whose output was checked against the prompt's declared format."""
    valid: int = 0

    @property
    def error_rate(self) -> float | None:
        return self.errors / self.calls if self.calls else None

    @property
    def valid_rate(self) -> float | None:
        return self.valid / self.checked if self.checked else None

    @property
    def cost_per_call_nano_usd(self) -> float | None:
        return self.cost_nano_usd / self.priced if self.priced else None

    @property
    def valid_interval(self) -> tuple[float, float] | None:
        """95 % Wilson score interval of the valid rate."""
        return wilson(self.valid, self.checked) if self.checked else None


@dataclass(frozen=True)
class Group:
    """All calls of one value of the split. `prompt` and `version` are set when the split is by version."""

    label: str
    numbers: Numbers
    prompt: str | None = None
    version: int | None = None
    last: datetime | None = None


@dataclass(frozen=True)
class Regression:
    """A version whose answers are valid less often than an earlier version's, beyond chance."""

    prompt: str
    version: int
    numbers: Numbers
    before_version: int
    before: Numbers


@dataclass(frozen=True)
class Overview:
    """Everything the page shows of one window."""

    window: Window
    split: Split
    total: Numbers
    before: Numbers
    """The window of the same length just before, without latencies."""
    buckets: list[tuple[datetime, Numbers]]
    groups: list[Group]
    """Most calls first."""
    series: list[tuple[datetime, str, Numbers]]
    """(bucket, group's label, numbers), in time order."""
    regressions: list[Regression] = field(default_factory=list)


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion; `trials` > 0."""
    p = successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def preset(name: str, now: datetime) -> Window:
    """The window `name` that ends now, its buckets aligned to the clock. Raises BadInput for an unknown name."""
    if name not in WINDOWS:
        raise BadInput(f"no window named {name!r}.{nearest(name, WINDOWS)}")
    length, step = WINDOWS[name]
    until = _floor(now, step) + step
    return Window(until - length, until, step, name)


def span(since: datetime, until: datetime) -> Window:
    """Any span of at most a year, with buckets wide enough to make at most forty of them. Raises BadInput."""
    if since >= until:
        raise BadInput("the window is empty: `from` must be before `to`.")
    if until - since > MAX_SPAN:
        raise BadInput("a window is at most one year long.")
    wanted = (until - since).total_seconds() / 40
    step = timedelta(seconds=next((width for width in STEPS_S if width >= wanted), 7 * 86_400))
    return Window(_floor(since, step), _floor(until, step) + step, step)


def fitting(log: Rows, now: datetime, origin: str | None = "live") -> Window:
    """The window `auto`: from the first call of the last day until now, at least a minute; without calls an hour."""
    oldest = log.rows(FIRST, {"since": now - LONGEST_FIT, "origin": origin})[0]["first"]
    since = now - timedelta(hours=1) if oldest is None else min(_instant(oldest), now - timedelta(minutes=1))
    return replace(span(since, now), name=AUTO)


def overview(
    log: Rows, window: Window, *, split: Split = "version", prompt: str | None = None, origin: str | None = "live"
) -> Overview:
    """
    The numbers of one window.

    Args:
        prompt: only this prompt's calls; None: all.
        origin: only calls of this origin; None: all.
    """
    step_us = int(window.step.total_seconds() * 1_000_000)
    scope = {"prompt": prompt, "origin": origin, "split": split, "step_us": step_us}
    total = Numbers()
    buckets: list[tuple[datetime, Numbers]] = []
    groups: list[Group] = []
    found: list[tuple[datetime, str, Numbers]] = []
    sql = NUMBERS if window.length <= LONGEST_FIT else NUMBERS_LONG
    rows = log.rows(sql, scope | {"since": window.since, "until": window.until})
    one_prompt = len({(row["grp"], row["grp_prompt"]) for row in rows if row["by_group"]}) == 1
    for row in rows:
        numbers = _numbers(row)
        if row["by_time"] and row["by_group"]:
            found.append((_instant(row["bucket"] * step_us), _label(row, one_prompt=one_prompt), numbers))
        elif row["by_time"]:
            buckets.append((_instant(row["bucket"] * step_us), numbers))
        elif row["by_group"]:
            last = None if row["last"] is None else _instant(row["last"])
            groups.append(
                Group(_label(row, one_prompt=one_prompt), numbers, row["grp_prompt"], row["grp_version"], last)
            )
        elif row["calls"]:
            total = numbers
    groups.sort(key=lambda group: (-group.numbers.calls, group.label))
    earlier = scope | {"since": window.since - window.length, "until": window.since}
    before = _numbers(log.rows(TOTAL, {key: earlier[key] for key in ("since", "until", "prompt", "origin")})[0])
    return Overview(
        window=window,
        split=split,
        total=total,
        before=before,
        buckets=sorted(buckets, key=lambda bucket: bucket[0]),
        groups=groups,
        series=sorted(found, key=lambda item: (item[0], item[1])),
        regressions=regressions(groups) if split == "version" else [],
    )


def regressions(groups: Sequence[Group]) -> list[Regression]:
    """Versions whose validity interval lies wholly below that of the best earlier version; newest version first."""
    found = []
    for group in groups:
        if group.prompt is None or group.version is None or group.numbers.checked < MIN_CHECKED:
            continue
        earlier = [
            other
            for other in groups
            if other.prompt == group.prompt
            and other.version is not None
            and other.version < group.version
            and other.numbers.checked >= MIN_CHECKED
        ]
        best = max(earlier, key=lambda other: cast("float", other.numbers.valid_rate), default=None)
        if best is None:
            continue
        high = wilson(group.numbers.valid, group.numbers.checked)[1]
        if high < wilson(best.numbers.valid, best.numbers.checked)[0]:
            found.append(
                Regression(group.prompt, group.version, group.numbers, cast("int", best.version), best.numbers)
            )
    return sorted(found, key=lambda regression: (-regression.version, regression.prompt))


def _label(row: Mapping[str, Any], *, one_prompt: bool) -> str:
    """What a group is called; where all groups are of one prompt, its versions need no more than their number."""
    if row["grp_version"] is not None:
        version = f"v{row['grp_version']}"
        return version if one_prompt else f"{row['grp_prompt']} {version}"
    return str(row["grp"]) if row["grp"] is not None else "–"


def _numbers(row: Mapping[str, Any]) -> Numbers:
    p50_s, p95_s = row.get("latency_s") or (None, None)
    return Numbers(
        calls=row["calls"],
        ok=row["ok"],
        errors=row["errors"],
        rejected=row["rejected"],
        closed=row["closed"],
        p50_s=p50_s,
        p95_s=p95_s,
        cost_nano_usd=int(row["cost_nano_usd"] or 0),
        priced=row["priced"],
        input_tokens=int(row["input_tokens"] or 0),
        output_tokens=int(row["output_tokens"] or 0),
        cache_read_input_tokens=int(row["cache_read_input_tokens"] or 0),
        checked=row["checked"],
        valid=row["valid"],
    )


def _floor(instant: datetime, step: timedelta) -> datetime:
    width = int(step.total_seconds())
    return datetime.fromtimestamp(math.floor(instant.timestamp() / width) * width, UTC)


def _instant(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


FIRST = """
SELECT min(epoch_us(start)) AS first FROM calls WHERE start >= $since AND ($origin IS NULL OR origin = $origin)
"""

_MEASURES = """
    count(*) AS calls,
    count(*) FILTER (outcome = 'ok') AS ok,
    count(*) FILTER (outcome IN ('error', 'lost')) AS errors,
    count(*) FILTER (outcome = 'rejected') AS rejected,
    count(*) FILTER (outcome = 'client_closed') AS closed,
    sum(cost_nano_usd) AS cost_nano_usd,
    count(cost_nano_usd) AS priced,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens,
    sum(cache_read_input_tokens) AS cache_read_input_tokens,
    count(output_valid) AS checked,
    count(*) FILTER (output_valid) AS valid
"""

_SCOPE = """
FROM calls
WHERE start >= $since AND start < $until
  AND ($origin IS NULL OR origin = $origin)
  AND ($prompt IS NULL OR prompt = $prompt)
"""

TOTAL = "SELECT" + _MEASURES + _SCOPE
_LATENCY = "quantile_cont(latency_s, [0.5, 0.95]) FILTER (outcome = 'ok') AS latency_s,"

NUMBERS = (
    """
WITH scoped AS (
    SELECT
        *,
        epoch_us(start) // $step_us AS bucket,
        CASE $split
            WHEN 'version' THEN coalesce(prompt, 'no prompt')
            WHEN 'model' THEN coalesce(response_model, request_model)
            WHEN 'service' THEN coalesce(service, 'no service')
            ELSE origin
        END AS grp,
        CASE $split WHEN 'version' THEN prompt END AS grp_prompt,
        CASE $split WHEN 'version' THEN version END AS grp_version
"""
    + _SCOPE
    + """
)
SELECT
    bucket,
    grp,
    grp_prompt,
    grp_version,
    grouping(bucket) = 0 AS by_time,
    grouping(grp) = 0 AS by_group,
    max(epoch_us(start)) AS last,
"""
    + _LATENCY
    + _MEASURES
    + """
FROM scoped
GROUP BY GROUPING SETS ((), (bucket), (grp, grp_prompt, grp_version), (bucket, grp, grp_prompt, grp_version))
"""
)
NUMBERS_LONG = NUMBERS.replace("quantile_cont", "approx_quantile")
"""For windows of more than a day: a t-digest, within a percent of the exact quantile in half its time."""
