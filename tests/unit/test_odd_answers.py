"""What providers should never send, and fuzzing did: an answer or an error for the client, the truth for the record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.frames import event as frame
from tests.unit.test_crossing import (
    ASKED,
    CHAT,
    CHAT_ASKED,
    CHAT_STREAM,
    COMPLETION,
    GEMINI,
    GENERATED,
    bench,
    events,
    lines,
    piece,
    responses_stream,
)
from tidegate.core.usage import MOST
from tidegate.fakes import ScriptedAnswer

RESPONSES_ASKED = {"input": "Hi", "store": False}
ANTHROPIC_ASKED = {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
CLAUDE_SAID = lines(
    {"type": "message_start", "message": {"id": "a", "type": "message", "role": "assistant", "model": "m"}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    {"type": "message_stop"},
).replace(b'{"type": "message_stop"}', b'{"type":"message_stop"}')
MESSAGE = {"id": "a", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use"}
PRICES = {"oai/m-1": {"input": 1, "output": 2}}


def completion(**changes: Any) -> bytes:
    return json.dumps({**json.loads(COMPLETION), **changes}).encode()


def choice(**changes: Any) -> bytes:
    return completion(choices=[{**json.loads(COMPLETION)["choices"][0], **changes}])


# --- counts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [MOST, 2**63, 10**30, 10**400])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
async def test_a_count_that_no_call_can_have_is_none(name: str, count: int) -> None:
    """It would use up every budget, and its record would fit into no table."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5, name: count}
    parts = bench(completion(usage=usage), prices=PRICES)
    reply = await parts.ask(CHAT, {**CHAT_ASKED, "model": "oai/m-1"})
    assert reply.status == 200
    row = parts.call
    assert (row["outcome"], row["usage_source"], row["output_tokens"]) == ("ok", "estimated", 2)
    assert row["cost_nano_usd"] == row["input_tokens"] * 1_000 + 2 * 2_000 < 50_000


async def test_a_part_of_the_count_that_no_call_can_have_fits_into_the_record() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10**30}}
    parts = bench(completion(usage=usage), prices=PRICES)
    await parts.ask(CHAT, {**CHAT_ASKED, "model": "oai/m-1"})
    row = parts.call
    assert (row["input_tokens"], row["usage_source"], row["cache_read_input_tokens"]) == (10, "provider", MOST)


# --- bytes and shapes ---------------------------------------------------------------------------------------------

CALLED = b'{"city": "\xff"}'
GEMINI_CALL = {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": "@"}}]}, "index": 0}]}
BLOCK = {"type": "tool_use", "id": "t", "name": "f", "input": "@"}
NOT_UTF8: dict[str, tuple[str, bytes]] = {
    "gemini": ("goo/m", json.dumps(GEMINI_CALL).encode()),
    "gemini, streamed": ("goo/m", lines(GEMINI_CALL)),
    "anthropic": ("ant/m", json.dumps({**MESSAGE, "content": [BLOCK]}).encode()),
    "anthropic, streamed": (
        "ant/m",
        lines(
            {"type": "message_start", "message": MESSAGE},
            {"type": "content_block_start", "index": 0, "content_block": BLOCK},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            {"type": "message_stop"},
        ),
    ),
}


@pytest.mark.parametrize("case", NOT_UTF8)
async def test_what_a_tool_is_called_with_may_be_no_utf8(case: str) -> None:
    model, answer = NOT_UTF8[case]
    parts = bench(answer.replace(b'"@"', CALLED).replace(b'"index": 0}]', b'"index": 0, "finishReason": "STOP"}]'))
    streamed = "streamed" in case
    reply = await parts.ask(CHAT, {**CHAT_ASKED, "model": model, "stream": streamed})
    assert (reply.status, parts.call["outcome"]) == (200, "ok")
    assert "\\ufffd" in reply.body.decode() or "\ufffd" in reply.body.decode()


@pytest.mark.parametrize(
    "chances", ["5", "true", "0.5", "[]", '"x"', '{"content": 5}', '{"content": [1e999]}', '{"content": ["\\ud800"]}']
)
@pytest.mark.parametrize("client", ["/v1/responses", "/v1/messages", GEMINI.format("oai/m-1")])
async def test_odd_log_probabilities_break_no_whole_answer(client: str, chances: str) -> None:
    parts = bench(choice(logprobs="@").replace(b'"@"', chances.encode()))
    asked = (
        {**ASKED} if client.endswith("generateContent") else {"model": "oai/m-1", **RESPONSES_ASKED, **ANTHROPIC_ASKED}
    )
    reply = await parts.ask(client, asked)
    assert (reply.status, parts.call["outcome"]) == (200, "ok")


# --- ends ---------------------------------------------------------------------------------------------------------


async def test_a_reason_to_finish_comes_after_the_last_words_whenever_it_was_given() -> None:
    """Gemini may give one with every piece: a client that stops reading at the first would have lost the rest."""

    def piece(text: str) -> dict[str, Any]:
        made = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, "finishReason": "STOP"}
        return {"candidates": [made], "modelVersion": "m", "responseId": "r"}

    parts = bench(lines(piece("Hel"), piece("lo")))
    reply = await parts.ask(CHAT, {**CHAT_ASKED, "stream": True})
    said = [one["choices"][0] for one in events(reply.body)]
    assert [(one["delta"].get("content"), one["finish_reason"]) for one in said] == [
        ("Hel", None),
        ("lo", None),
        (None, "stop"),
    ]


