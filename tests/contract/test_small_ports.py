"""The contracts of Clock, Random, Prices, PromptSource, Caller and Reply, on every adapter and on the fakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager as AsyncContext
from contextlib import AsyncExitStack, asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tidegate.config import Config, Price
from tidegate.core.artifact import Artifact, Input, Message, digest
from tidegate.core.errors import NotFound
from tidegate.core.evaluation import ToolUse
from tidegate.core.ledger import Served
from tidegate.core.pricing import price
from tidegate.core.retries import RetryBudget
from tidegate.core.usage import Usage
from tidegate.fakes import FakePrompts, FakeUpstream, FixedClock, FixedRandom, MemorySpool, ScriptedAnswer, as_read
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.caller import Collected, HttpCaller, InProcessCaller
from tidegate.gateway.edge import Edge, HttpReply, Request
from tidegate.gateway.pipeline import Services
from tidegate.gateway.routes import Routes
from tidegate.ports import Caller, Clock, Prices, PromptCall, PromptSource, Random, Reply, TokenChance
from tidegate.prompts.live import LivePrompts
from tidegate.prompts.registry import Registry
from tidegate.stores.control import open_control
from tidegate.system import SystemClock, SystemRandom
from tidegate.upstream.http1 import Pool
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

ARTIFACT = Artifact(messages=(Message("user", "{{ question }}"),), model="sim/m-1", inputs={"question": Input()})
KEY = "tgi_internal"


# --- Clock, Random ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [SystemClock(), FixedClock()], ids=lambda clock: type(clock).__name__)
def test_a_clock_tells_utc_in_nanoseconds_and_never_goes_back(clock: Clock) -> None:
    instants = [(clock.monotonic(), clock.now_ns()) for _ in range(3)]
    assert sorted(instants) == instants
    assert 1_600_000_000 < instants[0][1] / 1e9 < 5_000_000_000


@pytest.mark.parametrize("random", [SystemRandom(), FixedRandom()], ids=lambda random: type(random).__name__)
def test_randomness_stays_in_its_bounds(random: Random) -> None:
    assert all(0 <= random.bits(8) < 256 for _ in range(600))
    assert all(0 <= random.uniform() < 1 for _ in range(100))
    assert random.bits(80) != random.bits(80)


# --- Prices -------------------------------------------------------------------------------------------------------


def test_own_prices_come_before_the_catalogue_and_unknown_models_have_none() -> None:
    own = {"openai/gpt-4.1-2025-04-14": Price(input=Decimal(1_000), output=Decimal(0))}
    prices: Prices = PriceList(own, {"openai": "openai"})
    catalogue: Prices = PriceList({}, {"openai": "openai"})
    mine = prices.rates("openai", "gpt-4.1-2025-04-14")
    theirs = catalogue.rates("openai", "gpt-4.1-2025-04-14")
    assert mine is not None
    assert theirs is not None
    million = Usage(input_tokens=1_000_000)
    assert price(million, mine) == 1_000 * 10**9
    assert price(million, theirs) == 2 * 10**9
    assert prices.rates("openai", "no-such-model") is None
    assert prices.rates("nobody", "gpt-4.1-2025-04-14") is None


# --- PromptSource -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[PromptSource]:
    with closing(open_control(folder / "control.db")) as store:
        registry = Registry(store, FixedClock(), FixedRandom(), protects=[])
        version = registry.register("shop/answer", ARTIFACT)
        registry.deploy("shop/answer", version.name, who="test")
        prompts = LivePrompts(registry, FixedClock())
        await prompts.refresh()
        yield prompts


@asynccontextmanager
async def faked(folder: Path) -> AsyncIterator[PromptSource]:
    served = Served("shop/answer", 1, digest(ARTIFACT), ARTIFACT)
    yield FakePrompts({("shop/answer", "production"): served})


@pytest.mark.parametrize("source", [stored, faked])
async def test_a_prompt_is_found_by_environment_version_and_digest(
    source: Callable[[Path], AsyncContext[PromptSource]], tmp_path: Path
) -> None:
    async with source(tmp_path) as prompts:
        live = prompts.live("shop/answer", "production")
        assert live is not None
        assert (live.version, live.digest, live.artifact) == (1, digest(ARTIFACT), ARTIFACT)
        assert prompts.names() == ["shop/answer"]
        assert prompts.live("shop/answer", "staging") is prompts.live("nobody", "production") is None
        for selector in ("v1", digest(ARTIFACT), digest(ARTIFACT)[:8]):
            assert await prompts.find("shop/answer", selector) == live
        for prompt, selector in (("shop/answer", "v2"), ("nobody", "v1")):
            with pytest.raises(NotFound):
                await prompts.find(prompt, selector)


# --- Caller -------------------------------------------------------------------------------------------------------


def services(upstream: FakeUpstream, spool: MemorySpool) -> Services:
    clock, random = FixedClock(), FixedRandom()
    config = Config.model_validate({"providers": {"sim": {"base_url": "http://127.0.0.1:1/v1"}}, "prices": PRICES})
    return Services(
        clock=clock,
        random=random,
        spool=spool,
        attempts=Attempts(upstream, RetryBudget(), clock, random),
        targets=Targets(config, PriceList(config.prices, {})),
        prompts=FakePrompts({("shop/answer", "production"): Served("shop/answer", 1, digest(ARTIFACT), ARTIFACT)}),
        keys=Keys(internal=KEY),
        project="default",
        content_sample=1.0,
    )


PRICES = {"sim/m-1": {"input": 1, "output": 2}}


@asynccontextmanager
async def in_process(parts: Services) -> AsyncIterator[Caller]:
    yield InProcessCaller(parts)


@asynccontextmanager
async def over_http(parts: Services) -> AsyncIterator[Caller]:
    async with AsyncExitStack() as stack:
        edge, pool = Edge(Routes(parts), max_body_bytes=1 << 20), Pool()
        port = await edge.start("127.0.0.1", 0)
        stack.push_async_callback(edge.close, 0)
        stack.push_async_callback(pool.close)
        yield HttpCaller(pool, FixedClock(), url=f"http://127.0.0.1:{port}", key=KEY)


def completion(text: str) -> ScriptedAnswer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return ScriptedAnswer(body=[json.dumps({"model": "m-1", "choices": [choice], "usage": usage}).encode()])


QUESTION = PromptCall("shop/answer", digest(ARTIFACT), {"question": "Why?"}, "eval", {"run": "r1"})


@pytest.mark.parametrize("way", [in_process, over_http])
async def test_a_caller_sends_what_follows_the_prompt_and_reads_tools_and_chances(
    way: Callable[[Services], AsyncContext[Caller]],
) -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "find", "arguments": '{"q": '}}
    message = {"role": "assistant", "content": "4", "tool_calls": [called, broken]}
    chances = {"content": [{"token": "4", "logprob": -0.1, "top_logprobs": [{"token": "5", "logprob": -2.0}]}]}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": chances}
    upstream = FakeUpstream(ScriptedAnswer(body=[json.dumps({"model": "m-1", "choices": [choice]}).encode()]))
    more = {"role": "user", "content": "Say it as JSON."}
    spool = MemorySpool()
    async with way(services(upstream, spool)) as caller:
        answer = await caller.call(msgspec.structs.replace(QUESTION, messages=(more,), top_logprobs=5, origin="judge"))
    sent = json.loads(upstream.requests[0].body)
    assert [message["content"] for message in sent["messages"]] == ["Why?", "Say it as JSON."]
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 5)
    assert as_read(spool.lines[0])["call"]["origin"] == "judge"
    assert answer.tool_calls == (ToolUse("find", {"q": 1}, "c1"), ToolUse("find", '{"q": ', "c2"))
    assert answer.logprobs == (TokenChance("4", -0.1, (("5", -2.0),)),)


@pytest.mark.parametrize("chances", [None, {}, {"content": None}, {"content": [{"nothing": 1}]}, "none", [1]])
async def test_a_provider_without_readable_chances_still_answers(chances: Any) -> None:
    message = {"role": "assistant", "content": "4"}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": chances}
    upstream = FakeUpstream(ScriptedAnswer(body=[json.dumps({"model": "m-1", "choices": [choice]}).encode()]))
    answer = await InProcessCaller(services(upstream, MemorySpool())).call(QUESTION)
    assert (answer.output, answer.error, answer.logprobs) == ("4", None, ())


@pytest.mark.parametrize("way", [in_process, over_http])
async def test_a_caller_gives_the_answer_with_its_tokens_and_cost(
    way: Callable[[Services], AsyncContext[Caller]],
) -> None:
    spool = MemorySpool()
    async with way(services(FakeUpstream(completion("Because.")), spool)) as caller:
        answer = await caller.call(QUESTION)
    row = as_read(spool.lines[0])["call"]
    assert (answer.output, answer.error, answer.finish_reason) == ("Because.", None, "stop")
    assert (answer.input_tokens, answer.output_tokens, answer.cost_nano_usd) == (10, 5, 10 * 1_000 + 5 * 2_000)
    assert (row["origin"], row["version"], row["tags"], row["id"]) == ("eval", 1, {"run": "r1"}, answer.call_id)


@pytest.mark.parametrize("way", [in_process, over_http])
@pytest.mark.parametrize(
    "call", [QUESTION, PromptCall("shop/answer", "0" * 64, {}, "eval")], ids=["refused", "unknown"]
)
async def test_a_failed_call_is_an_answer_with_an_error(
    way: Callable[[Services], AsyncContext[Caller]], call: PromptCall
) -> None:
    upstream = FakeUpstream(ScriptedAnswer(status=400, body=[b'{"error": {"message": "no such thing"}}']))
    async with way(services(upstream, MemorySpool())) as caller:
        answer = await caller.call(call)
    assert answer.output == ""
    assert answer.error
    assert answer.error.startswith("HTTP 4")


@pytest.mark.parametrize("way", [in_process, over_http])
async def test_a_call_that_was_one_too_many_says_so_and_when_to_come_back(
    way: Callable[[Services], AsyncContext[Caller]],
) -> None:
    """Runs slow down by it."""
    refusal = b'{"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}'
    many = [ScriptedAnswer(status=429, headers={"retry-after-ms": "20"}, body=[refusal]) for _ in range(4)]
    async with way(services(FakeUpstream(*many), MemorySpool())) as caller:
        answer = await caller.call(QUESTION)
    assert (answer.status, answer.code, answer.retry_after_s) == (429, "rate_limit_exceeded", 1.0)
    async with way(services(FakeUpstream(), MemorySpool())) as caller:
        unknown = await caller.call(msgspec.structs.replace(QUESTION, digest="0" * 64))
    assert (unknown.status, unknown.code, unknown.retry_after_s) == (404, "model_not_found", None)


# --- Reply --------------------------------------------------------------------------------------------------------

Talk = Callable[[Reply], Awaitable[None]]


async def to_memory(talk: Talk) -> tuple[int, str, bytes]:
    reply = Collected()
    await talk(reply)
    return reply.status, reply.headers["x-a"], reply.body


async def to_a_client(talk: Talk) -> tuple[int, str, bytes]:
    async def handle(request: Request, reply: HttpReply) -> None:
        await talk(reply)

    edge = Edge(handle, max_body_bytes=1 << 20)
    port = await edge.start("127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    finally:
        await edge.close(0)
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers["x-a"], body


@pytest.mark.parametrize("deliver", [to_memory, to_a_client])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_reply_delivers_what_was_pushed_in_order(
    deliver: Callable[[Talk], Awaitable[tuple[int, str, bytes]]], streamed: bool
) -> None:
    started: list[bool] = []

    async def talk(reply: Reply) -> None:
        started.append(reply.started)
        await reply.start(201, [("x-a", "1")], streamed=streamed)
        started.append(reply.started)
        if streamed:
            assert reply.push(b"one ")
            await reply.drained()
            assert reply.push(b"two ")
        await reply.end(b"end")

    assert await deliver(talk) == (201, "1", b"one two end" if streamed else b"end")
    assert started == [False, True]
