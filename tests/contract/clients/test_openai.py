"""OpenAI's SDK as a client: Chat Completions passes through to the provider, Responses crosses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
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

MESSAGES: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
RESPONSES: dict[str, Any] = {"instructions": SYSTEM, "input": QUESTION}
ASKED: Any = [{"role": "user", "content": "How warm is it?"}]
FUNCTION: dict[str, Any] = {"name": "weather", "parameters": WEATHER, "strict": True}
STRICT_TOOLS: Any = [{"type": "function", "function": FUNCTION}]
FLAT_TOOLS: Any = [{"type": "function", **FUNCTION}]


@asynccontextmanager
async def client_of(*faults: str) -> AsyncIterator[tuple[openai.AsyncOpenAI, Gateway]]:
    async with (
        gateway(*faults) as here,
        openai.AsyncOpenAI(base_url=f"{here.origin}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=5) as client,
    ):
        yield client, here


# --- Chat Completions -------------------------------------------------------------------------------------------------


async def test_an_answer() -> None:
    async with client_of() as (client, here):
        answer = await client.chat.completions.create(model="support", messages=MESSAGES)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ANSWER, "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    record = here.record()
    assert (record["dialect"], record["outcome"], record["route"]) == ("openai_chat", "ok", "support")
    assert (record["input_tokens"], record["output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)


async def test_a_stream() -> None:
    async with client_of() as (client, here):
        options: Any = {"include_usage": True}
        stream = await client.chat.completions.create(
            model="support", messages=MESSAGES, stream=True, stream_options=options
        )
        *chunks, last = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    record = here.record()
    assert (record["streamed"], record["outcome"], record["output_tokens"]) == (True, "ok", OUTPUT_TOKENS)


async def test_a_stream_without_usage_shows_none_and_is_billed_all_the_same() -> None:
    async with client_of() as (client, here):
        stream = await client.chat.completions.create(model="support", messages=MESSAGES, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert here.record()["output_tokens"] == OUTPUT_TOKENS


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_over_two_turns(streamed: bool) -> None:
    async with client_of() as (client, _):

        async def ask(messages: list[Any]) -> Any:
            if not streamed:
                return await client.chat.completions.create(model="tools", messages=messages, tools=STRICT_TOOLS)
            async with client.chat.completions.stream(model="tools", messages=messages, tools=STRICT_TOOLS) as stream:
                return await stream.get_final_completion()

        first = (await ask(ASKED)).choices[0]
        (call,) = first.message.tool_calls
        assert (first.finish_reason, call.function.name) == ("tool_calls", "weather")
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        result = {"role": "tool", "tool_call_id": call.id, "content": TOOL_RESULT}
        said = first.message.model_dump(exclude_none=True, exclude={"parsed"})
        said["tool_calls"] = [{"id": call.id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
        second = await ask([*ASKED, said, result])
    assert second.choices[0].message.content == TOOL_ANSWER


async def test_structured_output() -> None:
    async with client_of() as (client, here):
        answer = await client.chat.completions.parse(model="support", messages=MESSAGES, response_format=Reply)
        sent = json.loads(here.provider.requests[0].body)
    assert answer.choices[0].message.parsed == REPLY
    assert sent["response_format"]["json_schema"]["name"] == "Reply"


async def test_a_prompt_is_called_by_its_name() -> None:
    async with client_of() as (client, here):
        raw = await client.chat.completions.with_raw_response.create(
            model="prompt:support/answer", messages=[], extra_body={"variables": VARIABLES}
        )
    assert raw.parse().choices[0].message.content == ANSWER
    record = here.record()
    assert (raw.headers["x-tidegate-version"], record["prompt"], record["output_valid"]) == (
        "v7",
        "support/answer",
        True,
    )
    assert raw.headers["x-tidegate-call-id"] == record["id"]


async def test_a_client_that_leaves_a_stream_frees_the_provider() -> None:
    async with client_of("stall=4") as (client, here):
        stream = await client.chat.completions.create(model="support", messages=MESSAGES, stream=True)
        assert (await anext(aiter(stream))).choices[0].delta.role == "assistant"
        await stream.close()
        record = await here.left()
    assert (record["outcome"], record["http_status"], record["streamed"]) == ("client_closed", 499, True)


async def test_a_stream_that_breaks_raises() -> None:
    async with client_of("cut=4") as (client, here):
        stream = await client.chat.completions.create(model="support", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError) as broken:
            [chunk async for chunk in stream]
    assert broken.value.code == "stream_broken"
    assert here.record()["error_type"] == "stream_broken"


# --- Responses --------------------------------------------------------------------------------------------------------


async def test_a_response() -> None:
    async with client_of() as (client, here):
        answer = await client.responses.create(model="support", **RESPONSES)
    assert (answer.output_text, answer.status) == (ANSWER, "completed")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert answer.usage.total_tokens == INPUT_TOKENS + OUTPUT_TOKENS
    assert here.record()["dialect"] == "openai_responses"


async def test_a_streamed_response() -> None:
    async with client_of() as (client, here), client.responses.stream(model="support", **RESPONSES) as stream:
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        answer = await stream.get_final_response()
    assert "".join(deltas) == answer.output_text == ANSWER
    assert len(deltas) == OUTPUT_TOKENS
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert (here.record()["outcome"], here.record()["output_tokens"]) == ("ok", OUTPUT_TOKENS)


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_over_two_responses(streamed: bool) -> None:
    async with client_of() as (client, _):

        async def ask(items: list[Any]) -> Any:
            if not streamed:
                return await client.responses.create(model="tools", input=items, tools=FLAT_TOOLS)
            async with client.responses.stream(model="tools", input=items, tools=FLAT_TOOLS) as stream:
                return await stream.get_final_response()

        first = await ask(ASKED)
        (call,) = first.output
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Paris"})
        turn = {key: value for key, value in call.to_dict().items() if key != "parsed_arguments"}
        result = {"type": "function_call_output", "call_id": call.call_id, "output": TOOL_RESULT}
        assert (await ask([*ASKED, turn, result])).output_text == TOOL_ANSWER


async def test_structured_output_of_a_response() -> None:
    async with client_of() as (client, here):
        answer = await client.responses.parse(model="support", text_format=Reply, **RESPONSES)
        sent = json.loads(here.provider.requests[0].body)
    assert answer.output_parsed == REPLY
    assert sent["response_format"]["json_schema"]["name"] == "Reply"


@pytest.mark.parametrize(
    "call",
    [
        {"model": "prompt:support/answer", "extra_body": {"variables": VARIABLES}},
        {"prompt": {"id": "support/answer", "variables": VARIABLES}},
    ],
)
async def test_a_prompt_is_called_by_either_of_its_names(call: dict[str, Any]) -> None:
    async with client_of() as (client, here):
        answer = await client.responses.create(**call)
    assert answer.output_text == ANSWER
    assert (here.record()["prompt"], here.record()["version"]) == ("support/answer", 7)


async def test_a_client_that_leaves_a_response_frees_the_provider() -> None:
    async with client_of("stall=4") as (client, here):
        stream = await client.responses.create(model="support", stream=True, **RESPONSES)
        assert (await anext(aiter(stream))).type == "response.created"
        await stream.close()
        record = await here.left()
    assert (record["outcome"], record["dialect"]) == ("client_closed", "openai_responses")


async def test_a_response_that_breaks_raises() -> None:
    async with client_of("cut=4") as (client, _):
        with pytest.raises(openai.APIError, match="connection broke") as broken:
            async with client.responses.stream(model="support", **RESPONSES) as stream:
                [event async for event in stream]
    assert isinstance(broken.value.body, dict)
    assert broken.value.body["code"] == "stream_broken"


# --- errors -----------------------------------------------------------------------------------------------------------


async def ask_chat(client: openai.AsyncOpenAI, **more: Any) -> object:
    return await client.chat.completions.create(**{"model": "support", "messages": MESSAGES, **more})


async def ask_responses(client: openai.AsyncOpenAI, **more: Any) -> object:
    return await client.responses.create(**{"model": "support", **RESPONSES, **more})


ASKS = [ask_chat, ask_responses]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("ask", ASKS)
async def test_an_unknown_model_is_not_found(ask: Any, streamed: bool) -> None:
    async with client_of() as (client, _):
        with pytest.raises(openai.NotFoundError, match="Did you mean 'support'") as unknown:
            await ask(client, model="suport", stream=streamed)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("ask", ASKS)
async def test_a_wrong_type_is_a_bad_request_that_names_the_field(ask: Any) -> None:
    async with client_of() as (client, here):
        with pytest.raises(openai.BadRequestError) as bad:
            await ask(client, model="prompt:support/answer", extra_body={"variables": {"question": 3}})
        assert str(bad.value.param).startswith("variables")
        assert not here.provider.requests


@pytest.mark.parametrize("ask", ASKS)
async def test_a_rate_limit_says_when_to_come_back(ask: Any) -> None:
    async with client_of("status=429; retry-after=7") as (client, here):
        with pytest.raises(openai.RateLimitError) as limited:
            await ask(client)
    assert limited.value.response.headers["retry-after"] == "7"
    assert here.record()["http_status"] == 429


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("ask", ASKS)
async def test_a_provider_that_is_down_is_an_internal_server_error(ask: Any, streamed: bool) -> None:
    async with client_of("status=503") as (client, here):
        with pytest.raises(openai.InternalServerError) as down:
            await ask(client, stream=streamed)
    assert down.value.status_code == 503
    assert here.record()["outcome"] == "error"


async def test_the_sdk_does_not_repeat_what_the_gateway_has_tried() -> None:
    """The gateway is the retry layer: it tells the SDK not to be another one."""
    async with client_of("status=503") as (client, here):
        with pytest.raises(openai.InternalServerError):
            await ask_chat(client.with_options(max_retries=2))
        assert len(here.provider.requests) == 1


async def test_models_are_listed() -> None:
    async with client_of() as (client, _):
        names = [model.id async for model in client.models.list()]
    assert names == NAMES


async def test_a_model_is_told_of_by_its_name() -> None:
    async with client_of() as (client, _):
        names = ["support", "prompt:support/answer", "sim/support-2026-03-01"]
        assert [(await client.models.retrieve(name)).id for name in names] == names
        with pytest.raises(openai.NotFoundError, match="Did you mean 'support'"):
            await client.models.retrieve("suport")
