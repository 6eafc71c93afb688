"""Clients of one dialect before providers of another: what goes up, what comes back, and what is said of losses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from tidegate.config import Config
from tidegate.core import chat
from tidegate.core.artifact import Artifact, Input, Message, digest
from tidegate.core.errors import StreamBroken
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.dialects import openai_chat
from tidegate.dialects.sse import EventSplitter, data_of
from tidegate.fakes import FakePrompts, FakeUpstream, FixedClock, FixedRandom, MemorySpool, ScriptedAnswer
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.caller import Collected
from tidegate.gateway.edge import Request
from tidegate.gateway.pipeline import Services
from tidegate.gateway.routes import Routes
from tidegate.telemetry.record import Entry
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

ARTIFACT = Artifact(
    messages=(Message("system", "Be brief."), Message("user", "{{ question }}")),
    model="goo/gemini-3-flash",
    params={"temperature": 0.2, "max_output_tokens": 50},
    inputs={"question": Input()},
)
SERVED = Served("support/answer", 7, digest(ARTIFACT), ARTIFACT)
PROVIDERS: dict[str, Any] = {
    "oai": {"base_url": "http://127.0.0.1:1/v1", "api_key": "sk-canary-oai"},
    "goo": {"dialect": "gemini", "base_url": "http://127.0.0.1:2/v1beta", "api_key": "sk-canary-goo"},
    "ant": {"dialect": "anthropic", "base_url": "http://127.0.0.1:3", "api_key": "sk-canary-ant"},
    "both": {"base_url": "http://127.0.0.1:4/v1", "responses": True},
    "res": {"dialect": "openai_responses", "base_url": "http://127.0.0.1:5/v1"},
    "aws": {"dialect": "bedrock", "region": "eu-west-1", "api_key": "sk-canary-aws"},
}


@dataclass
class Bench:
    """A gateway on fakes, asked as over HTTP."""

    upstream: FakeUpstream
    config: dict[str, Any] = field(default_factory=dict)
    spool: MemorySpool = field(default_factory=MemorySpool)

    async def ask(self, path: str, body: Any, query: str = "", method: str = "POST", **headers: str) -> Collected:
        config = Config.model_validate({"providers": PROVIDERS, **self.config})
        clock, random = FixedClock(), FixedRandom()
        services = Services(
            clock=clock,
            random=random,
            spool=self.spool,
            attempts=Attempts(self.upstream, RetryBudget(), clock, random),
            targets=Targets(config, PriceList(config.prices, {})),
            prompts=FakePrompts({("support/answer", "production"): SERVED}),
            keys=Keys(),
            project="default",
            content_sample=1.0,
        )
        reply = Collected()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(method=method, path=path, query=query, headers=named, body=raw, peer="127.0.0.1")
        await Routes(services)(request, reply)
        assert self.upstream.open == 0
        return reply

    @property
    def sent(self) -> Any:
        return json.loads(self.upstream.requests[-1].body)

    @property
    def call(self) -> Any:
        [line] = self.spool.lines
        return msgspec.structs.asdict(msgspec.json.decode(line, type=Entry).call)


def bench(*answers: ScriptedAnswer | bytes, **config: Any) -> Bench:
    script = [answer if isinstance(answer, ScriptedAnswer) else ScriptedAnswer(body=[answer]) for answer in answers]
    return Bench(FakeUpstream(*script), config)


def events(body: bytes) -> list[Any]:
    return [json.loads(data_of(wire) or b"") for wire in EventSplitter().feed(body) if data_of(wire) != b"[DONE]"]


GEMINI = "/v1beta/models/{}:generateContent"
GEMINI_STREAM = "/v1beta/models/{}:streamGenerateContent"
CHAT = "/v1/chat/completions"
ASKED = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
CHAT_ASKED = {"model": "goo/gemini-3-flash", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = json.dumps(
    {
        "id": "c1",
        "model": "m-1-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
    }
).encode()
GENERATED = json.dumps(
    {
        "candidates": [
            {"content": {"parts": [{"text": "Hello"}], "role": "model"}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "cachedContentTokenCount": 4},
        "modelVersion": "gemini-3-flash-001",
        "responseId": "r1",
    }
).encode()
CHAT_STREAM = b"".join(
    b"data: " + json.dumps({"id": "c1", "model": "m-1-2026", **chunk}).encode() + b"\n\n"
    for chunk in (
        {"choices": [{"index": 0, "delta": {"role": "assistant"}}]},
        {"choices": [{"index": 0, "delta": {"content": "Hel"}}]},
        {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}},
    )
)


def piece(text: str, finish: str | None = None) -> bytes:
    made = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    body = {"candidates": [{**made, "finishReason": finish} if finish else made], "modelVersion": "gemini-3-flash-001"}
    usage = {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5}, "responseId": "r1"}
    return b"data: " + json.dumps({**body, **usage}).encode() + b"\r\n\r\n"


# --- Gemini's clients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["oai/m-1", "oai%2Fm-1"])
async def test_a_gemini_client_is_served_by_a_chat_provider(model: str) -> None:
    parts = bench(COMPLETION)
    config = {"maxOutputTokens": 9, "stopSequences": ["END"]}
    reply = await parts.ask(GEMINI.format(model), {**ASKED, "generationConfig": config}, x_goog_api_key="tg-mine")
    [upstream] = parts.upstream.requests
    assert upstream.path == "/v1/chat/completions"
    assert ("authorization", "Bearer sk-canary-oai") in upstream.headers
    assert "tg-mine" not in str(upstream.headers) + upstream.body.decode() + upstream.path
    assert parts.sent == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "stop": ["END"],
    }
    answer = json.loads(reply.body)
    assert reply.status == 200
    assert answer["candidates"][0]["content"] == {"parts": [{"text": "Hello"}], "role": "model"}
    assert answer["usageMetadata"]["cachedContentTokenCount"] == 4
    assert (parts.call["dialect"], parts.call["input_tokens"], parts.call["finish_reason"]) == ("gemini", 10, "stop")


async def test_a_gemini_client_streams_from_a_chat_provider() -> None:
    parts = bench(CHAT_STREAM + b"data: [DONE]\n\n")
    reply = await parts.ask(GEMINI_STREAM.format("oai/m-1"), ASKED, "alt=sse&key=tg-mine")
    assert "tg-mine" not in str(parts.upstream.requests[0].path) + parts.spool.lines[0].decode()
    assert parts.sent["stream"] is True
    shown = events(reply.body)
    said = "".join(part["text"] for one in shown for part in one["candidates"][0]["content"]["parts"])
    assert said == "Hello"
    assert [one["candidates"][0].get("finishReason") for one in shown] == [None, None, "STOP"]
    assert shown[-1]["usageMetadata"]["totalTokenCount"] == 15
    assert (parts.call["outcome"], parts.call["output_tokens"], parts.call["streamed"]) == ("ok", 5, True)


async def test_a_cut_stream_ends_in_googles_error_without_a_finish() -> None:
    cut = ScriptedAnswer(body=[CHAT_STREAM.split(b"data: ", 3)[2].join([b"data: ", b""])], breaks=StreamBroken("cut"))
    reply = await bench(cut).ask(GEMINI_STREAM.format("oai/m-1"), ASKED, "alt=sse")
    assert b"finishReason" not in reply.body
    last = events(reply.body)[-1]["error"]
    assert (last["code"], last["status"]) == (502, "UNAVAILABLE")


async def test_a_gemini_client_without_alt_sse_gets_an_array() -> None:
    reply = await bench(CHAT_STREAM).ask(GEMINI_STREAM.format("oai/m-1"), ASKED)
    assert reply.headers["content-type"] == "application/json"
    assert [one["candidates"][0].get("finishReason") for one in json.loads(reply.body)] == [None, None, "STOP"]


async def test_same_dialect_bytes_pass_through_gemini() -> None:
    parts = bench(GENERATED)
    body = b'{"contents":[ {"parts":[{"text":"caf\\u00e9"}]} ],"safetySettings":[ {} ],"of_tomorrow": 1.50}'
    reply = await parts.ask(GEMINI.format("goo/gemini-3-flash"), body)
    [upstream] = parts.upstream.requests
    assert upstream.path == "/v1beta/models/gemini-3-flash:generateContent"
    assert ("x-goog-api-key", "sk-canary-goo") in upstream.headers
    assert upstream.body == body.replace(b": 1.50", b":1.50")
    assert reply.body == GENERATED
    assert "x-tidegate-dropped" not in reply.headers


async def test_a_gemini_stream_passes_through_and_ends_with_its_body() -> None:
    parts = bench(piece("Hel") + piece("lo", "STOP"))
    reply = await parts.ask(GEMINI_STREAM.format("goo/gemini-3-flash"), ASKED, "alt=sse")
    assert parts.upstream.requests[0].path == "/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse"
    assert reply.body == (piece("Hel") + piece("lo", "STOP")).replace(b"\r", b"")
    assert (parts.call["outcome"], parts.call["output_tokens"]) == ("ok", 5)


async def test_a_gemini_stream_that_ends_before_it_has_finished_is_broken() -> None:
    parts = bench(piece("Hel"))
    reply = await parts.ask(GEMINI_STREAM.format("goo/gemini-3-flash"), ASKED, "alt=sse")
    assert "error" in events(reply.body)[-1]
    assert parts.call["outcome"] == "error"


# --- before a Gemini provider -------------------------------------------------------------------------------------


async def test_a_chat_client_is_served_by_gemini() -> None:
    parts = bench(GENERATED)
    reply = await parts.ask(CHAT, {**CHAT_ASKED, "temperature": 0.5}, authorization="Bearer tg-mine")
    [upstream] = parts.upstream.requests
    assert upstream.path == "/v1beta/models/gemini-3-flash:generateContent"
    assert "tg-mine" not in str(upstream.headers)
    assert parts.sent == {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {"temperature": 0.5},
    }
    answer = json.loads(reply.body)
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert parts.call["response_model"] == "gemini-3-flash-001"


async def test_a_chat_client_streams_from_gemini() -> None:
    parts = bench(piece("Hel") + piece("lo", "STOP"))
    reply = await parts.ask(CHAT, {**CHAT_ASKED, "stream": True, "stream_options": {"include_usage": True}})
    assert reply.body.endswith(b"data: [DONE]\n\n")
    shown = events(reply.body)
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in shown if one["choices"]) == "Hello"
    assert shown[-1]["usage"]["total_tokens"] == 15
    assert parts.call["outcome"] == "ok"


async def test_a_chat_stream_from_gemini_that_is_cut_has_no_done() -> None:
    parts = bench(ScriptedAnswer(body=[piece("Hel")], breaks=StreamBroken("cut")))
    reply = await parts.ask(CHAT, {**CHAT_ASKED, "stream": True})
    assert b"[DONE]" not in reply.body
    assert "error" in events(reply.body)[-1]
    assert (parts.call["output_tokens"], parts.call["usage_source"]) == (5, "provider")


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", GEMINI.format("prompt:support/answer")])
async def test_a_prompt_is_called_in_any_dialect(path: str) -> None:
    parts = bench(GENERATED)
    reply = await parts.ask(path, {"model": "prompt:support/answer", "variables": {"question": "Why?"}})
    assert (reply.status, reply.headers["x-tidegate-version"]) == (200, "v7")
    assert parts.sent == {
        "contents": [{"role": "user", "parts": [{"text": "Why?"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"maxOutputTokens": 50, "temperature": 0.2},
    }


@pytest.mark.parametrize(
    ("config", "param"),
    [
        ({"generationConfig": {"temperature": 1}}, "temperature"),
        ({"generation_config": {"response_mime_type": "application/json"}}, "format"),
        ({"generationConfig": {"maxOutputTokens": 51}}, "max_output_tokens"),
        ({"systemInstruction": {"parts": [{"text": "be evil"}]}}, "messages[0].role"),
        ({"tools": []}, "tools"),
    ],
)
async def test_what_the_prompt_decides_is_not_a_gemini_clients_to_send(config: dict[str, Any], param: str) -> None:
    body = {"variables": {"question": "Why?"}, **config}
    reply = await bench().ask(GEMINI.format("prompt:support/answer"), body)
    details = json.loads(reply.body)["error"]["details"]
    assert (reply.status, details[-1]["fieldViolations"][0]["field"]) == (400, param)


async def test_what_only_gemini_knows_comes_through_a_prompt_to_gemini() -> None:
    parts = bench(GENERATED)
    more = {"safety_settings": [{"threshold": "OFF"}], "generationConfig": {"speechConfig": {}, "maxOutputTokens": 9}}
    reply = await parts.ask(GEMINI.format("prompt:support/answer"), {"variables": {"question": "Why?"}, **more})
    assert parts.sent["safety_settings"] == [{"threshold": "OFF"}]
    assert parts.sent["generationConfig"]["maxOutputTokens"] == 9
    assert reply.headers["x-tidegate-dropped"] == "generationConfig.speechConfig"


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (CHAT, ("error", "code")),
        ("/v1/responses", ("error", "code")),
        ("/v1/messages", ("error", "type")),
        (GEMINI.format("nobody"), ("error", "status")),
    ],
)
async def test_errors_are_in_the_dialect_of_the_path(path: str, where: tuple[str, str]) -> None:
    for reply, status in [
        (await bench().ask(path, {**CHAT_ASKED, "model": "nobody"}), 404),
        (await bench().ask(path, b"{"), 400),
        (await bench().ask(path, ASKED, x_tidegate_tags="no"), 400),
        (await bench().ask(path, ASKED, method="GET"), 405),
        (await bench().ask(path + "x", ASKED), 404),
    ]:
        assert (reply.status, isinstance(json.loads(reply.body)[where[0]][where[1]], str)) == (status, True)


async def test_a_gemini_providers_refusal_passes_to_a_gemini_client_and_is_translated_for_others() -> None:
    refusal = b'{"error": {"code": 400, "message": "bad picture", "status": "INVALID_ARGUMENT"}}'
    parts = bench(ScriptedAnswer(status=400, body=[refusal]))
    assert (await parts.ask(GEMINI.format("goo/gemini-3-flash"), ASKED)).body == refusal
    reply = await bench(ScriptedAnswer(status=400, body=[refusal])).ask(CHAT, CHAT_ASKED)
    assert (reply.status, json.loads(reply.body)["error"]["type"]) == (400, "invalid_request_error")


# --- log-probabilities --------------------------------------------------------------------------------------------

CHANCE = {"token": "Hel", "logprob": -0.25, "bytes": [72, 101, 108]}
CHANCES = [{**CHANCE, "top_logprobs": [CHANCE, {"token": "Hal", "logprob": -1.5, "bytes": [72, 97, 108]}]}]


def lines(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def chat_stream(chances: Any = CHANCES) -> bytes:
    head = {"id": "c1", "model": "m-1"}
    said = {"index": 0, "delta": {"content": "Hel"}, "logprobs": {"content": chances, "refusal": None}}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return lines({**head, "choices": [said]}, {**head, "choices": [end]}) + b"data: [DONE]\n\n"


def responses_stream() -> bytes:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    delta = {"type": "response.output_text.delta", **place, "delta": "Hel", "logprobs": CHANCES}
    body = {"id": "resp_1", "model": "m-1", "status": "completed", "output": []}
    started = {"type": "response.created", "response": {**body, "status": "in_progress"}}
    added = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "role": "assistant"}}
    return lines(started, added, delta, {"type": "response.completed", "response": body})


def gemini_stream() -> bytes:
    top = [{"token": "Hel", "logProbability": -0.25}, {"token": "Hal", "logProbability": -1.5}]
    chances = {"chosenCandidates": top[:1], "topCandidates": [{"candidates": top}]}
    said = {"content": {"parts": [{"text": "Hel"}], "role": "model"}, "index": 0, "logprobsResult": chances}
    return lines({"candidates": [{**said, "finishReason": "STOP"}], "modelVersion": "m-1"})


PROVIDERS_THAT_SAY = {"oai/m": chat_stream(), "res/m": responses_stream(), "goo/m": gemini_stream()}


@pytest.mark.parametrize("model", PROVIDERS_THAT_SAY)
async def test_a_streams_log_probabilities_come_through_between_dialects(model: str) -> None:
    """To a client of each dialect that has any, from a provider of each: asked for, and told."""
    answer = PROVIDERS_THAT_SAY[model]
    messages = [{"role": "user", "content": "Hi"}]
    asked: dict[str, Any] = {"model": model, "stream": True}

    parts = bench(answer)
    reply = await parts.ask(CHAT, {**asked, "messages": messages, "logprobs": True, "top_logprobs": 2})
    assert "x-tidegate-dropped" not in reply.headers
    choices = [one["choices"][0] for one in events(reply.body)]
    [found] = [choice["logprobs"]["content"] for choice in choices if choice.get("logprobs")]
    assert [(one["token"], one["logprob"]) for one in found[0]["top_logprobs"]] == [("Hel", -0.25), ("Hal", -1.5)]
    assert any(word in parts.upstream.requests[0].body for word in (b"logprobs", b"responseLogprobs"))

    body = {**asked, "input": "Hi", "top_logprobs": 2, "include": ["message.output_text.logprobs"], "store": False}
    reply = await bench(answer).ask("/v1/responses", body)
    assert "x-tidegate-dropped" not in reply.headers
    [delta] = [one for one in events(reply.body) if one["type"] == "response.output_text.delta"]
    assert delta["logprobs"][0]["logprob"] == -0.25
    if model != "res/m":  # whose stream passes through
        [done] = [one for one in events(reply.body) if one["type"] == "response.output_text.done"]
        whole = events(reply.body)[-1]["response"]["output"][0]["content"][0]
        assert delta["logprobs"] == done["logprobs"] == whole["logprobs"]

    config = {"responseLogprobs": True, "logprobs": 2}
    reply = await bench(answer).ask(GEMINI_STREAM.format(model), {**ASKED, "generationConfig": config}, "alt=sse")
    assert "x-tidegate-dropped" not in reply.headers
    [result] = [found for one in events(reply.body) if (found := one["candidates"][0].get("logprobsResult"))]
    assert result["chosenCandidates"] == [{"token": "Hel", "logProbability": -0.25}]
    assert result["topCandidates"][0]["candidates"][1] == {"token": "Hal", "logProbability": -1.5}


@pytest.mark.parametrize("odd", [[1], ["x"], [{"token": 1}], [{"top_logprobs": [3]}], {}, "x", None])
async def test_odd_log_probabilities_break_no_stream(odd: Any) -> None:
    for path, query in ((GEMINI_STREAM.format("oai/m"), "alt=sse"), ("/v1/responses", "")):
        parts = bench(chat_stream(odd))
        reply = await parts.ask(path, {**ASKED, "model": "oai/m", "input": "Hi", "stream": True}, query)
        assert (parts.call["outcome"], reply.status) == ("ok", 200)


# --- what can not be said -----------------------------------------------------------------------------------------

LOSSY = {**CHAT_ASKED, "user": "ann", "logit_bias": {"1": 1}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("policy", "header"), [("warn", "logit_bias, user"), ("drop", None)])
async def test_what_is_dropped_stands_in_the_record_and_for_warn_in_a_header(
    policy: str, header: str | None, stream: bool
) -> None:
    parts = bench(piece("Hi", "STOP") if stream else GENERATED, unsupported=policy)
    reply = await parts.ask(CHAT, {**LOSSY, "stream": stream}, x_tidegate_tags="team=a")
    assert (reply.status, reply.headers.get("x-tidegate-dropped")) == (200, header)
    assert parts.call["tags"] == {"team": "a", "tidegate.dropped": "logit_bias, user"}


async def test_what_would_be_dropped_can_be_refused_instead() -> None:
    parts = bench(unsupported="reject")
    reply = await parts.ask(CHAT, LOSSY)
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["param"]) == (400, "logit_bias")
    assert error["message"].startswith("goo/gemini-3-flash can not be told logit_bias, user: ")
    assert parts.upstream.requests == []
    assert parts.call["outcome"] == "rejected"


DOCUMENT = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
FILE = [{"type": "text", "text": "Read."}, {"type": "file", "file": {"file_id": "file-1"}}]
PICTURE = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
KEPT_ELSEWHERE = [
    ("/v1/responses", {"input": "Hi", "previous_response_id": "resp_1"}, "oai/m-1", "previous_response_id"),
    ("/v1/responses", {"input": "Hi", "conversation": "conv_1"}, "goo/m", "conversation"),
    ("/v1/responses", {"input": "Hi", "conversation": {"id": "conv_1"}}, "ant/m", "conversation"),
    ("/v1/responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}, "ant/m", "input[0].id"),
    (CHAT, {"messages": [{"role": "user", "content": FILE}]}, "ant/m", "by their id"),
    (CHAT, {"messages": [{"role": "user", "content": FILE}]}, "goo/m", "by their id"),
    (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [FILE[0], PICTURE]}], "max_tokens": 9},
        "oai/m-1",
        "source",
    ),
    (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [FILE[0], DOCUMENT]}], "max_tokens": 9},
        "goo/m",
        "by their id",
    ),
    (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [FILE[0], DOCUMENT]}], "max_tokens": 9},
        "oai/m-1",
        "by their id",
    ),
    (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [FILE[0], DOCUMENT]}], "max_tokens": 9},
        "res/m-1",
        "by their id",
    ),
    (CHAT, {"messages": [{"role": "user", "content": FILE}]}, "aws/amazon.nova-lite-v1:0", "by their id"),
    # nothing else is said: that is no reason to hide why
    (CHAT, {"messages": [{"role": "user", "content": FILE[1:]}]}, "ant/m", "by their id"),
    (CHAT, {"messages": [{"role": "user", "content": FILE[1:]}]}, "goo/m", "by their id"),
    (CHAT, {"messages": [{"role": "user", "content": FILE[1:]}]}, "aws/amazon.nova-lite-v1:0", "by their id"),
    (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-2", "detail": "auto"}]}]},
        "oai/m-1",
        "file_id",
    ),
    ("/v1/messages", {"messages": [], "container": "container_1", "max_tokens": 9}, "oai/m-1", "container"),
    (CHAT, {"messages": [*CHAT_ASKED["messages"], {"role": "assistant", "audio": {"id": "a"}}]}, "ant/m", "audio"),
    (GEMINI.format("oai/m-1"), {**ASKED, "cachedContent": "cachedContents/1"}, "", "cachedContent"),
    (GEMINI.format("oai/m-1"), {**ASKED, "cached_content": "cachedContents/1"}, "", "cached_content"),
]


@pytest.mark.parametrize("policy", ["warn", "drop", "reject"])
@pytest.mark.parametrize(("path", "body", "model", "named"), KEPT_ELSEWHERE)
async def test_what_another_provider_keeps_is_never_dropped(
    path: str, body: dict[str, Any], model: str, named: str, policy: str
) -> None:
    """Without what it refers to, this would be another conversation, and its answer wrong."""
    parts = bench(unsupported=policy)
    reply = await parts.ask(path, {"model": model, **body})
    assert (reply.status, parts.upstream.requests) == (400, [])
    assert named in reply.body.decode()
    assert parts.call["outcome"] == "rejected"


async def test_what_another_provider_keeps_goes_to_that_provider() -> None:
    """In a route of both kinds, the target that can be told is asked; a prompt passes it on likewise."""
    routes = {"r": {"targets": ["ant/m", "both/m-1"], "retries": 0}}
    parts = bench(ScriptedAnswer(status=400, body=[b"{}"]), routes=routes)
    body = {"model": "r", "input": "Hi", "previous_response_id": "resp_1", "store": True}
    await parts.ask("/v1/responses", body)
    assert parts.upstream.requests[0].origin == PROVIDERS["both"]["base_url"].removesuffix("/v1")
    assert parts.sent == {**body, "model": "m-1"}


@pytest.mark.parametrize(
    "field",
    [
        {"store": None, "metadata": None, "functions": None, "service_tier": None},
        {"store": False, "metadata": {}, "logit_bias": {}, "modalities": ["text"], "service_tier": "auto"},
        {"verbosity": "medium", "functions": [], "service_tier": "default"},
    ],
)
async def test_a_chat_client_that_asks_for_what_happens_anyway_loses_nothing(field: dict[str, Any]) -> None:
    """SDKs write such fields by themselves: they were named as dropped, and refused where that is asked for."""
    reply = await bench(GENERATED, unsupported="reject").ask(CHAT, {**CHAT_ASKED, **field})
    assert (reply.status, reply.headers.get("x-tidegate-dropped")) == (200, None)


@pytest.mark.parametrize("bounds", [(7, 9), (9, 7)])
async def test_f7_of_both_names_of_the_bound_on_output_the_lower_one_holds(bounds: tuple[int, int]) -> None:
    parts = bench(GENERATED)
    await parts.ask(CHAT, {**CHAT_ASKED, "max_tokens": bounds[0], "max_completion_tokens": bounds[1]})
    assert parts.sent["generationConfig"] == {"maxOutputTokens": 7}


def test_f7_openai_itself_gets_the_bound_by_its_own_name_and_servers_like_it_by_the_older_one() -> None:
    """OpenAI's reasoning models refuse `max_tokens`, and older servers do not know `max_completion_tokens`."""
    asked = chat.Request((chat.Message("user", (chat.Text("Hi"),)),), max_output_tokens=7)
    for native, name in ((True, "max_completion_tokens"), (False, "max_tokens")):
        body, _ = openai_chat.DIALECT.request_out(asked, model="m", stream=False, native=native)
        assert {key: given for key, given in json.loads(body).items() if "tokens" in key} == {name: 7}


