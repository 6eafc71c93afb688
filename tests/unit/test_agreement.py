"""Agreement with people: each formula against published figures, hand-made ones, or another way to compute it."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from tidegate.core.agreement import krippendorff, prediction_powered, rogan_gladen, weighted_kappa, wilson


def fleiss_cohen_everitt(table: list[list[int]]) -> tuple[float, float]:
    """Quadratically weighted κ and its large-sample standard error, from the 1969 paper's formula over a table."""
    size = len(table)
    n = sum(map(sum, table))
    p = [[count / n for count in row] for row in table]
    rows, columns = [sum(row) for row in p], [sum(column) for column in zip(*p, strict=True)]
    weight = [[1 - ((i - j) / (size - 1)) ** 2 for j in range(size)] for i in range(size)]
    cells = list(product(range(size), repeat=2))
    observed = sum(weight[i][j] * p[i][j] for i, j in cells)
    chance = sum(weight[i][j] * rows[i] * columns[j] for i, j in cells)
    of_row = [sum(columns[j] * weight[i][j] for j in range(size)) for i in range(size)]
    of_column = [sum(rows[i] * weight[i][j] for i in range(size)) for j in range(size)]
    total = sum(
        p[i][j] * (weight[i][j] * (1 - chance) - (of_row[i] + of_column[j]) * (1 - observed)) ** 2 for i, j in cells
    )
    variance = (total - (observed * chance - 2 * chance + observed) ** 2) / (n * (1 - chance) ** 4)
    return (observed - chance) / (1 - chance), math.sqrt(variance)


TABLE = [[44, 5, 1], [7, 20, 3], [9, 5, 6]]
"""Fleiss & Cohen's 100 diagnoses, Educational and Psychological Measurement 33 (1973) 613."""


