"""Answers that are almost as documented are answers: they were paid for, and are read as what they mean."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.unit.test_pipeline import CHAT, Bench
from tests.unit.test_usage_recorded import counts
from tidegate.core.errors import UpstreamProtocol
from tidegate.core.usage import Usage
from tidegate.dialects import anthropic, bedrock, gemini, loosely, openai_chat, openai_embeddings, openai_responses
from tidegate.fakes import FakeUpstream, ScriptedAnswer

SAID = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
MESSAGE = {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
ITEM = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}
RESPONSE = {"status": "completed", "output": [ITEM]}
GENERATED = {"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}
CONVERSED = {"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": "end_turn"}
TWELVE: dict[str, Any] = {"float": 12.0, "a piece more": 11.5, "text": "12"}
ANSWERS: dict[str, tuple[Any, Any]] = {
    "chat": (openai_chat.DIALECT, lambda n: {**SAID, "usage": {"prompt_tokens": n, "completion_tokens": 5}}),
    "responses": (openai_responses.DIALECT, lambda n: {**RESPONSE, "usage": {"input_tokens": n, "output_tokens": 5}}),
    "anthropic": (anthropic.DIALECT, lambda n: {**MESSAGE, "usage": {"input_tokens": n, "output_tokens": 5}}),
    "gemini": (
        gemini.DIALECT,
        lambda n: {**GENERATED, "usageMetadata": {"promptTokenCount": n, "candidatesTokenCount": 5}},
    ),
    "bedrock": (bedrock.DIALECT, lambda n: {**CONVERSED, "usage": {"inputTokens": n, "outputTokens": 5}}),
}


@pytest.mark.parametrize("dialect", ANSWERS)
@pytest.mark.parametrize("written", TWELVE)
def test_a_count_is_read_however_it_is_written(dialect: str, written: str) -> None:
    wire, answer = ANSWERS[dialect]
    body = json.dumps(answer(TWELVE[written])).encode()
    assert wire.answer_in(body).usage == Usage(12, 5)
    if wire is not bedrock.DIALECT:
        assert (wire.read_answer(body).text, wire.read_answer(body).usage) == ("Hi", Usage(12, 5))


@pytest.mark.parametrize("dialect", ANSWERS)
@pytest.mark.parametrize("count", ["many", True, [], {}, "NaN"])
def test_a_count_that_is_none_leaves_the_answer_as_it_is(dialect: str, count: Any) -> None:
    wire, answer = ANSWERS[dialect]
    response = wire.answer_in(json.dumps(answer(count)).encode())
    assert [part.text for part in response.choices[0].parts] == ["Hi"]
    assert response.usage is None or response.usage.input_tokens == 0


@pytest.mark.parametrize(
    "more",
    [
        {"created": 1700000000.5},
        {"created": "yesterday"},
        {"usage": []},
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": []}},
        {"choices": [{**SAID["choices"][0], "index": None}]},
    ],
)
def test_what_is_beside_the_answer_does_not_spoil_it(more: dict[str, Any]) -> None:
    body = json.dumps({**SAID, **more}).encode()
    assert openai_chat.DIALECT.read_answer(body).text == "Hi"
    assert openai_chat.DIALECT.answer_in(body).choices[0].finish == "stop"


def test_a_stream_goes_on_over_null_for_nothing() -> None:
    """Some send `choices: null` with the usage, and calls without a number."""
    events = openai_chat.DIALECT.events_in()
    call = {"index": None, "id": "c", "function": {"name": "find", "arguments": {"a": 1}}}
    events.read(b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": [call]}}]}).encode())
    [used] = events.read(b'data: {"choices":null,"usage":{"prompt_tokens":1,"completion_tokens":2}}')
    assert getattr(used, "usage", None) == Usage(1, 2)


def test_arguments_that_are_an_object_are_its_text() -> None:
    message = {"tool_calls": [{"id": "c", "function": {"name": "find", "arguments": {"a": [1]}}}]}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    [call] = openai_chat.DIALECT.answer_in(body).choices[0].parts
    assert getattr(call, "arguments", None) == '{"a":[1]}'


def test_vectors_without_a_readable_count_are_passed_on() -> None:
    answer = openai_embeddings.DIALECT.read_answer(b'{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":"few"}}')
    assert answer.usage is None


class Part(msgspec.Struct):
    text: str = ""


class Whole(msgspec.Struct):
    parts: list[Part] = []
    name: str = ""
    whole: Part | None = None


@pytest.mark.parametrize("body", [b"5", b"[]", b'{"parts":3}', b'{"parts":[3]}', b'{"name":3}', b'{"whole":"x"}', b"{"])
def test_what_holds_the_answer_must_be_of_its_kind(body: bytes) -> None:
    assert loosely.read(b'{"parts":[{"text":null}],"of_tomorrow":1}', Whole, "one") == Whole([Part()])
    with pytest.raises(UpstreamProtocol, match="the provider's answer is not one of these"):
        loosely.read(body, Whole, "one of these")


async def test_an_answer_that_was_paid_for_reaches_its_client_as_it_came() -> None:
    """It was asked for again, and paid again, and refused in the end."""
    body = json.dumps({**SAID, "created": 1.5, "usage": {"prompt_tokens": 10.0, "completion_tokens": 5.0}}).encode()
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[body])))
    reply = await bench.call(CHAT)
    assert (reply.status, reply.body) == (200, body)
    assert counts(bench.record()["call"]) == (10, 5, "provider", 20_000)
