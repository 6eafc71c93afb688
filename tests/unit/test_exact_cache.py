"""The exact cache: what is given again and what not, to whom, in which form, at what price; and one flight for many."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tidegate.config import Config
from tidegate.core.artifact import Artifact, Input, Message, Output, digest
from tidegate.core.errors import InvalidRequest, StreamBroken
from tidegate.core.kept import answer_key, keyed_hash
from tidegate.core.keys import ENTROPY_BYTES, OPEN, Key, KeyRing, fingerprint, mint
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.dialects import anthropic, gemini, openai_chat, openai_embeddings, openai_responses
from tidegate.dialects.dialect import Dialect
from tidegate.fakes import FakePrompts, FakeUpstream, FixedClock, FixedRandom, MemorySpool, ScriptedAnswer, as_read
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.cache_control import EVERYTHING, CacheControl, cache_control
from tidegate.gateway.call import Call
from tidegate.gateway.caller import Collected
from tidegate.gateway.lookup import ECHOED, Lookup, repeatable
from tidegate.gateway.pipeline import Services, serve
from tidegate.gateway.resolve import Plan
from tidegate.ports import Pieces
from tidegate.stores.memory import MemoryAnswers
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

EXACT = {"exact": {"ttl_s": 60}}
CONFIG: dict[str, Any] = {
    "providers": {
        "sim": {"base_url": "http://127.0.0.1:1/v1"},
        "other": {"base_url": "http://127.0.0.1:2/v1"},
        "ant": {"dialect": "anthropic", "base_url": "http://127.0.0.1:3"},
        "res": {"dialect": "openai_responses", "base_url": "http://127.0.0.1:4/v1"},
    },
    "routes": {
        "support": {"targets": ["sim/m-1", "other/m-2"], "retries": 0},
        "off": {"targets": ["sim/m-1"], "retries": 0, "cache": {}},
        "claude": {"targets": ["ant/claude"], "retries": 0},
        "responses": {"targets": ["res/m-3"], "retries": 0},
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


RESPONSE = (
    b'{"id":"resp_1","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}],'
    b'"usage":{"input_tokens":1,"output_tokens":1}}'
)


def event(**chunk: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c1", "model": "m-1-2026", **chunk}).encode() + b"\n\n"


def delta(finish: str | None = None, **part: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": part, "finish_reason": finish}])


USAGE = event(choices=[], usage={"prompt_tokens": 10, "completion_tokens": 5})
CHUNKS = [delta(content="hel"), delta(content="lo"), delta(finish="stop"), USAGE, DONE]


def whole(*answers: bytes) -> list[ScriptedAnswer]:
    return [ScriptedAnswer(body=[answer]) for answer in answers]


class Held(ScriptedAnswer, Pieces):
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

    def push(self, chunk: bytes) -> bool:
        super().push(chunk)
        return False

    async def drained(self) -> None:
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
        return [as_read(line)["call"] for line in self.spool.lines]


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
    assert (first.headers["x-tidegate-cost-usd"], again.headers["x-tidegate-cost-usd"]) == (
        "0.000020000",
        "0.000000000",
    )
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
    contents = [as_read(line)["content"] for line in b.spool.lines]
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


@pytest.mark.parametrize("name", ECHOED)
async def test_what_an_answer_says_again_of_its_client_goes_to_no_other(name: str) -> None:
    """The Responses API repeats these in its answers: another client's hit would show them."""
    b = bench(*whole(RESPONSE, RESPONSE))
    asked = {"model": "responses", "input": "hi"}
    ada, bob = {**asked, name: "ada"}, {**asked, name: "bob"}
    states = [said(await b.call(body, dialect=openai_responses.DIALECT)) for body in (ada, bob, ada, bob)]
    assert states == [(200, "miss"), (200, "miss"), (200, "hit"), (200, "hit")]
    across = bench(*whole(completion()))
    for state in ("miss", "hit"):  # an answer of another dialect repeats nothing
        body = {**asked, "model": "support", name: state}
        assert said(await across.call(body, dialect=openai_responses.DIALECT)) == (200, state)


