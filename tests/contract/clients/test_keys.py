"""A key of ours in each SDK: where it puts the right one we find it, and the wrong one is its own exception."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.contract.clients.gateway import CLIENT_KEY, QUESTION, Gateway, gateway
from tidegate.core.keys import Key, KeyRing, fingerprint, mint
from tidegate.gateway.auth import Keys

TOKEN, PREFIX = mint(bytes(range(38)))
RING = KeyRing([Key(PREFIX, "shop", "caller", fingerprint(TOKEN), "2026-01-01T00:00:00.000000Z", "ada")])
Ask = Callable[[Gateway, str], Awaitable[object]]


async def openai_chat(here: Gateway, key: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{here.origin}/v1", api_key=key, max_retries=0) as client:
        await client.chat.completions.create(model="support", messages=[{"role": "user", "content": QUESTION}])


async def openai_responses(here: Gateway, key: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{here.origin}/v1", api_key=key, max_retries=0) as client:
        await client.responses.create(model="support", input=QUESTION)


async def anthropic_key(here: Gateway, key: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=here.origin, api_key=key, max_retries=0) as client:
        await client.messages.create(model="support", max_tokens=100, messages=[{"role": "user", "content": QUESTION}])


async def anthropic_token(here: Gateway, key: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=here.origin, auth_token=key, max_retries=0) as client:
        await client.messages.create(model="support", max_tokens=100, messages=[{"role": "user", "content": QUESTION}])


async def google(here: Gateway, key: str) -> None:
    options = types.HttpOptions(base_url=here.origin)
    async with genai.Client(api_key=key, http_options=options).aio as client:
        await client.models.generate_content(model="support", contents=QUESTION)


ASKS: list[tuple[Ask, type[Exception]]] = [
    (openai_chat, openai.AuthenticationError),
    (openai_responses, openai.AuthenticationError),
    (anthropic_key, anthropic.AuthenticationError),
    (anthropic_token, anthropic.AuthenticationError),
    (google, errors.ClientError),
]


@pytest.mark.parametrize(("ask", "refusal"), ASKS, ids=[ask.__name__ for ask, _ in ASKS])
async def test_the_right_key_calls_and_the_wrong_one_is_refused(ask: Ask, refusal: type[Exception]) -> None:
    async with gateway(keys=Keys(ring=lambda: RING)) as here:
        await ask(here, TOKEN)
        with pytest.raises(refusal, match="no valid API key") as refused:
            await ask(here, CLIENT_KEY)
        assert TOKEN not in str([request.headers for request in here.provider.requests])
        assert len(here.provider.requests) == 1
    assert getattr(refused.value, "status_code", getattr(refused.value, "code", None)) == 401
    assert [record["outcome"] for record in here.records()] == ["ok", "rejected"]
    assert here.records()[0]["key"] == "shop"
