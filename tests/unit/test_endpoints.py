"""Paths, keys and forms: which dialect a request speaks, and what its URL and headers say."""

from __future__ import annotations

import json

import pytest

from tidegate.core.errors import InvalidRequest
from tidegate.dialects import anthropic, counting, gemini, openai_chat, openai_responses
from tidegate.dialects.dialect import Dialect
from tidegate.gateway.caller import Collected
from tidegate.gateway.edge import Request
from tidegate.gateway.endpoints import client_key, dialect_of, endpoint
from tidegate.gateway.json_array import JsonArrayReply


def asked(path: str, query: str = "", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method="POST", path=path, query=query, headers=named, body=b"", peer="127.0.0.1")


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", openai_chat.DIALECT),
        ("/v1/responses", openai_responses.DIALECT),
        ("/v1/messages", anthropic.DIALECT),
        ("/v1/messages/count_tokens", counting.ANTHROPIC),
    ],
)
def test_a_path_says_the_dialect_and_the_body_the_rest(path: str, dialect: Dialect) -> None:
    found = endpoint(asked(path))
    assert found is not None
    assert (found.dialect, found.model, found.stream) == (dialect, None, None)
    assert dialect_of(path) is dialect


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        ("/v1beta/models/gemini-3-flash:generateContent", "gemini-3-flash", False),
        ("/v1/models/support:generateContent", "support", False),
        ("/v1alpha/models/support:streamGenerateContent", "support", True),
        ("/v1beta/models/prompt:support/answer:generateContent", "prompt:support/answer", False),
        ("/v1beta/models/prompt:support%2Fanswer@v3:streamGenerateContent", "prompt:support/answer@v3", True),
        ("/v1beta/models/prompt%3Ap%3AgenerateContent", "prompt:p", False),
        ("/v1beta/models/openai%2Fgpt-4.1:generateContent", "openai/gpt-4.1", False),
        ("/v1beta/models/openai/gpt-4.1:generateContent", "openai/gpt-4.1", False),
        ("/v1beta/models/a:generateContent:generateContent", "a:generateContent", False),
    ],
)
def test_a_gemini_path_is_parted_at_its_last_colon(path: str, model: str, stream: bool) -> None:
    found = endpoint(asked(path))
    assert found is not None
    assert (found.dialect, found.model, found.stream) == (gemini.DIALECT, model, stream)


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/m:embedContent",
        "/v1beta/models/m",
        "/v1beta/models/prompt:m",
        "/v1beta/models/:generateContent",
        "/v1beta/models/m:generateContent/",
        "/v1beta/models/m:generateContent\n",
        "/v1/chat/completions/",
        "/v2/models/m:generateContent",
        "/",
    ],
)
def test_any_other_path_takes_no_calls(path: str) -> None:
    assert endpoint(asked(path)) is None


def test_a_path_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        endpoint(asked("/v1beta/models/%ff:generateContent"))


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1beta/models/m:embedContent", gemini.DIALECT),
        ("/v1/models/m", gemini.DIALECT),
        ("/v1/messages/batches", anthropic.DIALECT),
        ("/v1/models", openai_chat.DIALECT),
        ("/nowhere", openai_chat.DIALECT),
    ],
)
def test_a_path_that_nobody_serves_has_the_dialect_of_who_asks(path: str, dialect: Dialect) -> None:
    assert dialect_of(path) is dialect


@pytest.mark.parametrize(
    ("query", "headers", "key"),
    [
        ("", {"authorization": "Bearer k1"}, "k1"),
        ("", {"authorization": "bearer  k1 "}, "k1"),
        ("", {"authorization": "Basic k1"}, None),
        ("", {"authorization": "Bearer"}, None),
        ("", {"x_api_key": "k2"}, "k2"),
        ("", {"x_goog_api_key": " k3 "}, "k3"),
        ("alt=sse&key=k%204", {}, "k 4"),
        ("key=k4", {"x_goog_api_key": "k3"}, "k3"),
        ("key=", {}, None),
        ("monkey=k4", {}, None),
        ("key=k4" + "&a=b" * 99, {}, None),
        ("", {}, None),
    ],
)
def test_a_clients_key_is_found_where_its_sdk_puts_it(query: str, headers: dict[str, str], key: str | None) -> None:
    assert client_key(asked("/", query, **headers)) == key


@pytest.mark.parametrize(
    ("query", "array"), [("", True), ("alt=json", True), ("alt=sse", False), ("key=k&alt=sse", False)]
)
def test_a_gemini_stream_is_an_array_unless_events_are_asked_for(query: str, array: bool) -> None:
    found = endpoint(asked("/v1beta/models/m:streamGenerateContent", query))
    assert found is not None
    assert isinstance(found.form(Collected()), JsonArrayReply) is array


@pytest.mark.parametrize(
    ("pieces", "tail", "elements"),
    [
        ([b'data: {"a":1}\n\ndata: {"a":2}\n\n', b": ping\n\n"], b'data: {"a":3}\n\n', [{"a": 1}, {"a": 2}, {"a": 3}]),
        ([b'data: {"a":\ndata: 1}\n\n'], b"", [{"a": 1}]),
        ([], b"", []),
    ],
)
async def test_events_become_the_elements_of_an_array(pieces: list[bytes], tail: bytes, elements: list[object]) -> None:
    client = Collected()
    reply = JsonArrayReply(client)
    await reply.start(200, [("content-type", "text/event-stream"), ("x-a", "b")], streamed=True)
    for piece in pieces:
        assert reply.push(piece)
    await reply.drained()
    await reply.end(tail)
    assert json.loads(client.body) == elements
    assert client.headers == {"content-type": "application/json", "x-a": "b"}


async def test_an_error_instead_of_a_stream_is_the_only_element() -> None:
    client = Collected()
    reply = JsonArrayReply(client)
    await reply.start(404, [], streamed=False)
    await reply.end(b'{"error":{}}')
    assert (client.status, json.loads(client.body)) == (404, [{"error": {}}])
