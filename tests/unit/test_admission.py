"""What a call holds of limits and budgets from its first attempt to its record, however it ends."""

import asyncio
import json
import linecache
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from types import FrameType
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tidegate.config import Config
from tidegate.core.artifact import Artifact, Input, Message, digest
from tidegate.core.errors import StreamBroken, UpstreamTimeout, UpstreamUnavailable
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.core.usage import estimate_tokens
from tidegate.dialects import anthropic, gemini, openai_chat, openai_embeddings, openai_responses
from tidegate.dialects.dialect import Dialect
from tidegate.fakes import (
    FakePrompts,
    FakeUpstream,
    FixedClock,
    FixedRandom,
    MemoryRunning,
    MemorySpool,
    ScriptedAnswer,
    as_read,
)
from tidegate.gateway import admit as admission
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.call import Call
from tidegate.gateway.caller import Collected
from tidegate.gateway.pipeline import Services, serve
from tidegate.ports import SERVER_CLOSING
from tidegate.stores.meter import Meter
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

ARTIFACT = Artifact(
    messages=(Message("user", "Question: {{ question }}"),),
    model="sim/m-1",
    params={"max_output_tokens": 50},
    inputs={"question": Input()},
)
PRICES = {
    "sim/m-1": {"input": 1, "output": 2},
    "other/m-2": {"input": 3, "output": 1, "service_tiers": {"priority": 4}},
}
CONFIG: dict[str, Any] = {
    "providers": {"sim": {"base_url": "http://127.0.0.1:1/v1"}, "other": {"base_url": "http://127.0.0.1:2/v1"}},
    "routes": {"support": {"targets": ["sim/m-1", "other/m-2"], "retries": 1}},
    "prices": PRICES,
}
CHAT = {"model": "sim/m-1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
ANSWER = json.dumps(
    {
        "model": "m-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
).encode()
COST = 20_000
"""Of ANSWER, in nano-USD: 10 tokens at 1 and 5 at 2 dollars per million."""
EVENTS = [
    b'data: {"model": "m-1", "choices": [{"index": 0, "delta": {"content": "yes"}, "finish_reason": null}]}\n\n',
    b'data: {"model": "m-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n',
    b'data: {"model": "m-1", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}\n\n',
    b"data: [DONE]\n\n",
]


@dataclass
class Bench:
    """A pipeline on fakes, with limits and budgets."""

    limits: Mapping[str, Any] = field(default_factory=dict)
    budgets: Mapping[str, Any] = field(
        default_factory=lambda: {"total": {"day": 1}, "models": {"sim/m-1": {"month": 5}}}
    )
    answers: list[Any] = field(default_factory=list)
    config: Mapping[str, Any] = field(default_factory=lambda: CONFIG)

    def __post_init__(self) -> None:
        self.upstream = FakeUpstream(*self.answers)
        self.spool = MemorySpool()
        config = Config.model_validate({**self.config, "limits": self.limits, "budgets": self.budgets})
        clock, random = FixedClock(), FixedRandom()
        self.clock = clock
        self.running = MemoryRunning()
        self.meter = Meter(config.limits, config.budgets, zone=ZoneInfo("UTC"), clock=clock, running=self.running)
        served = Served("support/answer", 7, digest(ARTIFACT), ARTIFACT)
        self.services = Services(
            clock=clock,
            random=random,
            spool=self.spool,
            attempts=Attempts(self.upstream, RetryBudget(), clock, random),
            targets=Targets(config, PriceList(config.prices, {})),
            prompts=FakePrompts({("support/answer", "production"): served}),
            keys=Keys(),
            project="default",
            content_sample=0.0,
            admission=self.meter,
        )

    async def call(self, body: Any, reply: Collected | None = None, **options: Any) -> Collected:
        reply = reply or Collected()
        await serve(Call(body=json.dumps(body).encode(), **options), reply, self.services)
        return reply

    def held(self) -> int:
        """Nano-USD that are reserved now, in all budgets."""
        return sum(state.reserved_nano_usd for state in self.meter.budgets())

    def spent(self) -> dict[str, int]:
        return {state.scope: state.spent_nano_usd for state in self.meter.budgets() if state.spent_nano_usd}

    def record(self) -> dict[str, Any]:
        (line,) = self.spool.lines
        record: dict[str, Any] = as_read(line)["call"]
        return record

    def begun(self) -> dict[str, Any]:
        (said,) = self.running.begun
        begun: dict[str, Any] = json.loads(said)
        return begun


class Gone(Collected):
    """A client that leaves as its answer begins."""

    def push(self, chunk: bytes) -> bool:
        raise asyncio.CancelledError

    async def end(self, tail: bytes = b"") -> None:
        raise asyncio.CancelledError


class Broken(Collected):
    """A bug of ours."""

    async def start(self, status: int, headers: Any, *, streamed: bool) -> None:
        if status == 200:
            raise RuntimeError("a bug")
        await super().start(status, headers, streamed=streamed)


class Slow(Collected):
    """A client that takes its time."""

    async def start(self, status: int, headers: Any, *, streamed: bool) -> None:
        await asyncio.sleep(0)
        await super().start(status, headers, streamed=streamed)

    def push(self, chunk: bytes) -> bool:
        return False

    async def drained(self) -> None:
        await asyncio.sleep(0)

    async def end(self, tail: bytes = b"") -> None:
        await asyncio.sleep(0)


class Fault(Exception):
    """What is raised in the middle of a call."""


@dataclass
class Faulty:
    """Raises Fault as the line number `at` of the gateway's own code is reached, counted as they run."""

    at: int
    where: str = ""

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(GATEWAY) or code.co_name in THE_END:
            return None
        if event == "line" and not self.where:
            text = linecache.getline(code.co_filename, frame.f_lineno).strip()
            if text != "record.close()":
                self.at -= 1
                if self.at < 0:
                    self.where = f"{code.co_filename}:{frame.f_lineno} {text}"
                    raise Fault
        return self


@contextmanager
def faulty(line: int) -> Iterator[Faulty]:
    fault, before = Faulty(line), sys.gettrace()
    sys.settrace(fault)
    try:
        yield fault
    finally:
        sys.settrace(before)


GATEWAY = str(FilePath(admission.__file__).parent)
THE_END = ("close", "_since", "encode_entry", "_clip")
"""Where a call is closed and everything given back: nothing in it can fail but the spool, which is broken elsewhere."""


# --- every way out ------------------------------------------------------------------------------------------------

STREAM = {**CHAT, "stream": True}
GOOD = ScriptedAnswer(body=[ANSWER])
CANCELLED, CLOSING = asyncio.CancelledError(), asyncio.CancelledError(SERVER_CLOSING)
ENDS: dict[str, tuple[Any, list[ScriptedAnswer], type[Collected], str, bool]] = {
    "an answer": (CHAT, [GOOD], Collected, "ok", True),
    "a stream": (STREAM, [ScriptedAnswer(body=EVENTS)], Collected, "ok", True),
    "a refusal upstream": (CHAT, [ScriptedAnswer(status=400, body=[b"{}"])], Collected, "error", False),
    "no provider": (CHAT, [ScriptedAnswer(fails=UpstreamUnavailable("no"))] * 3, Collected, "error", False),
    "a timeout": (
        CHAT,
        [ScriptedAnswer(fails=UpstreamTimeout("slow", phase="first_byte"))] * 3,
        Collected,
        "error",
        True,
    ),
    "a cut stream": (STREAM, [ScriptedAnswer(body=EVENTS[:1], breaks=StreamBroken("cut"))], Collected, "error", True),
    "a client that leaves a stream": (STREAM, [ScriptedAnswer(body=EVENTS)], Gone, "client_closed", True),
    "a client that leaves an answer": (CHAT, [GOOD], Gone, "ok", True),
    "a client that leaves before": (CHAT, [ScriptedAnswer(fails=CANCELLED)], Collected, "client_closed", True),
    "a closing server": (CHAT, [ScriptedAnswer(fails=CLOSING)], Collected, "error", True),
    "a bug": (CHAT, [GOOD], Broken, "ok", True),
    "a bug upstream": (CHAT, [ScriptedAnswer(fails=RuntimeError("a bug"))], Collected, "error", False),
}
"""What happens → request, what upstream does, what the client does, outcome, whether it costs."""


@pytest.mark.parametrize("way", ENDS)
async def test_every_way_out_gives_everything_back_and_charges_what_the_record_says(way: str) -> None:
    body, answers, reply, outcome, costs = ENDS[way]
    bench = Bench(limits={"total": {"concurrent": 1}}, answers=answers)
    with suppress(asyncio.CancelledError):
        await bench.call(body, reply())
    record = bench.record()
    cost = record.get("cost_nano_usd") or 0
    assert (record.get("outcome", "error"), cost > 0) == (outcome, costs)
    assert cost == COST or outcome != "ok"
    assert bench.spent() == ({"total": cost, "model sim/m-1": cost} if cost else {})
    charge = [cost, ["total day", "model sim/m-1 month"]] if cost else None
    assert json.loads(bench.spool.lines[0]).get("charge") == charge
    assert (bench.held(), bench.running.standing) == (0, set())
    bench.upstream = bench.services.attempts._upstream = FakeUpstream(GOOD)
    assert (await bench.call(CHAT)).status == 200, "its place is free again"


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["unary", "stream"])
async def test_a_cancel_at_any_moment_gives_everything_back(body: Any) -> None:
    outcomes = set()
    for moment in range(60):
        slow = ScriptedAnswer(body=EVENTS if body is STREAM else [ANSWER])
        bench = Bench(limits={"total": {"concurrent": 1}}, answers=[slow])
        call = asyncio.create_task(bench.call(body, Slow()))
        for _ in range(moment):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert (bench.held(), bench.running.standing, len(bench.spool.lines)) == (0, set(), moment > 0)
        outcomes |= {bench.record().get("outcome", "error")} if moment else set()
    assert outcomes == {"client_closed", "ok"}


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["unary", "stream"])
async def test_a_fault_in_any_line_of_a_call_gives_everything_back(body: Any) -> None:
    failed = 0
    for line in range(1_000):
        bench = Bench(
            limits={"total": {"concurrent": 1}}, answers=[ScriptedAnswer(body=EVENTS if body is STREAM else [ANSWER])]
        )
        with faulty(line) as fault, suppress(Fault):
            await bench.call(body)
        assert (bench.held(), bench.running.standing) == (0, set()), fault.where
        if not fault.where:
            break
        failed += 1
    assert 100 < failed < 999


