"""One run: its order, its bounds, its third outcome, and what it leaves behind when it can not finish."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.evals import NOW, ScriptedCaller, lines, load, version, write
from tidegate.core.errors import InvalidFile, Unusable, UpstreamUnavailable
from tidegate.core.evaluation import Run
from tidegate.evals.budget import Budget
from tidegate.evals.golden import GoldenSet
from tidegate.evals.runner import Progress, run_suite
from tidegate.evals.said import usable
from tidegate.evals.suite import Suite
from tidegate.fakes import FixedClock
from tidegate.ports import PromptAnswer, PromptCall

GOOD = PromptAnswer("{}", call_id="c", cost_nano_usd=10, latency_s=0.5, input_tokens=7, output_tokens=3)


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Suite, GoldenSet]:
    """Four cases, three repeats, two calls at once."""
    write(
        tmp_path,
        eval_yaml="checks: [is-json]\nrepeats: 3\nconcurrency: 2\n",
        golden_jsonl=lines(*({"id": name, "inputs": {"q": name}} for name in "abcd")),
    )
    return load(tmp_path)


async def run(
    loaded: tuple[Suite, GoldenSet],
    caller: ScriptedCaller,
    *,
    budget: Budget | None = None,
    seen: list[Progress] | None = None,
    repeats: range | None = None,
) -> Run:
    return await run_suite(
        *loaded,
        version(),
        caller,
        run_id="r",
        clock=FixedClock(),
        repeats=repeats,
        budget=budget,
        progress=(seen if seen is not None else []).append,
    )


async def test_every_case_is_called_repeats_times_in_a_stable_order(loaded: tuple[Suite, GoldenSet]) -> None:
    caller = ScriptedCaller(lambda call: GOOD)
    done = await run(loaded, caller)
    assert [(result.case_id, result.repeat) for result in done.results] == [(n, k) for n in "abcd" for k in range(3)]
    assert caller.most_at_once == 3, "two, and one more after eight good answers"
    assert [call.variables["q"] for call in caller.calls[:4]] == ["a", "b", "c", "d"], "the first look sees every case"
    first = caller.calls[0]
    assert (first.prompt, first.digest, first.origin) == ("support/answer", version().digest, "eval")
    assert first.tags == {"run": "r", "case": "a", "repeat": "0", "suite": loaded[0].digest[:12]}
    result = done.results[0]
    assert (result.passed, result.call_id, result.cost_nano_usd, result.latency_s) == (True, "c", 10, 0.5)
    assert (done.started_at, done.repeats, done.version, done.verdict) == (NOW, 3, 1, None)
    assert (done.suite_digest, done.golden_digest) == (loaded[0].digest, loaded[1].digest)


async def test_each_repeat_is_a_call_of_its_own(loaded: tuple[Suite, GoldenSet]) -> None:
    """E8: repeats tell themselves apart, so nothing can answer them from one another's cache."""
    caller = ScriptedCaller(lambda call: GOOD)
    await run(loaded, caller)
    assert len({(call.tags["case"], call.tags["repeat"]) for call in caller.calls}) == len(caller.calls) == 12


async def test_an_error_is_neither_pass_nor_fail_and_stops_nothing(loaded: tuple[Suite, GoldenSet]) -> None:
    """E11: one bad call is kept with its reason; the others go on."""

    def answer(call: PromptCall) -> PromptAnswer:
        if call.variables["q"] == "b":
            raise UpstreamUnavailable("no connection to the provider")
        return PromptAnswer("", error="the provider said 500") if call.variables["q"] == "c" else GOOD

    done = await run(loaded, ScriptedCaller(answer))
    errors = {result.case_id: result.error for result in done.results if result.error}
    assert errors == {"b": "no connection to the provider", "c": "the provider said 500"}
    assert all(result.checks == () and not result.passed for result in done.results if result.error)
    assert sum(result.passed for result in done.results) == 6
    assert not usable(done)


