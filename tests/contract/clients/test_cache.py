"""The exact cache through real clients: what each SDK reads is the same the second time, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import types

from tests.contract.clients.gateway import (
    ANSWER,
    CLIENT_KEY,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    QUESTION,
    SYSTEM,
    VARIABLES,
    WEATHER,
    Gateway,
    gateway,
)
from tests.contract.clients.test_cross_talk import PATHS, TAG, WORDS, body, tag
from tidegate import compose
from tidegate.config import Config, Project
from tidegate.core.errors import BadInput
from tidegate.core.keys import ENTROPY_BYTES, Key, KeyRing, Role, fingerprint, mint
from tidegate.gateway.auth import Keys
from tidegate.gateway.claim import Claim
from tidegate.simulate.server import Latency

MESSAGES: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
ASKED: Any = [{"role": "user", "content": "How warm is it?"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "support", "messages": MESSAGES},
    "/v1/responses": {"model": "support", "instructions": SYSTEM, "input": QUESTION},
    "/v1/messages": {
        "model": "support",
        "max_tokens": 200,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": QUESTION}],
    },
    "/v1beta/models/support:generateContent": {
        "systemInstruction": {"parts": [{"text": SYSTEM}]},
        "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
    },
}


@asynccontextmanager
async def openai_client(*faults: str) -> AsyncIterator[tuple[openai.AsyncOpenAI, Gateway]]:
    async with (
        gateway(*faults, exact_ttl_s=60) as here,
        openai.AsyncOpenAI(base_url=f"{here.origin}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=5) as client,
    ):
        yield client, here


def states(here: Gateway) -> list[str]:
    return [row["cache"] for row in here.records()]


async def ask(client: httpx.AsyncClient, path: str, *, stream: bool, **headers: str) -> httpx.Response:
    asked = dict(BODIES[path])
    if "generateContent" in path:
        path = path.replace("generateContent", "streamGenerateContent?alt=sse") if stream else path
    elif stream:
        asked["stream"] = True
    return await client.post(path, json=asked, headers=headers)


@pytest.mark.parametrize("path", BODIES)
async def test_the_same_form_again(path: str) -> None:
    """Whole and as a stream; what names the call may differ where the dialect's answer is written here."""
    async with gateway(exact_ttl_s=60) as here, httpx.AsyncClient(base_url=here.origin) as client:
        for stream in (False, True):
            here.spool.lines.clear()
            headers = {} if not stream else {"x-tidegate-cache": "no-cache"}
            first = await ask(client, path, stream=stream, **headers)
            again = await ask(client, path, stream=stream)
            assert (first.status_code, again.status_code, again.headers["x-tidegate-cache"]) == (200, 200, "hit")
            assert again.headers["content-type"] == first.headers["content-type"]
            assert len(again.content) == pytest.approx(len(first.content), abs=64)
            if path == "/v1/chat/completions":
                assert again.content == first.content
            rows = here.records()
            assert [row["output_tokens"] for row in rows] == [OUTPUT_TOKENS] * 2
            assert (rows[1]["cost_nano_usd"], rows[1]["saved_cost_nano_usd"]) == (0, rows[0]["cost_nano_usd"])
    assert len(here.provider.requests) == 2


@pytest.mark.parametrize("whole_first", [True, False], ids=["whole, then stream", "stream, then whole"])
async def test_chat_completions_in_the_other_form(*, whole_first: bool) -> None:
    async with openai_client() as (client, here):
        for whole in (whole_first, not whole_first):
            if whole:
                answer = await client.chat.completions.create(model="support", messages=MESSAGES)
            else:
                async with client.chat.completions.stream(
                    model="support", messages=MESSAGES, stream_options={"include_usage": True}
                ) as stream:
                    answer = await stream.get_final_completion()
            assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ANSWER, "stop")
            assert answer.usage is not None
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert states(here) == ["miss", "hit"]


async def test_tools_in_the_other_form() -> None:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}}]
    async with openai_client() as (client, here):
        answer = await client.chat.completions.create(model="tools", messages=ASKED, tools=tools)
        async with client.chat.completions.stream(model="tools", messages=ASKED, tools=tools) as stream:
            again = await stream.get_final_completion()
    for completion in (answer, again):
        calls: Any = completion.choices[0].message.tool_calls
        (call,) = calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})
        assert completion.choices[0].finish_reason == "tool_calls"
    assert states(here) == ["miss", "hit"]


@pytest.mark.parametrize("whole_first", [True, False], ids=["whole, then stream", "stream, then whole"])
async def test_responses_in_the_other_form(*, whole_first: bool) -> None:
    async with openai_client() as (client, here):
        for whole in (whole_first, not whole_first):
            if whole:
                answer = await client.responses.create(model="support", instructions=SYSTEM, input=QUESTION)
            else:
                async with client.responses.stream(model="support", instructions=SYSTEM, input=QUESTION) as stream:
                    answer = await stream.get_final_response()
            assert (answer.output_text, answer.status) == (ANSWER, "completed")
            assert answer.usage is not None
            assert answer.usage.output_tokens == OUTPUT_TOKENS
    assert states(here) == ["miss", "hit"]


