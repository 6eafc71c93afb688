"""Whose prices a provider has: by its name, or by the dialect it invented and serves at its public address."""

from __future__ import annotations

import pytest

from tidegate.core.pricing import Rates, price
from tidegate.core.usage import Usage
from tidegate.upstream.prices import PriceList

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("dialect", "model", "rates"),
    [
        ("openai", "gpt-4.1-2025-04-14", Rates(2_000_000, 8_000_000, 500_000)),
        ("anthropic", "claude-opus-4-1-20250805", Rates(15_000_000, 75_000_000, 1_500_000, 18_750_000)),
        ("gemini", "gemini-2.5-flash", Rates(300_000, 2_500_000, 30_000)),
        ("gemini", "gemini-3.5-flash", Rates(1_500_000, 9_000_000, 150_000)),
    ],
)
def test_an_inventors_models_have_its_published_prices_under_any_name(dialect: str, model: str, rates: Rates) -> None:
    assert PriceList({}, {"mine": dialect}).rates("mine", model) == rates
    assert PriceList({}, {}).rates(dialect, model) == rates


def test_a_compatible_server_does_not_have_them() -> None:
    assert PriceList({}, {}).rates("local", "gpt-4.1-2025-04-14") is None


def test_gemini_is_charged_for_thoughts_as_output_and_for_cached_input_once() -> None:
    rates = PriceList({}, {}).rates("gemini", "gemini-2.5-flash")
    assert rates is not None
    usage = Usage(MILLION, MILLION, cache_read_input_tokens=MILLION // 2, reasoning_output_tokens=MILLION // 2)
    assert price(usage, rates) == (300_000 + 30_000) * 500 + 2_500_000 * 1_000
