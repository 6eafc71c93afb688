"""What Bedrock answers: blocks, usage, reasons to stop; whole answers read into the canonical shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from tidegate.core import chat
from tidegate.core.errors import UpstreamProtocol
from tidegate.core.usage import Usage, counted
from tidegate.dialects import loosely
from tidegate.dialects.fields import arguments

SEAL = "bedrock:"
"""Stands before a signature that came through Bedrock: whose it is, only the model that is asked next can tell."""
NO_RAW = msgspec.Raw(b"")
FINISH: dict[str, chat.FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "refusal": "refusal",
}
MALFORMED = ("malformed_model_output", "malformed_tool_use")
"""The model wrote what nobody can read: there is no answer, and a retry may help."""


class ToolUse(msgspec.Struct, rename="camel"):
    """The model asks for a function."""

    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = NO_RAW


class ReasoningText(msgspec.Struct):
    """Words of reasoning, and what lets the model take them back."""

    text: str = ""
    signature: str | None = None


class Reasoning(msgspec.Struct, rename="camel"):
    """A block of reasoning: one of the two."""

    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class Cited(msgspec.Struct):
    """A piece of text that has sources."""

    text: str = ""


class Citations(msgspec.Struct):
    """Text with sources."""

    content: list[Cited] = []


class Block(msgspec.Struct, rename="camel"):
    """One block; of the kinds one is set, or none that we know."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: Reasoning | None = None
    citations_content: Citations | None = None


class Message(msgspec.Struct):
    """The model's turn."""

    content: list[Block] = []


class Output(msgspec.Struct):
    """Around it."""

    message: Message | None = None


class CacheDetail(msgspec.Struct, rename="camel"):
    """Tokens written to the cache, by how long they are kept."""

    input_tokens: int | None = None
    ttl: str = ""


class WireUsage(msgspec.Struct, rename="camel"):
    """Usage as Bedrock counts: `inputTokens` without what the cache read or wrote."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: list[CacheDetail] | None = None


class Tier(msgspec.Struct):
    """What the call was served as."""

    type: str | None = None


class Converse(msgspec.Struct, rename="camel"):
    """A whole answer."""

    output: Output | None = None
    stop_reason: str | None = None
    usage: WireUsage | None = None
    service_tier: Tier | None = None


T = TypeVar("T")
_whole = msgspec.json.Decoder(Converse)


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """`body` by `decoder`. Raises UpstreamProtocol."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return loosely.read(body, decoder.type, "one of Bedrock's Converse")


def answer_in(body: bytes) -> chat.Response:
    """A whole answer in the canonical shape. Raises UpstreamProtocol."""
    whole = decode(_whole, body)
    if whole.output is None or whole.output.message is None:
        raise UpstreamProtocol("the provider answered 200 without a message")
    parts = tuple(part for block in whole.output.message.content for part in _parts_in(block))
    return chat.Response(
        id="",
        model="",
        choices=(chat.Choice(parts, None if whole.stop_reason is None else finish_in(whole.stop_reason)),),
        usage=usage_in(whole.usage, whole.service_tier),
    )


def finish_in(stop_reason: str) -> chat.FinishReason:
    """Raises UpstreamProtocol when it means that there is no answer."""
    if stop_reason in MALFORMED:
        raise UpstreamProtocol(f"the provider stopped with {stop_reason}: the model's answer can not be read")
    return FINISH.get(stop_reason, "stop")


def usage_in(usage: WireUsage | None, tier: Tier | None) -> Usage | None:
    """Usage in our arithmetic: input includes the cached part. None when nothing was counted."""
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    read, written = counted(usage.cache_read_input_tokens), counted(usage.cache_write_input_tokens)
    long = sum(counted(detail.input_tokens) for detail in usage.cache_details or () if detail.ttl == "1h")
    return Usage(
        input_tokens=counted(usage.input_tokens) + read + written,
        output_tokens=counted(usage.output_tokens),
        cache_read_input_tokens=read,
        cache_write_input_tokens=written,
        cache_write_1h_input_tokens=min(long, written),
        service_tier=None if tier is None else tier.type,
    )


def _parts_in(block: Block) -> Iterator[chat.Part]:
    if block.text:
        yield chat.Text(block.text)
    if block.citations_content is not None:
        text = "".join(cited.text for cited in block.citations_content.content)
        if text:
            yield chat.Text(text)
    if block.tool_use is not None:
        use = block.tool_use
        yield chat.ToolCall(use.tool_use_id, use.name, arguments(use.input))
    if block.reasoning_content is not None:
        yield from _thinking_in(block.reasoning_content)


def _thinking_in(reasoning: Reasoning) -> Iterator[chat.Thinking]:
    if reasoning.redacted_content is not None:
        yield chat.Thinking(redacted=SEAL + reasoning.redacted_content)
    elif (said := reasoning.reasoning_text) is not None:
        yield chat.Thinking(said.text, SEAL + said.signature if said.signature else None)
