"""Requests: passed through, with the prompt they may call."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.core.errors import InvalidRequest
from tidegate.dialects import bounds
from tidegate.dialects.dialect import Incoming
from tidegate.dialects.fields import OWN_KEYS, encode, read_fields, value

_BOUNDS = {"tools": bounds.MAX_TOOLS, "top_logprobs": bounds.MAX_LOGPROBS}
LONGEST_VERSION = 5
"""Digits of a version's number; a longer row of digits is a digest's beginning."""
_NOT_SHAPING = frozenset(
    {
        *("model", "input", "prompt", "variables", "stream", "stream_options", "metadata", "user", "safety_identifier"),
        *("store", "background", "conversation", "previous_response_id", "prompt_cache_key", "include"),
    }
)


class _VariablePart(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: str | None = None


class _Prompt(msgspec.Struct):
    id: str
    version: str | int | None = None
    variables: dict[str, Any] | None = None


def parse_request(body: bytes) -> Incoming:
    """
    Reads the top level of a request. Raises InvalidRequest, naming the field.

    OpenAI's own way to call a stored prompt, `prompt: {id, version, variables}`, is tidegate's `prompt:ID@VERSION`.
    """
    fields = read_fields(body)
    bounds.check(fields, _BOUNDS)
    model = value(fields, "model", str, "a string")
    variables = value(fields, "variables", dict[str, Any], "an object")
    prompt = value(fields, "prompt", _Prompt, "an object with an id")
    if prompt is not None:
        if model:
            raise InvalidRequest("the prompt decides the model; leave it out.", param="model")
        if variables is not None:
            raise InvalidRequest("the variables of `prompt` stand in prompt.variables.", param="variables")
        model, variables = _prompt_name(prompt), _prompt_variables(prompt)
    if not model:
        raise InvalidRequest("model is missing: the name of a route, provider/model, or prompt:NAME.", param="model")
    stream = bool(value(fields, "stream", bool, "true or false"))
    return Incoming(fields=fields, model=model, stream=stream, variables=variables)


def _prompt_name(prompt: _Prompt) -> str:
    if not prompt.id or "@" in prompt.id:
        raise InvalidRequest("prompt.id must be the name of a prompt, without its version.", param="prompt.id")
    version = "" if prompt.version is None else str(prompt.version)
    if version.isascii() and version.isdecimal() and len(version) <= LONGEST_VERSION:
        version = f"v{version}"
    return f"prompt:{prompt.id}@{version}" if version else f"prompt:{prompt.id}"


def _prompt_variables(prompt: _Prompt) -> dict[str, Any] | None:
    if prompt.variables is None:
        return None
    return {name: _variable(name, given) for name, given in prompt.variables.items()}


def _variable(name: str, given: Any) -> Any:
    """A variable may be written as an input part; any other object is a value of its own."""
    if not isinstance(given, dict) or not str(given.get("type", "")).startswith("input_"):
        return given
    place = f"prompt.variables.{name}"
    try:
        part = msgspec.convert(given, _VariablePart)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{place} is not an input part: {error}.", param=place) from error
    if part.type == "input_text" and part.text is not None:
        return part.text
    if part.type == "input_image" and part.image_url is not None:
        return part.image_url
    raise InvalidRequest(f"{place} must be a text, or an image by its image_url.", param=place)


def same_body(incoming: Incoming, *, model: str) -> bytes:
    """The request as a provider of this dialect gets it; every value that need not change keeps its bytes."""
    changed = dict(incoming.fields)
    for key in (*OWN_KEYS, "prompt"):
        changed.pop(key, None)
    changed["model"] = msgspec.Raw(encode(model))
    return encode(changed)


def system_bytes(incoming: Incoming) -> bytes:
    """What shapes an answer besides the conversation: instructions, tools, params, and the system messages."""
    fields = incoming.fields
    rest = [key.encode() + b"=" + bytes(fields[key]) for key in sorted(fields.keys() - _NOT_SHAPING)]
    return b"\n".join([*rest, *_system_contents(incoming)])


class _Role(msgspec.Struct):
    role: Any = None
    content: msgspec.Raw = msgspec.Raw(b"")


def _system_contents(incoming: Incoming) -> list[bytes]:
    given = value(incoming.fields, "input", str | list[_Role], "a string or a list of items")
    items = given if isinstance(given, list) else []
    return [bytes(item.content) for item in items if item.role in ("system", "developer")]


def input_text(incoming: Incoming) -> str:
    """The conversation as JSON text, for the record."""
    return str(incoming.fields["input"], "utf-8") if "input" in incoming.fields else "[]"
