"""Instants as people and files write them: UTC, ISO 8601, microseconds, `Z`. As text they sort by time."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_utc(unix_ns: int) -> str:
    """Nanoseconds since 1970 → `2026-11-23T14:31:28.000000Z`."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000:06d}Z"