async def test_a_header_that_goes_up_makes_another_request() -> None:
    b = bench()
    targets = Targets(Config.model_validate(CONFIG), PriceList({}, {}))
    incoming = openai_chat.DIALECT.parse_request(json.dumps(CHAT).encode())
    keys = {
        b.lookup.key(Plan(openai_chat.DIALECT, incoming, targets.find("claude"), headers=headers), "default", OPEN)
        for headers in ({}, {"anthropic-beta": "a"}, {"anthropic-beta": "b"}, {"x-request-id": "1"})
    }
    assert len(keys) == 3


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
    b.upstream._script = whole(completion("theirs"))
    assert said(await other.call()) == (200, "miss")


def key_of(name: str, number: int, **lists: Any) -> tuple[str, Key]:
    token, prefix = mint(bytes([number]) * ENTROPY_BYTES)
    return token, Key(prefix, name, "caller", fingerprint(token), "2026-01-01T00:00:00Z", "root", **lists)


async def test_keys_with_other_restrictions_share_nothing_and_without_the_right_see_nothing() -> None:
    keys = [
        key_of("a", 1, models=("support",)),
        key_of("b", 2, models=("support",)),
        key_of("c", 3, models=("*",)),
        key_of("d", 4, models=("off",)),
    ]
    ring = KeyRing([key for _, key in keys])
    b = bench(*whole(completion(), completion("theirs")), keys=Keys(ring=lambda: ring, loopback=False))
    first, same, wider = [await b.call(key=token) for token, _ in keys[:3]]
    assert (said(first), said(same), said(wider)) == ((200, "miss"), (200, "hit"), (200, "miss"))
    forbidden = await b.call(key=keys[3][0])
    assert (forbidden.status, "x-tidegate-cache" in forbidden.headers) == (403, False)


async def test_the_key_tells_nothing_without_the_secret() -> None:
    fields = openai_chat.DIALECT.parse_request(json.dumps(CHAT).encode()).fields
    assert answer_key(keyed_hash(b"a" * 32), ("p",), fields) != answer_key(keyed_hash(b"b" * 32), ("p",), fields)


# What is not kept.


@pytest.mark.parametrize("finish", ["length", "content_filter", "insufficient_system_resource"])
async def test_an_answer_that_was_cut_off_or_filtered_is_not_given_again(finish: str) -> None:
    b = bench(*whole(completion("x", finish), completion()))
    await b.call()
    assert said(await b.call()) == (200, "miss")


async def test_errors_and_broken_streams_are_not_given_again() -> None:
    broken = ScriptedAnswer(body=CHUNKS[:2], breaks=StreamBroken("the connection broke"))
    down = [ScriptedAnswer(status=500, body=[b"{}"]) for _ in range(2)]
    b = bench(*down, broken, *whole(completion()))
    assert [said(await b.call()), (await b.call(STREAM)).status, said(await b.call())] == [
        (500, "miss"),
        200,
        (200, "miss"),
    ]
    assert len(b.answers) == 1


async def test_an_answer_of_a_fallback_is_not_given_again() -> None:
    b = bench(ScriptedAnswer(status=401, body=[b"{}"]), *whole(completion("second best"), completion("best")))
    first, again = await b.call(), await b.call()
    assert (first.headers["x-tidegate-model"], again.headers["x-tidegate-model"]) == ("other/m-2", "sim/m-1")
    assert said(again) == (200, "miss")


async def test_an_answer_that_is_not_what_the_prompt_promised_is_not_given_again() -> None:
    b = bench(*whole(completion("not json"), completion("{}"), completion("other")))
    states = [said(await b.call(PROMPT)) for _ in range(3)]
    assert states == [(200, "miss"), (200, "miss"), (200, "hit")]


async def test_a_client_that_leaves_in_the_middle_keeps_nothing() -> None:
    held = Held(*CHUNKS)
    b = bench(held, *whole(completion()))
    task = b.begin(STREAM)
    held.let(2)
    await settle()
    await cancel(task)
    assert (b.upstream.open, len(b.answers)) == (0, 0)
    assert said(await b.call()) == (200, "miss")