async def test_when_the_first_calls_all_fail_the_rest_is_not_tried(loaded: tuple[Suite, GoldenSet]) -> None:
    caller = ScriptedCaller(lambda call: PromptAnswer("", error="simulated: connection refused"))
    with pytest.raises(Unusable, match=r"the first 5 calls all failed.*connection refused"):
        await run(loaded, caller)
    assert len(caller.calls) <= 6


@pytest.mark.parametrize("concurrency", [1, 2, 16])
@pytest.mark.parametrize("limit", [10, 35, 119])
async def test_a_run_never_costs_more_than_its_cap(tmp_path: Path, limit: int, concurrency: int) -> None:
    """E12: hard, whatever runs at once; the message says how far it came."""
    write(
        tmp_path,
        eval_yaml=f"checks: [is-json]\nrepeats: 3\nconcurrency: {concurrency}\n",
        golden_jsonl=lines(*({"id": name} for name in "abcd")),
    )
    budget = Budget(limit)
    caller = ScriptedCaller(lambda call: GOOD)
    with pytest.raises(Unusable, match=rf"stopped after {limit // 10} of 12 calls .* gate\.max_cost_usd"):
        await run(load(tmp_path), caller, budget=budget)
    assert budget.spent_nano_usd == limit // 10 * 10


async def test_a_cap_that_just_suffices_is_enough(loaded: tuple[Suite, GoldenSet]) -> None:
    budget = Budget(120)
    done = await run(loaded, ScriptedCaller(lambda call: GOOD), budget=budget)
    assert len(done.results) == 12
    assert budget.spent_nano_usd == 120


async def test_an_unknown_price_can_not_be_capped(loaded: tuple[Suite, GoldenSet]) -> None:
    caller = ScriptedCaller(lambda call: PromptAnswer("{}"))
    with pytest.raises(Unusable, match=r"nobody knows the price of this model.*tidegate\.yaml"):
        await run(loaded, caller, budget=Budget(1_000))
    assert len(caller.calls) == 1
    assert len((await run(loaded, caller)).results) == 12, "without a cap the price does not matter"


async def test_progress_counts_up_to_the_total(loaded: tuple[Suite, GoldenSet]) -> None:
    seen: list[Progress] = []
    answer = {"a": PromptAnswer("no", cost_nano_usd=1)}
    await run(loaded, ScriptedCaller(lambda call: answer.get(call.variables["q"], GOOD)), seen=seen)
    assert [(progress.done, progress.total) for progress in seen] == [(n, 12) for n in range(1, 13)]
    assert (seen[-1].passed, seen[-1].cost_nano_usd) == (9, 93)


async def test_cancelling_a_run_cancels_its_calls(loaded: tuple[Suite, GoldenSet]) -> None:
    """Ctrl-C: nothing is returned, nothing stays behind."""
    started = asyncio.Event()

    class Hanging(ScriptedCaller):
        async def call(self, call: PromptCall) -> PromptAnswer:
            self.under_way += 1
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.under_way -= 1
            return GOOD

    caller = Hanging(lambda call: GOOD)
    task = asyncio.create_task(run(loaded, caller))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caller.under_way == 0


async def test_a_second_range_makes_only_the_new_repeats(loaded: tuple[Suite, GoldenSet]) -> None:
    done = await run(loaded, ScriptedCaller(lambda call: GOOD), repeats=range(3, 5))
    assert {result.repeat for result in done.results} == {3, 4}
    assert done.repeats == 2


async def test_text_that_no_store_can_hold_is_mended(loaded: tuple[Suite, GoldenSet]) -> None:
    """E24: half a surrogate pair in a model's JSON escapes."""
    done = await run(loaded, ScriptedCaller(lambda call: PromptAnswer('"\ud83d"')))
    assert done.results[0].output == '"\ufffd"'
    assert done.results[0].passed
    done.results[0].output.encode()


async def test_nothing_is_called_when_suite_and_cases_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path, eval_yaml="checks: [{contains: '{{ expected.x }}'}]\n", golden_jsonl=lines({"id": "a"}))
    caller = ScriptedCaller(lambda call: GOOD)
    with pytest.raises(InvalidFile, match=r"eval\.yaml:1: .*in case 'a'"):
        await run(load(tmp_path), caller)
    assert caller.calls == []
