"""Tokens counted before a call, by the SDKs that can ask for it: the provider's own count, or a clear refusal."""

from __future__ import annotations

import json

import anthropic
import pytest
from google import genai
from google.genai import errors, types

from tests.contract.whole import Whole, answers, whole

MESSAGES = [{"role": "user", "content": "Hi"}]
COUNTED = {"totalTokens": 31, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 31}]}


def claude(here: Whole) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=here.origin, api_key="ck", max_retries=0)


def google(here: Whole) -> genai.Client:
    return genai.Client(api_key="ck", http_options=types.HttpOptions(base_url=here.origin))


async def test_anthropics_sdk_gets_anthropics_count() -> None:
    async with whole(answers(b'{"input_tokens": 2095}'), prices={"ant/m": {"input": 1, "output": 2}}) as here:
        async with claude(here) as client:
            counted = await client.messages.count_tokens(model="ant/m", messages=MESSAGES, system="Be brief.")  # type: ignore[arg-type]
        assert counted.input_tokens == 2095
        [asked] = here.asked
        assert asked.path == "/v1/messages/count_tokens"
        assert asked.json == {"messages": MESSAGES, "model": "m", "system": "Be brief."}
        record = here.record()
    assert (record["outcome"], record["operation"], record["dialect"]) == (
        "ok",
        "count_tokens",
        "anthropic_count_tokens",
    )
    assert (record["input_tokens"], record["output_tokens"], record["cost_nano_usd"]) == (0, 0, 0)


async def test_googles_sdk_gets_googles_count() -> None:
    async with whole(answers(json.dumps(COUNTED).encode())) as here:
        client = google(here)
        async with client.aio as asking:
            counted = await asking.models.count_tokens(model="goo/m", contents="Hi")
        client.close()
        assert counted.total_tokens == 31
        assert here.asked[0].path == "/v1beta/models/m:countTokens"
        assert here.record()["operation"] == "count_tokens"


async def test_a_whole_request_of_geminis_is_counted_as_the_providers_own_model() -> None:
    nested = {"model": "models/goo/m", "contents": [{"parts": [{"text": "Hi"}]}]}
    async with whole(answers(json.dumps(COUNTED).encode())) as here:
        reply = await here.client.post("/v1beta/models/goo/m:countTokens", json={"generateContentRequest": nested})
        assert reply.json() == COUNTED
        assert here.asked[0].json == {"generateContentRequest": {**nested, "model": "models/m"}}


async def test_nobody_else_counts_for_them() -> None:
    """A count by another provider's tokens would be wrong, and a guess is worse than none."""
    async with whole(answers(b"{}")) as here:
        async with claude(here) as client:
            for model in ("oai/m", "goo/m", "res/m"):
                with pytest.raises(anthropic.BadRequestError, match="only a model's own provider"):
                    await client.messages.count_tokens(model=model, messages=MESSAGES)  # type: ignore[arg-type]
        asking = google(here)
        async with asking.aio as client_:
            for model in ("oai/m", "ant/m"):
                with pytest.raises(errors.ClientError, match="only a model's own provider"):
                    await client_.models.count_tokens(model=model, contents="Hi")
        asking.close()
        assert here.asked == []
        assert [entry.call.outcome for entry in here.entries()] == ["rejected"] * 5


async def test_a_target_that_can_not_count_is_passed_over() -> None:
    routes = {"r": {"targets": ["oai/m", "ant/m"], "retries": 0}}
    async with whole(answers(b'{"input_tokens": 3}'), routes=routes) as here:
        reply = await here.client.post("/v1/messages/count_tokens", json={"model": "r", "messages": MESSAGES})
        assert (reply.status_code, reply.json()) == (200, {"input_tokens": 3})
        assert reply.headers["x-tidegate-model"] == "ant/m"


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"x", b'{"input_tokens": "3"}', b'{"input_tokens": -1}', b'{"error": {}}']
)
async def test_an_answer_without_a_count_is_no_answer(body: bytes) -> None:
    async with whole(answers(body), routes={"r": {"targets": ["ant/m"], "retries": 0}}) as here:
        reply = await here.client.post("/v1/messages/count_tokens", json={"model": "r", "messages": MESSAGES})
        assert (reply.status_code, here.record()["error_type"]) == (502, "upstream_protocol")


@pytest.mark.parametrize("model", ["prompt:support/answer", "nobody", ""])
async def test_what_can_not_be_counted_is_refused(model: str) -> None:
    async with whole(answers(b"{}")) as here:
        reply = await here.client.post("/v1/messages/count_tokens", json={"model": model, "messages": MESSAGES})
        assert reply.status_code in (400, 404)
        assert reply.json()["type"] == "error"
        asked = {"model": "ant/m", "messages": MESSAGES, "stream": True}
        assert (await here.client.post("/v1/messages/count_tokens", json=asked)).status_code == 400