@pytest.mark.parametrize(
    ("dialect", "more"),
    [
        (openai_chat.DIALECT, {"n": 2, "messages": CHAT["messages"]}),
        (openai_responses.DIALECT, {"input": "hi", "conversation": "conv_1"}),
        (openai_responses.DIALECT, {"input": "hi", "background": True}),
        (anthropic.DIALECT, {"messages": CHAT["messages"], "max_tokens": 5, "container": "c_1"}),
        (gemini.DIALECT, {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"candidateCount": 2}}),
    ],
)
async def test_what_refers_to_something_that_changes_or_asks_for_several_answers_is_passed_by(
    dialect: Dialect, more: dict[str, Any]
) -> None:
    incoming = dialect.parse_request(json.dumps({"model": "off", **more}).encode(), model="off", stream=False)
    targets = Targets(Config.model_validate(CONFIG), PriceList({}, {}))
    assert not repeatable(Plan(dialect, incoming, targets.find("off")))


async def test_one_answer_asked_for_in_so_many_words_is_kept() -> None:
    b = bench(*whole(completion()))
    assert [said(await b.call({**CHAT, "n": 1})) for _ in range(2)] == [(200, "miss"), (200, "hit")]


async def test_evals_and_canaries_neither_read_nor_write() -> None:
    b = bench(*whole(completion(), completion("eval"), completion("later")))
    await b.call()
    assert said(await b.call(key="tgi_secret", origin="eval")) == (200, "bypass")
    assert [row["cache"] for row in b.rows()] == ["miss", "bypass"]


async def test_a_route_without_a_cache_says_nothing_of_one() -> None:
    b = bench(*whole(completion(), completion()))
    for _ in range(2):
        reply = await b.call({**CHAT, "model": "off"})
        assert "x-tidegate-cache" not in reply.headers
    assert [row.get("cache") for row in b.rows()] == [None, None]


# How long, how much, and who decides.


async def test_an_answer_is_given_again_until_its_time_is_up() -> None:
    b = bench(*whole(completion(), completion("new")))
    await b.call()
    b.clock.move(59)
    assert said(await b.call()) == (200, "hit")
    b.clock.move(1)
    assert said(await b.call()) == (200, "miss")


async def test_memory_is_bounded_and_the_least_recently_used_leave_first() -> None:
    b = bench(*whole(*(completion("x" * 4_000) for n in range(12)), completion("again")), max_bytes=40_000)
    bodies = [{**CHAT, "seed": n} for n in range(12)]
    for body in bodies:
        await b.call(body)
        assert (await b.call(bodies[0])).headers["x-tidegate-cache"] == "hit"
        assert b.answers.bytes <= 40_000
    assert said(await b.call(bodies[1])) == (200, "miss")


async def test_an_answer_too_large_for_the_room_is_passed_on_and_forgotten() -> None:
    large = [delta(content="x" * 1_000) for _ in range(10)]
    b = bench(*(ScriptedAnswer(body=[*large, *CHUNKS[2:]]) for _ in range(2)), max_bytes=40_000)
    replies = [await b.call(STREAM) for _ in range(2)]
    assert [said(reply) for reply in replies] == [(200, "miss"), (200, "miss")]
    assert replies[0].body == replies[1].body == b"".join([*large, *CHUNKS[2:]])


@pytest.mark.parametrize(
    ("headers", "states"),
    [
        ({"cache-control": "no-store"}, ["miss", "miss", "miss"]),
        ({"cache-control": "no-cache"}, ["bypass", "bypass", "hit"]),
        ({"cache-control": "max-age=0"}, ["miss", "miss", "hit"]),
        ({"x-tidegate-cache": "bypass"}, ["bypass", "bypass", "miss"]),
        ({"x-tidegate-cache": "max-age=60", "cache-control": "no-cache"}, ["miss", "hit", "hit"]),
        ({"cache-control": "no-transform, max-stale=5"}, ["miss", "hit", "hit"]),
    ],
)
async def test_a_call_says_what_the_cache_may_do(headers: dict[str, str], states: list[str]) -> None:
    b = bench(*whole(*(completion(str(n)) for n in range(3))))
    wish = cache_control(headers)
    seen = []
    for cache in (wish, wish, EVERYTHING):
        seen.append((await b.call(cache=cache)).headers["x-tidegate-cache"])
        b.clock.move(0.01)
    assert seen == states


async def test_an_answer_older_than_a_call_takes_is_asked_for_anew() -> None:
    b = bench(*whole(completion(), completion("new")))
    await b.call()
    b.clock.move(10)
    assert said(await b.call(cache=CacheControl(max_age_s=10))) == (200, "hit")
    assert said(await b.call(cache=CacheControl(max_age_s=9))) == (200, "miss")


