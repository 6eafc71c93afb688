"""When and how long to wait before another attempt."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.retries import CAP_S, RetryBudget, backoff_s, retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:09 GMT"}, 9.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Mar 2029 12:00:00 GMT"}, 94_694_400.0),
        ({"retry-after": "Sun, 01 Mar 99999999999999999999 12:00:00 GMT"}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:00 +99999999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"x-ms-retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ],
)
def test_every_form_of_retry_after_is_read(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, NOW) == expected


@given(retry=st.integers(0, 10), draw=st.floats(0, 1, exclude_max=True))
def test_backoff_is_full_jitter_under_a_cap(retry: int, draw: float) -> None:
    assert 0 <= backoff_s(retry, draw, None) <= min(CAP_S, 0.25 * 2**retry)


def test_what_the_provider_asks_for_is_the_lower_bound() -> None:
    assert backoff_s(0, 0.5, 3.0) == 3.0
    assert backoff_s(3, 0.5, 0.1) == 1.0


@given(calls=st.integers(0, 500))
def test_retries_never_exceed_a_fifth_of_the_calls_plus_three(calls: int) -> None:
    budget, spent = RetryBudget(), 0
    for _ in range(calls):
        budget.call()
        while budget.spend():
            spent += 1
    assert spent <= 0.2 * calls + 3
