"""Streams of ConverseStream, read into canonical events. The usage comes last, after the reason to stop."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tidegate.core import chat
from tidegate.core.errors import UpstreamError, UpstreamProtocol, UpstreamRejected
from tidegate.dialects.bedrock.answer import SEAL, Tier, ToolUse, WireUsage, decode, finish_in, usage_in
from tidegate.dialects.bedrock.eventstream import parse

STATUS = {
    "throttlingException": 429,
    "validationException": 400,
    "accessDeniedException": 403,
    "serviceUnavailableException": 503,
    "internalServerException": 500,
}
"""What an exception inside a stream would have been as a status (ConverseStreamOutput, API reference, 2026-11)."""


class ToolInput(msgspec.Struct):
    """More of the JSON text of a call's input."""

    input: str = ""


class ReasoningDelta(msgspec.Struct, rename="camel"):
    """More reasoning: one of the three."""

    text: str = ""
    signature: str | None = None
    redacted_content: str | None = None


class Delta(msgspec.Struct, rename="camel"):
    """What a block grows by."""

    text: str | None = None
    tool_use: ToolInput | None = None
    reasoning_content: ReasoningDelta | None = None


class Start(msgspec.Struct, rename="camel"):
    """What kind of block begins, where that must be said."""

    tool_use: ToolUse | None = None


class StreamEvent(msgspec.Struct, rename="camel"):
    """The payload of an event, whatever its type."""

    content_block_index: int = 0
    start: Start | None = None
    delta: Delta | None = None
    stop_reason: str | None = None
    usage: WireUsage | None = None
    service_tier: Tier | None = None


class _Call(msgspec.Struct):
    """A tool call whose block is open."""

    index: int
    written: bool = False


_event = msgspec.json.Decoder(StreamEvent)


class EventsIn:
    """Bedrock's frames → canonical events. Implements dialect.EventsIn."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        """Those that are open, by the index of their block."""
        self._called = 0
        self._stopped = False

    def read(self, event: bytes) -> Sequence[chat.Event]:
        """The canonical events that one frame means. Raises UpstreamError for an exception or garbage in it."""
        headers, payload = parse(event)
        if headers.get(":message-type") != "event":
            raise _reported(headers)
        match headers.get(":event-type"):
            case "contentBlockDelta":
                return self._delta(decode(_event, payload))
            case "contentBlockStart":
                return self._block(decode(_event, payload))
            case "contentBlockStop":
                return self._block_ends(decode(_event, payload).content_block_index)
            case "messageStart":
                return (chat.Started("", ""),)
            case "messageStop":
                reason = decode(_event, payload).stop_reason
                self._stopped = reason is not None
                return () if reason is None else (chat.Finished(finish_in(reason)),)
            case "metadata":
                said = decode(_event, payload)
                usage = usage_in(said.usage, said.service_tier)
                counts = () if usage is None else (chat.UsageReported(usage),)
                return (*counts, chat.Ended()) if self._stopped else counts
        return ()

    def _delta(self, said: StreamEvent) -> Sequence[chat.Event]:
        delta = said.delta
        if delta is None:
            return ()
        if delta.text:
            return (chat.TextDelta(delta.text),)
        if delta.tool_use is not None and delta.tool_use.input:
            call = self._calls.get(said.content_block_index)
            if call is None:
                raise UpstreamProtocol("the provider streamed the input of a tool call that it had not begun")
            call.written = True
            return (chat.ToolCallDelta(call.index, delta.tool_use.input),)
        return _thought(delta.reasoning_content) if delta.reasoning_content is not None else ()

    def _block(self, said: StreamEvent) -> Sequence[chat.Event]:
        use = said.start.tool_use if said.start is not None else None
        if use is None:
            return ()
        call = self._calls[said.content_block_index] = _Call(self._called)
        self._called += 1
        return (chat.ToolCallStarted(call.index, use.tool_use_id, use.name),)

    def _block_ends(self, index: int) -> Sequence[chat.Event]:
        """A call without arguments has no piece of input at all."""
        call = self._calls.pop(index, None)
        return () if call is None or call.written else (chat.ToolCallDelta(call.index, "{}"),)


def _thought(reasoning: ReasoningDelta) -> Sequence[chat.Event]:
    if reasoning.redacted_content is not None:
        return (chat.ThinkingDelta(redacted=SEAL + reasoning.redacted_content),)
    if reasoning.signature:
        return (chat.ThinkingDelta(signature=SEAL + reasoning.signature),)
    return (chat.ThinkingDelta(reasoning.text),) if reasoning.text else ()


def _reported(headers: dict[str, str]) -> UpstreamError:
    """An exception inside the stream. Only its name is told: the message may quote what must not be shown."""
    name = headers.get(":exception-type") or headers.get(":error-code") or ""
    said = f"the provider reported {name if name.isalnum() and len(name) <= 64 else 'an error'} inside its stream"
    status = STATUS.get(name[:1].lower() + name[1:])
    return UpstreamProtocol(said) if status is None else UpstreamRejected(said, status=status, body=b"")
