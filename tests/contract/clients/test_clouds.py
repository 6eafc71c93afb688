"""Bedrock, Azure and Vertex behind a whole gateway, asked by the SDKs of other makers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anthropic
import openai
import pytest
from google import genai

from tests.contract.clients.cloud import EVENT_STREAM, Said, before, cloud, rightly_signed
from tests.frames import event, exception
from tests.service_account import claims, key_file

SECRET, TOKEN = "wJalr-canary", "session-canary"
CLAUDE = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
USAGE = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 115, "cacheReadInputTokens": 100}
COST = 10 * 3_300 + 100 * 330 + 5 * 16_500
"""Nano-dollars: the regional prices of Claude Sonnet 4.5 on Bedrock, 3.30, 0.33 and 16.50 a million."""
HI: list[Any] = [{"role": "user", "content": "Hi"}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def bedrock(url: str, **changes: Any) -> tuple[str, dict[str, Any]]:
    keys = {"access_key_id": "AKIACANARY", "secret_access_key": SECRET, "session_token": TOKEN}
    return CLAUDE, {"dialect": "bedrock", "region": "eu-central-1", "base_url": url, **keys, **changes}


def converse(*content: Any, stop: str = "end_turn") -> Said:
    body = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": stop, "usage": USAGE}
    return Said(json.dumps(body).encode())


def converse_stream(*frames: bytes, cut: bool = False) -> Said:
    wire = b"".join(frames)
    pieces = [wire[at : at + 7] for at in range(0, len(wire), 7)]
    return Said(pieces, content_type=EVENT_STREAM, cut=cut)


def delta(text: str) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})


START = event("messageStart", {"role": "assistant"})
STOP = event("messageStop", {"stopReason": "end_turn"})
METADATA = event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 7}})


def refused(status: int, kind: str, message: str, **headers: str) -> Said:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Said(json.dumps({"message": message}).encode(), status, headers={"x-amzn-errortype": kind, **named})


def client(origin: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{origin}/v1", api_key="x", max_retries=0)


# --- Bedrock ------------------------------------------------------------------------------------------------------


async def test_bedrock_answers_an_openai_client() -> None:
    async with (
        cloud(converse({"text": "Hello"})) as aws,
        before(bedrock(aws.url)) as gateway,
        client(gateway.origin) as sdk,
    ):
        answer = await sdk.chat.completions.create(model="m", messages=HI, max_completion_tokens=100)
    assert answer.choices[0].message.content == "Hello"
    assert answer.model == "m"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (110, 5)
    [asked] = aws.asked
    assert asked.path == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
    assert asked.json == {
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
        "inferenceConfig": {"maxTokens": 100},
    }
    assert rightly_signed(asked, secret=SECRET, region="eu-central-1")
    assert asked.headers["x-amz-security-token"] == TOKEN
    record = gateway.record()
    assert (record["input_tokens"], record["cache_read_input_tokens"], record["usage_source"]) == (110, 100, "provider")
    assert record["cost_nano_usd"] == COST


async def test_bedrock_streams_to_an_openai_client() -> None:
    said = converse_stream(START, delta("Hel"), delta("lo ☃"), STOP, METADATA)
    async with cloud(said) as aws, before(bedrock(aws.url)) as gateway, client(gateway.origin) as sdk:
        stream = await sdk.chat.completions.create(
            model="m", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello ☃"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 110
    [asked] = aws.asked
    assert asked.path.endswith("/converse-stream")
    assert rightly_signed(asked, secret=SECRET, region="eu-central-1")
    record = gateway.record()
    assert (record["outcome"], record["finish_reason"], record["cost_nano_usd"]) == ("ok", "stop", COST)


async def test_bedrock_calls_the_tools_of_an_anthropic_client() -> None:
    said = converse_stream(
        START,
        event(
            "contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t1", "name": "weather"}}}
        ),
        event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": '{"city":'}}}),
        event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": '"Paris"}'}}}),
        event("contentBlockStop", {"contentBlockIndex": 0}),
        event("messageStop", {"stopReason": "tool_use"}),
        METADATA,
    )
    async with (
        cloud(said) as aws,
        before(bedrock(aws.url)) as gateway,
        anthropic.AsyncAnthropic(base_url=gateway.origin, api_key="x", max_retries=0) as sdk,
    ):
        tool: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
        async with sdk.messages.stream(model="m", max_tokens=100, messages=HI, tools=[tool]) as stream:
            message = await stream.get_final_message()
    [block] = message.content
    assert isinstance(block, anthropic.types.ToolUseBlock)
    assert (block.name, block.input, message.stop_reason) == ("weather", {"city": "Paris"}, "tool_use")
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (10, 100)


async def test_what_throttles_is_tried_again_with_a_signature_of_its_own() -> None:
    throttled = refused(429, "ThrottlingException", "Too many requests", retry_after="0")
    async with (
        cloud(throttled, converse({"text": "Hello"})) as aws,
        before(bedrock(aws.url), retries=1) as gateway,
        client(gateway.origin) as sdk,
    ):
        answer = await sdk.chat.completions.create(model="m", messages=HI)
    assert answer.choices[0].message.content == "Hello"
    assert len(aws.asked) == 2
    assert all(rightly_signed(asked, secret=SECRET, region="eu-central-1") for asked in aws.asked)


async def test_what_throttles_for_good_is_a_rate_limit_to_the_client() -> None:
    throttled = refused(429, "ThrottlingException", "Too many requests, please wait", retry_after="7")
    async with cloud(throttled) as aws, before(bedrock(aws.url)) as gateway, client(gateway.origin) as sdk:
        with pytest.raises(openai.RateLimitError, match="Too many requests, please wait") as caught:
            await sdk.chat.completions.create(model="m", messages=HI)
    assert caught.value.response.headers["retry-after"] == "7"
    assert gateway.record()["error_type"] == "upstream_rejected"


async def test_an_exception_that_begins_a_stream_is_tried_again() -> None:
    throttled = converse_stream(START, exception("throttlingException", "slow down"))
    good = converse_stream(START, delta("Hello"), STOP, METADATA)
    async with (
        cloud(throttled, good) as aws,
        before(bedrock(aws.url), retries=1) as gateway,
        client(gateway.origin) as sdk,
    ):
        stream = await sdk.chat.completions.create(model="m", messages=HI, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert text == "Hello"
    assert [attempt["status"] for attempt in gateway.record()["attempts"]] == [429, 200]


async def test_an_exception_amid_a_stream_is_an_error_and_no_end() -> None:
    broke = exception("modelStreamErrorException", "the model's key AKIA broke")
    said = Said([START + delta("Hel"), broke], content_type=EVENT_STREAM, pause_s=0.05)
    async with cloud(said) as aws, before(bedrock(aws.url)) as gateway, client(gateway.origin) as sdk:
        stream = await sdk.chat.completions.create(model="m", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="modelStreamErrorException") as caught:
            [chunk async for chunk in stream]
    assert "AKIA" not in str(caught.value)
    record = gateway.record()
    assert (record["outcome"], record["finish_reason"]) == ("error", None)
    assert record["error_message"].startswith("provider '")


@pytest.mark.parametrize("cut", [False, True])
async def test_a_stream_that_ends_within_a_frame_is_broken(cut: bool) -> None:
    said = converse_stream(START, delta("Hel"), delta("lo")[:20], cut=cut)
    async with cloud(said) as aws, before(bedrock(aws.url)) as gateway, client(gateway.origin) as sdk:
        stream = await sdk.chat.completions.create(model="m", messages=HI, stream=True)
        with pytest.raises(openai.APIError):
            [chunk async for chunk in stream]
    assert gateway.record()["error_type"] == "stream_broken"


async def test_a_credential_that_expired_sends_the_call_to_the_next_target_and_is_never_told() -> None:
    why = f"The security token {TOKEN} included in the request is expired; AKIACANARY"
    expired = refused(403, "ExpiredTokenException", why)
    async with (
        cloud(expired) as aws,
        cloud(converse({"text": "Hello"})) as other,
        before(bedrock(aws.url), bedrock(other.url)) as gateway,
        client(gateway.origin) as sdk,
    ):
        answer = await sdk.chat.completions.create(model="m", messages=HI)
    assert answer.choices[0].message.content == "Hello"
    assert [attempt["status"] for attempt in gateway.record()["attempts"]] == [403, 200]
    async with cloud(expired) as aws, before(bedrock(aws.url)) as gateway, client(gateway.origin) as sdk:
        with pytest.raises(openai.InternalServerError, match=r"answered 403: ExpiredTokenException") as caught:
            await sdk.chat.completions.create(model="m", messages=HI)
    assert caught.value.status_code == 502
    for shown in (str(caught.value), *(line.decode() for line in gateway.spool.lines)):
        assert not [secret for secret in (SECRET, TOKEN, "AKIACANARY") if secret in shown]


async def test_a_bad_request_is_told_in_bedrocks_words() -> None:
    invalid = refused(400, "ValidationException", "The model returned: maxTokens too large")
    async with cloud(invalid) as aws, before(bedrock(aws.url)) as gateway, client(gateway.origin) as sdk:
        with pytest.raises(openai.BadRequestError, match="maxTokens too large"):
            await sdk.chat.completions.create(model="m", messages=HI)


async def test_a_bedrock_api_key_is_sent_as_it_is() -> None:
    provider = {"dialect": "bedrock", "region": "eu-central-1", "api_key": "bk-canary"}
    async with (
        cloud(converse({"text": "Hello"})) as aws,
        before((CLAUDE, {**provider, "base_url": aws.url})) as gateway,
        client(gateway.origin) as sdk,
    ):
        await sdk.chat.completions.create(model="m", messages=HI)
    headers = aws.asked[0].headers
    assert headers["authorization"] == "Bearer bk-canary"
    assert "x-amz-date" not in headers


# --- Azure --------------------------------------------------------------------------------------------------------

COMPLETION: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4.1-2025-04-14",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1_000, "completion_tokens": 10, "total_tokens": 1_010},
}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, "/openai/v1/chat/completions"),
        ({"api_version": "2024-10-21"}, "/openai/deployments/gpt-4.1/chat/completions?api-version=2024-10-21"),
    ],
)
async def test_azure_answers_byte_for_byte(changes: dict[str, str], path: str) -> None:
    provider = {"dialect": "azure", "api_key": "az-canary", **changes}
    async with (
        cloud(Said(json.dumps(COMPLETION).encode())) as azure,
        before(("gpt-4.1", {**provider, "base_url": azure.url})) as gateway,
        client(gateway.origin) as sdk,
    ):
        raw = await sdk.chat.completions.with_raw_response.create(model="m", messages=HI)
    assert raw.content == json.dumps(COMPLETION).encode()
    [asked] = azure.asked
    assert (asked.path, asked.headers["api-key"]) == (path, "az-canary")
    assert "authorization" not in asked.headers
    assert asked.json == {"model": "gpt-4.1", "messages": HI}
    assert gateway.record()["cost_nano_usd"] == 1_000 * 2_000 + 10 * 8_000


async def test_azures_stream_tools_and_filter() -> None:
    """Its first chunk has no choices, and tells what the filter made of the prompt."""

    def chunk(*choices: Any, **more: Any) -> bytes:
        body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4.1", "choices": choices}
        return b"data: " + json.dumps({**body, **more}).encode() + b"\n\n"

    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    pieces = [
        chunk(prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}]),
        chunk({"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}, "finish_reason": None}),
        chunk({"index": 0, "delta": {}, "finish_reason": "tool_calls"}),
        chunk(usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}),
        b"data: [DONE]\n\n",
    ]
    async with (
        cloud(Said(pieces, content_type="text/event-stream")) as azure,
        before(("gpt-4.1", {"dialect": "azure", "api_key": "az-canary", "base_url": azure.url})) as gateway,
        anthropic.AsyncAnthropic(base_url=gateway.origin, api_key="x", max_retries=0) as sdk,
    ):
        tool: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
        async with sdk.messages.stream(model="m", max_tokens=100, messages=HI, tools=[tool]) as stream:
            message = await stream.get_final_message()
    assert (message.stop_reason, message.usage.input_tokens) == ("tool_use", 10)
    assert azure.asked[0].json["max_completion_tokens"] == 100


async def test_azures_errors() -> None:
    body = {"error": {"code": "429", "message": "Requests have exceeded the token rate limit."}}
    limited = Said(json.dumps(body).encode(), 429, headers={"retry-after": "12", "x-ms-region": "Sweden"})
    async with (
        cloud(limited) as azure,
        before(("gpt-4.1", {"dialect": "azure", "api_key": "az-canary", "base_url": azure.url})) as gateway,
        client(gateway.origin) as sdk,
    ):
        with pytest.raises(openai.RateLimitError, match="exceeded the token rate limit") as caught:
            await sdk.chat.completions.create(model="m", messages=HI)
    assert caught.value.response.headers["retry-after"] == "12"


# --- Vertex -------------------------------------------------------------------------------------------------------

GENERATED: dict[str, Any] = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Hello"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 1_000, "candidatesTokenCount": 10, "totalTokenCount": 1_010},
    "modelVersion": "gemini-2.5-flash",
}
GRANTED = Said(json.dumps({"access_token": "ya29-canary", "expires_in": 3_599, "token_type": "Bearer"}).encode())


def vertex(url: str, folder: Path, tokens: str, model: str = "gemini-2.5-flash") -> tuple[str, dict[str, Any]]:
    file = folder / "key.json"
    file.write_text(key_file(token_uri=f"{tokens}/token"))
    account = {"project": "acme", "location": "europe-west4", "service_account": f"${{file:{file}}}"}
    return model, {"dialect": "vertex", "base_url": url, **account}


async def test_vertex_answers_with_one_token_for_many_calls(tmp_path: Path) -> None:
    async with (
        cloud(GRANTED) as google,
        cloud(Said(json.dumps(GENERATED).encode())) as models,
        before(vertex(models.url, tmp_path, google.url)) as gateway,
        client(gateway.origin) as sdk,
    ):
        answers = [await sdk.chat.completions.create(model="m", messages=HI) for _ in range(3)]
    assert {answer.choices[0].message.content for answer in answers} == {"Hello"}
    [exchange] = google.asked
    _, said = claims(parse_qs(exchange.body.decode())["assertion"][0])
    assert said["aud"] == f"{google.url}/token"
    path = "/v1/projects/acme/locations/europe-west4/publishers/google/models/gemini-2.5-flash:generateContent"
    assert {asked.path for asked in models.asked} == {path}
    assert {asked.headers["authorization"] for asked in models.asked} == {"Bearer ya29-canary"}
    assert {record["cost_nano_usd"] for record in gateway.records()} == {1_000 * 300 + 10 * 2_500}
    assert not [line for line in gateway.spool.lines if b"canary" in line]


async def test_vertex_streams_to_googles_own_client(tmp_path: Path) -> None:
    pieces = [b"data: " + json.dumps(GENERATED).encode() + b"\r\n\r\n"]
    async with (
        cloud(GRANTED) as google,
        cloud(Said(pieces, content_type="text/event-stream")) as models,
        before(vertex(models.url, tmp_path, google.url)) as gateway,
    ):
        sdk = genai.Client(api_key="x", http_options={"base_url": gateway.origin})
        stream = await sdk.aio.models.generate_content_stream(model="m", contents="Hi")
        texts = [chunk.text async for chunk in stream]
        await sdk.aio.aclose()
    assert texts == ["Hello"]
    assert models.asked[0].path.endswith(":streamGenerateContent?alt=sse")


async def test_claude_on_vertex_answers_an_anthropic_client(tmp_path: Path) -> None:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    async with (
        cloud(GRANTED) as google,
        cloud(Said(json.dumps(body).encode())) as models,
        before(vertex(models.url, tmp_path, google.url, "claude-sonnet-4-5@20250929")) as gateway,
        anthropic.AsyncAnthropic(base_url=gateway.origin, api_key="x", max_retries=0) as sdk,
    ):
        await sdk.messages.create(model="m", max_tokens=100, messages=HI)
    [asked] = models.asked
    assert asked.path.endswith("/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict")
    assert asked.json == {"anthropic_version": "vertex-2023-10-16", "max_tokens": 100, "messages": HI}
    assert gateway.record()["cost_nano_usd"] == 10 * 3_000 + 5 * 15_000


async def test_claude_on_vertex_refuses_in_anthropics_words(tmp_path: Path) -> None:
    """Vertex answers in Google's shape, which an Anthropic client does not understand."""
    full = {"error": {"code": 429, "message": "Quota exceeded for model.", "status": "RESOURCE_EXHAUSTED"}}
    async with (
        cloud(GRANTED) as google,
        cloud(Said(json.dumps(full).encode(), 429)) as models,
        before(vertex(models.url, tmp_path, google.url, "claude-sonnet-4-5@20250929")) as gateway,
        anthropic.AsyncAnthropic(base_url=gateway.origin, api_key="x", max_retries=0) as sdk,
    ):
        with pytest.raises(anthropic.RateLimitError) as caught:
            await sdk.messages.create(model="m", max_tokens=100, messages=HI)
    body: Any = caught.value.body
    assert body["error"]["type"] == "rate_limit_error"
    assert "Quota exceeded for model." in body["error"]["message"]


