"""The gate's promise, "wrong in at most α of gates": by simulation; in many more rounds by bench/gate_power.py."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from bench.gate_power import Gate, Guarded, chances, gates, measure, measure_guarded, play
from bench.machine import RESULTS

from tidegate.core.stats import ALPHA, Comparison, compare

ROUNDS = 300
NULL = gates((50,))["unchanged"]
STORED: dict[str, Any] = json.loads((RESULTS / "gate-power.json").read_text("utf-8"))


def named(gate: Gate) -> str:
    return f"{gate.metric}-K{gate.repeats}{'-clustered' if gate.clustered else ''}-{gate.looks}looks"


@pytest.mark.parametrize("gate", NULL, ids=named)
def test_nothing_changed_seldom_fails(gate: Gate) -> None:
    """α and three Monte-Carlo errors: 5 % ± 3.8 at 300 rounds."""
    assert measure((gate, ROUNDS, 7))["fail_percent"] <= 100 * ALPHA + 3.8


def test_a_gate_that_cries_wolf_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation can fail: it finds the false alarms of a gate that takes any drop for a proof."""
    monkeypatch.setattr("tidegate.core.stats.Comparison.worse_than", lambda self, margin: self.delta < -margin)
    assert measure((NULL[0], 100, 7))["fail_percent"] > 30


def test_clusters_cry_wolf_when_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases that go wrong together, compared as if each stood alone, fail more often than α."""

    def blind(*means: Sequence[float], clusters: object, width: float, alpha: float) -> Comparison:
        return compare(*means, width=width, alpha=alpha)

    monkeypatch.setattr("bench.gate_power.compare", blind)
    assert measure((Gate(200, 1, True, "rate", 1, "none", 0.0), ROUNDS, 1))["fail_percent"] > 100 * ALPHA + 3


def test_a_drop_of_ten_points_is_seen_with_cases_enough() -> None:
    rng = random.Random(3)
    gate = Gate(200, 3, False, "rate", 1, "everywhere", 0.02)
    assert sum(play(gate, rng)[0] for _ in range(60)) / 60 >= 0.9


def test_the_stored_simulation_keeps_the_promise() -> None:
    """At least 2,000 rounds of every kind, and nowhere more false alarms than α and twice the error of the count."""
    assert STORED["rounds"] >= 2_000
    played = {(row["metric"], row["n"], row["repeats"], row["clustered"], row["looks"]) for row in STORED["unchanged"]}
    assert played == set(product(("rate", "score"), (20, 50, 200), (1, 3), (False, True), (1, 2)))
    for row in STORED["unchanged"]:
        assert row["fail_percent"] <= 100 * ALPHA + 2 * row["error"], row
    for row in STORED["drop_of_the_margin"]:
        assert row["pass_percent"] <= 100 * ALPHA + 2 * row["error"], row

    for row in STORED["must_pass"]:
        if row["now"] is None:
            assert row["fail_percent"] <= 1.5, row


def test_what_always_fails_is_found_as_if_nothing_were_tried_again() -> None:
    """Of the gates in which something broke, some by luck. Where cases are many and asked once, the rest is no PASS."""
    for row in STORED["must_pass"]:
        if row["now"] == 0.0:
            assert row["fail_percent"] + row["inconclusive_percent"] >= row["breaks_percent"] - 4, row
            if row["repeats"] > 1 or row["n"] <= 50:
                assert row["fail_percent"] >= 90, row


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_must_pass_does_not_cry_wolf(repeats: int) -> None:
    """1 % of gates fail, where 45 % had a break with two repeats."""
    measured = measure_guarded((Guarded(50, repeats, None), ROUNDS, 5))
    assert measured["fail_percent"] <= 3
    assert measured["breaks_percent"] >= (95, 35, 5)[repeats - 1]


def test_a_guard_that_believes_every_break_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.evals.guards._luck", lambda guards, broken: 0.0)
    assert measure_guarded((Guarded(50, 2, None), ROUNDS, 5))["fail_percent"] > 30


def test_must_pass_finds_what_always_fails() -> None:
    assert measure_guarded((Guarded(50, 2, 0.0), ROUNDS, 5))["fail_percent"] >= 90
    assert sorted(chances(10)) == [0.4, 0.8, 0.8, *[0.98] * 7]