@pytest.mark.parametrize("whole_first", [True, False], ids=["whole, then stream", "stream, then whole"])
async def test_messages_in_the_other_form(*, whole_first: bool) -> None:
    asked: Any = BODIES["/v1/messages"]
    async with (
        gateway(exact_ttl_s=60) as here,
        anthropic.AsyncAnthropic(base_url=here.origin, api_key=CLIENT_KEY, max_retries=0, timeout=5) as client,
    ):
        for whole in (whole_first, not whole_first):
            if whole:
                message = await client.messages.create(**asked)
            else:
                async with client.messages.stream(**asked) as stream:
                    message = await stream.get_final_message()
            (block,) = message.content
            assert block.type == "text"
            assert (block.text, message.stop_reason) == (ANSWER, "end_turn")
            assert (message.usage.input_tokens, message.usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert states(here) == ["miss", "hit"]


@pytest.mark.parametrize("whole_first", [True, False], ids=["whole, then stream", "stream, then whole"])
async def test_gemini_in_the_other_form(*, whole_first: bool) -> None:
    asked: dict[str, Any] = {
        "model": "support",
        "contents": QUESTION,
        "config": types.GenerateContentConfig(system_instruction=SYSTEM),
    }
    async with gateway(exact_ttl_s=60) as here:
        options = types.HttpOptions(
            base_url=here.origin, timeout=5_000, retry_options=types.HttpRetryOptions(attempts=1)
        )
        async with genai.Client(api_key=CLIENT_KEY, http_options=options).aio as client:
            for whole in (whole_first, not whole_first):
                if whole:
                    answers = [await client.models.generate_content(**asked)]
                else:
                    answers = [chunk async for chunk in await client.models.generate_content_stream(**asked)]
                assert "".join(answer.text or "" for answer in answers) == ANSWER
                usage = answers[-1].usage_metadata
                assert usage is not None
                assert usage.candidates_token_count == OUTPUT_TOKENS
    assert states(here) == ["miss", "hit"]


async def test_a_prompts_answer() -> None:
    async with openai_client() as (client, here):
        more = {"variables": VARIABLES}
        for _ in range(2):
            answer = await client.chat.completions.create(model="prompt:support/answer", messages=[], extra_body=more)
            assert answer.choices[0].message.content == ANSWER
    rows = here.records()
    assert [(row["cache"], row["version"], row["output_valid"]) for row in rows] == [
        ("miss", 7, True),
        ("hit", 7, True),
    ]


async def test_embeddings() -> None:
    async with openai_client() as (client, here):
        vectors = [(await client.embeddings.create(model="embed", input="shoes")).data[0].embedding for _ in range(2)]
    assert vectors[0] == vectors[1]
    assert states(here) == ["miss", "hit"]


async def test_an_error_is_not_given_again() -> None:
    async with openai_client("status=500; times=1") as (client, here):
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="support", messages=MESSAGES)
        await client.chat.completions.create(model="support", messages=MESSAGES)
    assert states(here) == ["miss", "miss"]


async def test_fifty_clients_that_ask_the_same_at_once_cost_one_call() -> None:
    """In all dialects and both forms at once: one upstream call for each dialect's way to ask."""
    slow = Latency(first_byte_s=0.2)
    async with gateway(exact_ttl_s=60, latency=slow) as here, httpx.AsyncClient(base_url=here.origin) as client:
        asked = [ask(client, path, stream=number % 2 == 0) for path in BODIES for number in range(12)]
        answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert all(ANSWER[2:8].encode() in answer.content for answer in answers)
    rows = here.records()
    assert len(rows) == 48
    assert sum(row["cost_nano_usd"] > 0 for row in rows) == len(here.provider.requests) == 4
    assert sorted({row["cache"] for row in rows}) == ["miss", "shared"]


async def test_a_stream_goes_on_for_the_others_when_its_first_client_leaves() -> None:
    """Over real connections: the provider sees one call, and nobody leave it."""
    slow = Latency(first_byte_s=0.05, tokens_per_s=100, sigma=0)
    asked = {**BODIES["/v1/chat/completions"], "stream": True}
    async with gateway(exact_ttl_s=60, latency=slow) as here, httpx.AsyncClient(base_url=here.origin) as client:
        begun = asyncio.Event()

        async def leave() -> None:
            async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
                assert answer.headers["x-tidegate-cache"] == "miss"
                async for _ in answer.aiter_raw():
                    begun.set()
                    await asyncio.sleep(0.05)
                    return

        async def stay() -> httpx.Response:
            await begun.wait()
            return await client.post("/v1/chat/completions", json=asked)

        _, *answers = await asyncio.gather(leave(), stay(), stay())
        again = await client.post("/v1/chat/completions", json=asked)
    assert [answer.headers["x-tidegate-cache"] for answer in (*answers, again)] == ["shared", "shared", "hit"]
    assert {answer.content for answer in answers} == {again.content}
    assert again.content.endswith(b"data: [DONE]\n\n")
    assert (len(here.provider.requests), here.provider.cancelled) == (1, 0)
    left, *others = here.records()
    assert (left["outcome"], left["cost_nano_usd"]) == ("client_closed", 0)
    assert sorted(row["cost_nano_usd"] > 0 for row in others) == [False, False, True]


