"""The gate's promise, "wrong in at most α of gates": by simulation; in many more rounds by bench/gate_power.py."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from bench.gate_power import Gate, breaks_by_luck, chances, gates, measure, play
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


def test_a_must_pass_check_breaks_by_luck_as_the_docs_say() -> None:
    """A case that passes half of the time: 4^-K."""
    assert [round(100 * 0.25**k, 1) for k in (2, 3, 5)] == [6.2, 1.6, 0.1]
    assert breaks_by_luck(5) < breaks_by_luck(3) < breaks_by_luck(2)
    assert sorted(chances(10)) == [0.4, 0.8, 0.8, *[0.98] * 7]
