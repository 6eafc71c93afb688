"""Google's own SDK as a client of the gateway: what we write it reads, what it sends we understand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from tidegate.config import Config
from tidegate.core.artifact import Artifact, Input, Message, digest
from tidegate.core.errors import StreamBroken
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.fakes import FakePrompts, FakeUpstream, FixedClock, FixedRandom, MemorySpool, ScriptedAnswer
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.edge import Edge
from tidegate.gateway.pipeline import Services
from tidegate.gateway.routes import Routes
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

ARTIFACT = Artifact(messages=(Message("user", "{{ question }}"),), model="oai/m-1", inputs={"question": Input()})


@asynccontextmanager
async def client_of(*answers: bytes | ScriptedAnswer) -> AsyncIterator[tuple[genai.client.AsyncClient, FakeUpstream]]:
    """Google's client before a gateway whose provider speaks Chat Completions."""
    upstream = FakeUpstream(*(a if isinstance(a, ScriptedAnswer) else ScriptedAnswer(body=[a]) for a in answers))
    config = Config.model_validate(
        {
            "providers": {"oai": {"base_url": "http://127.0.0.1:1/v1"}},
            "routes": {"support": {"targets": ["oai/m-1"], "retries": 0}},
        }
    )
    clock, random = FixedClock(), FixedRandom()
    served = Served("support/answer", 7, digest(ARTIFACT), ARTIFACT)
    services = Services(
        clock=clock,
        random=random,
        spool=MemorySpool(),
        attempts=Attempts(upstream, RetryBudget(), clock, random),
        targets=Targets(config, PriceList({}, {})),
        prompts=FakePrompts({("support/answer", "production"): served}),
        keys=Keys(),
        project="default",
        content_sample=1.0,
    )
    edge = Edge(Routes(services))
    port = await edge.start()
    options = types.HttpOptions(base_url=f"http://127.0.0.1:{port}", retry_options=types.HttpRetryOptions(attempts=1))
    try:
        async with genai.Client(api_key="k", http_options=options).aio as client:
            yield client, upstream
    finally:
        await edge.close(grace_s=1)


def completion(message: dict[str, Any], finish: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 2}}
    return json.dumps({"id": "c1", "model": "m-1", "choices": [choice], "usage": usage}).encode()


def stream(*deltas: dict[str, Any], finish: str = "stop") -> bytes:
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    written = [json.dumps({"id": "c1", "model": "m-1", **chunk}).encode() for chunk in (*chunks, end, usage)]
    return b"".join(b"data: " + chunk + b"\n\n" for chunk in (*written, b"[DONE]"))


class Place(BaseModel):
    city: str


async def test_an_answer() -> None:
    async with client_of(completion({"content": "Hello"})) as (client, upstream):
        answer = await client.models.generate_content(
            model="oai/m-1",
            contents=["Look:", types.Part.from_bytes(data=b"\xff\xd8\xff\xfb\xef", mime_type="image/jpeg")],
            config=types.GenerateContentConfig(system_instruction="Be brief.", temperature=0.5, max_output_tokens=9),
        )
    assert (answer.text, answer.model_version) == ("Hello", "m-1")
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason is types.FinishReason.STOP
    assert answer.usage_metadata is not None
    usage = answer.usage_metadata
    counts = (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count)
    assert (*counts, usage.total_token_count) == (10, 3, 2, 15)
    sent = json.loads(upstream.requests[0].body)
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert sent["messages"][1]["content"][1]["image_url"]["url"] == "data:image/jpeg;base64,/9j/++8="


async def test_a_stream() -> None:
    async with client_of(stream({"role": "assistant"}, {"content": "Hel"}, {"content": "lo"})) as (client, _):
        pieces = [piece async for piece in await client.models.generate_content_stream(model="support", contents="Hi")]
    assert "".join(piece.text or "" for piece in pieces) == "Hello"
    last = pieces[-1]
    assert last.candidates is not None
    assert last.usage_metadata is not None
    assert (last.candidates[0].finish_reason, last.usage_metadata.total_token_count) == (types.FinishReason.STOP, 15)


