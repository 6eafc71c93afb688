"""Gemini requests: passed through. Model and stream stand in the URL."""

from __future__ import annotations

import re

from tidegate.core.errors import InvalidRequest
from tidegate.dialects import bounds
from tidegate.dialects.dialect import Fields, Incoming
from tidegate.dialects.fields import OWN_KEYS, encode, read_fields, value

_NOT_SHAPING = frozenset({"model", "contents", "labels", "store", "safetySettings", "safety_settings", *OWN_KEYS})
_TOOLS = dict.fromkeys(("functionDeclarations", "function_declarations"), bounds.MAX_TOOLS)
_CONFIG = {
    **dict.fromkeys(("candidateCount", "candidate_count"), bounds.MAX_ANSWERS),
    **dict.fromkeys(("stopSequences", "stop_sequences"), bounds.MAX_STOPS),
    "logprobs": bounds.MAX_LOGPROBS,
}
_DATA = re.compile(r'("data"\s*:\s*")([A-Za-z0-9+/=_-]{64,})"')


def parse_request(body: bytes, *, model: str | None, stream: bool | None) -> Incoming:
    """The top level of a request; its own `model`, which the URL overrules, never counts. Raises InvalidRequest."""
    fields = read_fields(body)
    _check_bounds(fields)
    name = (model or "").removeprefix("models/")
    if not name:
        raise InvalidRequest("the URL names no model: a route, provider/model, or prompt:NAME.", param="model")
    variables = value(fields, "variables", dict, "an object")
    return Incoming(fields=fields, model=name, stream=bool(stream), variables=variables)


def _check_bounds(fields: Fields) -> None:
    bounds.check(fields, {"tools": bounds.MAX_TOOLS})
    for tool in value(fields, "tools", list[Fields], "a list of objects") or []:
        bounds.check(tool, _TOOLS, "tools[].")
    for key in ("generationConfig", "generation_config"):
        bounds.check(value(fields, key, Fields, "an object") or {}, _CONFIG, f"{key}.")


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
    contents = str(fields.get("contents", b"[]"), "utf-8")
    system = fields.get("systemInstruction", fields.get("system_instruction"))
    if system is not None:
        first = f'{{"role":"system","content":{bytes(system).decode()}}}'
        following = contents.lstrip().removeprefix("[").lstrip()
        contents = f"[{first}{'' if following.startswith(']') else ','}{following}"
    return _DATA.sub(lambda found: f'{found[1]}[{len(found[2]):,} characters left out]"', contents)
