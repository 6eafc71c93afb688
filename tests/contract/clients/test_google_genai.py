"""Google's SDK as a client of a provider that speaks Chat Completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

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
    Gateway,
    Reply,
    gateway,
)

ASK: dict[str, Any] = {
    "model": "support",
    "contents": QUESTION,
    "config": types.GenerateContentConfig(system_instruction=SYSTEM),
}
WEATHER = types.FunctionDeclaration(
    name="weather",
    parameters=types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}),
)


@asynccontextmanager
async def client_of(*faults: str) -> AsyncIterator[tuple[genai.client.AsyncClient, Gateway]]:
    async with gateway(*faults) as here:
        options = types.HttpOptions(
            base_url=here.origin, timeout=5_000, retry_options=types.HttpRetryOptions(attempts=1)
        )
        async with genai.Client(api_key=CLIENT_KEY, http_options=options).aio as client:
            yield client, here


async def read(client: genai.client.AsyncClient, **ask: Any) -> list[types.GenerateContentResponse]:
    return [piece async for piece in await client.models.generate_content_stream(**ask)]


def finish_of(answer: types.GenerateContentResponse) -> types.FinishReason | None:
    (candidate,) = answer.candidates or []
    return candidate.finish_reason


def tokens_of(answer: types.GenerateContentResponse) -> tuple[int | None, int | None]:
    usage = answer.usage_metadata
    assert usage is not None
    return usage.prompt_token_count, usage.candidates_token_count


async def test_an_answer() -> None:
    async with client_of() as (client, here):
        answer = await client.models.generate_content(**ASK)
    assert (answer.text, finish_of(answer)) == (ANSWER, types.FinishReason.STOP)
    assert tokens_of(answer) == (INPUT_TOKENS, OUTPUT_TOKENS)
    record = here.record()
    assert (record["dialect"], record["outcome"], record["route"]) == ("gemini", "ok", "support")
    assert (record["input_tokens"], record["output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)


async def test_a_stream() -> None:
    async with client_of() as (client, here):
        pieces = await read(client, **ASK)
    assert "".join(piece.text or "" for piece in pieces) == ANSWER
    assert len([piece for piece in pieces if piece.text]) == OUTPUT_TOKENS
    assert finish_of(pieces[-1]) is types.FinishReason.STOP
    assert tokens_of(pieces[-1]) == (INPUT_TOKENS, OUTPUT_TOKENS)
    record = here.record()
    assert (record["streamed"], record["outcome"], record["output_tokens"]) == (True, "ok", OUTPUT_TOKENS)


async def test_an_answer_that_reaches_its_bound_says_so() -> None:
    async with client_of() as (client, _):
        config = types.GenerateContentConfig(max_output_tokens=3)
        answer = await client.models.generate_content(model="support", contents=QUESTION, config=config)
    assert finish_of(answer) is types.FinishReason.MAX_TOKENS
    assert tokens_of(answer)[1] == 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_over_two_turns(streamed: bool) -> None:
    async with client_of() as (client, _):
        config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[WEATHER])])
        chat = client.chats.create(model="tools", config=config)

        async def send(message: Any) -> list[types.GenerateContentResponse]:
            if not streamed:
                return [await chat.send_message(message)]
            return [piece async for piece in await chat.send_message_stream(message)]

        (call,) = [call for piece in await send("How warm is it?") for call in piece.function_calls or []]
        assert (call.name, call.args) == ("weather", {"city": "Paris"})
        result = types.FunctionResponse(id=call.id, name="weather", response={"output": TOOL_RESULT})
        answer = await send(types.Part(function_response=result))
    assert "".join(piece.text or "" for piece in answer) == TOOL_ANSWER


async def test_the_sdk_calls_python_functions_by_itself() -> None:
    """Its automatic function calling: two calls of the gateway for one of the client."""

    def weather(city: str) -> str:
        """How warm it is."""
        return f"{TOOL_RESULT} in {city}"

    async with client_of() as (client, here):
        config = types.GenerateContentConfig(tools=[weather])
        answer = await client.models.generate_content(model="tools", contents="How warm is it?", config=config)
    assert f"{TOOL_RESULT} in Paris" in (answer.text or "")
    assert [record["finish_reason"] for record in here.records()] == ["tool_calls", "stop"]


async def test_structured_output() -> None:
    async with client_of() as (client, here):
        config = types.GenerateContentConfig(
            system_instruction=SYSTEM, response_mime_type="application/json", response_schema=Reply
        )
        answer = await client.models.generate_content(model="support", contents=QUESTION, config=config)
        sent = json.loads(here.provider.requests[0].body)
    assert answer.parsed == REPLY
    assert set(sent["response_format"]["json_schema"]["schema"]["properties"]) == {"answer", "needs_human"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_prompt_is_called_by_its_name(streamed: bool) -> None:
    variables = types.HttpOptions(extra_body={"variables": VARIABLES})
    call: dict[str, Any] = {
        "model": "prompt:support/answer",
        "contents": "Please.",
        "config": types.GenerateContentConfig(http_options=variables),
    }
    async with client_of() as (client, here):
        if streamed:
            text = "".join([piece.text or "" for piece in await read(client, **call)])
        else:
            text = (await client.models.generate_content(**call)).text or ""
        messages = json.loads(here.provider.requests[0].body)["messages"]
    assert json.loads(text)["needs_human"] is True  # what the client said follows the prompt, and asks nothing
    assert [message["content"] for message in messages] == [QUESTION, "Please."]
    record = here.record()
    assert (record["prompt"], record["version"], record["output_valid"]) == ("support/answer", 7, True)


async def test_a_prompt_that_needs_no_more_is_called_with_empty_contents() -> None:
    """The SDK refuses to send none at all."""
    config = types.GenerateContentConfig(http_options=types.HttpOptions(extra_body={"variables": VARIABLES}))
    async with client_of() as (client, here):
        answer = await client.models.generate_content(model="prompt:support/answer", contents="", config=config)
        messages = json.loads(here.provider.requests[0].body)["messages"]
    assert answer.text == ANSWER
    assert [message["content"] for message in messages] == [QUESTION]


async def test_a_client_that_leaves_frees_the_provider() -> None:
    """Its streams can not be closed: a client leaves by cancelling the task that reads."""
    texts: asyncio.Queue[str | None] = asyncio.Queue()

    async def read_on(client: genai.client.AsyncClient) -> None:
        async for piece in await client.models.generate_content_stream(**ASK):
            texts.put_nowait(piece.text)

    async with client_of("stall=4") as (client, here):
        reading = asyncio.create_task(read_on(client))
        assert await texts.get() == '{"'
        reading.cancel()
        record = await here.left()
        await asyncio.wait([reading])
    assert (record["outcome"], record["http_status"], record["dialect"]) == ("client_closed", 499, "gemini")


async def test_a_stream_that_breaks_raises() -> None:
    async with client_of("cut=4") as (client, here):
        with pytest.raises(errors.ServerError, match="connection broke") as broken:
            await read(client, **ASK)
    assert (broken.value.code, broken.value.status) == (502, "UNAVAILABLE")
    assert here.record()["error_type"] == "stream_broken"


# --- errors -----------------------------------------------------------------------------------------------------------


async def ask_whole(client: genai.client.AsyncClient, **ask: Any) -> object:
    return await client.models.generate_content(**ask)


ASKS = [ask_whole, read]


@pytest.mark.parametrize("ask", ASKS)
async def test_an_unknown_model_is_not_found(ask: Any) -> None:
    async with client_of() as (client, _):
        with pytest.raises(errors.ClientError, match="Did you mean 'support'") as unknown:
            await ask(client, **{**ASK, "model": "suport"})
    assert (unknown.value.code, unknown.value.status) == (404, "NOT_FOUND")


async def test_a_bad_request_names_the_field() -> None:
    async with client_of() as (client, here):
        config = types.GenerateContentConfig(http_options=types.HttpOptions(extra_body={"variables": {"question": 3}}))
        with pytest.raises(errors.ClientError) as bad:
            await client.models.generate_content(model="prompt:support/answer", contents="Hi", config=config)
        assert not here.provider.requests
    assert (bad.value.code, bad.value.status) == (400, "INVALID_ARGUMENT")
    _, violation = bad.value.details["error"]["details"]
    assert violation["fieldViolations"][0]["field"].startswith("variables")


@pytest.mark.parametrize("ask", ASKS)
async def test_a_rate_limit_is_told(ask: Any) -> None:
    async with client_of("status=429; retry-after=7") as (client, _):
        with pytest.raises(errors.ClientError) as limited:
            await ask(client, **ASK)
    assert (limited.value.code, limited.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert limited.value.response.headers["retry-after"] == "7"


async def test_that_the_provider_refused_our_key_is_a_server_error() -> None:
    async with client_of("status=401") as (client, _):
        with pytest.raises(errors.ServerError) as refused:
            await client.models.generate_content(**ASK)
    assert (refused.value.code, refused.value.status) == (502, "UNAVAILABLE")


@pytest.mark.parametrize(("status", "name"), [(500, "INTERNAL"), (503, "UNAVAILABLE")])
@pytest.mark.parametrize("ask", ASKS)
async def test_a_provider_that_is_down_is_a_server_error(ask: Any, status: int, name: str) -> None:
    async with client_of(f"status={status}") as (client, here):
        with pytest.raises(errors.ServerError) as down:
            await ask(client, **ASK)
    assert (down.value.code, down.value.status) == (status, name)
    assert here.record()["outcome"] == "error"


async def test_models_are_listed() -> None:
    async with client_of() as (client, _):
        names = [model.name async for model in await client.models.list()]
    assert names == [f"models/{name}" for name in NAMES]


async def test_a_model_is_told_of_by_its_name() -> None:
    async with client_of() as (client, _):
        assert (await client.models.get(model="support")).name == "models/support"
        with pytest.raises(errors.ClientError, match="Did you mean 'support'") as unknown:
            await client.models.get(model="suport")
    assert unknown.value.status == "NOT_FOUND"
