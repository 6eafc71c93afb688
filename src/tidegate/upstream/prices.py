"""Rates of models: your own from tidegate.yaml first, then the genai-prices catalogue, compiled to integers once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from tidegate.config import Price, TokenPrices
from tidegate.core.pricing import Above, Rates

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

PER_MILLION_TO_PICO = 1_000_000
"""1 USD per million tokens is 1,000,000 pico-USD per token."""
CATALOGUE = {
    "openai": "openai",
    "openai_responses": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "vertex": "google",
    "bedrock": "aws",
    **{name: name for name in ("google", "azure", "mistral", "groq", "deepseek", "openrouter", "together", "x-ai")},
}
"""Name of a provider, or the dialect that it invented → the catalogue's name for it."""
RATES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "audio_input": "input_audio_mtok",
    "audio_cache_read": "cache_audio_read_mtok",
    "audio_output": "output_audio_mtok",
}
"""Our name of a rate → the catalogue's."""
MAX_KNOWN = 4_096
"""Clients name models as they like: what was asked of the catalogue is not kept for ever."""
BATCH, HALF = "batch", Decimal("0.5")
"""OpenAI and Anthropic halve every price of a batch; yours or the catalogue's word goes before that."""
SERVICE = ("service_tier", "processing", "speed")
"""What the catalogue tells a service tier by; the answers of providers tell it in one word."""


class PriceList:
    """Implements ports.Prices. Safe for concurrent calls; asks the catalogue once per model."""

    def __init__(self, own: Mapping[str, Price], inventors: Mapping[str, str]) -> None:
        """`inventors`: names of providers at their public address → dialect; a compatible server has its own prices."""
        self._own = own
        self._inventors = inventors
        self._known = lru_cache(MAX_KNOWN)(self._look_up)

    def rates(self, provider: str, model: str) -> Rates | None:
        """What a model costs today, or None when neither you nor the catalogue knows it."""
        return self._known(provider, model)

    def _look_up(self, provider: str, model: str) -> Rates | None:
        own = self._own.get(f"{provider}/{model}")
        if own is not None:
            return _own(own)
        catalogue = CATALOGUE.get(provider) or CATALOGUE.get(self._inventors.get(provider, ""))
        if catalogue is None:
            return None
        # The catalogue is 0.4 s of import: only a project whose models it prices pays for it.
        from genai_prices import Usage, calc_price  # noqa: PLC0415

        try:
            found = calc_price(Usage(), model_ref=model, provider_id=catalogue)
        except LookupError:
            return None
        return _catalogued(found.model, found.provider)


def _own(price: Price) -> Rates:
    flat = _flat(price, Decimal(1))
    steps = sorted(price.above, key=lambda step: step.tokens)
    above = tuple(Above(step.tokens, _flat(step, Decimal(1))) for step in steps)
    tiers = {
        name: msgspec.structs.replace(
            _flat(price, times), above=tuple(Above(step.tokens, _flat(step, times)) for step in steps)
        )
        for name, times in {BATCH: HALF, **price.service_tiers}.items()
    }
    return msgspec.structs.replace(flat, above=above, service_tiers=tiers)


def _flat(prices: TokenPrices, times: Decimal) -> Rates:
    given = {name: getattr(prices, name) for name in RATES}
    return _rates({name: usd * times for name, usd in given.items() if usd is not None})


def _catalogued(model: ModelInfo, provider: Provider) -> Rates | None:
    now = datetime.now(tz=UTC)
    standard = _steps(model.get_prices(now))
    if standard is None:
        return None
    tiers: dict[str, Rates] = {}
    # A model that is looked up at another provider's may cost the same here, but its service tiers are that other's.
    for variant in (model.price_variants or ()) if any(model is known for known in provider.models) else ():
        key, value = next(iter(variant.when.items()))
        if len(variant.when) == 1 and key in SERVICE and (variant.constraint is None or variant.constraint.active(now)):
            priced = _steps(model.get_prices(now, variant.when))
            if priced is not None:
                tiers.setdefault(value, priced)
    if BATCH not in tiers:
        half = _halved(standard)
        tiers[BATCH] = msgspec.structs.replace(half, above=tuple(Above(o.tokens, _halved(o.rates)) for o in half.above))
    return msgspec.structs.replace(standard, service_tiers=tiers)


def _halved(rates: Rates) -> Rates:
    flat = {name: None if (rate := getattr(rates, name)) is None else rate // 2 for name in RATES}
    return msgspec.structs.replace(rates, **flat)


def _steps(prices: ModelPrice) -> Rates | None:
    given = {name: price for name, key in RATES.items() if (price := prices.__dict__.get(key)) is not None}
    if "input" not in given:
        return None
    starts = sorted({tier.start for price in given.values() if not isinstance(price, Decimal) for tier in price.tiers})
    above = tuple(Above(start, _at(given, start)) for start in starts)
    return msgspec.structs.replace(_at(given, -1), above=above)


def _at(given: Mapping[str, Decimal | TieredPrices], start: int) -> Rates:
    """The rates of calls of more than `start` input tokens."""
    flat = {name: price if isinstance(price, Decimal) else _step(price, start) for name, price in given.items()}
    # What has no price of output has no output: it embeds.
    return _rates({"output": Decimal(0), **flat})


def _step(price: TieredPrices, start: int) -> Decimal:
    return next((Decimal(tier.price) for tier in reversed(price.tiers) if tier.start <= start), Decimal(price.base))


def _rates(usd_per_million: Mapping[str, Decimal]) -> Rates:
    pico: dict[str, Any] = {
        name: int((usd * PER_MILLION_TO_PICO).to_integral_value()) for name, usd in usd_per_million.items()
    }
    return Rates(**pico)
