"""Streams: followed for the record, read into canonical events, written from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from tidegate.core import chat
from tidegate.core.errors import UpstreamProtocol
from tidegate.core.usage import Usage
from tidegate.dialects.anthropic import wire
from tidegate.dialects.anthropic.answer import stop_reason
from tidegate.dialects.anthropic.request_out import tool_id
from tidegate.dialects.dialect import Answer, Seen
from tidegate.dialects.fields import arguments, encode
from tidegate.dialects.sse import data_of

_Content = (
    chat.TextDelta | chat.ThinkingDelta | chat.RefusalDelta | chat.ToolCallStarted | chat.ToolCallDelta | chat.Finished
)

END = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class Reader:
    """Follows a stream that passes through. Implements dialect.StreamReader."""

    def __init__(self) -> None:
        self.done = False
        self._answer = Answer()
        self._usage = wire.WireUsage()
        self._texts: list[str] = []

    def read(self, event: bytes) -> Seen:
        """Takes in one event. Raises UpstreamProtocol for an error or garbage in it."""
        data = data_of(event)
        if data is None:
            return _META
        said = _event(data)
        match said.type:
            case "content_block_delta":
                if said.delta is not None:
                    self._texts.append(said.delta.text)
                    self._answer.unseen_chars += len(said.delta.thinking) + len(said.delta.partial_json)
                return _CONTENT
            case "content_block_start":
                return self._block(said)
            case "message_start" if said.message is not None:
                self._answer.model = said.message.model or None
                self._count(said.message.usage)
            case "message_delta":
                if said.delta is not None and said.delta.stop_reason is not None:
                    self._answer.finish_reason = wire.FINISH.get(said.delta.stop_reason, "stop")
                self._count(said.usage)
            case "message_stop":
                self.done = True
        return _META

    def finish(self) -> Answer:
        """The answer so far; also of a stream that broke."""
        self._answer.text = "".join(self._texts)
        self._answer.usage = wire.usage_in(self._usage)
        return self._answer

    def _block(self, said: wire.StreamEvent) -> Seen:
        block = wire.known_block(said.content_block)
        if block is None:
            return _CONTENT
        self._answer.tool_calls = self._answer.tool_calls or block.type == "tool_use"
        if block.type == "text":
            self._texts.append(block.text)
        empty = block.type in ("text", "thinking") and not block.text and not block.thinking
        return _META if empty else _CONTENT

    def _count(self, usage: wire.WireUsage | None) -> None:
        if usage is not None:
            self._usage.update(usage)


class EventsIn:
    """Anthropic's events → canonical events. Implements dialect.EventsIn."""

    def __init__(self) -> None:
        self._usage = wire.WireUsage()
        self._calls: dict[int, _CallIn] = {}
        """The tool calls that are open, by the index of their block."""
        self._called = 0
        self._skipped: set[int] = set()

    def read(self, event: bytes) -> Sequence[chat.Event]:
        """The canonical events that one wire event means. Raises UpstreamProtocol for an error or garbage in it."""
        data = data_of(event)
        if data is None:
            return ()
        said = _event(data)
        match said.type:
            case "content_block_delta":
                return self._delta(said)
            case "content_block_start":
                return self._block(said)
            case "content_block_stop":
                return self._block_ends(said.index)
            case "message_start" if said.message is not None:
                if said.message.usage is not None:
                    self._usage.update(said.message.usage)
                return (chat.Started(said.message.id, said.message.model, wire.usage_in(self._usage)),)
            case "message_delta":
                return self._message_delta(said)
            case "message_stop":
                return (chat.Ended(),)
        return ()

    def _delta(self, said: wire.StreamEvent) -> Sequence[chat.Event]:
        delta = said.delta
        if delta is None or said.index in self._skipped:
            return ()
        match delta.type:
            case "text_delta" if delta.text:
                return (chat.TextDelta(delta.text),)
            case "thinking_delta" if delta.thinking:
                return (chat.ThinkingDelta(delta.thinking),)
            case "signature_delta" if delta.signature:
                return (chat.ThinkingDelta(signature=delta.signature),)
            case "input_json_delta" if delta.partial_json:
                call = self._calls.get(said.index)
                if call is None:
                    raise UpstreamProtocol("the provider streamed the input of a tool call that it had not begun")
                call.written = True
                return (chat.ToolCallDelta(call.index, delta.partial_json),)
        return ()

    def _block(self, said: wire.StreamEvent) -> Sequence[chat.Event]:
        block = wire.known_block(said.content_block)
        if block is None:
            self._skipped.add(said.index)
            return ()
        match block.type:
            case "tool_use":
                call = self._calls[said.index] = _CallIn(self._called, arguments(block.input))
                self._called += 1
                return (chat.ToolCallStarted(call.index, block.id, block.name),)
            case "redacted_thinking":
                return (chat.ThinkingDelta(redacted=block.data),)
            case "thinking":
                begun = chat.ThinkingDelta(block.thinking, block.signature or None)
                return (begun,) if begun.text or begun.signature else ()
        return (chat.TextDelta(block.text),) if block.text else ()

    def _block_ends(self, index: int) -> Sequence[chat.Event]:
        """A call whose input never came in pieces has it in its beginning: `{}`, or whole (some look-alikes)."""
        self._skipped.discard(index)
        call = self._calls.pop(index, None)
        return () if call is None or call.written else (chat.ToolCallDelta(call.index, call.begun_with),)

    def _message_delta(self, said: wire.StreamEvent) -> Sequence[chat.Event]:
        events: list[chat.Event] = []
        delta = said.delta
        if delta is not None and delta.stop_details is not None and delta.stop_details.explanation:
            events.append(chat.RefusalDelta(delta.stop_details.explanation))
        if delta is not None and delta.stop_reason is not None:
            events.append(chat.Finished(wire.FINISH.get(delta.stop_reason, "stop")))
        if said.usage is not None:
            self._usage.update(said.usage)
            if (usage := wire.usage_in(self._usage)) is not None:
                events.append(chat.UsageReported(usage))
        return events