@pytest.mark.parametrize("broken", ["begin", "append"])
async def test_a_spool_that_breaks_leaks_nothing(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(line: bytes) -> bool:
        raise OSError("broken")

    bench = Bench(limits={"total": {"concurrent": 1}}, answers=[GOOD, GOOD])
    with monkeypatch.context() as patch:
        patch.setattr(bench.running if broken == "begin" else bench.spool, broken, breaks)
        assert (await bench.call(CHAT)).status == 500
    assert (bench.held(), bench.running.standing) == (0, set())
    assert (await bench.call(CHAT)).status == 200


async def test_money_is_back_before_the_last_byte_goes_out() -> None:
    """A client that calls again at once must find what its last call did not need."""
    bench = Bench(answers=[GOOD])
    seen = []

    class Watching(Collected):
        async def end(self, tail: bytes = b"") -> None:
            seen.append(bench.held())

    await bench.call(CHAT, Watching())
    assert seen == [0]


async def test_a_full_disk_refuses_calls_under_a_budget_and_no_others() -> None:
    bench = Bench(answers=[GOOD])
    bench.running.full = True
    assert (await bench.call(CHAT)).status == 503
    assert bench.held() == 0
    assert not bench.upstream.requests
    free = Bench(limits={"total": {"concurrent": 1}}, budgets={}, answers=[GOOD])
    free.spool.full = True
    assert (await free.call(CHAT)).status == 200


# --- what is reserved ---------------------------------------------------------------------------------------------


def reserved(
    body: dict[str, Any],
    *,
    models: tuple[tuple[int, int], ...] = ((1, 2),),
    output: int,
    extra: int = 0,
    tries: int = 3,
) -> int:
    """Nano-USD: bytes and output at the dearest of these rates, and for every other try a quarter of the bytes."""
    size = len(json.dumps(body).encode()) + extra
    again = (tries - 1) * estimate_tokens(size)
    return max((size + admission.HIDDEN_TOKENS + again) * a + output * b for a, b in models) * 1_000


@pytest.mark.parametrize(
    ("more", "output"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 70, "max_tokens": 7}, 70),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": None}, 4_096),
        ({}, 4_096),
        ({"max_tokens": "9000"}, 9_000),
        ({"max_tokens": 1e4}, 10_000),
        ({"max_tokens": -5}, 4_096),
        ({"max_tokens": [1]}, 4_096),
        ({"n": 3}, 3 * 4_096),
    ],
)
async def test_the_bound_on_output_is_reserved(more: dict[str, Any], output: int) -> None:
    bench, body = Bench(answers=[GOOD]), {"model": "sim/m-1", "messages": [], **more}
    await bench.call(body)
    assert bench.begun()["charge"][0] == reserved(body, output=output)


