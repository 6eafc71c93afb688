"""
Contract of ports.Admission: what passes limits and budgets takes from all of them, what does not takes from none.

Every adapter runs it; so far there is the one in memory, stores/meter.py.
"""

import re
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidegate.config import Budgets, Limits
from tidegate.core.budgets import window
from tidegate.core.errors import BudgetExhausted, Saturated, TooLarge
from tidegate.fakes import FixedClock
from tidegate.ports import Hold
from tidegate.stores.meter import Meter

BERLIN = ZoneInfo("Europe/Berlin")
KEYLESS = {"total", "model sim/m"}


def meter(
    limits: dict[str, Any] | None = None,
    budgets: dict[str, Any] | None = None,
    *,
    clock: FixedClock | None = None,
    zone: str = "UTC",
    spent: dict[str, dict[int, int]] | None = None,
) -> Meter:
    return Meter(
        Limits.model_validate(limits or {}),
        Budgets.model_validate(budgets or {}),
        zone=ZoneInfo(zone),
        clock=clock or FixedClock(),
        spent=spent,
    )


def admit(meter: Meter, **asked: Any) -> Hold:
    wanted: dict[str, Any] = {
        "key": None,
        "prompt": None,
        "route": None,
        "models": ("sim/m",),
        "tokens": 10,
        "nano_usd": 0,
    }
    return meter.admit(**{**wanted, **asked})


def said(*words: str) -> str:
    """A pattern of what a refusal says, in this order."""
    return ".*".join(re.escape(word) for word in words)


def test_requests_tokens_and_calls_at_once_are_refused_with_the_seconds_to_wait() -> None:
    clock = FixedClock()
    limited = meter(
        {"keys": {"ann": {"requests_per_minute": 2, "tokens_per_minute": 100}}, "models": {"sim/m": {"concurrent": 3}}},
        clock=clock,
    )
    for _ in range(2):
        admit(limited, key="ann").settle(10, 0, None)
    with pytest.raises(
        Saturated, match=said("key ann: the requests per minute", "limits.keys.ann.requests_per_minute: 2", "in 61 s")
    ) as refused:
        admit(limited, key="ann")
    assert 59 < refused.value.retry_after_s <= 60.1
    clock.move(61)
    admit(limited, key="ann", tokens=95).settle(95, 0, None)
    with pytest.raises(
        Saturated, match=said("key ann: the tokens per minute", "limits.keys.ann.tokens_per_minute: 100")
    ):
        admit(limited, key="ann")
    with pytest.raises(
        TooLarge, match=said("limits.keys.ann.tokens_per_minute: 100", "bound the output lower, or raise")
    ):
        admit(limited, key="ann", tokens=101)
    holds = [admit(limited) for _ in range(3)]
    with pytest.raises(Saturated, match=said("model sim/m: ", "limits.models.sim/m.concurrent: 3", "in 1 s")):
        admit(limited)
    holds[0].settle(0, 0, None)
    holds[0].settle(0, 0, None)
    admit(limited)
    with pytest.raises(Saturated):
        admit(limited)


def test_a_refused_call_has_taken_nothing() -> None:
    limited = meter({"total": {"requests_per_minute": 3}, "models": {"sim/m": {"concurrent": 1}}})
    held = admit(limited)
    for _ in range(10):
        with pytest.raises(Saturated, match="at once"):
            admit(limited)
    held.settle(0, 0, None)
    admit(limited).settle(0, 0, None)
    admit(limited)


def test_one_key_does_not_use_up_anothers_limit_and_what_is_named_goes_first() -> None:
    clock = FixedClock()
    limited = meter(
        {"each_key": {"requests_per_minute": 1, "concurrent": 4}, "keys": {"vip": {"requests_per_minute": 3}}},
        clock=clock,
    )
    admit(limited, key="ann")
    with pytest.raises(Saturated, match="key ann"):
        admit(limited, key="ann")
    admit(limited, key="bob")
    for _ in range(3):
        admit(limited, key="vip")
    with pytest.raises(Saturated, match=said("limits.keys.vip.requests_per_minute: 3")):
        admit(limited, key="vip")
    clock.move(61)
    admit(limited, key="vip")
    with pytest.raises(Saturated, match=said("limits.each_key.concurrent: 4")):
        admit(limited, key="vip")


def test_a_models_rate_counts_calls_that_begin_with_it_and_its_budget_pays_for_what_it_answers() -> None:
    limited = meter(
        {"models": {"sim/second": {"requests_per_minute": 1}}},
        {"models": {"sim/m": {"day": 1}, "sim/second": {"day": 1}, "support": {"day": 1}}},
    )
    for _ in range(3):
        held = admit(limited, route="support", models=("sim/m", "sim/second"), nano_usd=100)
        held.settle(0, 60, "sim/second")
    spent = {state.scope: state.spent_nano_usd for state in limited.budgets()}
    assert spent == {"model support": 180, "model sim/m": 0, "model sim/second": 180}


# --- budgets ------------------------------------------------------------------------------------------------------


def test_a_budget_says_when_it_resets_and_does() -> None:
    clock = FixedClock()  # 2026-03-01T12:00:00Z
    capped = meter(budgets={"total": {"day": "0.000001"}}, clock=clock)
    admit(capped, nano_usd=900).settle(0, 900, None)
    with pytest.raises(
        BudgetExhausted, match=said("has $0.0000001 left", "Bound its output", "anew at 2026-03-02T00:00:00Z")
    ):
        admit(capped, nano_usd=101)
    admit(capped, nano_usd=100).settle(0, 100, None)
    with pytest.raises(BudgetExhausted, match=said("(budgets.total.day) is used up", "begins anew at 2026-03-02")):
        admit(capped)
    clock.move(12 * 3_600)
    admit(capped, nano_usd=1_000)


