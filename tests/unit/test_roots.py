"""Where a function crosses 0: as bisection finds it, in fewer steps."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.stats.roots import above, bisect, crossing


@given(st.floats(-0.999, 0.999), st.sampled_from(["straight", "curved", "normal", "step"]), st.floats(0.01, 3))
def test_a_crossing_is_where_bisection_finds_it_in_no_more_steps(place: float, shape: str, spread: float) -> None:
    def rising(x: float) -> float:
        asked.append(x)
        if shape == "normal":
            return above(NormalDist().cdf((x - place) / spread), 0.5)
        if shape == "step":
            return 1.0 if x > place else -1.0
        return x - place if shape == "straight" else math.exp((x - place) / spread) - 1

    asked: list[float] = []
    found = crossing(rising, -1, 1, width=1e-7)
    assert len(asked) <= math.log2(2 / 1e-7) + 5
    assert found == pytest.approx(bisect(lambda x: rising(x) <= 0, -1, 1, width=1e-7), abs=1e-7)


def test_what_never_crosses_ends_at_its_end() -> None:
    assert crossing(lambda x: x + 2, -1, 1, width=1e-7) == -1
    assert crossing(lambda x: x - 2, -1, 1, width=1e-7) == 1


def test_a_p_value_is_crossed_in_a_third_of_the_steps() -> None:
    asked: list[float] = []

    def rising(end: float) -> float:
        asked.append(end)
        return above(NormalDist(0, 0.03).cdf(end), 0.025)

    assert crossing(rising, -1, 0, width=2e-7) == pytest.approx(NormalDist(0, 0.03).inv_cdf(0.025), abs=2e-7)
    assert len(asked) <= 12
