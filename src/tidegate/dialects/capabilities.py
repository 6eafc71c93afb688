"""
What comes through between two dialects, found by trying: a small request per feature goes from the client's wire
through the canonical shape to the provider's, and its losses say the rest. No table can disagree with the code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest
from tidegate.dialects.dialect import Dialect, Wire
from tidegate.dialects.fields import encode, read_fields

MODEL = "m"
PNG = "iVBORw0KGgo="
PDF = "JVBERi0="


class Capability(msgspec.Struct, frozen=True):
    """What a client of one dialect can ask of a provider of another."""

    expressed: list[str]
    dropped: dict[str, str]
    """Feature → why the provider's dialect can not say it."""
    rejected: dict[str, str]
    """Feature → why such a request is refused with 400 in any case."""


Capabilities = dict[str, dict[str, Capability]]
"""Client's dialect → provider's dialect → what comes through."""


def _asks(*said: chat.Part, role: chat.Role = "user", **fields: Any) -> chat.Request:
    message = chat.Message(role, said or (chat.Text("Hi"),))
    return chat.Request(messages=(message,), **{"max_output_tokens": 8_192, **fields})


def _history(*messages: chat.Message, **fields: Any) -> chat.Request:
    first = chat.Message("user", (chat.Text("Hi"),))
    return chat.Request(messages=(first, *messages), max_output_tokens=8_192, **fields)


_HI = chat.Text("Hi")
_SYSTEM = chat.Message("system", (chat.Text("Be brief."),))
_TOOL = chat.Tool("find", "Finds it", {"type": "object", "properties": {"what": {"type": "string"}}})
_CALL = chat.Message("assistant", (chat.ToolCall("call_1", "find", '{"what":"it"}'),))
_SCHEMA = {"type": "object", "properties": {"found": {"type": "boolean"}}}


def _result(*parts: chat.Text | chat.Image, is_error: bool = False) -> chat.Request:
    result = chat.ToolResult("call_1", parts, is_error)
    return _history(_CALL, chat.Message("tool", (result,)), tools=(_TOOL,))


FEATURES: Mapping[str, chat.Request] = {
    "text": _asks(),
    "system": chat.Request((_SYSTEM, *_asks().messages), max_output_tokens=8_192),
    "system_amid_conversation": _history(_SYSTEM, *_asks().messages),
    "message_names": chat.Request((chat.Message("user", (chat.Text("Hi"),), "ann"),), max_output_tokens=64),
    "image_data": _asks(_HI, chat.Image(data=PNG, media_type="image/png")),
    "image_url": _asks(_HI, chat.Image(url="https://example.com/a.png")),
    "image_detail": _asks(_HI, chat.Image(data=PNG, media_type="image/png", detail="low")),
    "file_data": _asks(_HI, chat.File(data=PDF, media_type="application/pdf")),
    "file_url": _asks(_HI, chat.File(url="https://example.com/a.pdf")),
    "file_id": _asks(_HI, chat.File(id="file-1")),
    "file_names": _asks(_HI, chat.File(data=PDF, media_type="application/pdf", name="a.pdf")),
    "audio": _asks(_HI, chat.Audio("UklGRg==", "wav")),
    "cache_points": _asks(chat.Text("Hi", cache_after=True)),
    "tools": _asks(tools=(_TOOL,)),
    "strict_tools": _asks(tools=(msgspec.structs.replace(_TOOL, strict=True),)),
    "tool_choice_none": _asks(tools=(_TOOL,), tool_choice=chat.ToolChoice("none")),
    "tool_choice_required": _asks(tools=(_TOOL,), tool_choice=chat.ToolChoice("required")),
    "tool_choice_one": _asks(tools=(_TOOL,), tool_choice=chat.ToolChoice("tool", "find")),
    "one_tool_call_at_a_time": _asks(tools=(_TOOL,), parallel_tool_calls=False),
    "tool_results": _result(chat.Text("here")),
    "tool_result_images": _result(chat.Image(data=PNG, media_type="image/png")),
    "tool_errors": _result(chat.Text("no such thing"), is_error=True),
    "json": _asks(format=chat.Format("json")),
    "json_schema": _asks(format=chat.Format("schema", _SCHEMA)),
    "no_output_bound": _asks(max_output_tokens=None),
    "temperature": _asks(temperature=0.5),
    "temperature_above_1": _asks(temperature=1.5),
    "top_p": _asks(top_p=0.9),
    "top_k": _asks(top_k=40),
    "stop": _asks(stop=("END",)),
    "seed": _asks(seed=7),
    "presence_penalty": _asks(presence_penalty=0.5),
    "frequency_penalty": _asks(frequency_penalty=0.5),
    "several_answers": _asks(count=2),
    "logprobs": _asks(logprobs=2),
    "reasoning_effort": _asks(reasoning_effort="high"),
    "reasoning_tokens": _asks(reasoning_tokens=2_048),
    "end_user": _asks(user="u-1"),
}
OTHER_FIELDS = "fields_of_its_own"
"""What only the client's dialect knows."""


@cache
def capabilities(clients: Sequence[Dialect], targets: Sequence[Wire]) -> Capabilities:
    """Of every client with every target (both tuples). Some 10 ms the first time."""
    return {client.name: {target.name: _pair(client, target) for target in targets} for client in clients}


def _pair(client: Dialect, target: Wire) -> Capability:
    found = Capability([], {}, {})
    for name, body in _said(client).items():
        if client is target:
            found.expressed.append(name)
            continue
        try:
            losses = _losses(client, target, body)
        except InvalidRequest as error:
            found.rejected[name] = str(error)
            continue
        if essential := [loss.why for loss in losses if loss.essential]:
            found.rejected[name] = essential[0]
        elif losses:
            found.dropped[name] = losses[0].why
        else:
            found.expressed.append(name)
    return found


def _said(client: Dialect) -> dict[str, bytes]:
    """The features that a client of this dialect can say at all, said."""
    said: dict[str, bytes] = {}
    for name, request in FEATURES.items():
        try:
            body, losses = client.request_out(request, model=MODEL, stream=False, native=True)
        except InvalidRequest:
            continue
        if not losses:
            said[name] = body
    said[OTHER_FIELDS] = encode({**read_fields(said["text"]), "a_field_of_its_own": 1})
    return said


def _losses(client: Dialect, target: Wire, body: bytes) -> list[chat.Loss]:
    request = client.request_in(client.parse_request(body, model=MODEL, stream=False))
    _, losses = target.request_out(request, model=MODEL, stream=False, native=True)
    return [*request.losses, *losses]
