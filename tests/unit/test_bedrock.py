"""Bedrock's edges: exceptions inside streams, answers that are none, and what its models are told of reasoning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.frames import event, exception, frame
from tidegate.core import chat
from tidegate.core.errors import UpstreamError, UpstreamProtocol, UpstreamRejected
from tidegate.dialects.bedrock import DIALECT


@pytest.mark.parametrize(
    ("kind", "status", "retryable"),
    [
        ("throttlingException", 429, True),
        ("serviceUnavailableException", 503, True),
        ("internalServerException", 500, True),
        ("validationException", 400, False),
        ("ValidationException", 400, False),
        ("accessDeniedException", 403, False),
        ("modelStreamErrorException", None, True),
        ("somethingNewException", None, True),
    ],
)
def test_an_exception_inside_a_stream_is_what_its_status_would_be(
    kind: str, status: int | None, retryable: bool
) -> None:
    with pytest.raises(UpstreamError) as caught:
        DIALECT.events_in().read(exception(kind, "your key AKIA was throttled"))
    assert caught.value.retryable is retryable
    assert isinstance(caught.value, UpstreamProtocol if status is None else UpstreamRejected)
    assert status is None or caught.value.http_status == status
    assert str(caught.value) == f"the provider reported {kind} inside its stream"


@pytest.mark.parametrize(
    "wire",
    [
        frame(b"{}", message_type="error", error_code="<b>", error_message="x"),
        frame(b"{}", event_type="metadata"),
        event("contentBlockDelta", [1]),
        event("contentBlockDelta", {"delta": {"text": 1}}),
        event("messageStop", {"stopReason": "malformed_tool_use"}),
        event("contentBlockDelta", {"contentBlockIndex": 3, "delta": {"toolUse": {"input": "{}"}}}),
        frame(b"\xff", message_type="event", event_type="metadata"),
        frame(b"[" * 100_000, message_type="event", event_type="metadata"),
    ],
)
def test_garbage_in_a_stream_is_the_providers_fault(wire: bytes) -> None:
    with pytest.raises(UpstreamProtocol) as caught:
        DIALECT.events_in().read(wire)
    assert "<b>" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b"{}",
        b'{"output":{}}',
        b'{"output":{"message":{"content":1}}}',
        b'{"output":{"message":{"content":[]}},"stopReason":"malformed_model_output"}',
        b"[" * 100_000,
        b'{"output":"\xff"}',
    ],
)
def test_a_whole_answer_that_is_none(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.answer_in(body)


def test_an_answer_that_counts_nothing_has_no_usage() -> None:
    answer = DIALECT.answer_in(b'{"output":{"message":{"content":[{"text":"Hi"}]}},"stopReason":"end_turn"}')
    assert answer.usage is None


def said(model: str, **fields: Any) -> tuple[dict[str, Any], dict[str, str]]:
    asked = chat.Request((chat.Message("user", (chat.Text("Hi"),)),), **fields)
    body, losses = DIALECT.request_out(asked, model=model, stream=False, native=True)
    return json.loads(body), {loss.field: loss.why for loss in losses}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("eu.anthropic.claude-opus-5", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        ("anthropic.claude-sonnet-4-20250514-v1:0", {"thinking": {"type": "enabled", "budget_tokens": 16384}}),
        ("openai.gpt-oss-120b-1:0", {"reasoning_effort": "high"}),
        ("amazon.nova-pro-v1:0", None),
    ],
)
def test_each_makers_models_are_told_of_reasoning_in_their_own_words(model: str, told: Any) -> None:
    body, lost = said(model, reasoning_effort="high")
    assert body.get("additionalModelRequestFields") == told
    assert ("reasoning_effort" in lost) is (told is None)


def test_ids_that_are_too_long_stay_different() -> None:
    calls = [chat.ToolCall("x" * 70 + end, "find", "{}") for end in "ab"]
    messages = (chat.Message("user", (chat.Text("Hi"),)), chat.Message("assistant", tuple(calls)))
    body, _ = DIALECT.request_out(chat.Request(messages), model="m", stream=False, native=True)
    ids = [block["toolUse"]["toolUseId"] for block in json.loads(body)["messages"][1]["content"]]
    assert len(set(ids)) == 2
    assert all(len(one) == 64 for one in ids)


def test_an_arn_is_one_segment_of_the_path() -> None:
    arn = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.amazon.nova-pro-v1:0"
    encoded = "arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Ainference-profile%2Feu.amazon.nova-pro-v1%3A0"
    assert DIALECT.path(arn, stream=False) == f"/model/{encoded}/converse"
    assert DIALECT.path("m", stream=True) == "/model/m/converse-stream"
