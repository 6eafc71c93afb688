"""Anthropic's SDK as a client of a provider that speaks Chat Completions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest

from tests.contract.clients.gateway import (
    ANSWER,
    CLIENT_KEY,
    INPUT_TOKENS,
    NAMES,
    OUTPUT_TOKENS,
    QUESTION,
    REPLY,
    SYSTEM,
    TOOL_ANSWER,
    TOOL_RESULT,
    VARIABLES,
    WEATHER,
    Gateway,
    Reply,
    gateway,
)

ASK: dict[str, Any] = {
    "model": "support",
    "max_tokens": 200,
    "system": SYSTEM,
    "messages": [{"role": "user", "content": QUESTION}],
}
TOOLS: dict[str, Any] = {
    "model": "tools",
    "max_tokens": 200,
    "tools": [{"name": "weather", "description": "How warm it is.", "input_schema": WEATHER}],
}
ASKED: Any = [{"role": "user", "content": "How warm is it?"}]


@asynccontextmanager
async def client_of(*faults: str) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Gateway]]:
    async with (
        gateway(*faults) as here,
        anthropic.AsyncAnthropic(base_url=here.origin, api_key=CLIENT_KEY, max_retries=0, timeout=5) as client,
    ):
        yield client, here


def text_of(message: anthropic.types.Message) -> str:
    (block,) = message.content
    assert block.type == "text"
    return block.text


async def test_an_answer() -> None:
    async with client_of() as (client, here):
        message = await client.messages.create(**ASK)
    assert (text_of(message), message.stop_reason, message.role) == (ANSWER, "end_turn", "assistant")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    record = here.record()
    assert (record["dialect"], record["outcome"], record["route"]) == ("anthropic", "ok", "support")
    assert (record["input_tokens"], record["output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)


async def test_a_stream() -> None:
    async with client_of() as (client, here), client.messages.stream(**ASK) as stream:
        pieces = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert len(pieces) == OUTPUT_TOKENS
    assert "".join(pieces) == text_of(message) == ANSWER
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    record = here.record()
    assert (record["streamed"], record["outcome"], record["output_tokens"]) == (True, "ok", OUTPUT_TOKENS)


async def test_an_answer_that_reaches_its_bound_says_so() -> None:
    async with client_of() as (client, _):
        message = await client.messages.create(**{**ASK, "max_tokens": 3})
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_over_two_turns(streamed: bool) -> None:
    async with client_of() as (client, _):

        async def ask(messages: list[Any]) -> anthropic.types.Message:
            if not streamed:
                message: anthropic.types.Message = await client.messages.create(messages=messages, **TOOLS)
                return message
            async with client.messages.stream(messages=messages, **TOOLS) as stream:
                return await stream.get_final_message()

        first = await ask(ASKED)
        (call,) = first.content
        assert call.type == "tool_use"
        assert (first.stop_reason, call.name, call.input) == ("tool_use", "weather", {"city": "Paris"})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": TOOL_RESULT}
        said = [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        assert text_of(await ask([*ASKED, *said])) == TOOL_ANSWER


async def test_structured_output() -> None:
    async with client_of() as (client, here):
        message = await client.messages.parse(**ASK, output_format=Reply)
        sent = json.loads(here.provider.requests[0].body)
    assert message.parsed_output == REPLY
    assert set(sent["response_format"]["json_schema"]["schema"]["properties"]) == {"answer", "needs_human"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_prompt_is_called_by_its_name(streamed: bool) -> None:
    call: dict[str, Any] = {
        "model": "prompt:support/answer",
        "max_tokens": 100,
        "messages": [],
        "extra_body": {"variables": VARIABLES},
    }
    async with client_of() as (client, here):
        if streamed:
            async with client.messages.stream(**call) as stream:
                message = await stream.get_final_message()
        else:
            message = await client.messages.create(**call)
    assert text_of(message) == ANSWER
    record = here.record()
    assert (record["prompt"], record["version"], record["output_valid"]) == ("support/answer", 7, True)


async def test_a_client_that_leaves_frees_the_provider() -> None:
    async with client_of("stall=4") as (client, here):
        async with client.messages.stream(**ASK) as stream:
            assert (await anext(aiter(stream.text_stream))) == '{"'
        record = await here.left()
    assert (record["outcome"], record["http_status"], record["dialect"]) == ("client_closed", 499, "anthropic")


async def test_a_stream_that_breaks_raises() -> None:
    async with client_of("cut=4") as (client, here):
        with pytest.raises(anthropic.APIStatusError, match="connection broke") as broken:
            async with client.messages.stream(**ASK) as stream:
                [event async for event in stream]
    assert isinstance(broken.value.body, dict)
    assert broken.value.body["type"] == "error"
    assert here.record()["error_type"] == "stream_broken"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_unknown_model_is_not_found(streamed: bool) -> None:
    async with client_of() as (client, here):
        with pytest.raises(anthropic.NotFoundError, match="Did you mean 'support'") as unknown:
            await client.messages.create(**{**ASK, "model": "suport", "stream": streamed})
    assert isinstance(unknown.value.body, dict)
    assert unknown.value.body["error"]["type"] == "not_found_error"
    assert unknown.value.body["request_id"] == here.record()["id"]


async def test_a_wrong_type_is_a_bad_request_that_names_the_field() -> None:
    async with client_of() as (client, here):
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content"):
            await client.messages.create(**{**ASK, "messages": [{"role": "user", "content": 3}]})
        assert not here.provider.requests


@pytest.mark.parametrize("streamed", [False, True])
async def test_why_the_provider_refused_is_told_across_dialects(streamed: bool) -> None:
    async with client_of("status=400") as (client, here):
        with pytest.raises(anthropic.BadRequestError, match=r"answered 400: A simulated failure\."):
            await client.messages.create(**ASK, stream=streamed)
    assert here.record()["error_message"] == "sim/support-2026-03-01 answered 400: A simulated failure."


async def test_that_the_provider_refused_our_key_is_no_matter_of_the_clients() -> None:
    async with client_of("status=401") as (client, _):
        with pytest.raises(anthropic.InternalServerError) as refused:
            await client.messages.create(**ASK)
    assert isinstance(refused.value.body, dict)
    assert (refused.value.status_code, refused.value.body["error"]["type"]) == (502, "api_error")


async def test_a_rate_limit_says_when_to_come_back() -> None:
    async with client_of("status=429; retry-after=7") as (client, _):
        with pytest.raises(anthropic.RateLimitError) as limited:
            await client.messages.create(**ASK)
    assert limited.value.response.headers["retry-after"] == "7"
    assert isinstance(limited.value.body, dict)
    assert limited.value.body["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize(("status", "kind"), [(500, "api_error"), (503, "api_error"), (529, "overloaded_error")])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_provider_that_is_down_is_an_internal_server_error(status: int, kind: str, streamed: bool) -> None:
    async with client_of(f"status={status}") as (client, here):
        with pytest.raises(anthropic.InternalServerError) as down:
            await client.messages.create(**ASK, stream=streamed)
    assert isinstance(down.value.body, dict)
    assert (down.value.status_code, down.value.body["error"]["type"]) == (status, kind)
    assert here.record()["outcome"] == "error"


async def test_the_sdk_does_not_repeat_what_the_gateway_has_tried() -> None:
    async with client_of("status=503") as (client, here):
        with pytest.raises(anthropic.InternalServerError):
            await client.with_options(max_retries=2).messages.create(**ASK)
        assert len(here.provider.requests) == 1


async def test_models_are_listed() -> None:
    async with client_of() as (client, _):
        names = [model.id async for model in client.models.list()]
    assert names == NAMES


async def test_a_model_is_told_of_by_its_name() -> None:
    async with client_of() as (client, _):
        names = ["support", "prompt:support/answer", "sim/support-2026-03-01"]
        assert [(await client.models.retrieve(name)).id for name in names] == names
        with pytest.raises(anthropic.NotFoundError, match="Did you mean 'support'"):
            await client.models.retrieve("suport")