@pytest.mark.parametrize(
    ("dialect", "body", "output"),
    [
        (openai_responses.DIALECT, {"model": "sim/m-1", "input": "hi", "max_output_tokens": 9}, 9),
        (anthropic.DIALECT, {"model": "sim/m-1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}, 9),
        (openai_embeddings.DIALECT, {"model": "sim/m-1", "input": "hi"}, 0),
    ],
)
async def test_every_dialect_has_its_bound(dialect: Dialect, body: dict[str, Any], output: int) -> None:
    bench = Bench(answers=[GOOD])
    await bench.call(body, dialect=dialect)
    assert bench.begun()["charge"][0] == reserved(body, output=output)


@pytest.mark.parametrize(
    ("config", "output"),
    [
        ({"maxOutputTokens": 9}, 9),
        ({"max_output_tokens": 9, "candidate_count": 2}, 18),
        ({"maxOutputTokens": 9, "candidateCount": 2}, 18),
        ({"maxOutputTokens": 9, "max_output_tokens": 99, "candidateCount": 2, "candidate_count": 3}, 297),
        ({"candidateCount": 2}, 2 * 4_096),
        ({}, 4_096),
    ],
)
async def test_geminis_bound_is_one_level_deeper(config: dict[str, Any], output: int) -> None:
    bench = Bench(answers=[GOOD])
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": config}
    await bench.call(body, dialect=gemini.DIALECT, model="sim/m-1", stream=False)
    assert bench.begun()["charge"][0] == reserved(body, output=output)


@pytest.mark.parametrize(
    ("dialect", "more"),
    [
        (openai_chat.DIALECT, {"max_output_tokens": 1, "generationConfig": {"maxOutputTokens": 1}}),
        (openai_responses.DIALECT, {"input": "hi", "max_tokens": 1, "max_completion_tokens": 1}),
        (anthropic.DIALECT, {"max_output_tokens": 1, "max_completion_tokens": 1}),
        (gemini.DIALECT, {"contents": [{"parts": [{"text": "hi"}]}], "max_tokens": 1, "n": 1}),
    ],
)
async def test_g2_another_dialects_bound_binds_nobody(dialect: Dialect, more: dict[str, Any]) -> None:
    """Who wrote `max_tokens: 1` beside the bound that its provider reads had a whole answer reserved as one token."""
    bench = Bench(answers=[GOOD])
    body = {"model": "sim/m-1", "messages": [{"role": "user", "content": "hi"}], **more}
    await bench.call(body, dialect=dialect, model="sim/m-1", stream=False)
    assert bench.begun()["charge"][0] == reserved(body, output=4_096)


async def test_the_dearest_target_on_the_dearest_tier_is_reserved_and_the_one_that_answers_is_charged() -> None:
    budgets = {"total": {"day": 1}, "models": {"sim/m-1": {"day": 1}, "other/m-2": {"day": 1}, "support": {"day": 1}}}
    refused = ScriptedAnswer(status=404, body=[b"{}"])
    bench, body = Bench(budgets=budgets, answers=[refused, GOOD]), {**CHAT, "model": "support"}
    await bench.call(body)
    assert bench.begun()["charge"][0] == reserved(body, models=((1, 2), (12, 4)), output=100, tries=4)
    cost = 10 * 3_000 + 5 * 1_000
    assert bench.spent() == {"total": cost, "model support": cost, "model other/m-2": cost}
    assert bench.held() == 0


@pytest.mark.parametrize("answers", [True, False])
async def test_g2_tries_that_nobody_waited_for_are_within_what_was_reserved(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is charged its input: five of them, of 8,000 letters, cost 1.2 times what the call had reserved."""
    slept = asyncio.sleep
    monkeypatch.setattr("tidegate.gateway.attempt.asyncio.sleep", lambda _: slept(0))
    late = ScriptedAnswer(fails=UpstreamTimeout("late", phase="first_byte"))
    used = {"prompt_tokens": 8_000, "completion_tokens": 1}
    last = ScriptedAnswer(body=[json.dumps({**json.loads(ANSWER), "usage": used}).encode()])
    routes = {"support": {"targets": ["sim/m-1", "other/m-3"], "retries": 2}}
    prices = {name: {"input": 1, "output": 1} for name in ("sim/m-1", "other/m-3")}
    config = {**CONFIG, "routes": routes, "prices": prices}
    bench = Bench(answers=[*[late] * 4, last if answers else late], config=config)
    body = {**CHAT, "model": "support", "messages": [{"role": "user", "content": "x" * 8_000}], "max_tokens": 1}
    await bench.call(body)
    assert len(bench.record()["attempts"]) == 5  # the budget of retries allows three of four
    assert 4 * 2_000_000 < bench.spent()["total"] <= bench.begun()["charge"][0]


async def test_a_prompts_own_words_and_bound_are_reserved() -> None:
    bench = Bench(budgets={"prompts": {"support/answer": {"day": 1}}}, answers=[GOOD])
    body = {"model": "prompt:support/answer", "variables": {"question": "why? " * 50}}
    await bench.call(body)
    said = '[{"role":"user","content":"Question: ' + "why? " * 50 + '"}]'
    assert bench.begun()["charge"][0] == reserved(body, output=50, extra=len(said))
    assert bench.begun()["charge"][1] == ["prompt support/answer day"]
    assert bench.spent() == {"prompt support/answer": COST}


# --- refusals -----------------------------------------------------------------------------------------------------


async def test_a_refused_call_goes_nowhere_and_its_record_says_why() -> None:
    bench = Bench(limits={"models": {"sim/m-1": {"requests_per_minute": 1}}}, budgets={}, answers=[GOOD])
    await bench.call(CHAT)
    bench.spool.lines.clear()
    reply = await bench.call(CHAT)
    assert (reply.status, reply.headers["retry-after"]) == (429, "61")
    assert "x-should-retry" not in reply.headers
    error = json.loads(reply.body)["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    record = bench.record()
    assert (record["outcome"], record["http_status"], record["error_type"]) == ("rejected", 429, "rate_limit_exceeded")
    assert record["error_message"] == (
        "model sim/m-1: the requests per minute are used up (limits.models.sim/m-1.requests_per_minute: 1)."
        " Try again in 61 s."
    )
    assert len(bench.upstream.requests) == 1
    assert bench.running.begun == [], "a call without a budget is not written down twice"


@pytest.mark.parametrize(
    ("dialect", "body", "said"),
    [
        (openai_chat.DIALECT, CHAT, {"type": "invalid_request_error", "code": "budget_exhausted"}),
        (anthropic.DIALECT, CHAT, {"type": "billing_error"}),
        (gemini.DIALECT, {"contents": []}, {"status": "RESOURCE_EXHAUSTED", "code": 402}),
    ],
)
async def test_an_exhausted_budget_is_402_and_says_when_it_resets(
    dialect: Dialect, body: dict[str, Any], said: dict[str, Any]
) -> None:
    bench = Bench(budgets={"total": {"day": "0.000001"}})
    url: dict[str, Any] = {"model": "sim/m-1", "stream": False} if dialect is gemini.DIALECT else {}
    reply = await bench.call(body, dialect=dialect, **url)
    error = json.loads(reply.body)["error"]
    assert reply.status == 402
    assert said.items() <= error.items()
    assert "begins anew at 2026-03-02T00:00:00Z" in error["message"]
    assert reply.headers["x-should-retry"] == "false"
    assert not bench.upstream.requests


async def test_64_calls_at_once_never_pass_a_cap_for_ten_and_a_half() -> None:
    each = reserved(CHAT, output=100)
    bench = Bench(budgets={"total": {"day": f"{each * 10.5 / 1e9:.9f}"}}, answers=[ScriptedAnswer(stalls=True)] * 64)
    calls = [asyncio.create_task(bench.call(CHAT)) for _ in range(64)]
    await asyncio.sleep(0.05)  # long enough for all that does not wait for a provider
    assert sum(call.done() for call in calls) == 54
    assert bench.held() == 10 * each
    assert len(bench.upstream.requests) == 10
    for call in calls:
        call.cancel()
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(reply, asyncio.CancelledError) for reply in replies) == 10
    assert {reply.status for reply in replies if isinstance(reply, Collected)} == {429}
    assert (bench.held(), bench.running.standing) == (0, set())
