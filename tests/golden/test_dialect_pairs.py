"""
Every client's dialect before every provider's, through a whole gateway over HTTP: what goes up and what comes back.

One file per pair (`CLIENT-PROVIDER.txt`), written with REWRITE_GOLDEN=1 and read with care. In it: a text, tools with
their results, a refusal of the provider's; each whole and streamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.contract.whole import DIALECTS, SECRETS, Asked, Script, answers, streams, whole
from tidegate.dialects.sse import EventSplitter, data_of
from tidegate.fakes import FixedClock, FixedRandom

FOLDER = Path(__file__).parent / "dialects" / "pairs"
CLIENTS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/MODEL:generateContent",
}
PROVIDERS = dict(zip(("chat", "responses", "anthropic", "gemini"), DIALECTS, strict=True))
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

ASKS: dict[str, dict[str, Any]] = {
    "chat": {
        "text": {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "How are you?"},
            ],
            "temperature": 0.5,
            "max_tokens": 50,
        },
        "tools": {
            "messages": [
                {"role": "user", "content": "Weather in Rome and Oslo?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": f"call_{at}",
                            "type": "function",
                            "function": {"name": "weather", "arguments": json.dumps({"city": city})},
                        }
                        for at, city in enumerate(("Rome", "Oslo"))
                    ],
                },
                {"role": "tool", "tool_call_id": "call_0", "content": "sunny"},
                {"role": "tool", "tool_call_id": "call_1", "content": "snow"},
                {"role": "user", "content": "And Bonn and Kyiv?"},
            ],
            "tools": [
                {"type": "function", "function": {"name": "weather", "description": "Now", "parameters": SCHEMA}}
            ],
            "tool_choice": "required",
            "max_tokens": 50,
        },
    },
    "responses": {
        "text": {
            "instructions": "Be brief.",
            "input": "How are you?",
            "temperature": 0.5,
            "max_output_tokens": 50,
            "store": False,
        },
        "tools": {
            "input": [
                {"role": "user", "content": "Weather in Rome and Oslo?"},
                *(
                    {
                        "type": "function_call",
                        "call_id": f"call_{at}",
                        "name": "weather",
                        "arguments": json.dumps({"city": city}),
                    }
                    for at, city in enumerate(("Rome", "Oslo"))
                ),
                {"type": "function_call_output", "call_id": "call_0", "output": "sunny"},
                {"type": "function_call_output", "call_id": "call_1", "output": "snow"},
                {"role": "user", "content": "And Bonn and Kyiv?"},
            ],
            "tools": [{"type": "function", "name": "weather", "description": "Now", "parameters": SCHEMA}],
            "tool_choice": "required",
            "max_output_tokens": 50,
            "store": False,
        },
    },
    "anthropic": {
        "text": {
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "How are you?"}],
            "temperature": 0.5,
            "max_tokens": 50,
        },
        "tools": {
            "messages": [
                {"role": "user", "content": "Weather in Rome and Oslo?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "tool_use", "id": f"call_{at}", "name": "weather", "input": {"city": city}}
                        for at, city in enumerate(("Rome", "Oslo"))
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "call_0", "content": "sunny"},
                        {"type": "tool_result", "tool_use_id": "call_1", "content": "snow"},
                        {"type": "text", "text": "And Bonn and Kyiv?"},
                    ],
                },
            ],
            "tools": [{"name": "weather", "description": "Now", "input_schema": SCHEMA}],
            "tool_choice": {"type": "any"},
            "max_tokens": 50,
        },
    },
    "gemini": {
        "text": {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [{"role": "user", "parts": [{"text": "How are you?"}]}],
            "generationConfig": {"temperature": 0.5, "maxOutputTokens": 50},
        },
        "tools": {
            "contents": [
                {"role": "user", "parts": [{"text": "Weather in Rome and Oslo?"}]},
                {
                    "role": "model",
                    "parts": [
                        {"functionCall": {"id": f"call_{at}", "name": "weather", "args": {"city": city}}}
                        for at, city in enumerate(("Rome", "Oslo"))
                    ],
                },
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"id": "call_0", "name": "weather", "response": {"output": "sunny"}}},
                        {"functionResponse": {"id": "call_1", "name": "weather", "response": {"output": "snow"}}},
                        {"text": "And Bonn and Kyiv?"},
                    ],
                },
            ],
            "tools": [{"functionDeclarations": [{"name": "weather", "description": "Now", "parameters": SCHEMA}]}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
            "generationConfig": {"maxOutputTokens": 50},
        },
    },
}
CITIES = ("Bonn", "Kyiv")


def _chat_call(at: int) -> dict[str, Any]:
    function = {"name": "weather", "arguments": json.dumps({"city": CITIES[at]})}
    return {"id": f"call_{at + 2}", "type": "function", "function": function}


def _chat_chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m-2026", "choices": [choice]}


def _response(output: list[Any], status: str = "completed") -> dict[str, Any]:
    usage = {"input_tokens": 20, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 8}}
    head = {"id": "resp_1", "object": "response", "created_at": 7, "model": "m-2026", "status": status}
    return {**head, "output": output, "usage": usage if status == "completed" else None}


def _item(at: int, arguments: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{at}",
        "call_id": f"call_{at + 2}",
        "name": "weather",
        "arguments": arguments,
    }


_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
_SAID = {**_MESSAGE, "content": [{"type": "output_text", "text": "I am well.", "annotations": []}]}
_CHAT = {"id": "c1", "object": "chat.completion", "created": 7, "model": "m-2026"}
_CHAT_USAGE = {"prompt_tokens": 20, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}
_ANTHROPIC = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-2026"}
_ANTHROPIC_USAGE = {"input_tokens": 12, "cache_read_input_tokens": 8, "output_tokens": 9}
_GEMINI = {
    "modelVersion": "m-2026",
    "responseId": "g1",
    "usageMetadata": {"promptTokenCount": 20, "cachedContentTokenCount": 8, "candidatesTokenCount": 9},
}


def _candidate(*parts: dict[str, Any], finish: str | None = "STOP") -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    return {"candidates": [{**candidate, **({"finishReason": finish} if finish else {})}], **_GEMINI}


_GEMINI_CALLS = [
    {"functionCall": {"id": f"call_{at + 2}", "name": "weather", "args": {"city": city}}}
    for at, city in enumerate(CITIES)
]

WHOLE: dict[str, dict[str, Any]] = {
    "chat": {
        "text": {
            **_CHAT,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "I am well."}, "finish_reason": "stop"}
            ],
            "usage": _CHAT_USAGE,
        },
        "tools": {
            **_CHAT,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": None, "tool_calls": [_chat_call(0), _chat_call(1)]},
                    "finish_reason": "tool_calls",
                }
            ],
            "usage": _CHAT_USAGE,
        },
        "error": {"error": {"message": "n is too large", "type": "invalid_request_error", "param": "n", "code": None}},
    },
    "responses": {
        "text": _response([_SAID]),
        "tools": _response([_item(at, json.dumps({"city": city})) for at, city in enumerate(CITIES)]),
        "error": {"error": {"message": "n is too large", "type": "invalid_request_error", "param": "n", "code": None}},
    },
    "anthropic": {
        "text": {
            **_ANTHROPIC,
            "content": [{"type": "text", "text": "I am well."}],
            "stop_reason": "end_turn",
            "usage": _ANTHROPIC_USAGE,
        },
        "tools": {
            **_ANTHROPIC,
            "content": [
                {"type": "tool_use", "id": f"call_{at + 2}", "name": "weather", "input": {"city": city}}
                for at, city in enumerate(CITIES)
            ],
            "stop_reason": "tool_use",
            "usage": _ANTHROPIC_USAGE,
        },
        "error": {"type": "error", "error": {"type": "invalid_request_error", "message": "n is too large"}},
    },
    "gemini": {
        "text": _candidate({"text": "I am well."}),
        "tools": _candidate(*_GEMINI_CALLS),
        "error": {"error": {"code": 400, "message": "n is too large", "status": "INVALID_ARGUMENT"}},
    },
}


def _responses_events(items: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": _response([], "in_progress")}
    for at, (item, inside) in enumerate(items):
        empty: dict[str, Any] = {"content": []} if "content" in item else {"arguments": ""}
        begun: dict[str, Any] = {**item, **empty, "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": at, "item": begun}
        for event in inside:
            yield {"item_id": item["id"], "output_index": at, **event}
        yield {"type": "response.output_item.done", "output_index": at, "item": item}
    yield {"type": "response.completed", "response": _response([item for item, _ in items])}


def _anthropic_events(blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]], stop: str) -> Iterator[dict[str, Any]]:
    usage = {**_ANTHROPIC_USAGE, "output_tokens": 1}
    begun: dict[str, Any] = {**_ANTHROPIC, "content": [], "stop_reason": None, "usage": usage}
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for at, (block, deltas) in enumerate(blocks):
        yield {"type": "content_block_start", "index": at, "content_block": block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": at, "delta": delta}
        yield {"type": "content_block_stop", "index": at}
    yield {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 9}}
    yield {"type": "message_stop"}


_HALVES = ('{"city":', ' "%s"}')
STREAMED: dict[str, dict[str, list[dict[str, Any]]]] = {
    "chat": {
        "text": [
            _chat_chunk({"role": "assistant", "content": ""}),
            _chat_chunk({"content": "I am"}),
            _chat_chunk({"content": " well."}),
            _chat_chunk({}, "stop"),
            {**_chat_chunk({}), "choices": [], "usage": _CHAT_USAGE},
        ],
        "tools": [
            _chat_chunk({"role": "assistant", "content": None}),
            *(
                _chat_chunk({"tool_calls": [call]})
                for at in (0, 1)
                for call in (
                    {**_chat_call(at), "index": at, "function": {"name": "weather", "arguments": _HALVES[0]}},
                    {"index": at, "function": {"arguments": _HALVES[1] % CITIES[at]}},
                )
            ),
            _chat_chunk({}, "tool_calls"),
            {**_chat_chunk({}), "choices": [], "usage": _CHAT_USAGE},
        ],
    },
    "responses": {
        "text": list(
            _responses_events(
                [
                    (
                        _SAID,
                        [
                            {"type": "response.output_text.delta", "content_index": 0, "delta": "I am"},
                            {"type": "response.output_text.delta", "content_index": 0, "delta": " well."},
                            {"type": "response.output_text.done", "content_index": 0, "text": "I am well."},
                        ],
                    )
                ]
            )
        ),
        "tools": list(
            _responses_events(
                [
                    (
                        _item(at, "".join(_HALVES) % city),
                        [
                            {"type": "response.function_call_arguments.delta", "delta": _HALVES[0]},
                            {"type": "response.function_call_arguments.delta", "delta": _HALVES[1] % city},
                            {"type": "response.function_call_arguments.done", "arguments": "".join(_HALVES) % city},
                        ],
                    )
                    for at, city in enumerate(CITIES)
                ]
            )
        ),
    },
    "anthropic": {
        "text": list(
            _anthropic_events(
                [
                    (
                        {"type": "text", "text": ""},
                        [{"type": "text_delta", "text": "I am"}, {"type": "text_delta", "text": " well."}],
                    )
                ],
                "end_turn",
            )
        ),
        "tools": list(
            _anthropic_events(
                [
                    (
                        {"type": "tool_use", "id": f"call_{at + 2}", "name": "weather", "input": {}},
                        [
                            {"type": "input_json_delta", "partial_json": half}
                            for half in (_HALVES[0], _HALVES[1] % city)
                        ],
                    )
                    for at, city in enumerate(CITIES)
                ],
                "tool_use",
            )
        ),
    },
    "gemini": {
        "text": [_candidate({"text": "I am"}, finish=None), _candidate({"text": " well."})],
        "tools": [_candidate(_GEMINI_CALLS[0], finish=None), _candidate(_GEMINI_CALLS[1])],
    },
}


def sse(provider: str, events: list[dict[str, Any]]) -> bytes:
    """Events as that provider sends them."""
    named = provider in ("responses", "anthropic")
    end = b"data: [DONE]\n\n" if provider == "chat" else b""
    return (
        b"".join(
            (f"event: {event['type']}\n" if named else "").encode() + b"data: " + json.dumps(event).encode() + b"\n\n"
            for event in events
        )
        + end
    )


def script(provider: str, case: str, *, stream: bool) -> Script:
    if case == "error":
        return answers(json.dumps(WHOLE[provider]["error"]).encode(), 400)
    return (
        streams(sse(provider, STREAMED[provider][case]))
        if stream
        else answers(json.dumps(WHOLE[provider][case]).encode())
    )


def request(client: str, case: str, model: str, *, stream: bool) -> tuple[str, dict[str, Any]]:
    asked = ASKS[client]["text" if case == "error" else case]
    path = CLIENTS[client]
    if client == "gemini":
        path = path.replace("MODEL", model)
        return (path.replace(":generate", ":streamGenerate") + "?alt=sse" if stream else path), asked
    return path, {"model": model, **asked, **({"stream": True} if stream else {})}


CASES = [(case, stream) for case in ("text", "tools", "error") for stream in (False, True)]


async def played(client: str, provider: str) -> str:
    """The whole file of one pair."""
    name = PROVIDERS[provider]
    sections: list[str] = []
    for case, stream in CASES:
        path, asked = request(client, case, f"{name}/m", stream=stream)
        async with whole(script(provider, case, stream=stream), clock=FixedClock(), random=FixedRandom()) as here:
            reply = await here.client.post(path, json=asked)
            [up] = here.asked
            dropped = reply.headers.get("x-tidegate-dropped")
            [record] = [entry.call for entry in here.entries()]
            if case != "error":
                assert (record.outcome, record.input_tokens, record.output_tokens) == ("ok", 20, 9), record
                assert record.cache_read_input_tokens == 8
                assert record.finish_reason == ("stop" if case == "text" else "tool_calls")
            assert not any(secret in reply.text for secret in SECRETS.values())
        title = f"{case}, streamed" if stream else case
        lost = f"x-tidegate-dropped: {dropped}\n" if dropped else ""
        sections.append(f"===== {title}\n{_sent(up)}\n----- {reply.status_code}\n{lost}{_shown(reply.text)}")
    return "\n".join(sections) + "\n"


def _sent(asked: Asked) -> str:
    return f"{asked.line.removesuffix(' HTTP/1.1')}\n{_pretty(asked.body)}"


def _shown(text: str) -> str:
    return _pretty(text.encode()) if text.startswith("{") else text.rstrip("\n")


def _pretty(body: bytes) -> str:
    return msgspec.json.format(body, indent=2).decode()


pairs = pytest.mark.parametrize(("client", "provider"), [(one, other) for one in CLIENTS for other in PROVIDERS])


@pairs
async def test_a_pair(client: str, provider: str) -> None:
    found = await played(client, provider)
    path = FOLDER / f"{client}-{provider}.txt"
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(found, "utf-8")
    assert found == path.read_text("utf-8")


@pytest.mark.parametrize("dialect", CLIENTS)
@pytest.mark.parametrize("case", ["text", "tools"])
async def test_of_one_dialect_bytes_pass_through(dialect: str, case: str) -> None:
    """Up but for the model's name, and down as they are, whole and streamed."""
    name = PROVIDERS[dialect]
    for stream in (False, True):
        path, asked = request(dialect, case, f"{name}/m", stream=stream)
        async with whole(script(dialect, case, stream=stream)) as here:
            more = {"stream_options": {"include_usage": True}} if dialect == "chat" and stream else {}
            reply = await here.client.post(path, json={**asked, **more})
            expected = {**asked, **more, **({} if dialect == "gemini" else {"model": "m"})}
            assert here.asked[0].body == msgspec.json.encode(expected)
            given = sse(dialect, STREAMED[dialect][case]) if stream else json.dumps(WHOLE[dialect][case]).encode()
            assert [data_of(event) for event in EventSplitter().feed(reply.content)] == [
                data_of(event) for event in EventSplitter().feed(given)
            ]
            assert stream or reply.content == given