async def test_a_token_that_was_revoked_is_fetched_anew_for_the_next_call(tmp_path: Path) -> None:
    second = Said(GRANTED.body.replace(b"ya29-canary", b"ya29-second") if isinstance(GRANTED.body, bytes) else b"")
    revoked = Said(b'{"error":{"code":401,"message":"Request had invalid authentication credentials."}}', 401)
    async with (
        cloud(GRANTED, second) as google,
        cloud(revoked, Said(json.dumps(GENERATED).encode())) as models,
        before(vertex(models.url, tmp_path, google.url)) as gateway,
        client(gateway.origin) as sdk,
    ):
        with pytest.raises(openai.InternalServerError):
            await sdk.chat.completions.create(model="m", messages=HI)
        await sdk.chat.completions.create(model="m", messages=HI)
    assert [asked.headers["authorization"] for asked in models.asked] == ["Bearer ya29-canary", "Bearer ya29-second"]


async def test_an_account_that_google_refuses_is_told_and_the_next_target_is_tried(tmp_path: Path) -> None:
    denied = Said(b'{"error":"invalid_grant","error_description":"Account not found"}', 400)
    async with (
        cloud(denied) as google,
        cloud(Said(json.dumps(GENERATED).encode())) as models,
        before(vertex(models.url, tmp_path, google.url)) as gateway,
        client(gateway.origin) as sdk,
    ):
        with pytest.raises(openai.InternalServerError, match="no access token to the service account: invalid_grant"):
            await sdk.chat.completions.create(model="m", messages=HI)
    assert models.asked == []
    async with (
        cloud(denied) as google,
        cloud(Said(json.dumps(GENERATED).encode())) as models,
        cloud(converse({"text": "Hello"})) as aws,
        before(vertex(models.url, tmp_path, google.url), bedrock(aws.url)) as gateway,
        client(gateway.origin) as sdk,
    ):
        answer = await sdk.chat.completions.create(model="m", messages=HI)
    assert answer.choices[0].message.content == "Hello"
