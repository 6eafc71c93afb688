"""How fast a run calls: slower where the provider says so, faster where it does not; and no refusal is an error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.evals import ScriptedCaller, lines, load, version, write
from tidegate.core.errors import Saturated, Unusable
from tidegate.core.evaluation import Run
from tidegate.evals.pace import MOST, PATIENCE_S, WINDOW, Pace
from tidegate.evals.runner import Progress, run_suite
from tidegate.fakes import FixedClock
from tidegate.ports import PromptAnswer, PromptCall

GOOD = PromptAnswer("{}", cost_nano_usd=10)


def refusal(after_s: float | None = None, *, status: int = 429, code: str = "rate_limit_exceeded") -> PromptAnswer:
    return PromptAnswer("", error="one too many", status=status, code=code, retry_after_s=after_s)


class Watch:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        until = self.clock.monotonic() + seconds
        self.slept.append(seconds)
        await asyncio.sleep(0)
        if (rest := until - self.clock.monotonic()) > 0:
            self.clock.move(rest)

    def pace(self, start: int) -> Pace:
        return Pace(start, self.clock, sleep=self.sleep)


async def run(
    tmp_path: Path,
    answer: Callable[[PromptCall], PromptAnswer],
    *,
    cases: int = 12,
    concurrency: int = 4,
    seen: list[Progress] | None = None,
) -> tuple[Run, ScriptedCaller, Watch]:
    write(
        tmp_path,
        eval_yaml="checks: [is-json]\n",
        golden_jsonl=lines(*({"id": f"c{number}"} for number in range(cases))),
    )
    watch, caller = Watch(), ScriptedCaller(answer)
    done = await run_suite(
        *load(tmp_path),
        version(),
        caller,
        run_id="r",
        clock=watch.clock,
        pace=watch.pace(concurrency),
        progress=(seen if seen is not None else []).append,
    )
    return done, caller, watch


async def test_a_call_that_was_one_too_many_is_made_again_and_is_no_error(tmp_path: Path) -> None:
    tries: dict[str, int] = {}

    def answer(call: PromptCall) -> PromptAnswer:
        tries[call.tags["case"]] = tries.get(call.tags["case"], 0) + 1
        return refusal(20) if tries[call.tags["case"]] < 3 else GOOD

    done, _, watch = await run(tmp_path, answer)
    assert [result.error for result in done.results] == [None] * 12
    assert set(tries.values()) == {3}
    assert max(watch.slept) == 20, "the provider's word counts"


@pytest.mark.parametrize("kind", ["429", "529", "503 with a time", "raised"])
async def test_every_way_to_say_one_too_many_is_understood(tmp_path: Path, kind: str) -> None:
    said = {"429": refusal(), "529": refusal(status=529), "503 with a time": refusal(1, status=503)}
    first = True

    def answer(call: PromptCall) -> PromptAnswer:
        nonlocal first
        was, first = first, False
        if was and kind == "raised":
            raise Saturated("the key's calls per minute are used up", retry_after_s=3)
        return said[kind] if was else GOOD

    done, caller, watch = await run(tmp_path, answer, concurrency=1)
    assert (len(caller.calls), done.results[0].error) == (13, None)
    assert watch.clock.monotonic() == {"raised": 3, "503 with a time": 1}.get(kind, 0.5)


@pytest.mark.parametrize("answer", [refusal(code="insufficient_quota"), refusal(status=503), refusal(status=402)])
async def test_what_waiting_does_not_mend_is_an_error_at_once(tmp_path: Path, answer: PromptAnswer) -> None:
    """OpenAI says 429 also to an account without money."""
    done, caller, watch = await run(tmp_path, lambda call: answer if call.tags["case"] == "c7" else GOOD)
    assert [result.error_kind for result in done.results if result.error] == [answer.code]
    assert (len(caller.calls), watch.slept) == (12, [])


async def test_refusals_halve_what_is_under_way_once_for_all_of_them(tmp_path: Path) -> None:
    """A provider that takes two at once: from sixteen it goes down to it, and hardly above it again."""
    under_way = 0
    most_after: list[int] = []

    class Two(ScriptedCaller):
        async def call(self, call: PromptCall) -> PromptAnswer:
            nonlocal under_way
            self.calls.append(call)
            under_way += 1
            most_after.append(under_way)
            try:
                await asyncio.sleep(0)
                return refusal() if under_way > 2 else GOOD
            finally:
                under_way -= 1

    write(tmp_path, eval_yaml="checks: [is-json]\n", golden_jsonl=lines(*({"id": f"c{n}"} for n in range(200))))
    watch, caller = Watch(), Two(lambda call: GOOD)
    seen: list[Progress] = []
    done = await run_suite(
        *load(tmp_path),
        version(),
        caller,
        run_id="r",
        clock=watch.clock,
        pace=watch.pace(16),
        progress=seen.append,
    )
    assert all(result.error is None for result in done.results)
    assert most_after[0:16] == list(range(1, 17))
    assert max(most_after[100:]) <= 3
    assert len(caller.calls) < 200 + 16 + 8 + 4 + 200 / WINDOW * 3
    assert {progress.concurrency for progress in seen[100:]} <= {1, 2, 3}


def test_one_round_of_refusals_halves_once() -> None:
    pace = Watch().pace(16)
    for _ in range(16):
        pace.refused(0, None)
    assert (pace.limit, pace.epoch) == (8, 1)
    for epoch in (1, 2, 3, 4, 5):
        pace.refused(epoch, None)
    assert pace.limit == 1


def test_good_answers_add_one_a_window_up_to_four_times_the_beginning() -> None:
    pace = Watch().pace(4)
    limits = []
    for _ in range(WINDOW * 2):
        pace.answered(1.0)
        limits.append(pace.limit)
    assert limits == [4] * (WINDOW - 1) + [5] * WINDOW + [6]
    for _ in range(1_000):
        pace.answered(1.0)
    assert pace.limit == pace.most == 16
    assert Watch().pace(256).most == MOST


def test_where_more_at_once_is_only_slower_it_does_not_grow() -> None:
    """A model on one machine never says 429: it queues."""
    pace = Watch().pace(4)
    for _ in range(600):
        pace.answered(0.1 * max(4, pace.limit - 3) ** 2)
    assert 4 < pace.limit < 10
    for _ in range(600):
        pace.answered(60.0)
    assert pace.limit == 4, "never below what the suite asked for"


def test_a_pause_doubles_until_something_is_answered() -> None:
    pace = Watch().pace(4)
    assert [pace.refused(epoch, None) for epoch in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    pace.answered(1.0)
    assert pace.refused(8, None) == 0.5


async def test_a_provider_that_takes_nothing_for_ten_minutes_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="for 10 minutes every call was one too many"):
        await run(tmp_path, lambda call: refusal(40))


async def test_a_provider_that_asks_for_an_hour_ends_the_run_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="one too many"):
        await run(tmp_path, lambda call: refusal(3_600), concurrency=1)


async def test_one_case_that_is_always_too_many_is_an_error_in_the_end(tmp_path: Path) -> None:
    """OpenAI says 429 to a request that is larger than a minute's tokens: the others go on."""
    done, caller, watch = await run(tmp_path, lambda call: refusal() if call.tags["case"] == "c3" else GOOD)
    assert [result.case_id for result in done.results if result.error] == ["c3"]
    assert PATIENCE_S - 60 < watch.clock.monotonic() <= PATIENCE_S + 60
    assert len(caller.calls) < 60


async def test_a_cancelled_wait_leaves_the_count_right() -> None:
    watch = Watch()
    pace = watch.pace(1)
    await pace.enter()
    waiting = asyncio.create_task(pace.enter())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    pace.leave()
    await asyncio.wait_for(pace.enter(), 1)
    assert pace.under_way == 1