SHOWN = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


def looked(call_id: str, *content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": list(content), **more}


async def test_what_tools_show_is_shown_to_a_chat_provider_by_the_user() -> None:
    """Its tool messages hold only text, and OpenAI refuses a picture there."""
    calls = [{"type": "tool_use", "id": call_id, "name": "look", "input": {}} for call_id in "ab"]
    seen = [looked("a", {"type": "text", "text": "one"}, SHOWN), looked("b", SHOWN, is_error=True)]
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": calls},
        {"role": "user", "content": [*seen, {"type": "text", "text": "And?"}]},
    ]
    alone = [*messages[:2], {"role": "user", "content": seen}]
    for said, after in ((messages, [{"role": "user", "content": "And?"}]), (alone, [])):
        parts = bench(COMPLETION)
        reply = await parts.ask("/v1/messages", {"model": "oai/m-1", "max_tokens": 9, "messages": said})
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        assert parts.sent["messages"][2:] == [
            {"role": "tool", "tool_call_id": "a", "content": "one"},
            {"role": "tool", "tool_call_id": "b", "content": ""},
            {"role": "user", "content": [picture, picture]},
            *after,
        ]
        assert reply.headers["x-tidegate-dropped"] == "messages[3].is_error"


async def test_a_files_address_in_the_place_of_its_data_is_an_address() -> None:
    """OpenRouter's clients write it so; it was sent on as base64."""
    parts = bench(GENERATED)
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "https://example.com/a.pdf"}}
    await parts.ask(CHAT, {**CHAT_ASKED, "messages": [{"role": "user", "content": [file]}]})
    [part] = parts.sent["contents"][0]["parts"]
    assert part == {"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.com/a.pdf"}}