def test_money_that_running_calls_hold_is_not_gone() -> None:
    capped = meter(budgets={"total": {"day": "0.000001"}})
    held = admit(capped, nano_usd=900)
    with pytest.raises(
        Saturated, match=said("(budgets.total.day) is held by calls that are running", "Try again in 1 s")
    ):
        admit(capped, nano_usd=900)
    held.settle(0, 10, None)
    admit(capped, nano_usd=900)


def test_a_warning_comes_once_at_80_percent(caplog: pytest.LogCaptureFixture) -> None:
    capped = meter(budgets={"keys": {"ann": {"month": "0.000001"}}})
    for _ in range(9):
        admit(capped, key="ann", nano_usd=100).settle(0, 100, None)
    assert [record.getMessage() for record in caplog.records] == ["key ann: 80 % of the budget per month are spent"]
    assert capped.budgets()[0].warning


def test_what_nobody_knows_the_cost_of_is_charged_what_it_reserved_or_counted() -> None:
    capped = meter(budgets={"total": {"day": 1}})
    admit(capped, nano_usd=500).settle(0, None, None)
    admit(capped, nano_usd=0).settle(0, None, None)
    (state,) = capped.budgets()
    assert (state.spent_nano_usd, state.unpriced_calls, state.reserved_nano_usd) == (500, 1, 0)


def test_what_was_spent_before_is_known_again() -> None:
    start, _ = window("day", FixedClock().now_ns(), ZoneInfo("UTC"))
    capped = meter(
        budgets={"each_key": {"day": "0.000001"}}, spent={"key ann day": {start: 950, start - 86_400 * 10**9: 7}}
    )
    with pytest.raises(BudgetExhausted):
        admit(capped, key="ann", nano_usd=51)
    admit(capped, key="bob", nano_usd=51).settle(0, 51, None)
    assert capped.spent()["key bob day"] == {start: 51}
    admit(capped, key="ann", nano_usd=50).settle(0, 1, None)
    assert capped.spent()["key bob day"] == {start: 51}, "also what did not change since"
    assert capped.spent()["key ann day"] == {start: 951, start - 86_400 * 10**9: 7}
    assert [state.scope for state in capped.budgets()] == ["key ann", "key bob"]


def test_a_clock_that_steps_forwards_and_back_spends_no_window_twice() -> None:
    clock = FixedClock()
    capped = meter(budgets={"total": {"day": "0.000001"}}, clock=clock)
    admit(capped, nano_usd=1_000).settle(0, 1_000, None)
    clock.unix_ns += 86_400 * 10**9
    admit(capped, nano_usd=400).settle(0, 400, None)
    clock.unix_ns -= 86_400 * 10**9
    with pytest.raises(BudgetExhausted):
        admit(capped, nano_usd=1)
    clock.unix_ns += 86_400 * 10**9
    with pytest.raises(BudgetExhausted, match=r"\$0.0000006 left"):
        admit(capped, nano_usd=601)


# --- everything at once -------------------------------------------------------------------------------------------


class Admitting(RuleBasedStateMachine):
    """Calls of two keys begin and end in any order while time passes: no cap is passed, and nothing leaks."""

    CAP = 1_000

    def __init__(self) -> None:
        super().__init__()
        self.clock = FixedClock()
        self.meter = meter(
            {"total": {"concurrent": 6}, "each_key": {"tokens_per_minute": 500}},
            {
                "total": {"day": "0.000001"},
                "each_key": {"hour": "0.0000006"},
                "models": {"sim/m": {"month": "0.000003"}},
            },
            clock=self.clock,
            zone="Europe/Berlin",
        )
        self.holds: list[tuple[Hold, str, int]] = []
        self.paid: list[tuple[int, str, int]] = []
        self.number = 0

    @rule(key=st.sampled_from(["ann", "bob"]), nano=st.integers(0, 400), tokens=st.integers(0, 200))
    def begin(self, key: str, nano: int, tokens: int) -> None:
        self.number += 1
        try:
            hold = admit(self.meter, key=key, nano_usd=nano, tokens=tokens)
        except (Saturated, BudgetExhausted):
            return
        self.holds.append((hold, key, nano))

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        hold, key, nano = self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))
        cost = data.draw(st.integers(0, nano))
        hold.settle(data.draw(st.integers(0, 300)), cost, "sim/m")
        self.paid.append((self.clock.unix_ns, key, cost))
        hold.settle(0, 999, "sim/m")

    @rule(seconds=st.integers(1, 40_000))
    def wait(self, seconds: int) -> None:
        self.clock.move(seconds)

    @invariant()
    def nothing_is_over(self) -> None:
        now = self.clock.unix_ns
        for state in self.meter.budgets():
            assert state.spent_nano_usd + state.reserved_nano_usd <= state.cap_nano_usd
            start, end = window(state.period, now, BERLIN)
            paid = [
                cost for at, key, cost in self.paid if start <= at < end and state.scope in {f"key {key}", *KEYLESS}
            ]
            held = [nano for _, key, nano in self.holds if state.scope in {f"key {key}", *KEYLESS}]
            assert (state.spent_nano_usd, state.reserved_nano_usd) == (sum(paid), sum(held))
        assert len(self.holds) <= 6


TestAdmitting = Admitting.TestCase
TestAdmitting.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