async def test_tools_over_two_turns() -> None:
    calls: list[dict[str, Any]] = [
        {"index": at, "id": f"call_{at}", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
        for at, city in enumerate(["Paris", "Rome"])
    ]
    asked = stream({"tool_calls": [calls[0]]}, {"tool_calls": [calls[1]]}, finish="tool_calls")
    async with client_of(asked, completion({"content": "Sun."})) as (client, upstream):
        weather = types.FunctionDeclaration(
            name="weather",
            parameters=types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}),
        )
        chat = client.chats.create(
            model="support", config=types.GenerateContentConfig(tools=[types.Tool(function_declarations=[weather])])
        )
        found = [
            call async for piece in await chat.send_message_stream("Where?") for call in piece.function_calls or []
        ]
        assert [(call.id, call.name, call.args) for call in found] == [
            ("call_0", "weather", {"city": "Paris"}),
            ("call_1", "weather", {"city": "Rome"}),
        ]
        results = [
            types.Part(
                function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": call.id})
            )
            for call in found
        ]
        answer = await chat.send_message(results)
    assert answer.text == "Sun."
    sent = json.loads(upstream.requests[1].body)
    assert sent["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {"city": {"type": "string"}},
    }
    assert [call["id"] for call in sent["messages"][1]["tool_calls"]] == ["call_0", "call_1"]
    assert [(m["tool_call_id"], m["content"]) for m in sent["messages"][2:]] == [
        ("call_0", "call_0"),
        ("call_1", "call_1"),
    ]


async def test_structured_output() -> None:
    async with client_of(completion({"content": '{"city": "Róma"}'})) as (client, upstream):
        answer = await client.models.generate_content(
            model="support",
            contents="Where?",
            config=types.GenerateContentConfig(response_mime_type="application/json", response_schema=Place),
        )
    assert answer.parsed == Place(city="Róma")
    schema = json.loads(upstream.requests[0].body)["response_format"]["json_schema"]["schema"]
    assert (schema["type"], schema["required"]) == ("object", ["city"])


async def test_a_prompt_is_called_by_its_name() -> None:
    async with client_of(completion({"content": "42"})) as (client, upstream):
        answer = await client.models.generate_content(
            model="prompt:support/answer",
            contents="And then?",
            config=types.GenerateContentConfig(
                http_options=types.HttpOptions(extra_body={"variables": {"question": "Why?"}})
            ),
        )
    assert answer.text == "42"
    contents = [message["content"] for message in json.loads(upstream.requests[0].body)["messages"]]
    assert contents == ["Why?", "And then?"]


async def test_models_are_listed() -> None:
    async with client_of() as (client, _):
        names = [model.name async for model in await client.models.list()]
    assert names[:2] == ["models/support", "models/prompt:support/answer"]
    assert all((name or "").startswith("models/") for name in names)


async def test_errors_are_the_sdks_own() -> None:
    async with client_of(ScriptedAnswer(status=503, body=[b"{}"])) as (client, _):
        with pytest.raises(errors.ClientError) as unknown:
            await client.models.generate_content(model="suport", contents="Hi")
        assert (unknown.value.code, unknown.value.status) == (404, "NOT_FOUND")
        assert "Did you mean 'support'?" in str(unknown.value.message)
        with pytest.raises(errors.ServerError) as down:
            await client.models.generate_content(model="support", contents="Hi")
        assert (down.value.code, down.value.status) == (503, "UNAVAILABLE")


async def test_a_stream_that_breaks_raises_in_the_sdk() -> None:
    first = stream({"content": "Hel"}).partition(b"\n\n")[0] + b"\n\n"
    async with client_of(ScriptedAnswer(body=[first], breaks=StreamBroken("cut"))) as (client, _):
        pieces = await client.models.generate_content_stream(model="support", contents="Hi")
        assert (await anext(pieces)).text == "Hel"
        with pytest.raises(errors.ServerError) as cut:
            await anext(pieces)
    assert cut.value.code == 502