async def test_a_route_has_its_own_policy() -> None:
    targets = ["goo/gemini-3-flash"]
    routes = {"strict": {"targets": targets, "unsupported": "reject"}, "lax": {"targets": targets}}
    assert (await bench(routes=routes).ask(CHAT, {**LOSSY, "model": "strict"})).status == 400
    assert (await bench(GENERATED, routes=routes).ask(CHAT, {**LOSSY, "model": "lax"})).status == 200
    relaxed = {"lax": {"targets": targets, "unsupported": "drop"}}
    reply = await bench(GENERATED, routes=relaxed, unsupported="reject").ask(CHAT, {**LOSSY, "model": "lax"})
    assert (reply.status, "x-tidegate-dropped" in reply.headers) == (200, False)


async def test_a_target_that_can_not_be_told_all_is_passed_over() -> None:
    targets = ["goo/gemini-3-flash", "oai/m-1"]
    routes = {"r": {"targets": targets, "unsupported": "reject", "retries": 0}}
    reply = await bench(COMPLETION, routes=routes).ask(CHAT, {**LOSSY, "model": "r"})
    assert (reply.status, reply.headers["x-tidegate-model"]) == (200, "oai/m-1")
    down = ScriptedAnswer(status=503, body=[b"{}"])
    turned = {"r": {**routes["r"], "targets": targets[::-1]}}
    assert (await bench(down, routes=turned).ask(CHAT, {**LOSSY, "model": "r"})).status == 503


