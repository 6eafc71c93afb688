"""Instants as people and files write them: UTC, ISO 8601, microseconds, `Z`. As text they sort by time."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def iso_utc(unix_ns: int) -> str:
    """Nanoseconds since 1970 → `2026-11-23T14:31:28.000000Z`."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return f"{_to_second(seconds)}.{rest // 1_000:06d}Z"


@lru_cache(8)
def _to_second(unix_s: int) -> str:
    """Formatting costs 7 µs, and a gateway writes thousands of instants within one second."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%S}"