def scores(table: list[list[int]]) -> tuple[list[float], list[float]]:
    pairs = [(float(i), float(j)) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def test_weighted_kappa_is_that_of_fleiss_cohen_and_everitt() -> None:
    value, error = fleiss_cohen_everitt(TABLE)
    found = weighted_kappa(*scores(TABLE))
    assert found.value == pytest.approx(value)
    assert found.low == pytest.approx(value - 1.959964 * error, abs=1e-6)
    assert found.high == pytest.approx(value + 1.959964 * error, abs=1e-6)


def test_on_two_categories_it_is_cohens_kappa() -> None:
    # 20 both yes, 15 both no, 5 and 10 split: observed 0.7, by chance 0.5, κ = 0.4.
    found = weighted_kappa(*scores([[15, 10], [5, 20]]))
    assert found.value == pytest.approx(0.4)


def test_perfect_agreement_of_few_is_not_certain() -> None:
    five = weighted_kappa([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    many = weighted_kappa([1, 2, 3, 4, 5] * 20, [1, 2, 3, 4, 5] * 20)
    assert [five.value, five.low, five.high] == pytest.approx([1, 0.4, 1])
    assert many.low == pytest.approx(0.97)


@pytest.mark.parametrize("pairs", [([], []), ([3], [3]), ([3, 3, 3], [3, 3, 3])])
def test_scores_that_are_all_the_same_tell_nothing(pairs: tuple[list[float], list[float]]) -> None:
    assert weighted_kappa(*pairs).value is None


def test_a_constant_judge_is_worth_nothing() -> None:
    assert weighted_kappa([4, 4, 4, 4], [1, 4, 5, 4]).value == pytest.approx(0, abs=0.15)
    assert weighted_kappa([5, 5, 1, 1], [1, 1, 5, 5]).value == pytest.approx(-1)


def test_the_interval_of_kappa_holds_the_truth_as_often_as_it_says() -> None:
    """1,000 calibrations on 60 labels: the truth, from 200,000, is inside 92 to 97.5 % of the intervals."""
    draw = random.Random(5)

    def label() -> tuple[float, float]:
        human = draw.choice([1, 2, 3, 4, 5])
        return min(5, max(1, human + draw.choice([0, 0, 0, 1, -1]))), human

    def kappa(n: int) -> tuple[float | None, float | None, float | None]:
        pairs = [label() for _ in range(n)]
        found = weighted_kappa([a for a, _ in pairs], [b for _, b in pairs])
        return found.value, found.low, found.high

    truth = kappa(200_000)[0]
    assert truth is not None
    inside = sum(
        low is not None and high is not None and low <= truth <= high
        for _, low, high in (kappa(60) for _ in range(1_000))
    )
    assert 0.92 <= inside / 1_000 <= 0.975


KRIPPENDORFF: list[list[float | None]] = [
    [1, 1, None, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [None, 5, 5, 5],
    [None, None, 1, 1],
    [None, None, 3, None],
]
"""Four observers, twelve units: the example of "Computing Krippendorff's Alpha-Reliability" (2011), §C."""


def test_alpha_is_krippendorffs_own_figure() -> None:
    assert krippendorff(KRIPPENDORFF) == pytest.approx(0.815, abs=5e-4)


@pytest.mark.parametrize("units", [[], [[1, None], [None, 2]], [[3, 3], [3, 3]]])
def test_alpha_needs_two_opinions_that_may_differ(units: list[list[float | None]]) -> None:
    assert krippendorff(units) is None


def test_alpha_of_agreement_and_of_its_opposite() -> None:
    assert krippendorff([[1, 1], [5, 5], [3, 3]]) == pytest.approx(1)
    alpha = krippendorff([[1, 5], [5, 1], [1, 5], [5, 1]])
    assert alpha is not None
    assert alpha < 0


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval(hits: int, n: int, low: float, high: float) -> None:
    """81 of 263 is Newcombe's example (Statistics in Medicine 17 (1998) 857), the others are textbook figures."""
    found = wilson(hits, n)
    assert [found.low, found.high] == pytest.approx([low, high], abs=5e-5)
    assert wilson(0, 0).value is None


def test_rogan_gladen_undoes_a_judges_mistakes() -> None:
    # The judge passes 90 % of what people pass and 20 % of what they fail: 62 % seen is 60 % true.
    found = rogan_gladen((620, 1_000), (90, 100), (80, 100))
    assert found.value == pytest.approx(0.6)
    variance = (0.62 * 0.38 / 1_000 + 0.4**2 * 0.16 / 100 + 0.6**2 * 0.09 / 100) / 0.7**2
    assert found.high == pytest.approx(0.6 + 1.959964 * math.sqrt(variance), abs=1e-6)
    assert rogan_gladen((10, 1_000), (90, 100), (80, 100)).value == 0.0
    for blind in (((5, 10), (5, 10), (5, 10)), ((5, 10), (0, 0), (5, 10)), ((0, 0), (9, 10), (8, 10))):
        assert rogan_gladen(*blind).value is None


def test_prediction_power_corrects_a_bias_and_beats_people_alone() -> None:
    draw = random.Random(11)

    def pair() -> tuple[float, float]:
        human = draw.uniform(0, 1)
        return human + 0.2 + draw.gauss(0, 0.05), human

    errors, alone, inside = [], [], 0
    for _ in range(300):
        labelled, rest = [pair() for _ in range(40)], [pair()[0] for _ in range(800)]
        judge, human = [a for a, _ in labelled], [b for _, b in labelled]
        found = prediction_powered(rest, judge, human)
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        errors.append((found.value - 0.5) ** 2)
        alone.append((sum(human) / 40 - 0.5) ** 2)
        inside += found.low <= 0.5 <= found.high
    assert sum(errors) < sum(alone) / 5
    assert 0.91 <= inside / 300 <= 0.98


def test_a_judge_that_knows_nothing_leaves_peoples_own_mean() -> None:
    human = [0.0, 1.0, 1.0, 0.0]
    assert prediction_powered([3.0, 3.0, 3.0], [3.0] * 4, human).value == pytest.approx(0.5)
    assert prediction_powered([1.0], [1.0, 0.0], [1.0, 0.0]).value is None
