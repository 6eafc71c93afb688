"""What holds of every price: never negative, never lower for more, the sum of its parts; and the tiers' edges."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.config import Config, LongPrice, Price
from tidegate.core.errors import BadInput, InvalidRequest
from tidegate.core.pricing import Above, Rates, ceiling, price
from tidegate.core.usage import Usage
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

COUNTS = (
    *("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens"),
    *("cache_write_1h_input_tokens", "audio_input_tokens", "audio_cache_read_input_tokens", "audio_output_tokens"),
)
tokens = st.integers(0, 1_000_000)
optional = st.none() | st.integers(0, 100_000_000)
flat = st.builds(
    Rates,
    input=st.integers(0, 100_000_000),
    output=st.integers(0, 100_000_000),
    cache_read=optional,
    cache_write=optional,
    cache_write_1h=optional,
    audio_input=optional,
    audio_cache_read=optional,
    audio_output=optional,
)
usages = st.builds(Usage, **dict.fromkeys(COUNTS, tokens))


def known(usage: Usage, rates: Rates) -> int:
    cost = price(usage, rates)
    assert cost is not None
    return cost


@st.composite
def honest(draw: st.DrawFn) -> Usage:
    """Counts that can be: every part lies in its whole."""
    read, write, plain = draw(tokens), draw(tokens), draw(tokens)
    audio_read, output = draw(st.integers(0, read)), draw(tokens)
    return Usage(
        input_tokens=read + write + plain,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_write_input_tokens=write,
        cache_write_1h_input_tokens=draw(st.integers(0, write)),
        audio_input_tokens=audio_read + draw(st.integers(0, plain)),
        audio_cache_read_input_tokens=audio_read,
        audio_output_tokens=draw(st.integers(0, output)),
    )


@given(usages, flat)
def test_whatever_is_counted_a_price_is_never_negative(usage: Usage, rates: Rates) -> None:
    assert known(usage, rates) >= 0


@given(honest(), honest(), flat)
def test_two_calls_together_cost_what_they_cost_apart(a: Usage, b: Usage, rates: Rates) -> None:
    both = Usage(**{name: getattr(a, name) + getattr(b, name) for name in COUNTS})
    assert abs(known(both, rates) - known(a, rates) - known(b, rates)) <= 1  # each is rounded once


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
@given(usage=honest(), rates=flat, more=tokens)
def test_more_tokens_never_cost_less(name: str, usage: Usage, rates: Rates, more: int) -> None:
    grown = msgspec.structs.replace(usage, **{name: getattr(usage, name) + more})
    assert known(grown, rates) >= known(usage, rates)


@given(honest(), flat, st.integers(1, 3_000_000), st.integers(1, 5))
def test_a_dearer_tier_never_makes_a_longer_input_cheaper(usage: Usage, rates: Rates, start: int, times: int) -> None:
    names = [name for name in Rates.__struct_fields__ if isinstance(getattr(rates, name), int)]
    dear = msgspec.structs.replace(rates, **{name: getattr(rates, name) * times for name in names})
    tiered = msgspec.structs.replace(rates, above=(Above(start, dear),))
    longer = msgspec.structs.replace(usage, input_tokens=usage.input_tokens + 1)
    assert known(longer, tiered) >= known(usage, tiered)


def test_a_long_call_is_at_the_highest_step_it_is_above_of() -> None:
    step = [LongPrice(input=Decimal(n), output=Decimal(0), tokens=t) for n, t in ((9, 200), (3, 100))]
    rates = PriceList({"p/m": Price(input=Decimal(1), output=Decimal(0), above=step)}, {}).rates("p", "m")
    assert rates is not None
    costs = [known(Usage(count), rates) for count in (100, 101, 200, 201)]
    assert costs == [100 * 1_000, 101 * 3_000, 200 * 3_000, 201 * 9_000]


def test_a_service_tier_of_your_own_multiplies_every_price() -> None:
    own = {
        "input": 2,
        "output": 8,
        "cache_write_1h": 4,
        "above": [{"tokens": 1_000, "input": 4, "output": 8}],
        "service_tiers": {"flex": 0.5},
    }
    rates = PriceList({"p/m": Price.model_validate(own)}, {}).rates("p", "m")
    assert rates is not None
    assert known(Usage(10, 10, service_tier="flex"), rates) == 10 * 1_000 + 10 * 4_000
    assert known(Usage(10, 0, 0, 10, cache_write_1h_input_tokens=10, service_tier="flex"), rates) == 10 * 2_000
    assert known(Usage(1_001, service_tier="flex"), rates) == 1_001 * 2_000
    assert price(Usage(10, 10, service_tier="priority"), rates) is None


def test_a_price_that_nobody_knows_is_never_free() -> None:
    """A model's price, a service tier's: None, and not 0."""
    assert PriceList({}, {"mine": "openai"}).rates("mine", "no-such-model") is None
    assert price(Usage(10, 10, service_tier="scale"), Rates(1, 1)) is None


CONFIG = {
    "providers": {"sim": {"base_url": "http://127.0.0.1:1/v1"}},
    "prices": {"sim/known": {"input": 1, "output": 1}},
    "prices_unknown": "reject",
}


def targets(**more: object) -> Targets:
    config = Config.model_validate({**CONFIG, **more})
    return Targets(config, PriceList(config.prices, {}))


def test_a_model_without_a_price_is_not_called_where_that_is_asked_for() -> None:
    assert targets().find("sim/known").targets[0].rates is not None
    with pytest.raises(InvalidRequest, match="price is not known"):
        targets().find("sim/other")
    with pytest.raises(BadInput, match=r"routes\.r: nobody knows the price of sim/other"):
        targets(routes={"r": {"targets": ["sim/known", "sim/other"]}})
    assert targets(prices_unknown="flag").find("sim/other").targets[0].rates is None


# --- what is reserved before a call -------------------------------------------------------------------------------


@st.composite
def tiered(draw: st.DrawFn) -> Rates:
    """Rates with long calls and service tiers, in any order of dearness."""

    def stepped() -> Rates:
        steps = sorted(draw(st.sets(st.integers(1, 1_000_000), max_size=2)))
        return msgspec.structs.replace(draw(flat), above=tuple(Above(step, draw(flat)) for step in steps))

    names = draw(st.sets(st.sampled_from(["flex", "priority", "batch"])))
    return msgspec.structs.replace(stepped(), service_tiers={name: stepped() for name in sorted(names)})


@given(usages, tiered(), st.sampled_from([None, "default", "flex", "priority", "batch"]), tokens, tokens)
def test_no_usage_within_what_was_reserved_costs_more(
    usage: Usage, rates: Rates, tier: str | None, more_input: int, more_output: int
) -> None:
    served = msgspec.structs.replace(usage, service_tier=tier)
    cost = price(served, rates)
    reserved = ceiling(rates).nano_usd(usage.input_tokens + more_input, usage.output_tokens + more_output)
    assert cost is None or cost <= reserved