async def test_a_field_of_any_name_fits_into_the_header() -> None:
    fields = {f"field-{index:03}": 1 for index in range(40)}
    names = {"a\r\nset-cookie: x": 1, "é" * 200: 1, **fields}
    reply = await bench(GENERATED).ask(CHAT, {**CHAT_ASKED, **names})
    dropped = reply.headers["x-tidegate-dropped"]
    assert dropped.startswith("?" * 80 + ", a??set-cookie:?x, field-000, ")
    assert dropped.endswith(", field-017, ...")


async def test_what_chat_clients_spell_in_their_own_ways_comes_through() -> None:
    """Calls as they were before tools, and Anthropic's mark for its prompt cache, as LiteLLM's clients send it."""
    text = {"type": "text", "text": "Hello"}
    answer = {"id": "a", "type": "message", "role": "assistant", "model": "m", "content": [text]}
    parts = bench(json.dumps({**answer, "stop_reason": "end_turn"}).encode())
    marked = {"type": "text", "text": "A long text.", "cache_control": {"type": "ephemeral"}}
    said = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}}
    result = {"role": "function", "name": "f", "content": "x"}
    thought = {"role": "assistant", "content": "So.", "reasoning_content": "Hm."}
    messages = [{"role": "user", "content": [marked]}, said, result, thought]
    await parts.ask(CHAT, {"model": "ant/m", "messages": messages, "max_tokens": 9})
    assert parts.sent["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "A long text.", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "f", "name": "f", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "f", "content": "x"}]},
        {"role": "assistant", "content": "So."},
    ]
    assert parts.call["tags"]["tidegate.dropped"] == "messages[3].reasoning_content"