def test_a_word_of_ours_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="x-tidegate-cache takes bypass, no-cache"):
        cache_control({"x-tidegate-cache": "no-cash"})


async def test_a_purge_forgets_a_version_a_prompt_or_everything() -> None:
    b = bench(*whole(*(completion("{}") for _ in range(5))))
    await b.call()
    await b.call(PROMPT)
    assert await b.lookup.purge("support/answer", "0" * 64) == 0
    assert await b.lookup.purge("support/answer", digest(ARTIFACT)) == 1
    assert [said(await b.call(PROMPT)), said(await b.call())] == [(200, "miss"), (200, "hit")]
    assert await b.lookup.purge("support/answer") == 1
    assert await b.lookup.purge() == 1
    assert b.answers.bytes == 0


async def test_what_was_asked_before_a_purge_does_not_come_back_after_it() -> None:
    held = Held(*CHUNKS)
    b = bench(held, *whole(completion()))
    task = b.begin(STREAM)
    await settle()
    await b.lookup.purge()
    held.let(9)
    assert (await task).body == b"".join(CHUNKS)
    assert len(b.answers) == 0


# One flight for all who ask the same at the same time.


async def test_concurrent_identical_calls_are_one_upstream_call_that_one_pays_for() -> None:
    held = Held(completion())
    b = bench(held)
    tasks = [b.begin() for _ in range(5)]
    await settle()
    held.let(2)
    replies = await asyncio.gather(*tasks)
    assert [said(reply) for reply in replies] == [(200, "miss"), *[(200, "shared")] * 4]
    assert {reply.body for reply in replies} == {completion()}
    assert sorted(row["cost_nano_usd"] for row in b.rows()) == [0, 0, 0, 0, 20_000]
    assert sum(row.get("saved_cost_nano_usd") or 0 for row in b.rows()) == 80_000
    assert (len(b.upstream.requests), b.upstream.open, b.lookup.flights) == (1, 0, {})


async def test_who_joins_a_stream_sees_all_of_it_as_it_comes() -> None:
    held = Held(*CHUNKS)
    b = bench(held)
    first = b.begin(STREAM)
    held.let(2)
    await settle()
    reply = Collected()
    second = b.begin(STREAM, reply=reply)
    await settle()
    assert reply.body == b"".join(CHUNKS[:2])
    held.let(9)
    assert [said(r) for r in await asyncio.gather(first, second)] == [(200, "miss"), (200, "shared")]
    assert reply.body == b"".join(CHUNKS)
    assert b.upstream.open == 0


async def test_when_the_first_leaves_in_the_middle_the_others_go_on_and_one_of_them_pays() -> None:
    held = Held(*CHUNKS)
    b = bench(held)
    first, second, third = (b.begin(STREAM) for _ in range(3))
    await settle()
    held.let(2)
    await settle()
    await cancel(first)
    assert b.upstream.open == 1
    held.let(9)
    replies = await asyncio.gather(second, third)
    assert {reply.body for reply in replies} == {b"".join(CHUNKS)}
    assert [row["cost_nano_usd"] for row in b.rows()] == [0, 20_000, 0]
    assert (b.upstream.open, len(b.upstream.requests), len(b.answers)) == (0, 1, 1)


async def test_when_the_first_leaves_before_there_is_anything_another_asks() -> None:
    b = bench(Held(), *whole(completion()))
    first, second, third = (b.begin() for _ in range(3))
    await settle()
    await cancel(first)
    assert [said(reply) for reply in await asyncio.gather(second, third)] == [(200, "miss"), (200, "shared")]
    assert (b.upstream.open, len(b.upstream.requests)) == (0, 2)


async def test_when_all_leave_upstream_is_cancelled_and_the_last_pays_for_what_came() -> None:
    held = Held(*CHUNKS)
    b = bench(held)
    tasks = [b.begin(STREAM) for _ in range(3)]
    await settle()
    held.let(2)
    await settle()
    for task in tasks:
        assert b.upstream.open == 1
        await cancel(task)
    assert (b.upstream.open, b.lookup.flights) == (0, {})
    costs = [row["cost_nano_usd"] for row in b.rows()]
    assert costs[:2] == [0, 0]
    assert costs[2] > 0


