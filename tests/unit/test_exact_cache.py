"""The exact cache: what is given again and what is not, to whom, in which form, at what price; and one flight for many."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from tidegate.config import Config
from tidegate.core.artifact import Artifact, Input, Message, Output, digest
from tidegate.core.errors import InvalidRequest, StreamBroken
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.dialects import anthropic, gemini, openai_chat, openai_embeddings, openai_responses
from tidegate.dialects.dialect import Dialect
from tidegate.fakes import FakePrompts, FakeUpstream, FixedClock, FixedRandom, MemorySpool, ScriptedAnswer
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.cache_control import EVERYTHING, CacheControl, cache_control
from tidegate.gateway.call import Call
from tidegate.gateway.caller import Collected
from tidegate.gateway.lookup import Lookup
from tidegate.gateway.pipeline import Services, serve
from tidegate.stores.memory import MemoryAnswers
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

EXACT = {"exact": {"ttl_s": 60}}
CONFIG: dict[str, Any] = {
    "providers": {
        "sim": {"base_url": "http://127.0.0.1:1/v1"},
        "other": {"base_url": "http://127.0.0.1:2/v1"},
        "ant": {"dialect": "anthropic", "base_url": "http://127.0.0.1:3"},
    },
    "routes": {
        "support": {"targets": ["sim/m-1", "other/m-2"], "retries": 0},
        "off": {"targets": ["sim/m-1"], "retries": 0, "cache": {}},
        "claude": {"targets": ["ant/claude"], "retries": 0},
    },
    "caches": EXACT,
    "prices": {"sim/m-1": {"input": 1, "output": 2}, "other/m-2": {"input": 1, "output": 2}},
}
ARTIFACT = Artifact(
    messages=(Message("user", "{{ question }}"),),
    model="sim/m-1",
    inputs={"question": Input()},
    output=Output(format="json"),
)
CHAT: dict[str, Any] = {"model": "support", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
PROMPT = {"model": "prompt:support/answer", "variables": {"question": "why?"}}
DONE = b"data: [DONE]\n\n"


def completion(text: str = "hello", finish: str = "stop", **message: Any) -> bytes:
    said = {"role": "assistant", "content": text, **message}
    body = {
        "id": "c1",
        "model": "m-1-2026",
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
    return json.dumps(body).encode()


def event(**chunk: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c1", "model": "m-1-2026", **chunk}).encode() + b"\n\n"


def delta(finish: str | None = None, **part: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": part, "finish_reason": finish}])


USAGE = event(choices=[], usage={"prompt_tokens": 10, "completion_tokens": 5})
CHUNKS = [delta(content="hel"), delta(content="lo"), delta(finish="stop"), USAGE, DONE]


def whole(*answers: bytes) -> list[ScriptedAnswer]:
    return [ScriptedAnswer(body=[answer]) for answer in answers]


class Held(ScriptedAnswer):
    """Gives one chunk whenever it is told to; ends in `breaks` when it has any."""

    def __init__(self, *chunks: bytes, breaks: Exception | None = None) -> None:
        super().__init__(body=chunks, breaks=breaks)
        self.turns = asyncio.Semaphore(0)
        self.at = 0

    def let(self, count: int = 1) -> None:
        for _ in range(count):
            self.turns.release()

    def chunks(self) -> Held:
        return self

    def __aiter__(self) -> Held:
        return self

    async def __anext__(self) -> bytes:
        await self.turns.acquire()
        if self.at == len(self.body):
            if self.breaks is not None:
                raise self.breaks
            raise StopAsyncIteration
        self.at += 1
        return self.body[self.at - 1]

    async def read(self, limit: int) -> bytes:
        return b"".join([chunk async for chunk in self])


class Slow(Collected):
    """A client that takes no second piece."""

    async def send(self, chunk: bytes) -> None:
        await super().send(chunk)
        await asyncio.Event().wait()


@dataclass
class Bench:
    """A pipeline on fakes with a cache in memory."""

    upstream: FakeUpstream
    config: dict[str, Any] = field(default_factory=lambda: CONFIG)
    spool: MemorySpool = field(default_factory=MemorySpool)
    clock: FixedClock = field(default_factory=FixedClock)
    keys: Keys = field(default_factory=lambda: Keys(internal="tgi_secret"))
    project: str = "default"
    max_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        config = Config.model_validate(self.config)
        random = FixedRandom()
        served = Served("support/answer", 7, digest(ARTIFACT), ARTIFACT)
        attempts = Attempts(self.upstream, RetryBudget(), self.clock, random)
        self.answers = MemoryAnswers(max_bytes=self.max_bytes, clock=self.clock)
        self.lookup = Lookup(self.answers, attempts, self.clock, secret=b"s" * 32)
        self.services = Services(
            clock=self.clock,
            random=random,
            spool=self.spool,
            attempts=attempts,
            lookup=self.lookup,
            targets=Targets(config, PriceList(config.prices, {})),
            prompts=FakePrompts({("support/answer", "production"): served}),
            keys=self.keys,
            project=self.project,
            content_sample=1.0,
        )

    async def call(self, body: Any = CHAT, *, reply: Collected | None = None, **options: Any) -> Collected:
        reply = reply or Collected()
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        await serve(Call(body=raw, **options), reply, self.services)
        return reply

    def begin(self, body: Any = CHAT, **options: Any) -> asyncio.Task[Collected]:
        return asyncio.create_task(self.call(body, **options))

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line)["call"] for line in self.spool.lines]


def bench(*script: ScriptedAnswer, **options: Any) -> Bench:
    return Bench(FakeUpstream(*script), **options)


def said(reply: Collected) -> tuple[int, str]:
    return reply.status, reply.headers["x-tidegate-cache"]


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def cancel(task: asyncio.Task[Collected]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# What a hit is.


async def test_the_same_request_again_is_answered_from_memory_at_no_cost() -> None:
    b = bench(*whole(completion()))
    first, again = await b.call(), await b.call()
    assert (said(first), said(again)) == ((200, "miss"), (200, "hit"))
    assert first.body == again.body == completion()
    assert (first.headers["x-tidegate-cost-usd"], again.headers["x-tidegate-cost-usd"]) == ("0.000020000", "0.000000000")
    assert (again.headers["x-tidegate-attempts"], again.headers["x-tidegate-model"]) == ("0", "sim/m-1")
    miss, hit = b.rows()
    assert (miss["cache"], miss["cost_nano_usd"], miss.get("saved_cost_nano_usd")) == ("miss", 20_000, None)
    assert (hit["cache"], hit["cost_nano_usd"], hit.get("saved_cost_nano_usd")) == ("hit", 0, 20_000)
    assert (hit["response_model"], hit["outcome"]) == ("m-1-2026", "ok")
    assert b.upstream.open == 0


async def test_a_hit_is_a_record_of_its_own_with_its_content() -> None:
    b = bench(*whole(completion()))
    await b.call()
    await b.call()
    contents = [json.loads(line)["content"] for line in b.spool.lines]
    assert contents[0]["output"] == contents[1]["output"] == "hello"
    assert contents[0]["call_id"] != contents[1]["call_id"]


async def test_a_stream_is_given_again_byte_for_byte() -> None:
    b = bench(ScriptedAnswer(body=CHUNKS))
    first, again = await b.call(STREAM), await b.call(STREAM)
    assert (said(first), said(again)) == ((200, "miss"), (200, "hit"))
    assert again.body == first.body == b"".join(CHUNKS)


async def test_who_did_not_ask_for_usage_sees_none_in_a_stream_that_is_given_again() -> None:
    b = bench(ScriptedAnswer(body=CHUNKS))
    await b.call(STREAM)
    again = await b.call({**CHAT, "stream": True})
    assert said(again) == (200, "hit")
    assert again.body == b"".join([*CHUNKS[:3], DONE])
    assert b.rows()[1]["output_tokens"] == 5


async def test_a_whole_answer_serves_a_stream() -> None:
    calls = [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    b = bench(*whole(completion("hello", "tool_calls", tool_calls=calls)))
    await b.call()
    again = await b.call(STREAM)
    assert said(again) == (200, "hit")
    events = [json.loads(line[6:]) for line in again.body.decode().split("\n\n") if line.startswith("data: {")]
    assert again.body.endswith(DONE)
    deltas = [choice["delta"] for chunk in events for choice in chunk["choices"]]
    assert "".join(part.get("content") or "" for part in deltas) == "hello"
    called = [call["function"] for part in deltas for call in part.get("tool_calls", ())]
    assert (called[0]["name"], "".join(call["arguments"] for call in called)) == ("f", '{"a":1}')
    assert events[-1]["usage"]["completion_tokens"] == 5


async def test_a_stream_serves_a_whole_answer() -> None:
    b = bench(ScriptedAnswer(body=CHUNKS))
    await b.call(STREAM)
    again = await b.call()
    answer = json.loads(again.body)
    assert said(again) == (200, "hit")
    assert answer["choices"][0]["message"]["content"] == "hello"
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["prompt_tokens"], answer["id"]) == ("stop", 10, "c1")


async def test_what_no_stream_can_tell_does_not_cross() -> None:
    """Log-probabilities would be lost on the way, so the stream is asked for anew."""
    b = bench(*whole(completion()), ScriptedAnswer(body=CHUNKS))
    await b.call({**CHAT, "logprobs": True})
    assert said(await b.call({**STREAM, "logprobs": True})) == (200, "miss")


async def test_across_dialects_a_hit_is_retold_and_says_again_what_was_dropped() -> None:
    answer = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    b = bench(*whole(json.dumps(answer).encode()))
    body = {**CHAT, "model": "claude", "logit_bias": {"5": 1}}
    first, again = await b.call(body), await b.call(body)
    assert (said(first), said(again)) == ((200, "miss"), (200, "hit"))
    assert first.headers["x-tidegate-dropped"] == again.headers["x-tidegate-dropped"]
    assert "logit_bias" in again.headers["x-tidegate-dropped"]
    assert first.body == again.body


# What the key is.


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "hi "}]},
        {"temperature": 0},
        {"an_unknown_field": 1},
        {"model": "sim/m-1"},
        {"store": True},
        {"service_tier": "flex"},
    ],
)
async def test_anything_that_may_shape_an_answer_makes_another_request(change: dict[str, Any]) -> None:
    b = bench(*whole(completion(), completion("other")))
    await b.call()
    assert said(await b.call({**CHAT, **change})) == (200, "miss")


@pytest.mark.parametrize(
    "change", [{"user": "ada"}, {"metadata": {"a": "b"}}, {"safety_identifier": "x"}, {"prompt_cache_key": "k"}]
)
async def test_who_asks_and_for_what_account_does_not(change: dict[str, Any]) -> None:
    b = bench(*whole(completion()))
    await b.call()
    assert said(await b.call({**change, **CHAT})) == (200, "hit")


async def test_a_prompts_version_is_the_key_by_whatever_name_it_is_called() -> None:
    b = bench(*whole(completion("{}")))
    await b.call(PROMPT)
    again = await b.call({**PROMPT, "model": "prompt:support/answer@v7"})
    assert said(again) == (200, "hit")
    assert again.headers["x-tidegate-version"] == "v7"


async def test_projects_share_nothing() -> None:
    b = bench(*whole(completion()))
    await b.call()
    other = Bench(FakeUpstream(*whole(completion("theirs"))), project="other")
    other.services = replace(other.services, lookup=b.lookup, attempts=b.lookup.attempts)
    b.upstream._script = whole(completion("theirs"))  # noqa: SLF001
    assert said(await other.call()) == (200, "miss")