# --- what else there is to read -----------------------------------------------------------------------------------


async def test_capabilities_say_what_comes_through_between_dialects() -> None:
    reply = await bench(unsupported="reject").ask("/v1/capabilities", b"", method="GET")
    found = json.loads(reply.body)
    assert found["unsupported"] == "reject"
    dialects = {"openai_chat", "openai_responses", "anthropic", "gemini"}
    wires = {*dialects, "bedrock"}
    assert {name: set(targets) for name, targets in found["dialects"].items()} == dict.fromkeys(dialects, wires)
    pair = found["dialects"]["openai_chat"]["gemini"]
    assert {"text", "tools", "json_schema", "image_data", "seed"} <= set(pair["expressed"])
    assert pair["dropped"]["end_user"] == "Gemini knows no end users"
    assert "fields_of_its_own" in pair["dropped"]
    same = found["dialects"]["gemini"]["gemini"]
    assert (same["dropped"], same["rejected"]) == ({}, {})


async def test_models_are_listed_in_the_shape_that_is_asked_for() -> None:
    routes = {"support": {"targets": ["oai/m-1"]}}
    names = ["support", "prompt:support/answer", "oai/m-1"]

    async def listed(path: str, **headers: str) -> Any:
        reply = await bench(routes=routes).ask(path, b"", method="GET", **headers)
        return json.loads(reply.body)

    assert [model["id"] for model in (await listed("/v1/models"))["data"]] == names
    anthropic = await listed("/v1/models", anthropic_version="2023-06-01")
    assert [(model["type"], model["id"]) for model in anthropic["data"]] == [("model", name) for name in names]
    for gemini in (await listed("/v1beta/models"), await listed("/v1/models", x_goog_api_key="k")):
        assert [model["name"] for model in gemini["models"]] == [f"models/{name}" for name in names]


@pytest.mark.parametrize(("provider", "path"), [("both", "/v1/responses"), ("oai", "/v1/chat/completions")])
async def test_a_compatible_server_speaks_responses_only_when_it_is_said_to(provider: str, path: str) -> None:
    parts = bench(ScriptedAnswer(status=400, body=[b"{}"]))
    await parts.ask("/v1/responses", {"model": f"{provider}/m-1", "input": "Hi"})
    assert parts.upstream.requests[0].path == path


async def test_an_anthropic_client_is_served_by_gemini() -> None:
    parts = bench(GENERATED)
    body = {"model": "goo/gemini-3-flash", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    reply = await parts.ask("/v1/messages", body, x_api_key="tg-mine")
    answer = json.loads(reply.body)
    assert (answer["content"], answer["stop_reason"]) == ([{"type": "text", "text": "Hello"}], "end_turn")
    assert "tg-mine" not in str(parts.upstream.requests[0].headers)