async def test_who_waits_may_leave_too() -> None:
    held = Held(completion())
    b = bench(held)
    first, second, third = (b.begin() for _ in range(3))
    await settle()
    await cancel(second)
    held.let(2)
    assert [said(reply) for reply in await asyncio.gather(first, third)] == [(200, "miss"), (200, "shared")]
    assert (b.upstream.open, b.lookup.flights) == (0, {})


async def test_who_leaves_in_the_moment_that_the_answer_is_there_leaves_nothing_behind() -> None:
    held = Held(completion())
    b = bench(held)
    tasks = [b.begin() for _ in range(2)]
    await settle()
    [flight] = b.lookup.flights.values()
    held.let(2)
    while flight.answer is None:  # noqa: ASYNC110  the very moment is meant
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (b.upstream.open, b.lookup.flights) == (0, {})


async def test_nobody_joins_a_stream_that_all_have_left() -> None:
    """The last to leave wanted it whole: the same call would have failed for ever after."""
    held = Held(*CHUNKS)
    b = bench(held, *whole(completion()))
    streamed = b.begin(STREAM)
    await settle()
    held.let(2)
    await settle()
    unary = b.begin()
    await settle()
    await cancel(streamed)
    await cancel(unary)
    assert (b.upstream.open, b.lookup.flights) == (0, {})
    assert said(await b.call()) == (200, "miss")


@pytest.mark.parametrize("chunks", [CHUNKS[:2], [delta(content="hel"), DONE]])
async def test_a_shared_stream_that_is_not_complete_is_never_told_whole(chunks: list[bytes]) -> None:
    held = Held(*chunks)
    b = bench(held, *whole(completion()))
    streamed = b.begin(STREAM)
    await settle()
    unary = b.begin()
    await settle()
    held.let(9)
    await streamed
    reply = await unary
    assert (said(reply), reply.body) == ((200, "miss"), completion())


async def test_a_slow_client_holds_up_nobody() -> None:
    held = Held(*CHUNKS)
    b = bench(held)
    slow = b.begin(STREAM, reply=Slow())
    await settle()
    fast = b.begin(STREAM)
    held.let(9)
    assert (await fast).body == b"".join(CHUNKS)
    await cancel(slow)
    assert [row["cost_nano_usd"] for row in b.rows()] == [20_000, 0]
    assert b.upstream.open == 0


async def test_a_failure_is_everybodys_of_that_moment_and_nobodys_later() -> None:
    down = [Held(breaks=StreamBroken("the connection broke")) for _ in range(2)]
    b = bench(*down, *whole(completion()))
    tasks = [b.begin() for _ in range(4)]
    await settle()
    for target in down:
        target.let()
        await settle()
    replies = await asyncio.gather(*tasks)
    assert {reply.status for reply in replies} == {502}
    assert [len(row.get("attempts") or ()) for row in b.rows()] == [2, 0, 0, 0]
    assert (len(b.upstream.requests), b.upstream.open, b.lookup.flights) == (2, 0, {})
    assert said(await b.call()) == (200, "miss")


async def test_a_stream_that_breaks_breaks_for_all_who_saw_some_of_it() -> None:
    held = Held(*CHUNKS[:2], breaks=StreamBroken("the connection broke"))
    b = bench(held, *whole(completion()))
    tasks = [b.begin(STREAM) for _ in range(3)]
    await settle()
    held.let(9)
    for reply in await asyncio.gather(*tasks):
        assert b"error" in reply.body
        assert DONE not in reply.body
    assert (b.upstream.open, b.lookup.flights, len(b.answers)) == (0, {}, 0)
    assert said(await b.call()) == (200, "miss")


async def test_who_wants_it_whole_takes_part_in_a_stream_and_asks_alone_when_that_breaks() -> None:
    held = Held(*CHUNKS)
    b = bench(held)
    stream, answer = b.begin(STREAM), b.begin()
    await settle()
    held.let(9)
    replies = await asyncio.gather(stream, answer)
    assert [said(reply) for reply in replies] == [(200, "miss"), (200, "shared")]
    assert json.loads(replies[1].body)["choices"][0]["message"]["content"] == "hello"

    broken = Held(*CHUNKS[:2], breaks=StreamBroken("the connection broke"))
    b = bench(broken, *whole(completion("mine")))
    stream, answer = b.begin(STREAM), b.begin()
    await settle()
    broken.let(9)
    await stream
    assert json.loads((await answer).body)["choices"][0]["message"]["content"] == "mine"
    assert b.upstream.open == 0


