"""Limits and budgets as each SDK meets them: its own exceptions, its own waiting, and never a call too many."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.contract.clients.gateway import QUESTION, Gateway, gateway
from tidegate.core.budgets import BudgetState
from tidegate.core.keys import Key, KeyRing, Role, fingerprint, mint
from tidegate.gateway.auth import Keys
from tidegate.gateway.caller import HttpCaller
from tidegate.simulate.server import Latency
from tidegate.system import SystemClock
from tidegate.upstream.http1 import Pool

Ask = Callable[[Gateway, str], Awaitable[object]]
CHAT: dict[str, Any] = {"model": "support", "max_tokens": 100, "messages": [{"role": "user", "content": QUESTION}]}


def ring(**roles: Role) -> tuple[Keys, dict[str, str]]:
    """Keys by name, and what they are."""
    minted = {name: mint(bytes([number]) * 38) for number, name in enumerate(roles)}
    keys = [
        Key(prefix, name, roles[name], fingerprint(token), "2026-01-01T00:00:00.000000Z", "ada")
        for name, (token, prefix) in minted.items()
    ]
    known = KeyRing(keys)
    return Keys(ring=lambda: known), {name: token for name, (token, _) in minted.items()}


async def openai_chat(here: Gateway, key: str, **options: Any) -> None:
    async with openai.AsyncOpenAI(base_url=f"{here.origin}/v1", api_key=key, **{"max_retries": 0} | options) as client:
        await client.chat.completions.create(**CHAT)


async def openai_stream(here: Gateway, key: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{here.origin}/v1", api_key=key, max_retries=0) as client:
        async for _ in await client.chat.completions.create(**CHAT, stream=True):
            pass


async def openai_responses(here: Gateway, key: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{here.origin}/v1", api_key=key, max_retries=0) as client:
        await client.responses.create(model="support", input=QUESTION, max_output_tokens=100)


async def anthropic_messages(here: Gateway, key: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=here.origin, api_key=key, max_retries=0) as client:
        await client.messages.create(**CHAT)


async def google(here: Gateway, key: str) -> None:
    options = types.HttpOptions(base_url=here.origin)
    async with genai.Client(api_key=key, http_options=options).aio as client:
        await client.models.generate_content(model="support", contents=QUESTION)


ASKS: list[tuple[Ask, type[Exception], type[Exception]]] = [
    (openai_chat, openai.RateLimitError, openai.APIStatusError),
    (openai_stream, openai.RateLimitError, openai.APIStatusError),
    (openai_responses, openai.RateLimitError, openai.APIStatusError),
    (anthropic_messages, anthropic.RateLimitError, anthropic.APIStatusError),
    (google, errors.ClientError, errors.ClientError),
]
IDS = [ask.__name__ for ask, _, _ in ASKS]


def status(error: Exception) -> int:
    return int(getattr(error, "status_code", 0) or getattr(error, "code", 0))


@pytest.mark.parametrize(("ask", "refusal"), [(ask, refusal) for ask, refusal, _ in ASKS], ids=IDS)
async def test_a_used_up_rate_is_the_sdks_own_rate_limit(ask: Ask, refusal: type[Exception]) -> None:
    keys, tokens = ring(ann="caller", bob="caller")
    async with gateway(keys=keys, limits={"each_key": {"requests_per_minute": 1}}) as here:
        await ask(here, tokens["ann"])
        with pytest.raises(refusal, match="key ann: the requests per minute are used up") as refused:
            await ask(here, tokens["ann"])
        assert status(refused.value) == 429
        await ask(here, tokens["bob"])
        outcomes = [(record["key"], record.get("outcome", "error"), record["http_status"]) for record in here.records()]
        assert outcomes == [("ann", "ok", 200), ("ann", "rejected", 429), ("bob", "ok", 200)]
        assert len(here.provider.requests) == 2


@pytest.mark.parametrize(("ask", "refusal"), [(ask, refusal) for ask, _, refusal in ASKS], ids=IDS)
async def test_a_used_up_budget_is_402_and_nothing_is_tried_again(ask: Ask, refusal: type[Exception]) -> None:
    keys, tokens = ring(ann="caller", bob="caller")
    budgets = {"keys": {"ann": {"day": 0}}, "prompts": {"support/answer": {"day": 0}}}
    async with gateway(keys=keys, budgets=budgets) as here:
        with pytest.raises(refusal, match="begins anew at 2") as refused:
            await ask(here, tokens["ann"])
        assert status(refused.value) == 402
        await ask(here, tokens["bob"])
        assert [record.get("error_type") for record in here.records()] == ["budget_exhausted", None]


async def test_an_sdk_that_retries_waits_as_long_as_it_is_told() -> None:
    async with gateway(limits={"total": {"concurrent": 1}}, latency=Latency(first_byte_s=0.4)) as here:
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(openai_chat(here, "any", max_retries=4) for _ in range(2)))
        took = asyncio.get_running_loop().time() - began
        assert Counter(record["http_status"] for record in here.records()) == {200: 2, 429: 1}
        assert took > 1.0, "Retry-After was 1"


async def test_64_clients_at_once_never_pass_a_cap_for_ten_and_a_half() -> None:
    keys, tokens = ring(ann="caller", eve="viewer")
    # 400 + the bytes of the body at 1 dollar and 100 tokens at 2 dollars per million
    body = {**CHAT, "model": "sim/support-2026-03-01"}
    async with gateway(keys=keys, latency=Latency(first_byte_s=0.5, sigma=0), budgets={"each_key": {"day": 1}}) as here:
        each = await reserved(here, body, tokens)
    budgets = {"each_key": {"day": f"{each * 10.5 / 1e9:.9f}"}}
    async with gateway(keys=keys, latency=Latency(first_byte_s=1.5, sigma=0), budgets=budgets) as here:
        async with httpx.AsyncClient(base_url=here.origin, timeout=20) as client:
            headers = {"authorization": f"Bearer {tokens['ann']}"}
            replies = await asyncio.gather(
                *(client.post("/v1/chat/completions", json=body, headers=headers) for _ in range(64))
            )
        assert Counter(reply.status_code for reply in replies) == {200: 10, 429: 54}
        assert len(here.provider.requests) == 10
        (state,) = await budgets_of(here, tokens["ann"])
        assert (state.reserved_nano_usd, state.scope) == (0, "key ann")
        assert state.spent_nano_usd == sum(record.get("cost_nano_usd") or 0 for record in here.records()) > 0


async def reserved(here: Gateway, body: dict[str, Any], tokens: dict[str, str]) -> int:
    """What one such call reserves: seen from beside, while it runs."""
    async with httpx.AsyncClient(base_url=here.origin) as client:
        headers = {"authorization": f"Bearer {tokens['ann']}"}
        running = asyncio.create_task(client.post("/v1/chat/completions", json=body, headers=headers))
        await asyncio.sleep(0.25)
        (state,) = await budgets_of(here, tokens["eve"])
        await running
        return state.reserved_nano_usd


async def budgets_of(here: Gateway, key: str) -> list[BudgetState]:
    """As `tidegate budgets` asks."""
    pool = Pool()
    try:
        return await HttpCaller(pool, SystemClock(), url=here.origin, key=key).budgets()
    finally:
        await pool.close()


async def test_a_key_sees_its_own_budget_and_whoever_may_read_sees_all() -> None:
    keys, tokens = ring(ann="caller", bob="caller", eve="viewer")
    async with gateway(keys=keys, budgets={"total": {"day": 1}, "each_key": {"hour": 1}}) as here:
        await openai_chat(here, tokens["ann"])
        await openai_chat(here, tokens["bob"])
        assert [state.scope for state in await budgets_of(here, tokens["eve"])] == ["total", "key ann", "key bob"]
        assert [state.scope for state in await budgets_of(here, tokens["ann"])] == ["key ann"]
        states = {state.scope: state.spent_nano_usd for state in await budgets_of(here, tokens["eve"])}
        assert states["total"] == states["key ann"] + states["key bob"] > 0
