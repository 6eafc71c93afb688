"""The gate's statistics against published values, against scipy and statsmodels, and against chance itself."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import product

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from tidegate.core.stats import (
    ALPHA,
    benjamini_hochberg,
    bounded_interval,
    compare,
    fewer,
    holm,
    mde,
    mostly,
    pairs_needed,
    within_variance,
)
from tidegate.core.stats.beta import beta_cdf, student_cdf
from tidegate.core.stats.bounded import MANY, below_zero, bounded_p
from tidegate.core.stats.plan import ALPHA_OF_TWO_LOOKS
from tidegate.core.stats.robust import standard_error, student_p
from tidegate.core.stats.sign_flip import MANY_VALUES, sign_flip_p
from tidegate.core.stats.tango import tango

THIRDS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)
SCORES = st.lists(st.floats(-4, 4, allow_subnormal=False).map(lambda value: round(value, 3)), min_size=2, max_size=12)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


# pass/fail pairs


def test_tango_gives_the_published_interval() -> None:
    """Fagerland et al., Statistics in Medicine 33 (2014): 1 and 7 discordant pairs of 21, 95 % interval."""
    low, high = tango(lost=7, won=1, n=21, alpha=0.025)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("won", "lost", "n"), [(12, 2, 100), (150, 86, 1600), (3, 5, 40), (9, 1, 12)])
def test_tango_solves_the_closed_quartic(won: int, lost: int, n: int) -> None:
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
    for end in tango(lost, won, n, alpha=0.025):
        assert min(abs(root - end) for root in roots) < 1e-6


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_sign_flip_test_of_pass_fail_pairs_is_mcnemars(fell: int, rose: int) -> None:
    """scipy's binomial test, one-sided, and statsmodels' McNemar, two-sided."""
    pairs = [-1.0] * fell + [1.0] * rose + [0.0] * 5
    worse, better = sign_flip_p(pairs), sign_flip_p([-value for value in pairs])
    exact = stats.binomtest(fell, fell + rose, 0.5, alternative="greater").pvalue if fell + rose else 1.0
    assert worse == pytest.approx(exact)
    two_sided = reference_mcnemar([[9, fell], [rose, 9]], exact=True).pvalue
    assert min(1.0, 2 * min(worse, better)) == pytest.approx(two_sided)
    assert sign_flip_p(pairs, mid=True) == pytest.approx(exact - stats.binom.pmf(fell, fell + rose, 0.5) / 2)


def test_mid_p_counts_the_outcome_half() -> None:
    assert (sign_flip_p([-1.0] * 5), sign_flip_p([-1.0] * 5, mid=True)) == (1 / 32, 1 / 64)
    assert (sign_flip_p([0.0]), sign_flip_p([0.0], mid=True)) == (1, 0.5)


# what nothing changed looks like


@given(SCORES)
def test_the_sign_flip_test_is_scipys_permutation_test(values: list[float]) -> None:
    """Exact: all 2ⁿ sign patterns."""
    reference = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", alternative="less", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(reference.pvalue, abs=1e-9)


def test_more_sums_than_can_be_counted_are_drawn_and_the_verdict_stays_the_same() -> None:
    rng = random.Random(1)
    values = [rng.gauss(-0.2, 1) for _ in range(80)]
    drawn = sign_flip_p(values)
    normal = stats.norm.cdf(sum(values) / math.sqrt(sum(value * value for value in values)))
    assert drawn == pytest.approx(normal, abs=0.01)
    assert drawn == sign_flip_p(values)


def test_very_many_values_take_the_normal_limit() -> None:
    rng = random.Random(2)
    values = [rng.gauss(-0.02, 1) for _ in range(MANY_VALUES + 1)]
    expected = stats.norm.cdf(sum(values) / math.sqrt(sum(value * value for value in values)))
    assert sign_flip_p(values) == pytest.approx(expected, abs=1e-3)


# many cases


@given(
    st.lists(
        st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=1, max_size=5), min_size=2, max_size=9
    )
)
def test_the_standard_error_is_statsmodels_cluster_robust_one(clusters: list[list[float]]) -> None:
    values = [value for cluster in clusters for value in cluster]
    names = [index for index, cluster in enumerate(clusters) for _ in cluster]
    fitted = OLS(values, np.ones(len(values))).fit()
    covariance = fitted.get_robustcov_results("cluster", groups=np.array(names), use_correction=False)
    expected = float(covariance.bse[0]) * math.sqrt(len(clusters) / (len(clusters) - 1))
    assert standard_error(clusters) == pytest.approx(expected, abs=1e-9)


@given(SCORES.filter(lambda values: len(set(values)) > 1), st.floats(-2, 2))
def test_without_clusters_it_is_the_t_test(values: list[float], bound: float) -> None:
    expected = stats.ttest_1samp(values, bound, alternative="greater").pvalue
    assert student_p([(value,) for value in values], bound) == pytest.approx(expected, abs=1e-9)


def test_one_cluster_shows_nothing() -> None:
    assert standard_error([[0.1, 0.2, 0.3]]) == math.inf
    assert student_p([[1.0] * 100], -1.0) == 1
    assert compare([1.0] * 50, [0.0] * 50, clusters=["one"] * 50).interval[1] > -0.06


@given(st.floats(0.01, 0.99), st.floats(0.5, 200), st.floats(0.5, 200))
def test_beta_is_scipys(x: float, a: float, b: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(scipy.special.betainc(a, b, x), abs=1e-11)


@given(st.floats(-40, 40), st.integers(1, 2_000))
def test_students_t_is_scipys(t: float, df: int) -> None:
    """Near 0 scipy is the one that is off: at t = 1e-6 and one degree of freedom by 1.4e-11."""
    assert student_cdf(t, df) == pytest.approx(stats.t.cdf(t, df), abs=1e-9)


# few cases


@given(st.integers(0, 30), st.integers(1, 30), st.floats(0.01, 0.99))
def test_for_two_values_the_bounded_mean_is_clopper_and_pearsons(k: int, n: int, share: float) -> None:
    k = min(k, n)
    p = bounded_p([(1.0,)] * k + [(0.0,)] * (n - k), share, 0.0)
    assert p == pytest.approx(stats.binom.sf(k - 1, n, share), abs=1e-8)


@given(st.integers(0, 20), st.integers(1, 20))
def test_the_interval_of_one_mean_is_clopper_and_pearsons_too(k: int, n: int) -> None:
    k = min(k, n)
    ours = bounded_interval([(1.0,)] * k + [(0.0,)] * (n - k), (0.0, 1.0), alpha=ALPHA)
    assert ours == pytest.approx(proportion_confint(k, n, alpha=2 * ALPHA, method="beta"), abs=1e-5)


def test_equal_pairs_follow_the_rule_of_three() -> None:
    """With n equal pairs a drop below m has the p value (1 − m)ⁿ."""
    for n, margin in ((1, 0.3), (3, 0.02), (149, 0.02), (10_000, 0.0003)):
        assert bounded_p([(0.0,)] * n, -margin, -1.0) == pytest.approx((1 - margin) ** n, abs=1e-7)


def test_the_weighted_mean_of_any_values_is_right_by_simulation() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=12).round(2)
    bound, lowest = -0.4, -3.0
    weighted = rng.exponential(size=(200_000, 13)) @ np.append(values - bound, lowest - bound)
    expected = float((weighted <= 0).mean())
    assert bounded_p([(float(value),) for value in values], bound, lowest) == pytest.approx(expected, abs=0.004)


def test_very_many_different_values_are_as_good_as_normal() -> None:
    rng = random.Random(5)
    terms = Counter(rng.gauss(0.05, 1) for _ in range(MANY))
    assert below_zero(terms | Counter([0.5])) == pytest.approx(below_zero(terms), abs=0.01)


def test_a_cluster_counts_as_one_surprise() -> None:
    """40 equal cases of 4 templates prove what 4 cases prove."""
    alone = compare([1.0] * 40, [1.0] * 40).interval[0]
    clustered = compare([1.0] * 40, [1.0] * 40, clusters=[i // 10 for i in range(40)]).interval[0]
    assert clustered == pytest.approx(compare([1.0] * 4, [1.0] * 4).interval[0], abs=1e-6)
    assert clustered < 5 * alone


# the comparison


@given(THIRDS, st.booleans())
def test_the_interval_holds_the_estimate_and_has_a_width(pairs: list[tuple[int, int]], clustered: bool) -> None:
    before, after = [a / 3 for a, _ in pairs], [b / 3 for _, b in pairs]
    clusters = [index // 4 for index in range(len(pairs))] if clustered else None
    compared = compare(before, after, clusters=clusters)
    low, high = compared.interval
    assert -1 <= low <= compared.delta + 1e-9
    assert compared.delta <= high + 1e-9 <= 1 + 1e-6
    assert high - low > 1e-4


@given(THIRDS, st.floats(0.01, 0.9))
def test_a_verdict_agrees_with_its_interval(pairs: list[tuple[int, int]], margin: float) -> None:
    compared = compare([a / 3 for a, _ in pairs], [b / 3 for _, b in pairs])
    low, high = compared.interval
    if abs(low + margin) > 1e-5:
        assert compared.within(margin) == (low > -margin)
    if compared.worse_than(margin):
        assert high < -margin + 1e-5
    assert not (compared.worse_than(margin) and compared.within(margin))


def test_the_interval_is_at_least_as_wide_as_each_method() -> None:
    before, after = [1.0] * 60, [1.0] * 50 + [0.0] * 10
    low, high = compare(before, after).interval
    published = tango(10, 0, 60, alpha=ALPHA)
    assert (low <= published[0] + 1e-6, high >= published[1] - 1e-6) == (True, True)
    rng = random.Random(4)
    scores = [rng.gauss(0, 0.3) for _ in range(60)]
    low, high = compare([0.0] * 60, scores, width=4).interval
    expected = stats.ttest_1samp(scores, 0).confidence_interval(1 - 2 * ALPHA)
    assert low <= expected.low + 1e-6
    assert high >= expected.high - 1e-6


def test_a_scale_is_only_a_unit() -> None:
    """Scores from 1 to 5 and their quarters from 0 to 1 say the same."""
    before, after = [4.0, 5.0, 3.0, 4.5, 2.0, 4.0], [3.0, 4.5, 3.0, 3.5, 1.0, 4.0]
    wide = compare(before, after, width=4)
    narrow = compare([value / 4 for value in before], [value / 4 for value in after])
    assert wide.interval == pytest.approx(tuple(4 * end for end in narrow.interval), abs=1e-5)
    assert wide.p_worse(0.4) == pytest.approx(narrow.p_worse(0.1), abs=1e-9)


def test_repeats_are_shares_of_a_pair() -> None:
    compared = compare([1.0, 1.0, 1.0, 0.0], [2 / 3, 1.0, 1 / 3, 1.0])
    assert (compared.fell, compared.rose, compared.n) == (2, 1, 4)
    assert compared.delta == pytest.approx(0.0)


def test_a_drop_is_sure_only_when_the_exact_test_agrees() -> None:
    """Three cases that all broke: one of the eight ways in which three coins fall."""
    assert compare([1.0] * 3, [0.0] * 3).p_changed == 1 / 8
    alike = compare([1.0] * 3, [0.0, 0.1, 0.2])
    assert (alike.interval[1] < -0.5, alike.worse_than(0.02)) == (True, False), "t is sure of three, wrongly"
    assert compare([1.0] * 9, [0.0] * 9).worse_than(0.02)


# one share


def test_fewer_passes_than_before_by_fishers_exact_test() -> None:
    for passed, n, before, n_before in product(range(5), (4, 8), range(5), (4, 6)):
        table = [[passed, n - passed], [before, n_before - before]]
        expected = stats.fisher_exact(table, alternative="less").pvalue
        assert fewer(passed, n, before, n_before) == pytest.approx(expected), table
    assert fewer(0, 0, 8, 8) == 1, "nobody answered"


def test_how_sure_a_case_mostly_passes() -> None:
    for passed, tries in ((3, 3), (2, 3), (0, 3), (5, 6)):
        assert mostly(passed, tries) == pytest.approx(stats.beta(1 + passed, 1 + tries - passed).sf(0.5))
    assert mostly(3, 3) >= 0.9 > mostly(2, 2)


# several questions


@settings(max_examples=20)
@given(P_VALUES)
def test_adjusted_p_values_are_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    assert benjamini_hochberg(p_values) == pytest.approx(list(multipletests(p_values, method="fdr_bh")[1]))


# before the run


def test_the_least_number_of_pairs_is_the_least() -> None:
    for margin in (0.02, 0.05, 0.2):
        needed = pairs_needed(margin)
        assert needed is not None
        assert compare([1.0] * needed, [1.0] * needed).within(margin)
        assert not compare([1.0] * (needed - 1), [1.0] * (needed - 1)).within(margin)
    assert (pairs_needed(0.02), pairs_needed(0), pairs_needed(1)) == (149, None, 1)


def test_the_minimum_detectable_drop_by_hand() -> None:
    """(1.6449 + 0.8416) · √((0.09 + 2 · 0.05 / 3) / 100) = 0.0873."""
    assert mde(100, 3) == pytest.approx(0.0873, abs=5e-5)
    assert mde(400, 3) == pytest.approx(mde(100, 3) / 2)
    assert mde(100, 1) > mde(100, 9) > mde(100, 10_000) > 0.07
    assert mde(1, 1) == 1.0
    assert mde(100, 3, clusters=10) == pytest.approx(2.4865 * math.sqrt(0.09 / 10 + 0.1 / 300), abs=1e-3)


def test_the_noise_of_repeats_comes_from_the_baseline_where_it_has_two() -> None:
    assert within_variance([[1, 1, 0], [1, 1, 1], [1]]) == pytest.approx((0.05 + 1 / 3 + 0) / 3)
    assert within_variance([[1], [0]]) == 0.05


def test_two_looks_at_pocock_s_level_are_wrong_once_in_twenty() -> None:
    """P(one of two normal scores that correlate by √½ is beyond z) = α."""
    z = stats.norm.isf(ALPHA_OF_TWO_LOOKS)
    joint = stats.multivariate_normal(cov=[[1, math.sqrt(0.5)], [math.sqrt(0.5), 1]]).cdf([z, z])
    assert 1 - joint == pytest.approx(ALPHA, abs=2e-4)


# chance itself, in few rounds; bench/gate_power.py has the many


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


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_drop_right_at_the_margin_seldom_passes(repeats: int) -> None:
    """The other error: a candidate that is worse by exactly the margin passes in about α of the runs."""
    rng = random.Random(7)
    runs, cases, margin = 400, 60, 0.2

    def share(chance: float) -> float:
        return sum(rng.random() < chance for _ in range(repeats)) / repeats

    def passes() -> bool:
        before = [share(0.9) for _ in range(cases)]
        after = [share(0.7) for _ in range(cases)]
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
