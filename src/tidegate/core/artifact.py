"""
The artifact: everything that makes the "model" a product ships, and its identity.

An artifact is a value. Its digest is the sha256 of its RFC 8785 canonical JSON, so that the same content has the same
digest on every machine. A field that has its default value is left out of the canonical form: writing a default down,
or a later tidegate that knows more fields, never changes a digest (docs/design/0002-digest.md).
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
import rfc8785

from tidegate.core.errors import BadInput

Role = Literal["system", "developer", "user", "assistant"]
InputType = Literal["string", "number", "boolean", "enum", "list", "object", "image"]

PARAMS = ("temperature", "top_p", "max_output_tokens", "stop", "seed", "presence_penalty", "frequency_penalty")
OVERRIDABLE = (
    *PARAMS,
    *(
        "n",
        "logit_bias",
        "reasoning_effort",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "system",
    ),
)
"""What a prompt may leave to its clients; `system` is a system or developer message after the prompt's."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message template: `content` is MiniJinja source until it is rendered."""

    role: Role
    content: str


class Input(msgspec.Struct, frozen=True, omit_defaults=True):
    """A declared variable of the templates."""

    type: InputType = "string"
    values: tuple[str, ...] = ()
    """The allowed values of an `enum`."""
    max_chars: int | None = None
    """Of a string; of a list or an object as JSON."""
    max_tokens: int | None = None
    """Likewise, in tokens as `core.usage.estimate_tokens` guesses them: a bound on size, not a provider's count."""
    required: bool = True
    default: Any = None
    """The value of an input that is not given; an input with a default is not required."""


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a live answer must be: any text, any JSON, or JSON valid under `schema`."""

    format: Literal["text", "json", "schema"] = "text"
    schema: dict[str, Any] | None = None
    constrain: bool = False
    """The provider is asked to keep to `schema` too; the answer is validated either way."""


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class Artifact(msgspec.Struct, frozen=True, omit_defaults=True):
    """Message templates, model, params, inputs, output, tools and retrieval: what one digest stands for."""

    messages: tuple[Message, ...]
    model: str
    """`provider/model`, or the name of a route."""
    params: dict[str, Any] = {}
    """Sampling parameters, in the names of PARAMS."""
    inputs: dict[str, Input] = {}
    output: Output = Output()
    tools: tuple[Tool, ...] = ()
    retrieval: dict[str, Any] | None = None
    """Opaque to tidegate; versioned with the prompt and served to the application."""
    fallbacks: tuple[str, ...] = ()
    """Tried after `model`, in order, each as `model` is written."""
    overridable: tuple[str, ...] = ()
    """What a client may decide for a call, sorted: names of OVERRIDABLE."""


def canonical(artifact: Artifact) -> bytes:
    """RFC 8785 canonical JSON of an artifact, defaults left out. Raises BadInput on numbers JSON can not carry."""
    try:
        return rfc8785.dumps(_without_defaults(artifact))
    except rfc8785.CanonicalizationError as error:
        raise BadInput(f"the artifact can not be written as canonical JSON: {error}") from error


def _without_defaults(value: Any) -> Any:
    """Plain values. By equality: msgspec's `omit_defaults` knows a default by identity, so a parsed `text` is none."""
    if isinstance(value, msgspec.Struct):
        fields = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
        return {field.encode_name: _without_defaults(item) for field, item in fields if item != _default(field)}
    if isinstance(value, list | tuple):
        return [_without_defaults(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_defaults(item) for key, item in value.items()}
    return value


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def digest(artifact: Artifact) -> str:
    """64 hex digits: sha256 of the canonical form. People see the first 12 (`short`)."""
    return hashlib.sha256(canonical(artifact)).hexdigest()


def short(digest: str) -> str:
    """The 12 hex digits shown to people."""
    return digest[:12]


def from_canonical(body: bytes | str) -> Artifact:
    """The artifact that `canonical` wrote. Raises BadInput when the bytes are not one."""
    try:
        return msgspec.json.decode(body, type=Artifact)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"not a stored artifact: {error}") from error
