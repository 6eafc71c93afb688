"""Rates of models: your own from tidegate.yaml first, then the genai-prices catalogue, compiled to integers once."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from tidegate.config import Price
from tidegate.core.pricing import Rates

PER_MILLION_TO_PICO = 1_000_000
"""1 USD per million tokens is 1,000,000 pico-USD per token."""
CATALOGUE = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    **{name: name for name in ("google", "azure", "mistral", "groq", "deepseek", "openrouter", "together", "x-ai")},
}
"""Name of a provider, or the dialect that it invented → the catalogue's name for it."""


class PriceList:
    """Implements ports.Prices. Safe for concurrent calls; asks the catalogue once per model."""

    def __init__(self, own: Mapping[str, Price], inventors: Mapping[str, str]) -> None:
        """`inventors`: names of providers at their public address → dialect; a compatible server has its own prices."""
        self._own = own
        self._inventors = inventors
        self._known: dict[tuple[str, str], Rates | None] = {}

    def rates(self, provider: str, model: str) -> Rates | None:
        """Nano-USD per token, or None when neither you nor the catalogue knows this model."""
        key = (provider, model)
        if key not in self._known:
            self._known[key] = self._look_up(provider, model)
        return self._known[key]

    def _look_up(self, provider: str, model: str) -> Rates | None:
        own = self._own.get(f"{provider}/{model}")
        if own is not None:
            return _compile(own.input, own.output, own.cache_read, own.cache_write)
        catalogue = CATALOGUE.get(provider) or CATALOGUE.get(self._inventors.get(provider, ""))
        if catalogue is None:
            return None
        # The catalogue is 0.4 s of import: only a project whose models it prices pays for it.
        from genai_prices import Usage, calc_price  # noqa: PLC0415

        try:
            found = calc_price(Usage(input_tokens=1), model_ref=model, provider_id=catalogue).model_price
        except LookupError:
            return None
        parts = [found.input_mtok, found.output_mtok, found.cache_read_mtok, found.cache_write_mtok]
        flat = [part if part is None or isinstance(part, Decimal) else Decimal(part.base) for part in parts]
        if flat[0] is None or flat[1] is None:
            return None
        return _compile(flat[0], flat[1], flat[2], flat[3])


def _compile(input_: Decimal, output: Decimal, cache_read: Decimal | None, cache_write: Decimal | None) -> Rates:
    return Rates(
        _pico(input_),
        _pico(output),
        None if cache_read is None else _pico(cache_read),
        None if cache_write is None else _pico(cache_write),
    )


def _pico(usd_per_million: Decimal) -> int:
    return int((usd_per_million * PER_MILLION_TO_PICO).to_integral_value())
