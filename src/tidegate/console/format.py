"""Numbers, money and time as people read them. A dash stands for what is not known; nothing here rounds to a lie."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

DASH = "–"


def count(value: float | None) -> str:
    """`9,999`, `12.3k`, `4.56M`."""
    if value is None:
        return DASH
    for limit, divisor, suffix in ((10_000, 1, ""), (1_000_000, 1e3, "k"), (1_000_000_000, 1e6, "M")):
        if abs(value) < limit:
            scaled = value / divisor
            return f"{scaled:,.0f}" if divisor == 1 else f"{_three(scaled)}{suffix}"
    return f"{_three(value / 1e9)}B"


def duration(seconds: float | None) -> str:
    """`0.4 ms`, `312 ms`, `1.24 s`, `2 min 05 s`."""
    if seconds is None:
        return DASH
    ms = seconds * 1_000
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def duration_words(length: timedelta) -> str:
    """`5 s`, `1 min`, `30 min`, `3 h`."""
    seconds = int(length.total_seconds())
    for unit_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds % unit_s == 0:
            return f"{seconds // unit_s} {unit}"
    return f"{seconds} s"


def usd(nano: float | None) -> str:
    """Nano-USD as dollars with three significant digits below one cent: `$12.30`, `$0.0421`, `$0.000123`."""
    if nano is None:
        return DASH
    dollars = nano / 1e9
    if dollars == 0:
        return "$0"
    if abs(dollars) >= 1:
        return f"${dollars:,.2f}"
    digits = 2 - math.floor(math.log10(abs(dollars)))
    return f"${dollars:.{min(digits, 9)}f}"


def percent(share: float | None) -> str:
    """`100 %`, `98.4 %`, `99.97 %`: never 100 unless it is, never 0 unless it is."""
    if share is None:
        return DASH
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    for digits in (1, 2, 3):
        text = f"{share * 100:.{digits}f}"
        if float(text) not in (0, 100):
            return f"{text} %"
    return "> 99.999 %" if share > 0.5 else "< 0.001 %"


def change(now: float | None, before: float | None) -> str | None:
    """`+12 %`, `−3.4 %`, `× 4.2`; None when there is nothing to compare with."""
    if now is None or not before:
        return None
    ratio = now / before
    if ratio >= 3:
        return f"× {ratio:.1f}" if ratio < 100 else "× 100+"
    delta = (ratio - 1) * 100
    if abs(delta) < 0.5:
        return "± 0 %"
    sign = "+" if delta > 0 else "−"
    return f"{sign}{abs(delta):.0f} %"


def points(now: float | None, before: float | None) -> str | None:
    """The change of a rate, in percentage points: `−8.2 pts`."""
    if now is None or before is None:
        return None
    delta = (now - before) * 100
    if abs(delta) < 0.05:
        return "± 0 pts"
    return f"{'+' if delta > 0 else '−'}{abs(delta):.1f} pts"


def instant(value: str | datetime) -> datetime:
    """An instant with its zone, from a datetime or from ISO 8601 (UTC when it says nothing else)."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def local(value: str | datetime, zone: ZoneInfo, now: datetime) -> str:
    """Clock time today, `21 Nov 14:03:21` this year, the whole date before."""
    moment, today = instant(value).astimezone(zone), now.astimezone(zone)
    if moment.date() == today.date():
        return f"{moment:%H:%M:%S}"
    if moment.year == today.year:
        return f"{moment.day} {moment:%b %H:%M:%S}"
    return f"{moment.day} {moment:%b %Y, %H:%M}"


def local_minute(value: str | datetime, zone: ZoneInfo, now: datetime) -> str:
    """`14:03`, `21 Nov 14:03`, `21 Nov 2025`: where seconds tell nobody anything."""
    moment, today = instant(value).astimezone(zone), now.astimezone(zone)
    if moment.date() == today.date():
        return f"{moment:%H:%M}"
    return f"{moment.day} {moment:%b %H:%M}" if moment.year == today.year else f"{moment.day} {moment:%b %Y}"


def ago(value: str | datetime, now: datetime) -> str:
    """`just now`, `42 s ago`, `3 min ago`, `5 h ago`, `12 d ago`."""
    seconds = (now - instant(value)).total_seconds()
    if seconds < 3:
        return "just now"
    for limit, divisor, unit in ((90, 1, "s"), (5_400, 60, "min"), (129_600, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} d ago"


def pretty_json(text: str) -> str | None:
    """Indented JSON when `text` is a JSON object or list, else None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def _three(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
