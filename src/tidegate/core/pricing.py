"""Usage × rates → integer nano-USD. Money is never a float here."""

from __future__ import annotations

import msgspec

from tidegate.core.usage import Usage


class Rates(msgspec.Struct, frozen=True):
    """Prices of one target in pico-USD per token: 1 USD per million tokens is 1,000,000 of them."""

    input: int
    output: int
    cache_read: int | None = None
    """None: cached reads cost the full input price."""
    cache_write: int | None = None
    """None: cache writes cost the full input price."""


def price(usage: Usage, rates: Rates) -> int:
    """
    Cost of one answer in nano-USD, ≥ 0: summed exactly, rounded half up once at the end.

    Cached tokens are a part of `usage.input_tokens`, so they leave the full-price part before they are charged at their
    own rate. Counts that contradict each other (more cached than input) never make a price negative.
    """
    read = min(usage.cache_read_input_tokens, usage.input_tokens)
    write = min(usage.cache_write_input_tokens, usage.input_tokens - read)
    plain = usage.input_tokens - read - write
    pico = (
        plain * rates.input
        + read * (rates.input if rates.cache_read is None else rates.cache_read)
        + write * (rates.input if rates.cache_write is None else rates.cache_write)
        + usage.output_tokens * rates.output
    )
    return (pico + 500) // 1_000
