"""Gemini requests: passed through. Model and stream stand in the URL."""

from __future__ import annotations

import re

from tidegate.core.errors import InvalidRequest
from tidegate.dialects.dialect import Incoming
from tidegate.dialects.fields import OWN_KEYS, encode, read_fields, value

_NOT_SHAPING = frozenset({"model", "contents", "labels", "store", "safetySettings", "safety_settings", *OWN_KEYS})
_DATA = re.compile(r'("data"\s*:\s*")([A-Za-z0-9+/=_-]{64,})"')


def parse_request(body: bytes, *, model: str | None, stream: bool | None) -> Incoming:
    """The top level of a request; its own `model`, which the URL overrules, never counts. Raises InvalidRequest."""
    fields = read_fields(body)
    name = (model or "").removeprefix("models/")
    if not name:
        raise InvalidRequest("the URL names no model: a route, provider/model, or prompt:NAME.", param="model")
    variables = value(fields, "variables", dict, "an object")
    return Incoming(fields=fields, model=name, stream=bool(stream), variables=variables)


def same_body(incoming: Incoming) -> bytes:
    """The request as a provider of this dialect gets it; every value keeps its bytes."""
    return encode({key: raw for key, raw in incoming.fields.items() if key not in ("model", *OWN_KEYS)})


def system_bytes(incoming: Incoming) -> bytes:
    """What shapes an answer besides the conversation: system instruction, tools and configuration, as they came."""
    fields = incoming.fields
    return b"\n".join([key.encode() + b"=" + bytes(fields[key]) for key in sorted(fields.keys() - _NOT_SHAPING)])


def input_text(incoming: Incoming) -> str:
    """The conversation as JSON text, the system instruction as its first message; of data only the length."""
    fields = incoming.fields
    contents = bytes(fields.get("contents", b"[]")).decode()
    system = fields.get("systemInstruction", fields.get("system_instruction"))
    if system is not None:
        first = f'{{"role":"system","content":{bytes(system).decode()}}}'
        following = contents.lstrip().removeprefix("[").lstrip()
        contents = f"[{first}{'' if following.startswith(']') else ','}{following}"
    return _DATA.sub(lambda found: f'{found[1]}[{len(found[2]):,} characters left out]"', contents)
