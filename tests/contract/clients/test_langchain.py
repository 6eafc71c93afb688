"""LangChain's OpenAI package as a client, over both of OpenAI's dialects."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.contract.clients.gateway import (
    ANSWER,
    CLIENT_KEY,
    INPUT_TOKENS,
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

MESSAGES = [SystemMessage(SYSTEM), HumanMessage(QUESTION)]
TOOL = {"type": "function", "function": {"name": "weather", "description": "How warm it is.", "parameters": WEATHER}}
both_dialects = pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])


@asynccontextmanager
async def model_of(*faults: str, responses: bool, model: str = "support", **more: Any) -> AsyncIterator[Any]:
    """`more` is ChatOpenAI's."""
    async with gateway(*faults) as here, openai.DefaultAsyncHttpxClient() as http:
        client = ChatOpenAI(
            model=model,
            base_url=f"{here.origin}/v1",
            api_key=SecretStr(CLIENT_KEY),
            max_retries=0,
            timeout=5,
            use_responses_api=responses,
            http_async_client=http,
            stream_usage=True,
            **more,
        )
        yield client, here


def dialect(here: Gateway) -> str:
    return str(here.records()[0]["dialect"])


@both_dialects
async def test_an_answer(responses: bool) -> None:
    async with model_of(responses=responses) as (model, here):
        answer = await model.ainvoke(MESSAGES)
    assert answer.text == ANSWER
    usage = answer.usage_metadata
    assert (usage["input_tokens"], usage["output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert dialect(here) == ("openai_responses" if responses else "openai_chat")


@both_dialects
async def test_a_stream(responses: bool) -> None:
    async with model_of(responses=responses) as (model, here):
        pieces = [piece async for piece in model.astream(MESSAGES)]
    assert "".join(piece.text for piece in pieces) == ANSWER
    (usage,) = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert (usage["input_tokens"], usage["output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert (here.record()["outcome"], here.record()["streamed"]) == ("ok", True)


@both_dialects
@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_over_two_turns(responses: bool, streamed: bool) -> None:
    async with model_of(responses=responses, model="tools", streaming=streamed) as (model, _):
        bound = model.bind_tools([TOOL])
        asked = HumanMessage("How warm is it?")
        said = await bound.ainvoke([asked])
        (call,) = said.tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})
        answer = await bound.ainvoke([asked, said, ToolMessage(TOOL_RESULT, tool_call_id=call["id"])])
    assert answer.text == TOOL_ANSWER


@both_dialects
async def test_structured_output(responses: bool) -> None:
    async with model_of(responses=responses) as (model, here):
        reply = await model.with_structured_output(Reply).ainvoke(MESSAGES)
        sent = json.loads(here.provider.requests[0].body)
    assert reply == REPLY
    assert sent["response_format"]["json_schema"]["name"] == "Reply"


@both_dialects
async def test_a_prompt_is_called_by_its_name(responses: bool) -> None:
    body = {"variables": VARIABLES}
    async with model_of(responses=responses, model="prompt:support/answer", extra_body=body) as (model, here):
        answer = await model.ainvoke([])
    assert answer.text == ANSWER
    assert (here.record()["prompt"], here.record()["output_valid"]) == ("support/answer", True)


@both_dialects
async def test_a_client_that_leaves_frees_the_provider(responses: bool) -> None:
    async with model_of("stall=4", responses=responses) as (model, here):
        pieces = model.astream(MESSAGES)
        await anext(pieces)
        await pieces.aclose()
        record = await here.left()
    assert (record["outcome"], record["http_status"]) == ("client_closed", 499)


@both_dialects
@pytest.mark.parametrize(
    ("fault", "model_name", "kind"),
    [
        ("", "suport", openai.NotFoundError),
        ("", "prompt:support/answer", openai.BadRequestError),
        ("status=429; retry-after=7", "support", openai.RateLimitError),
        ("status=503", "support", openai.InternalServerError),
    ],
)
async def test_errors_are_those_of_the_sdk_below(
    responses: bool, fault: str, model_name: str, kind: type[Exception]
) -> None:
    async with model_of(*filter(None, [fault]), responses=responses, model=model_name) as (model, _):
        with pytest.raises(kind):
            await model.ainvoke(MESSAGES[1:])
        with pytest.raises(kind):
            [piece async for piece in model.astream(MESSAGES[1:])]


@both_dialects
async def test_a_stream_that_breaks_raises(responses: bool) -> None:
    async with model_of("cut=4", responses=responses) as (model, _):
        with pytest.raises(openai.APIError, match="connection broke"):
            [piece async for piece in model.astream(MESSAGES)]
