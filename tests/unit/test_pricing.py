"""Usage × rates → nano-USD."""

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.pricing import Rates, price
from tidegate.core.usage import Usage

GPT_41 = Rates(input=2_000_000, output=8_000_000, cache_read=500_000)
counts = st.integers(0, 10_000_000)


def known(usage: Usage, rates: Rates) -> int:
    cost = price(usage, rates)
    assert cost is not None
    return cost


def test_g3_o8_cached_tokens_are_part_of_the_input_and_charged_once() -> None:
    """The double count of LiteLLM #9812: 10,000 input of which 9,000 cached, 100 output, at gpt-4.1's prices."""
    usage = Usage(input_tokens=10_000, output_tokens=100, cache_read_input_tokens=9_000)
    assert price(usage, GPT_41) == 1_000 * 2_000 + 9_000 * 500 + 100 * 8_000


def test_a_rate_below_one_nano_per_token_is_not_lost() -> None:
    """$0.0375 per million is 37.5 nano-USD per token."""
    assert price(Usage(input_tokens=2), Rates(input=37_500, output=0)) == 75


@given(read=counts, write=counts, input_tokens=counts, output=counts)
def test_no_contradiction_in_usage_makes_a_price_negative(
    read: int, write: int, input_tokens: int, output: int
) -> None:
    usage = Usage(input_tokens, output, cache_read_input_tokens=read, cache_write_input_tokens=write)
    assert known(usage, Rates(3, 5, cache_read=1, cache_write=4)) >= 0


@given(a=counts, b=counts)
def test_price_grows_with_usage(a: int, b: int) -> None:
    assert known(Usage(a + b), GPT_41) >= known(Usage(a), GPT_41)
