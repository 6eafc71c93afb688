"""When and how long to wait before another attempt: pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

BASE_S = 0.25
CAP_S = 8.0
MAX_WAIT_S = 30.0
"""Nobody is kept waiting longer for the same target."""


def backoff_s(retry: int, draw: float, asked_s: float | None) -> float:
    """
    Seconds before retry number `retry` (0-based): full jitter, `draw` in [0, 1) of min(8 s, 0.25 s × 2^retry).

    What the provider asked for is the lower bound. Source: AWS Builders' Library, "Timeouts, retries and backoff with
    jitter".
    """
    jittered = draw * min(CAP_S, BASE_S * float(2**retry))
    return jittered if asked_s is None else max(asked_s, jittered)


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """
    What a provider asks for, in seconds ≥ 0, or None: `retry-after-ms`, `x-ms-retry-after-ms`, then Retry-After as a
    number or as an HTTP date (RFC 9110 §10.2.3). Header names in lower case; nonsense counts as absent.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        value = _number(headers.get(name))
        if value is not None:
            return value / 1_000
    text = headers.get("retry-after")
    value = _number(text)
    if value is not None or text is None:
        return value
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None


class RetryBudget:
    """
    Retries may be at most 20 % of the calls, and at least 3: a bucket that each call fills by 0.2.

    Source: Envoy's retry budget (20 % of active and pending requests, minimum 3).
    """

    def __init__(self, share: float = 0.2, minimum: float = 3.0, most: float = 100.0) -> None:
        self._share = share
        self._tokens = minimum
        self._most = most

    def call(self) -> None:
        """One more client call."""
        if self._tokens < self._most:
            self._tokens += self._share

    def spend(self) -> bool:
        """Takes one retry out of the budget; False when there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
