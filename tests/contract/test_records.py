"""The record of a call: exactly one, whatever becomes of it, and every field right."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.bad_requests import ANSWERS, WIRES, Wire
from tests.contract.whole import Script, Whole, answers, streams, whole
from tests.golden.test_dialect_pairs import PROVIDERS, STREAMED, sse
from tidegate.core.artifact import Artifact, Input, Message, Output, digest
from tidegate.core.ledger import Served
from tidegate.telemetry.record import CallRow

LABELS = {
    "x-tidegate-service": "shop",
    "x-tidegate-conversation": "conv-1",
    "x-tidegate-user": "user-1",
    "x-tidegate-tags": "team=support,tier=gold",
    "x-request-id": "req-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
ARTIFACT = Artifact(
    messages=(Message("user", "{{ question }}"),),
    model="oai/m",
    inputs={"question": Input()},
    output=Output(format="schema", schema={"type": "object", "required": ["answer"]}),
)
SERVED = Served("support/answer", 7, digest(ARTIFACT), ARTIFACT)
STALE_S = 0.15
TIMEOUTS = {"connect_s": 1, "first_byte_s": STALE_S, "idle_s": STALE_S, "total_s": 5}
ROUTES = {
    **{
        f"one-{name}": {"targets": [f"{name}/m"], "retries": 0, "timeouts": TIMEOUTS}
        for name in ("oai", "res", "ant", "goo")
    },
    "short": {
        "targets": ["oai/m"],
        "retries": 0,
        "timeouts": {**TIMEOUTS, "first_byte_s": 5, "idle_s": 5, "total_s": 0.1},
    },
    "patient": {"targets": ["oai/m"], "retries": 0, "timeouts": {"first_byte_s": 30, "idle_s": 30, "total_s": 30}},
}
PRICES = {f"{name}/m": {"input": 1, "output": 2} for name in ("oai", "res", "ant", "goo")}
KINDS = {"oai": "chat", "res": "responses", "ant": "anthropic", "goo": "gemini"}


def lines(*events: tuple[str | None, Any]) -> bytes:
    """Server-sent events: (name, JSON or text)."""
    return b"".join(
        (f"event: {name}\n" if name else "").encode()
        + b"data: "
        + (data if isinstance(data, str) else json.dumps(data)).encode()
        + b"\n\n"
        for name, data in events
    )


def chat_chunk(**choice: Any) -> tuple[None, Any]:
    return None, {"id": "c", "model": "m-2026", "choices": [{"index": 0, "delta": {}, **choice}]}


COUNTED = {"prompt_tokens": 11, "completion_tokens": 3}
CHAT_HALF = lines(chat_chunk(delta={"role": "assistant", "content": "half an answer"}))
CHAT_REST = lines(
    chat_chunk(finish_reason="stop"), (None, {"model": "m-2026", "choices": [], "usage": COUNTED}), (None, "[DONE]")
)
_MESSAGE = {"id": "a", "type": "message", "role": "assistant", "model": "m-2026", "content": []}
ANTHROPIC = lines(
    (
        "message_start",
        {"type": "message_start", "message": {**_MESSAGE, "usage": {"input_tokens": 11, "output_tokens": 1}}},
    ),
    ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}),
    ("content_block_stop", {"type": "content_block_stop", "index": 0}),
    ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
    ("message_stop", {"type": "message_stop"}),
)
_RESPONSE = {"id": "r", "object": "response", "model": "m-2026", "output": []}
_SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}
_USED = {"input_tokens": 11, "output_tokens": 3}
RESPONSES = lines(
    ("response.created", {"type": "response.created", "response": {**_RESPONSE, "status": "in_progress"}}),
    (
        "response.output_text.delta",
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "hi"},
    ),
    (
        "response.completed",
        {
            "type": "response.completed",
            "response": {**_RESPONSE, "status": "completed", "output": [_SAID], "usage": _USED},
        },
    ),
)
_CONTENT = {"content": {"parts": [{"text": "hi"}], "role": "model"}, "index": 0, "finishReason": "STOP"}
_METADATA = {"promptTokenCount": 11, "candidatesTokenCount": 3}
GEMINI = lines((None, {"candidates": [_CONTENT], "modelVersion": "m-2026", "usageMetadata": _METADATA}))
STREAMS = {"oai": CHAT_HALF + CHAT_REST, "res": RESPONSES, "ant": ANTHROPIC, "goo": GEMINI}
CHAT_ANSWER = json.dumps(
    {**ANSWERS["chat"], "model": "m-2026", "system_fingerprint": "fp_1", "usage": COUNTED}
).encode()


def body(wire: Wire, model: str, **more: Any) -> bytes:
    said: dict[str, dict[str, Any]] = {
        "openai_chat": {"messages": [{"role": "user", "content": "Hi there"}]},
        "openai_responses": {"input": "Hi there"},
        "anthropic": {"messages": [{"role": "user", "content": "Hi there"}], "max_tokens": 9},
        "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi there"}]}]},
    }
    return json.dumps({**({} if "MODEL" in wire.path else {"model": model}), **said[wire.name], **more}).encode()


def url(wire: Wire, model: str, *, stream: bool) -> str:
    return (
        wire.url(model).replace(":generate", ":streamGenerate") + "?alt=sse"
        if "MODEL" in wire.path and stream
        else wire.url(model)
    )


@dataclass(frozen=True)
class Outcome:
    """What becomes of a chat call, and what its record then says."""

    script: Script | None
    expected: dict[str, Any]
    model: str = "one-oai"
    stream: bool = False
    raw: bytes | None = None
    """Instead of a good body."""
    headers: dict[str, str] = field(default_factory=dict)
    leaves: bool = False
    """The client, once its stream has begun, or else its call is with the provider."""
    closes: bool = False
    """The gateway, likewise."""
    attempts: tuple[tuple[int | None, str | None], ...] = ((200, None),)
    """Their status and error."""
    content: str | None = ""
    """The output that was kept; None: no content."""


async def never() -> None:
    await asyncio.Event().wait()


def stalls(*pieces: bytes) -> Script:
    """A stream that stands still after these."""
    return streams(*pieces, then=never)


async def silent(*_: Any) -> None:
    """Never answers."""
    await never()


async def broken(*_: Any) -> None:
    """Hangs up at once."""
    raise ConnectionResetError


REFUSED = {"outcome": "rejected", "http_status": 400, "error_type": "invalid_request_error"}
FAILED = {"outcome": "error", "usage_source": None, "input_tokens": None, "cost_nano_usd": None, "finish_reason": None}
UNANSWERED = {
    "outcome": "error",
    "usage_source": "estimated",
    "input_tokens": 11,
    "output_tokens": 0,
    "cost_nano_usd": 11_000,
    "finish_reason": None,
}
"""It was sent and not waited for: the provider may bill what it was asked."""
PARTIAL = {
    "outcome": "error",
    "usage_source": "estimated",
    "output_tokens": 4,
    "finish_reason": None,
    "response_model": "m-2026",
}
GONE = {"outcome": "client_closed", "http_status": 499, "error_type": None}
OK = {
    "outcome": "ok",
    "http_status": 200,
    "error_type": None,
    "error_message": None,
    "finish_reason": "stop",
    "response_model": "m-2026",
    "input_tokens": 11,
    "output_tokens": 3,
    "usage_source": "provider",
    "cost_nano_usd": 17_000,
}
DEAD = {"unavailable": (None, "upstream_unavailable"), "timeout": (None, "upstream_timeout")}
HALF = "half an answer"
GONE_STATUS = {"http_status": 504, "error_type": "upstream_timeout"}


def told(status: int, outcome: str = "error", shown: int | None = None) -> Outcome:
    """The provider answers with an error status."""
    expected = {**FAILED, "outcome": outcome, "http_status": shown or status, "error_type": "upstream_rejected"}
    said = json.dumps({"error": {"message": "no"}}).encode()
    return Outcome(answers(said, status), expected, attempts=((status, "upstream_rejected"),))


OUTCOMES: dict[str, Outcome] = {
    "an answer": Outcome(answers(CHAT_ANSWER), {**OK, "system_fingerprint": "fp_1"}, content="hi"),
    "a stream": Outcome(streams(STREAMS["oai"]), OK, stream=True, content=HALF),
    "a stream in pieces": Outcome(streams(CHAT_HALF, CHAT_REST, pause_s=0.01), OK, stream=True, content=HALF),
    # --- refused before anything is asked
    "no JSON": Outcome(None, REFUSED, raw=b"{", attempts=(), content=None),
    "no messages": Outcome(None, REFUSED, raw=b'{"model": "one-ant"}', attempts=(), content=None),
    "bad tags": Outcome(None, {**REFUSED, "tags": None}, headers={"x-tidegate-tags": "no"}, attempts=(), content=None),
    "bad cache words": Outcome(None, REFUSED, headers={"x-tidegate-cache": "maybe"}, attempts=(), content=None),
    "an origin of ours": Outcome(None, REFUSED, headers={"x-tidegate-origin": "canary"}, attempts=(), content=None),
    "an unknown model": Outcome(
        None,
        {"outcome": "rejected", "http_status": 404, "error_type": "model_not_found", "request_model": "nobody"},
        model="nobody",
        attempts=(),
        content=None,
    ),
    "an unknown prompt": Outcome(
        None,
        {"outcome": "rejected", "http_status": 404, "error_type": "model_not_found", "prompt": "nobody"},
        model="prompt:nobody",
        attempts=(),
        content=None,
    ),
    # --- the provider's word
    **{f"status {status}": told(status) for status in (400, 404, 409, 422, 429, 500, 503, 529)},
    **{f"status {status}, which is ours": told(status, shown=502) for status in (302, 401, 402, 403)},
    # --- the provider fails
    "no answer": Outcome(
        broken, {**FAILED, "http_status": 502, "error_type": "upstream_unavailable"}, attempts=(DEAD["unavailable"],)
    ),
    "no first byte": Outcome(silent, {**UNANSWERED, **GONE_STATUS}, attempts=(DEAD["timeout"],)),
    "no first event": Outcome(stalls(), {**UNANSWERED, **GONE_STATUS}, stream=True, attempts=(DEAD["timeout"],)),
    "no time in all": Outcome(silent, {**UNANSWERED, **GONE_STATUS}, model="short", attempts=((None, "cancelled"),)),
    "no time in all, in a stream": Outcome(
        stalls(CHAT_HALF), {**PARTIAL, **GONE_STATUS}, model="short", stream=True, content=HALF
    ),
    "a stream stands still": Outcome(stalls(CHAT_HALF), {**PARTIAL, **GONE_STATUS}, stream=True, content=HALF),
    "a stream is cut": Outcome(
        streams(CHAT_HALF, cut=True, pause_s=0.02),
        {**PARTIAL, "http_status": 502, "error_type": "stream_broken"},
        stream=True,
        content=HALF,
    ),
    "a stream ends without an end": Outcome(
        streams(CHAT_HALF, pause_s=0.02),
        {**PARTIAL, "http_status": 502, "error_type": "stream_broken"},
        stream=True,
        content=HALF,
    ),
    "an error in a stream": Outcome(
        streams(CHAT_HALF, lines((None, {"error": {"message": "overloaded"}})), pause_s=0.02),
        {**PARTIAL, "http_status": 502, "error_type": "upstream_protocol"},
        stream=True,
        content=HALF,
    ),
    "no dialect": Outcome(
        answers(b"<html>"),
        {**FAILED, "http_status": 502, "error_type": "upstream_protocol"},
        attempts=((None, "upstream_protocol"),),
    ),
    "an error in 200": Outcome(
        answers(b'{"error": {"message": "no"}}'),
        {**FAILED, "http_status": 502, "error_type": "upstream_protocol"},
        attempts=((None, "upstream_protocol"),),
    ),
    # --- the client leaves
    "the client leaves before the answer": Outcome(
        silent, {**UNANSWERED, **GONE}, model="patient", leaves=True, attempts=((None, "cancelled"),)
    ),
    "the client leaves in a stream": Outcome(
        stalls(CHAT_HALF),
        {**GONE, "output_tokens": 4, "usage_source": "estimated", "finish_reason": None},
        model="patient",
        stream=True,
        leaves=True,
        content=HALF,
    ),
    # --- the gateway goes
    "the gateway goes before the answer": Outcome(
        silent,
        {**UNANSWERED, "http_status": 503, "error_type": "unusable"},
        model="patient",
        closes=True,
        attempts=((None, "cancelled"),),
    ),
    "the gateway goes in a stream": Outcome(
        stalls(CHAT_HALF),
        {**PARTIAL, "http_status": 503, "error_type": "unusable"},
        model="patient",
        stream=True,
        closes=True,
        content=HALF,
    ),
}


async def play(here: Whole, outcome: Outcome) -> int | None:
    """Makes the call; the status that the client saw, if it saw one."""
    chat = WIRES[0]
    payload = outcome.raw if outcome.raw is not None else body(chat, outcome.model, stream=outcome.stream)
    headers = {**LABELS, **outcome.headers}
    if not outcome.leaves and not outcome.closes:
        return (await here.client.post(chat.path, content=payload, headers=headers)).status_code
    asking = asyncio.create_task(_begin(here.client, chat.path, payload, headers, leaves=outcome.leaves))
    async with asyncio.timeout(5):
        while not here.asked:  # noqa: ASYNC110  the provider does not tell
            await asyncio.sleep(0.002)
    if outcome.stream:
        await asyncio.sleep(0.05)
    if outcome.closes:
        await here.edge.close(grace_s=0.05)
        return await asking
    if not outcome.stream:
        asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return None


async def _begin(client: httpx.AsyncClient, path: str, payload: bytes, headers: dict[str, str], *, leaves: bool) -> int:
    async with client.stream("POST", path, content=payload, headers=headers) as reply:
        async for _ in reply.aiter_bytes():
            if leaves:
                break
        return reply.status_code


@pytest.mark.parametrize("name", OUTCOMES)
async def test_every_outcome_is_one_record_with_everything_in_it(name: str) -> None:
    outcome = OUTCOMES[name]
    prompts = {("support/answer", "production"): SERVED}
    script = outcome.script or answers(b"{}")
    async with whole(script, routes=ROUTES, prices=PRICES, prompts=prompts, project="shop") as here:
        seen = await play(here, outcome)
        await here.recorded()
        await asyncio.sleep(0.02)  # for a second one
        record = here.record()
        content = here.content()
        asked = len(here.asked)
    expected = {"outcome": "ok", **outcome.expected}
    tags = {"team": "support", "tier": "gold", "tidegate.request_id": "req-1"}
    if expected.pop("tags", tags) is None:
        tags = {"tidegate.request_id": "req-1"}
    assert {key: record[key] for key in expected} == expected
    # What the call says about itself is there in any case.
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", record["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["start"])
    said = {
        "project": "shop",
        "origin": "live",
        "operation": "chat",
        "dialect": "openai_chat",
        "streamed": outcome.stream,
        "service": "shop",
        "conversation_id": "conv-1",
        "user_id": "user-1",
        "trace_id": LABELS["traceparent"][3:35],
        "tags": tags,
    }
    assert {key: record[key] for key in said} == said
    assert 0 < record["latency_s"] < 5
    # What was tried.
    assert (
        tuple((attempt.get("status"), attempt.get("error_type")) for attempt in record["attempts"]) == outcome.attempts
    )
    assert all(attempt["target"] == "oai/m" and attempt["latency_s"] >= 0 for attempt in record["attempts"])
    assert asked == len(outcome.attempts)
    if outcome.attempts:
        assert record["provider"] == "oai"
        assert record["route"] == record["request_model"] == outcome.model
        assert re.fullmatch(r"[0-9a-f]{64}", record["system_digest"])
    # What came.
    began = outcome.stream and bool(record["output_tokens"])
    assert (record["time_to_first_chunk_s"] is not None) == began
    if began:
        assert 0 < record["time_to_first_chunk_s"] <= record["latency_s"]
    if record["outcome"] in ("error", "rejected"):
        assert record["error_message"]
    if seen is not None and not began:
        assert record["http_status"] == seen
    if outcome.content is None:
        assert content is None
    else:
        assert content is not None
        assert (content.call_id, content.output) == (record["id"], outcome.content)
        assert "Hi there" in content.input


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", KINDS)
@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_a_record_is_as_complete_between_any_two_dialects(wire: Wire, provider: str, stream: bool) -> None:
    script = streams(STREAMS[provider]) if stream else answers(json.dumps(ANSWERS[KINDS[provider]]).encode())
    async with whole(script, routes=ROUTES, prices=PRICES) as here:
        model = f"one-{provider}"
        more = {"stream": True} if stream and wire.name != "gemini" else {}
        reply = await here.client.post(
            url(wire, model, stream=stream), content=body(wire, model, **more), headers=LABELS
        )
        assert reply.status_code == 200, reply.text
        record = here.record()
        content = here.content()
    expected = {
        "outcome": "ok",
        "http_status": 200,
        "dialect": wire.name,
        "streamed": stream,
        "route": model,
        "request_model": model,
        "provider": provider,
        "finish_reason": "stop",
        "usage_source": "provider",
        "trace_id": LABELS["traceparent"][3:35],
    }
    assert {key: record[key] for key in expected} == expected
    assert (record["input_tokens"], record["output_tokens"]) == ((11, 3) if stream else (1, 1))
    assert record["cost_nano_usd"] == (17_000 if stream else 3_000)
    assert record["response_model"] == ("m-2026" if stream else None if provider == "goo" else "m")
    assert (record["time_to_first_chunk_s"] is not None) == stream
    assert [attempt["status"] for attempt in record["attempts"]] == [200]
    assert content is not None
    assert content.output == (HALF if stream and provider == "oai" else "hi")
    assert "Hi there" in content.input


BEFORE_THE_CUT = {"chat": 3, "responses": 4, "anthropic": 5, "gemini": 1}
"""How many events come; with them `I am well.`, of Gemini its first half and the counts so far."""
BILLED = {
    "chat": (None, 3, "estimated"),
    "responses": (None, 3, "estimated"),
    "anthropic": (20, 3, "estimated"),
    "gemini": (20, 9, "provider"),
}
"""Input tokens (None: estimated too), output tokens, and who says so."""


@pytest.mark.parametrize("provider", BILLED)
@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_a_cut_stream_is_billed_for_what_arrived_in_every_dialect(wire: Wire, provider: str) -> None:
    name = PROVIDERS[provider]
    came = sse(provider, STREAMED[provider]["text"][: BEFORE_THE_CUT[provider]]).removesuffix(b"data: [DONE]\n\n")
    async with whole(streams(came, cut=True, pause_s=0.03), routes=ROUTES, prices=PRICES) as here:
        more = {"stream": True} if wire.name != "gemini" else {}
        path = url(wire, f"one-{name}", stream=True)
        reply = await here.client.post(path, content=body(wire, f"one-{name}", **more))
        record = here.record()
    assert "error" in reply.text.strip().splitlines()[-1]
    assert not any(end in reply.text for end in ("[DONE]", "message_stop", "finishReason", "response.completed"))
    given, output, source = BILLED[provider]
    assert (record["outcome"], record["error_type"], record["finish_reason"]) == ("error", "stream_broken", None)
    assert (record["output_tokens"], record["usage_source"]) == (output, source)
    assert record["input_tokens"] == given or (given is None and record["input_tokens"] > 0)
    assert record["cost_nano_usd"] == record["input_tokens"] * 1_000 + output * 2_000


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_a_call_that_is_no_json_is_still_of_its_dialect(wire: Wire) -> None:
    async with whole(answers(b"{}")) as here:
        reply = await here.client.post(url(wire, "goo/m", stream=True), content=b"{")
        record = here.record()
    assert (reply.status_code, record["dialect"], record["outcome"]) == (400, wire.name, "rejected")
    if wire.name == "gemini":  # whose URL says it
        assert (record["request_model"], record["streamed"]) == ("goo/m", True)


async def test_a_prompts_call_says_which_version_and_whether_its_answer_was_valid() -> None:
    prompts = {("support/answer", "production"): SERVED}
    async with whole(answers(CHAT_ANSWER), prompts=prompts) as here:
        asked = {"model": "prompt:support/answer", "variables": {"question": "Why?"}}
        await here.client.post("/v1/chat/completions", json=asked)
        record = here.record()
        content = here.content()
    expected = {
        "prompt": "support/answer",
        "version": 7,
        "digest": digest(ARTIFACT),
        "environment": "production",
        "system_digest": None,
        "output_valid": False,
        "outcome": "ok",
        "request_model": "oai/m",
    }
    assert {key: record[key] for key in expected} == expected
    assert record["output_problem"].startswith("not JSON")
    assert content is not None
    assert content.variables == {"question": "Why?"}


class Broken(dict[tuple[str, str], Served]):
    """A source of prompts with a bug."""

    def get(self, key: Any, default: Any = None) -> Any:
        raise ZeroDivisionError("-".join(("sk", "canary")))


async def test_a_bug_is_one_record_and_tells_the_client_its_id_only(caplog: pytest.LogCaptureFixture) -> None:
    async with whole(answers(CHAT_ANSWER)) as here:
        here.services.prompts.served = Broken()  # type: ignore[attr-defined]
        asked = {"model": "prompt:support/answer", "variables": {"question": "Why?"}}
        reply = await here.client.post("/v1/chat/completions", json=asked, headers=LABELS)
        record = here.record()
    assert (reply.status_code, record["http_status"], record["outcome"]) == (500, 500, "error")
    assert (record["error_type"], record["service"]) == ("internal_error", "shop")
    assert record["id"] in reply.text
    assert "sk-canary" not in reply.text + str(record) + caplog.text  # a bug's own words may quote a call
    assert record["id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "in get" in caplog.text  # where it was


NO_CALLS: dict[str, bytes] = {
    "an unknown path": b"POST /v1/nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
    "a wrong method": b"PUT /v1/messages HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    "a list of models": b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    "too large": b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n",
    "too many headers": b"POST /v1/messages HTTP/1.1\r\nhost: a\r\n" + b"x: 1\r\n" * 300 + b"\r\n",
    "no host": b"POST /v1/messages HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
    "no HTTP": b"hello\r\n\r\n",
}


@pytest.mark.parametrize("what", NO_CALLS)
async def test_what_is_no_call_has_no_record(what: str) -> None:
    """A record is of a request that came whole to a path where calls come in, by POST: nothing else costs anything."""
    async with whole(answers(b"{}")) as here:
        answer = await here.raw(NO_CALLS[what])
        assert answer.startswith(b"HTTP/1.1 200" if what == "a list of models" else b"HTTP/1.1 4")
        assert here.spool.lines == []


def test_every_field_of_the_record_is_looked_at_here() -> None:
    """A new one belongs into one of these tests, or among those that others look at."""
    elsewhere = {
        *("split_by", "cache", "saved_cost_nano_usd", "key", "key_prefix", "service_tier"),
        *("cache_read_input_tokens", "cache_write_input_tokens", "cache_write_1h_input_tokens"),
        *("reasoning_output_tokens", "audio_input_tokens", "audio_output_tokens"),
    }
    own = Path(__file__).read_text("utf-8")
    assert [name for name in CallRow.__struct_fields__ if name not in elsewhere and f'"{name}"' not in own] == []
