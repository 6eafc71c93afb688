"""The gate's statistics against published and hand-computed values, and against chance itself."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.stats import ALPHA, Comparison, compare, mcnemar, mde, pairs_needed, tango


def test_plain_tango_gives_the_published_interval() -> None:
    """Fagerland et al., Statistics in Medicine 33 (2014): 1 and 7 discordant pairs of 21, 95 % interval."""
    low, high = tango(lost=7, won=1, n=21, alpha=0.025, correction=0)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("won", "lost", "n"), [(12, 2, 100), (150, 86, 1600), (3, 5, 40), (9, 1, 12)])
def test_plain_tango_solves_the_closed_quartic(won: int, lost: int, n: int) -> None:
    """Yang, Sun, Hardin, Statistics in Medicine 32 (2013) give the ends as roots of a polynomial: no iteration."""
    g = 1.959963984540054**2
    d, s = won - lost, won + lost
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * (s / g + 1),
        n * d * (2 * s / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - s) / g,
    ]
    roots = [float(root.real) for root in np.roots(quartic)]
    for end in tango(lost, won, n, alpha=0.025, correction=0):
        assert min(abs(root - end) for root in roots) < 1e-6


def test_equal_results_of_few_cases_leave_wide_doubt() -> None:
    """By hand for n equal pairs: the plain end is z²/(n + z²), the corrected one solves nx − ½ = z√(nx(1 − x))."""
    z2 = 1.6448536269514722**2
    assert tango(0, 0, 3, correction=0)[1] == pytest.approx(z2 / (3 + z2), abs=1e-6)
    end = tango(0, 0, 3)[1]
    assert 3 * end - 0.5 == pytest.approx(math.sqrt(z2 * 3 * end * (1 - end)), abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_the_interval_holds_the_estimate_and_mirrors(pairs: list[tuple[int, int]]) -> None:
    before, after = [a / 3 for a, _ in pairs], [b / 3 for _, b in pairs]
    forth, back = compare(before, after), compare(after, before)
    low, high = forth.interval
    assert -1 <= low <= forth.delta <= high <= 1
    assert high - low > 0
    assert (-back.interval[1], -back.interval[0]) == pytest.approx((low, high), abs=1e-9)


def test_repeats_are_shares_of_a_pair() -> None:
    compared = compare([1.0, 1.0, 1.0, 0.0], [2 / 3, 1.0, 1 / 3, 1.0])
    assert (compared.fell, compared.rose, compared.n) == (2, 1, 4)
    assert compared.delta == pytest.approx(0.0)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(5, 0) == 1 / 32
    assert mcnemar(5, 0, mid=True) == 1 / 64
    assert mcnemar(3, 1) == 5 / 16
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 0, mid=True) == 0.5


def test_a_drop_is_sure_only_when_the_exact_test_agrees() -> None:
    sure = Comparison(n=9, baseline=1, candidate=0, delta=-1, interval=(-1, -0.5), fell=9, rose=0, alpha=ALPHA)
    assert sure.worse_than(0.02)
    chance = Comparison(n=3, baseline=1, candidate=0, delta=-1, interval=(-1, -0.5), fell=3, rose=0, alpha=ALPHA)
    assert not chance.worse_than(0.02)


def test_the_least_number_of_pairs_is_the_least() -> None:
    for margin in (0.02, 0.05, 0.2):
        needed = pairs_needed(margin)
        assert needed is not None
        assert tango(0, 0, needed)[0] > -margin
        assert tango(0, 0, needed - 1)[0] <= -margin
    assert pairs_needed(0) is None


def test_the_minimum_detectable_drop_by_hand() -> None:
    """(1.6449 + 0.8416) · √((0.09 + 2 · 0.05 / 3) / 100) = 0.0873."""
    assert mde(100, 3) == pytest.approx(0.0873, abs=5e-5)
    assert mde(400, 3) == pytest.approx(mde(100, 3) / 2)
    assert mde(100, 1) > mde(100, 9) > mde(100, 10_000) > 0.07
    assert mde(1, 1) == 1.0


@pytest.mark.parametrize(("cases", "repeats"), [(10, 1), (10, 3), (40, 1), (40, 3)])
def test_nothing_changed_seldom_fails_even_without_a_margin(cases: int, repeats: int) -> None:
    """A/A: sure, shaky and bad cases, the worst margin (0). At most α of the runs may FAIL, and a little luck."""
    rng = random.Random(cases * 100 + repeats)
    chances = [0.98 if i < 0.6 * cases else 0.8 if i < 0.85 * cases else 0.4 for i in range(cases)]
    runs = 400

    def run() -> list[float]:
        return [sum(rng.random() < chance for _ in range(repeats)) / repeats for chance in chances]

    alarms = sum(compare(run(), run()).worse_than(0.0) for _ in range(runs))
    assert alarms / runs <= ALPHA + 0.02


def test_a_drop_right_at_the_margin_seldom_passes() -> None:
    """The other error: a candidate that is worse by exactly the margin passes in about α of the runs."""
    rng = random.Random(7)
    runs, cases, margin = 400, 60, 0.2

    def passes() -> bool:
        before = [1.0 if rng.random() < 0.9 else 0.0 for _ in range(cases)]
        after = [value if rng.random() < 1 - margin / 0.9 else 0.0 for value in before]
        return compare(before, after).within(margin)

    assert sum(passes() for _ in range(runs)) / runs <= ALPHA + 0.025


def test_a_large_drop_is_seen() -> None:
    """The promise of the MDE: about 80 % power at the drop it names."""
    rng = random.Random(3)
    runs, cases = 200, 100
    drop = mde(cases, 1)

    def fails() -> bool:
        before = [1.0 if rng.random() < 0.95 else 0.0 for _ in range(cases)]
        after = [value if rng.random() < 1 - drop / 0.95 else 0.0 for value in before]
        return compare(before, after).worse_than(0.0)

    assert sum(fails() for _ in range(runs)) / runs >= 0.75
