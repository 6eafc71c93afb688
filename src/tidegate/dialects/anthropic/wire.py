"""What Anthropic sends: blocks, deltas, usage, stop reasons; shared by whole answers and by streams."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from tidegate.core import chat
from tidegate.core.errors import UpstreamProtocol
from tidegate.core.usage import Usage, counted
from tidegate.dialects import loosely

FINISH: dict[str, chat.FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}
STOP_REASON: dict[chat.FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
}

_error_type = re.compile(r"[a-z_]{1,64}")


class CacheCreation(msgspec.Struct):
    """Written cache tokens by how long they are kept."""

    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    """A part of the output tokens."""

    thinking_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """Usage as Anthropic counts: `input_tokens` without what the cache read or wrote."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputDetails | None = None
    server_tool_use: dict[str, Any] | None = None
    service_tier: str | None = None
    speed: str | None = None

    def update(self, later: WireUsage) -> None:
        """Takes over what `later` says: its counts are running totals, and what it leaves out stands."""
        for field in self.__struct_fields__:
            if (count := getattr(later, field)) is not None:
                setattr(self, field, count)


class Block(msgspec.Struct):
    """A content block of a known type; the fields of all of them together."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"")
    thinking: str = ""
    signature: str | None = None
    data: str = ""


class StopDetails(msgspec.Struct):
    """Why the model declined."""

    explanation: str | None = None


class ErrorDetail(msgspec.Struct):
    """The inside of an error."""

    type: str = ""


class Message(msgspec.Struct):
    """A whole answer, or the empty one that begins a stream."""

    type: str = "message"
    id: str = ""
    model: str = ""
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: WireUsage | None = None
    error: ErrorDetail | None = None


class Delta(msgspec.Struct):
    """What a content_block_delta or a message_delta adds."""

    type: str = ""
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class StreamEvent(msgspec.Struct):
    """One event of a stream, whatever its type."""

    type: str
    index: int = 0
    message: Message | None = None
    content_block: msgspec.Raw = msgspec.Raw(b"")
    delta: Delta | None = None
    usage: WireUsage | None = None
    error: ErrorDetail | None = None


class _Type(msgspec.Struct):
    type: str


BLOCK_TYPES = frozenset({"text", "tool_use", "thinking", "redacted_thinking"})
message_decoder = msgspec.json.Decoder(Message)
event_decoder = msgspec.json.Decoder(StreamEvent)
_type_decoder = msgspec.json.Decoder(_Type)
_block_decoder = msgspec.json.Decoder(Block)
T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """`body` by `decoder`, also where a look-alike says it a little differently. Raises UpstreamProtocol."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return loosely.read(body, decoder.type, "an Anthropic message")


def known_block(raw: msgspec.Raw) -> Block | None:
    """A block that the canonical shape can hold; None for Anthropic's own (web searches, code runs …)."""
    body = bytes(raw)
    return decode(_block_decoder, body) if decode(_type_decoder, body).type in BLOCK_TYPES else None


def reported(error: ErrorDetail | None) -> UpstreamProtocol:
    """An error inside a 200. Only its type is told: the message may quote what must not be shown."""
    kind = error.type if error is not None and _error_type.fullmatch(error.type) else "an error"
    return UpstreamProtocol(f"the provider reported {kind} inside its answer")


def usage_in(usage: WireUsage | None) -> Usage | None:
    """Usage in our arithmetic: input includes the cached part. None when the provider did not count both ways."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    split = usage.cache_creation or CacheCreation()
    long = counted(split.ephemeral_1h_input_tokens)
    read = counted(usage.cache_read_input_tokens)
    written = usage.cache_creation_input_tokens
    write = counted(written) if written is not None else long + counted(split.ephemeral_5m_input_tokens)
    output = counted(usage.output_tokens)
    requests = (usage.server_tool_use or {}).values()
    return Usage(
        input_tokens=counted(usage.input_tokens) + read + write,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_write_input_tokens=write,
        cache_write_1h_input_tokens=min(long, write),
        reasoning_output_tokens=min(counted((usage.output_tokens_details or OutputDetails()).thinking_tokens), output),
        server_tool_requests=sum(counted(count) for count in requests if isinstance(count, int)),
        service_tier=usage.service_tier if usage.speed in (None, "standard") else usage.speed,
    )


def usage_out(usage: Usage) -> dict[str, Any]:
    """Usage as Anthropic counts it."""
    read, write = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    counts: dict[str, Any] = {
        "input_tokens": max(usage.input_tokens - read - write, 0),
        "cache_creation_input_tokens": write,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens,
    }
    if write:
        long = min(usage.cache_write_1h_input_tokens, write)
        counts["cache_creation"] = {"ephemeral_5m_input_tokens": write - long, "ephemeral_1h_input_tokens": long}
    if usage.reasoning_output_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_output_tokens}
    return counts