class _CallIn(msgspec.Struct):
    """A tool call whose block is open."""

    index: int
    begun_with: str
    written: bool = False


class EventsOut:
    """
    Canonical events → Anthropic's events. Implements dialect.EventsOut.

    One block is open at a time, as Anthropic has it. Where a provider mixes the pieces of several tool calls, the later
    calls wait until the first is complete. The stop reason goes out with the final usage, when the stream has ended.
    """

    def __init__(self, *, call_id: str, model: str) -> None:
        self._id = f"msg_{call_id}"
        self._model = model
        self._usage = Usage()
        self._started = False
        self._ended = False
        self._next = 0
        self._open: Literal["text", "refusal", "thinking"] | None = None
        self._call: _CallOut | None = None
        self._waiting: dict[int, _CallOut] = {}
        self._called = False
        self._finish: chat.FinishReason | None = None
        self._refused = False

    def write(self, events: Sequence[chat.Event]) -> bytes:
        """The wire events that they mean, in one piece. Raises UpstreamProtocol for a tool call out of turn."""
        return b"".join([self._event(event) for event in events if not self._ended])

    def _event(self, event: chat.Event) -> bytes:
        match event:
            case chat.Started():
                return self._start(event)
            case chat.UsageReported():
                self._usage = event.usage
                return b""
            case chat.Ended():
                return self._end()
        # Anthropic has one answer, the first.
        return self._content(event) if event.choice == 0 else b""

    def _content(self, event: _Content) -> bytes:
        match event:
            case chat.TextDelta():
                return self._text(event.text, "text")
            case chat.ToolCallDelta():
                return self._call_delta(event)
            case chat.ThinkingDelta():
                return self._thinking(event)
            case chat.ToolCallStarted():
                return self._call_started(event)
            case chat.RefusalDelta():
                self._refused = True
                return self._text(event.text, "refusal")
            case chat.Finished():
                self._finish = event.reason
                return self._close()

    def _start(self, event: chat.Started | None) -> bytes:
        """Exactly one message_start; a provider that says nothing first gets it before its first content."""
        if self._started:
            return b""
        self._started = True
        if event is not None:
            self._id = event.id or self._id
            self._model = event.model or self._model
            self._usage = event.usage or self._usage
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": wire.usage_out(self._usage),
        }
        return _line("message_start", {"message": message})

    def _text(self, text: str, kind: Literal["text", "refusal"]) -> bytes:
        if not text:
            return b""
        opened = b"" if self._open == kind else self._begin(kind, {"type": "text", "text": ""})
        return opened + self._piece(b'{"type":"text_delta","text":', text)

    def _thinking(self, event: chat.ThinkingDelta) -> bytes:
        if event.redacted is not None:
            block = {"type": "redacted_thinking", "data": event.redacted}
            return self._begin("thinking", block) + self._close()
        written = b""
        if (event.text or event.signature) and self._open != "thinking":
            written = self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        if event.text:
            written += self._piece(b'{"type":"thinking_delta","thinking":', event.text)
        if event.signature:
            # A signature seals its block: thinking that follows is another one.
            written += self._piece(b'{"type":"signature_delta","signature":', event.signature) + self._close()
        return written

    def _call_started(self, event: chat.ToolCallStarted) -> bytes:
        call = _CallOut(event.index, event.id, event.name)
        if self._call is not None and (self._waiting or not self._call.complete()):
            self._waiting[call.index] = call
            return b""
        return self._begin_call(call)

    def _call_delta(self, event: chat.ToolCallDelta) -> bytes:
        if not event.arguments:
            return b""
        if (waiting := self._waiting.get(event.index)) is not None:
            waiting.pieces.append(event.arguments)
            return b""
        if self._call is None or self._call.index != event.index:
            raise UpstreamProtocol("the provider went on with a tool call that was over, or had not begun")
        self._call.pieces.append(event.arguments)
        return self._piece(b'{"type":"input_json_delta","partial_json":', event.arguments)

    def _begin_call(self, call: _CallOut) -> bytes:
        block = {"type": "tool_use", "id": tool_id(call.id), "name": call.name, "input": {}}
        written = self._begin(None, block)
        self._call, self._called = call, True
        return written + b"".join([self._piece(b'{"type":"input_json_delta","partial_json":', p) for p in call.pieces])

    def _begin(self, kind: Literal["text", "refusal", "thinking"] | None, block: dict[str, Any]) -> bytes:
        before = self._start(None) + self._close()
        self._open = kind
        start = _line("content_block_start", {"index": self._next, "content_block": block})
        self._next += 1
        return before + start

    def _piece(self, head: bytes, text: str) -> bytes:
        return b"".join(
            (
                b'event: content_block_delta\ndata: {"type":"content_block_delta","index":',
                str(self._next - 1).encode(),
                b',"delta":',
                head,
                encode(text),
                b"}}\n\n",
            )
        )

    def _close(self) -> bytes:
        """Ends the open block, and writes the tool calls that waited for it."""
        if self._open is None and self._call is None:
            return b""
        waiting, self._waiting = self._waiting, {}
        # One at a time: a call's beginning closes what is open, and nothing is left that waits.
        return b"".join([self._stop(), *(self._begin_call(call) + self._stop() for call in waiting.values())])

    def _stop(self) -> bytes:
        self._open = self._call = None
        return _line("content_block_stop", {"index": self._next - 1})

    def _end(self) -> bytes:
        last = self._start(None) + self._close()
        self._ended = True
        reason = stop_reason(self._finish, refused=self._refused, called=self._called)
        delta = {"stop_reason": reason, "stop_sequence": None}
        return last + _line("message_delta", {"delta": delta, "usage": wire.usage_out(self._usage)}) + END


class _CallOut(msgspec.Struct):
    """A tool call on its way out."""

    index: int
    id: str
    name: str
    pieces: list[str] = []

    def complete(self) -> bool:
        """Whether its arguments are whole."""
        try:
            msgspec.json.decode("".join(self.pieces))
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            return False
        return True


def _event(data: bytes) -> wire.StreamEvent:
    said = wire.decode(wire.event_decoder, data)
    if said.type == "error":
        raise wire.reported(said.error)
    return said


def _line(kind: str, body: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), encode({"type": kind, **body}))


_META = Seen(show=True, content=False)
_CONTENT = Seen(show=True, content=True)
