"""Usage × rates → integer nano-USD. Money is never a float here."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidegate.core.usage import Usage

STANDARD_TIERS = frozenset({"default", "standard", "on_demand", "auto"})
"""What providers call the service that their price list is about."""


class Rates(msgspec.Struct, frozen=True):
    """Prices of one target in pico-USD per token: 1 USD per million tokens is 1,000,000 of them."""

    input: int
    output: int
    cache_read: int | None = None
    """None: cached reads cost the full input price."""
    cache_write: int | None = None
    """None: cache writes cost the full input price."""
    cache_write_1h: int | None = None
    """None: as `cache_write`."""
    audio_input: int | None = None
    """None: as `input`."""
    audio_cache_read: int | None = None
    """None: as `cache_read`."""
    audio_output: int | None = None
    """None: as `output`."""
    above: tuple[Above, ...] = ()
    """Prices of long calls, by rising number of tokens."""
    service_tiers: Mapping[str, Rates] = {}
    """What other service costs than the standard one, by the provider's word for it."""


class Above(msgspec.Struct, frozen=True):
    """With more input tokens than these, cached ones included, a whole call is at these rates: a cliff, not a slope."""

    tokens: int
    rates: Rates


class Ceiling(msgspec.Struct, frozen=True):
    """The most that tokens of one target cost, whatever they turn out to be: cached, written, spoken, on any tier."""

    input: int
    """Pico-USD per token, as in Rates."""
    output: int
    tokens: int | None = None
    """With more input than this a call may be dearer; None: no length makes it so."""
    long_input: int = 0
    long_output: int = 0

    def nano_usd(self, input_tokens: int, output_tokens: int) -> int:
        """Not less than `price` of any usage within these counts."""
        if self.tokens is None or input_tokens <= self.tokens:
            return (input_tokens * self.input + output_tokens * self.output + 999) // 1_000
        return (input_tokens * self.long_input + output_tokens * self.long_output + 999) // 1_000


def ceiling(rates: Rates) -> Ceiling:
    """The highest of all rates, service tiers included; apart for calls that are too long for the first step."""
    tiers = (rates, *rates.service_tiers.values())
    steps = [step for tier in tiers for step in tier.above]
    base = Ceiling(max(map(_dearest_input, tiers)), max(map(_dearest_output, tiers)))
    if not steps:
        return base
    every = (*tiers, *(step.rates for step in steps))
    return Ceiling(
        base.input,
        base.output,
        min(step.tokens for step in steps),
        max(map(_dearest_input, every)),
        max(map(_dearest_output, every)),
    )


def _dearest_input(rates: Rates) -> int:
    some = (rates.cache_read, rates.cache_write, rates.cache_write_1h, rates.audio_input, rates.audio_cache_read)
    return max(rates.input, *(rate or 0 for rate in some))


def _dearest_output(rates: Rates) -> int:
    return max(rates.output, rates.audio_output or 0)


def price(usage: Usage, rates: Rates) -> int | None:
    """
    Cost of one answer in nano-USD, ≥ 0: summed exactly, rounded half up once at the end.

    None where the provider served the call on a service tier whose rates nobody told: not known is not free. Cached and
    audio tokens are a part of the input, so they leave the full-price part before they are charged at their own rate.
    Counts that contradict each other (more cached than input) never make a price negative.
    """
    applied = _applied(usage, rates)
    return None if applied is None else (_pico(usage, applied) + 500) // 1_000


def _applied(usage: Usage, rates: Rates) -> Rates | None:
    tier = usage.service_tier
    served = rates if tier is None or tier in STANDARD_TIERS else rates.service_tiers.get(tier)
    if served is None or not served.above:
        return served
    return next((step.rates for step in reversed(served.above) if usage.input_tokens > step.tokens), served)


def _pico(usage: Usage, rates: Rates) -> int:
    if not (
        usage.cache_read_input_tokens
        or usage.cache_write_input_tokens
        or usage.audio_input_tokens
        or usage.audio_output_tokens
    ):
        return usage.input_tokens * rates.input + usage.output_tokens * rates.output
    cache_read = _or(rates.cache_read, rates.input)
    cache_write = _or(rates.cache_write, rates.input)
    read = min(usage.cache_read_input_tokens, usage.input_tokens)
    write = min(usage.cache_write_input_tokens, usage.input_tokens - read)
    write_1h = min(usage.cache_write_1h_input_tokens, write)
    plain = usage.input_tokens - read - write
    audio_read = min(usage.audio_cache_read_input_tokens, read)
    audio = min(max(usage.audio_input_tokens - audio_read, 0), plain)
    audio_output = min(usage.audio_output_tokens, usage.output_tokens)
    return (
        (plain - audio) * rates.input
        + audio * _or(rates.audio_input, rates.input)
        + (read - audio_read) * cache_read
        + audio_read * _or(rates.audio_cache_read, cache_read)
        + (write - write_1h) * cache_write
        + write_1h * _or(rates.cache_write_1h, cache_write)
        + (usage.output_tokens - audio_output) * rates.output
        + audio_output * _or(rates.audio_output, rates.output)
    )


def _or(rate: int | None, otherwise: int) -> int:
    return otherwise if rate is None else rate