async def test_bedrock_stream_without_a_reason_to_stop_is_not_complete() -> None:
    said = {"contentBlockIndex": 0, "delta": {"text": "Hel"}}
    whole = [frame("messageStart", {"role": "assistant"}), frame("contentBlockDelta", said)]
    counts = frame("metadata", {"usage": {"inputTokens": 3, "outputTokens": 2}})
    providers = {"bed": {"dialect": "bedrock", "base_url": "http://127.0.0.1:6", "region": "r", "api_key": "k"}}
    parts = bench(b"".join([*whole, counts]), providers=providers)
    reply = await parts.ask("/v1/responses", {**RESPONSES_ASKED, "model": "bed/m", "stream": True})
    assert "response.completed" not in reply.body.decode()
    row = parts.call
    assert (row["outcome"], row["error_type"], row["input_tokens"]) == ("error", "stream_broken", 3)


@pytest.mark.parametrize("empty", [b"data: \n\n", b"data:\n\n", b"data\n\n", b"event: ping\ndata: \n\n"])
@pytest.mark.parametrize("model", ["oai/m", "ant/m", "goo/m", "res/m"])
async def test_an_event_without_a_word_in_it_breaks_no_stream(model: str, empty: bytes) -> None:
    """Some keep a connection alive that way."""
    said = {"oai/m": CHAT_STREAM, "goo/m": piece("Hello", "STOP"), "ant/m": CLAUDE_SAID, "res/m": responses_stream()}
    for path, asked in ((CHAT, {**CHAT_ASKED}), ("/v1/messages", {**ANTHROPIC_ASKED})):
        parts = bench(empty + said[model].replace(b"\n\n", b"\n\n" + empty))
        reply = await parts.ask(path, {**asked, "model": model, "stream": True})
        assert (reply.status, parts.call["outcome"]) == (200, "ok")
        assert reply.body.endswith((b"data: [DONE]\n\n", b'data: {"type":"message_stop"}\n\n'))


NOTHING = b"data: [DONE]\n\n"
ASKED_AS: dict[str, dict[str, Any]] = {
    CHAT: {**CHAT_ASKED, "model": "oai/m-1"},
    "/v1/messages": {**ANTHROPIC_ASKED, "model": "oai/m-1"},
    "/v1/responses": {**RESPONSES_ASKED, "model": "oai/m-1"},
}


@pytest.mark.parametrize("path", ASKED_AS)
async def test_a_stream_that_ends_before_it_says_anything_is_no_answer(path: str) -> None:
    """As a whole answer without choices: it is tried again, and never told as complete."""
    parts = bench(NOTHING, NOTHING, NOTHING)
    reply = await parts.ask(path, {**ASKED_AS[path], "stream": True})
    assert (reply.status, parts.call["error_type"], len(parts.upstream.requests)) == (502, "stream_broken", 3)


@pytest.mark.parametrize("path", ASKED_AS)
async def test_an_empty_answer_that_has_finished_is_one(path: str) -> None:
    parts = bench(lines({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + NOTHING)
    assert (await parts.ask(path, {**ASKED_AS[path], "stream": True})).status == 200
    assert (parts.call["outcome"], parts.call["finish_reason"]) == ("ok", "stop")


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"{", b"null", b"[]", b"<html>", b'"x"', b"{" * 9_000, b'{"error": {"message": "bad'),
        *(b'{"error": null}', b'{"error": "bad"}', b'{"error": ["bad"]}', b'{"error": {"message": 5}}'),
        *(b'{"detail": "bad"}', b'{"message": "bad"}', b'{"candidates": []}', b'{"error": {"message": "bad"}} x'),
    ],
)
async def test_a_refusal_that_is_no_error_of_the_dialect_is_told_as_one(body: bytes) -> None:
    """What does pass through is what the client's SDK understands."""
    for path, model in ((CHAT, "oai/m-1"), (GEMINI.format("goo/m"), "")):
        reply = await bench(ScriptedAnswer(status=400, body=[body])).ask(path, {**CHAT_ASKED, **ASKED, "model": model})
        error = json.loads(reply.body)["error"]
        assert (reply.status, error["code"]) == (400, 400 if model == "" else "upstream_rejected")
        assert error["message"].startswith(f"{model or 'goo/m'} answered 400")
        assert ("bad" in error["message"]) == (b"bad" in body and body[-1:] in b"}" and b"[" not in body)


# --- requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["oai/m", "res/m"])
async def test_a_picture_without_an_address_is_no_picture_called_none(model: str) -> None:
    parts = bench(ScriptedAnswer(status=400, body=[b"{}"]))
    await parts.ask(GEMINI.format(model), {"contents": [{"parts": [{"fileData": {"mimeType": "image/png"}}]}]})
    assert "None" not in parts.upstream.requests[0].body.decode()


async def test_a_purge_with_more_parameters_than_it_takes_is_refused() -> None:
    reply = await bench().ask("/v1/cache", b"", "&".join(["prompt=a"] * 9), "DELETE")
    assert (reply.status, json.loads(reply.body)["error"]["type"]) == (400, "invalid_request_error")


# --- what is said of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_quotes_no_more_of_a_body_than_tells_it(stream: bool) -> None:
    """What it says at its end, the next step, is kept."""
    said = [{"role": "x" * 100_000, "content": "Hi"}]
    parts = bench(GENERATED)
    reply = await parts.ask(CHAT, {**CHAT_ASKED, "messages": said, "stream": stream})
    message = json.loads(reply.body)["error"]["message"]
    assert (reply.status, parts.call["http_status"]) == (400, 400)
    assert message.startswith("'xxx")
    assert message.endswith("Known: system, developer, user, assistant, tool, function.")
    assert len(message) < 2_000


async def test_an_error_quotes_no_more_of_a_header_than_tells_it() -> None:
    reply = await bench(GENERATED).ask(CHAT, CHAT_ASKED, x_tidegate_origin="x" * 50_000)
    assert reply.status == 400
    assert len(reply.body) < 500