@pytest.mark.timeout(30)
async def test_shared_streams_carry_no_byte_of_another_whoever_leaves() -> None:
    """Forty questions of four clients each, some of whom leave at any place; whoever stays has all of it."""
    dice = random.Random(5)
    slow = Latency(first_byte_s=0.01, tokens_per_s=400, sigma=0.5)
    clients = [(number, dice.randint(1, 20) if dice.random() < 0.3 else None) for number in range(40) for _ in range(4)]
    gate = asyncio.Semaphore(60)
    async with (
        gateway(exact_ttl_s=60, latency=slow) as here,
        httpx.AsyncClient(base_url=here.origin, limits=httpx.Limits(max_connections=60), timeout=20) as client,
    ):

        async def one(number: int, leaves_after: int | None) -> bytes:
            path, read, reads = PATHS[number % len(PATHS)], b"", 0
            async with gate, client.stream("POST", path, json=body(path, number, WORDS)) as answer:
                assert answer.status_code == 200
                async for piece in answer.aiter_raw():
                    read, reads = read + piece, reads + 1
                    if reads == leaves_after:
                        break
            return read

        answers = await asyncio.gather(*(one(*client) for client in clients))
        async with asyncio.timeout(2):
            while here.provider.running or len(here.spool.lines) < len(clients):  # noqa: ASYNC110  neither tells
                await asyncio.sleep(0.01)
        assert len(here.provider.requests) < 80
    for (number, leaves_after), answer in zip(clients, answers, strict=True):
        found = TAG.findall(answer)
        assert set(found) <= {tag(number).encode()}
        assert leaves_after is not None or len(found) >= WORDS
    rows = here.records()
    assert {"miss", "shared", "hit"} >= {row["cache"] for row in rows} >= {"miss", "shared"}
    paid = sum(row["cost_nano_usd"] > 0 for row in rows)
    assert paid <= len(here.provider.requests)


def key_of(number: int, role: Role, **lists: Any) -> tuple[str, Key]:
    token, prefix = mint(bytes([number]) * ENTROPY_BYTES)
    return token, Key(prefix, f"k{number}", role, fingerprint(token), "2026-01-01T00:00:00Z", "root", **lists)


async def test_who_may_empty_it_and_of_what() -> None:
    caller, deployer, own = key_of(1, "caller"), key_of(2, "deployer"), key_of(3, "deployer", prompts=("mine/*",))
    ring = KeyRing([key for _, key in (caller, deployer, own)])
    keys = Keys(ring=lambda: ring, loopback=False)
    async with gateway(exact_ttl_s=60, keys=keys) as here, httpx.AsyncClient(base_url=here.origin) as client:

        async def purge(token: str, query: str = "") -> tuple[int, Any]:
            answer = await client.delete(f"/v1/cache{query}", headers={"authorization": f"Bearer {token}"})
            return answer.status_code, answer.json().get("purged", answer.json().get("error", {}).get("message"))

        asked = {"authorization": f"Bearer {caller[0]}"}
        prompt = {"model": "prompt:support/answer", "variables": VARIABLES, "messages": []}
        for said in (BODIES["/v1/chat/completions"], prompt):
            assert (await client.post("/v1/chat/completions", json=said, headers=asked)).status_code == 200
        refused = [await purge(token) for token in ("tg_nobody", caller[0], own[0])]
        assert [status for status, _ in refused] == [401, 403, 403]
        assert (await purge(own[0], "?prompt=support/answer"))[0] == 403
        assert (await purge(deployer[0], "?version=v7"))[0] == 400
        assert (await purge(deployer[0], "?prompts=support/answer"))[0] == 400
        status, message = await purge(deployer[0], "?prompt=support/answer&version=v8")
        assert (status, "v8" in message) == (404, True)
        assert await purge(deployer[0], "?prompt=support/answer&version=v7") == (200, 1)
        assert await purge(deployer[0]) == (200, 1)
        wrong = await client.get("/v1/cache", headers={"authorization": f"Bearer {deployer[0]}"})
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "DELETE")


async def test_the_command_has_the_running_gateway_forget(tmp_path: Path) -> None:
    project = Project(tmp_path, Config())
    with pytest.raises(BadInput, match="no gateway runs here"):
        await compose.purge_cache(project, None, None)
    claim = Claim(project.lock)
    claim.take()
    try:
        async with gateway(exact_ttl_s=60, keys=Keys(internal=claim.internal_key)) as here:
            claim.publish(here.origin)
            async with httpx.AsyncClient(base_url=here.origin) as client:
                await ask(client, "/v1/chat/completions", stream=False)
            for version in ("v1", None):  # a mistyped name is not "0 answers"
                with pytest.raises(BadInput, match=r"^prompt 'support/anwser' has no version"):
                    await compose.purge_cache(project, "support/anwser", version)
            assert await compose.purge_cache(project, "support/answer", None) == 0
            assert await compose.purge_cache(project, None, None) == 1
    finally:
        claim.release()
