"""Whose prices a provider has: by its name, or by the dialect it invented and serves at its public address."""

from __future__ import annotations

import pytest

from tidegate.core.pricing import price
from tidegate.core.usage import Usage
from tidegate.upstream.prices import PriceList

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("dialect", "model", "dollars"),
    [
        ("openai", "gpt-4.1-2025-04-14", (2, 8, 0.5)),
        ("anthropic", "claude-opus-4-1-20250805", (15, 75, 1.5)),
        ("gemini", "gemini-2.5-flash", (0.3, 2.5, 0.03)),
        ("gemini", "gemini-3.5-flash", (1.5, 9, 0.15)),
    ],
)
def test_an_inventors_models_have_its_published_prices_under_any_name(
    dialect: str, model: str, dollars: tuple[float, float, float]
) -> None:
    """`dollars` are per million tokens: of input, of output, and of input read from the cache."""
    usages = (Usage(1_000), Usage(output_tokens=1_000), Usage(1_000, cache_read_input_tokens=1_000))
    for rates in (PriceList({}, {"mine": dialect}).rates("mine", model), PriceList({}, {}).rates(dialect, model)):
        assert rates is not None
        assert [price(usage, rates) for usage in usages] == [round(usd * 1_000_000) for usd in dollars]


def test_a_compatible_server_does_not_have_them() -> None:
    assert PriceList({}, {}).rates("local", "gpt-4.1-2025-04-14") is None


def test_gemini_is_charged_for_thoughts_as_output_and_for_cached_input_once() -> None:
    rates = PriceList({}, {}).rates("gemini", "gemini-2.5-flash")
    assert rates is not None
    usage = Usage(MILLION, MILLION, cache_read_input_tokens=MILLION // 2, reasoning_output_tokens=MILLION // 2)
    assert price(usage, rates) == (300_000 + 30_000) * 500 + 2_500_000 * 1_000