async def test_a_call_that_must_not_be_kept_takes_no_others_along() -> None:
    first, second = Held(completion()), Held(completion("other"))
    b = bench(first, second)
    tasks = [b.begin(cache=CacheControl(write=False)), b.begin()]
    await settle()
    first.let(2)
    second.let(2)
    assert [said(reply) for reply in await asyncio.gather(*tasks)] == [(200, "miss"), (200, "miss")]


async def test_embeddings_are_kept_too() -> None:
    answer = b'{"data":[{"embedding":[1]}],"model":"e","usage":{"prompt_tokens":2}}'
    b = bench(*whole(answer))
    body = {"model": "support", "input": "hi"}
    states = [said(await b.call(body, dialect=openai_embeddings.DIALECT)) for _ in range(2)]
    assert states == [(200, "miss"), (200, "hit")]


async def test_who_can_not_make_sense_of_a_stream_asks_alone_however_slow_its_first_client_is() -> None:
    """The first has not come to the garbage yet, so its flight still looks well."""
    held = Held(CHUNKS[0], b"data: {garbage\n\n", *CHUNKS[1:])
    b = bench(held, *whole(completion("mine")))
    slow = b.begin(STREAM, reply=Slow())
    await settle()
    answer = b.begin()
    held.let(2)
    async with asyncio.timeout(1):
        assert json.loads((await answer).body)["choices"][0]["message"]["content"] == "mine"
    await cancel(slow)
    assert (b.upstream.open, b.lookup.flights) == (0, {})


async def test_nobody_joins_an_answer_that_is_too_large_to_be_kept() -> None:
    large = delta(content="x" * 6_000)
    first, second = Held(large, large, *CHUNKS[1:]), Held(*CHUNKS)
    b = bench(first, second, max_bytes=40_000)
    tasks = [b.begin(STREAM)]
    first.let(2)
    await settle()
    tasks.append(b.begin(STREAM))
    first.let(9)
    second.let(9)
    replies = await asyncio.gather(*tasks)
    assert [said(reply) for reply in replies] == [(200, "miss"), (200, "miss")]
    assert (replies[0].body, replies[1].body) == (b"".join([large, large, *CHUNKS[1:]]), b"".join(CHUNKS))


async def test_a_slow_client_gets_all_of_a_large_answer_that_others_are_through_with() -> None:
    large = [delta(content="x" * 4_000) for _ in range(4)]
    held = Held(*large, *CHUNKS[1:])
    b = bench(held, max_bytes=40_000)

    class Hesitant(Collected):
        go = asyncio.Event()

        def push(self, chunk: bytes) -> bool:
            super().push(chunk)
            return False

        async def drained(self) -> None:
            await self.go.wait()

    hesitant = Hesitant()
    slow = b.begin(STREAM, reply=hesitant)
    fast = b.begin(STREAM)
    held.let(20)
    assert (await fast).body == b"".join([*large, *CHUNKS[1:]])
    hesitant.go.set()
    assert (await slow).body == (await fast).body
    assert (b.upstream.open, len(b.answers)) == (0, 0)


async def test_the_same_words_in_another_dialect_are_another_request() -> None:
    body = {"model": "sim/m-1", "max_tokens": 5, "messages": CHAT["messages"]}
    b = bench(*whole(completion(), completion()))
    states = [said(await b.call(body, dialect=dialect)) for dialect in (openai_chat.DIALECT, anthropic.DIALECT)]
    assert states == [(200, "miss"), (200, "miss")]


async def test_who_takes_part_is_told_what_was_dropped_as_well() -> None:
    said_by_claude = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    held = Held(json.dumps(said_by_claude).encode())
    b = bench(held)
    tasks = [b.begin({**CHAT, "model": "claude", "logit_bias": {"5": 1}}) for _ in range(2)]
    await settle()
    held.let(2)
    first, second = await asyncio.gather(*tasks)
    assert said(second) == (200, "shared")
    assert "logit_bias" in second.headers["x-tidegate-dropped"] == first.headers["x-tidegate-dropped"]
