"""
Streams: followed as they pass through, read into canonical events, written from them.

A stream of Gemini's has no end of its own: it is complete when the body ends cleanly after a finishReason. So none of
the readers here ever says that it is done; who reads the body knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate.core import chat
from tidegate.core.usage import Usage
from tidegate.dialects.dialect import Answer, Seen
from tidegate.dialects.fields import encode
from tidegate.dialects.gemini import signatures, speech
from tidegate.dialects.gemini.answer import (
    Candidate,
    Generated,
    call_id,
    check_finish,
    decode,
    finish_in,
    finish_out,
    finish_recorded,
    text_of,
    tokens_in,
    tokens_out,
    unseen_chars,
    usage_out,
)
from tidegate.dialects.gemini.wire import arguments
from tidegate.dialects.sse import data_of


class Reader:
    """Follows a stream that passes through. Implements dialect.StreamReader."""

    done = False

    def __init__(self) -> None:
        self._answer = Answer()
        self._texts: list[str] = []
        self._reason: str | None = None
        self._open: set[int] = set()

    def read(self, event: bytes) -> Seen:
        """Takes in one event. Raises UpstreamProtocol for an error or garbage in it."""
        data = data_of(event)
        if data is None:
            return _NOTHING
        chunk = _chunk(data)
        answer = self._answer
        answer.model = chunk.model_version or answer.model
        answer.usage = chunk.usage or answer.usage
        if chunk.blocked:
            self._reason = "SAFETY"
        contents = [self._candidate(candidate) for candidate in chunk.candidates or ()]
        return _CONTENT if any(contents) else _META

    def _candidate(self, candidate: Candidate) -> bool:
        """Takes in a piece; the first answer is what the record keeps. Returns whether it carries content."""
        if candidate.finish_reason is None:
            self._open.add(candidate.index)
        else:
            self._open.discard(candidate.index)
        self._answer.unseen_chars += unseen_chars(candidate)
        if candidate.index == 0:
            self._texts.append(text_of(candidate))
            self._reason = candidate.finish_reason or self._reason
            if any(part.function_call is not None for part in candidate.parts):
                self._answer.tool_calls = True
        return any(part.text or part.text is None for part in candidate.parts)

    def finish(self) -> Answer:
        """The answer so far; it is finished when every candidate that began is."""
        answer = self._answer
        answer.text = "".join(self._texts)
        complete = self._reason is not None and not self._open
        answer.finish_reason = finish_recorded(self._reason or "", called=answer.tool_calls) if complete else None
        return answer


class EventsIn:
    """Gemini's stream → canonical events. Implements dialect.EventsIn."""

    def __init__(self) -> None:
        self._started = False
        self._id: str | None = None
        self._calls: dict[int, int] = {}
        self._finished: set[int] = set()

    def read(self, event: bytes) -> Sequence[chat.Event]:
        """The events that one wire event means. Raises UpstreamProtocol for an error or garbage in it."""
        data = data_of(event)
        if data is None:
            return ()
        chunk = _chunk(data)
        events: list[chat.Event] = []
        usage = chunk.usage
        self._id = self._id or chunk.response_id
        if not self._started:
            self._started = True
            events.append(chat.Started(chunk.response_id or "", chunk.model_version or "", usage))
        for candidate in chunk.candidates or ():
            self._candidate(candidate, events)
        if chunk.blocked and not self._finished:
            self._finished.add(0)
            events.append(chat.Finished("content_filter"))
        if usage is not None:
            # Counts grow with every chunk: a stream that breaks is billed for what came.
            events.append(chat.UsageReported(usage))
        return events

    def _candidate(self, candidate: Candidate, events: list[chat.Event]) -> None:
        at = candidate.index
        check_finish(candidate.finish_reason)
        chances = tokens_in(candidate.logprobs_result) if candidate.logprobs_result is not None else None
        for part in candidate.parts:
            if part.thought_signature is not None:
                signature = signatures.sealed(part.thought_signature).signature
                events.append(chat.ThinkingDelta(signature=signature, choice=at))
            if part.function_call is not None:
                index = self._calls.get(at, 0)
                self._calls[at] = index + 1
                made = call_id(part.function_call, self._id, at, index)
                events.append(chat.ToolCallStarted(index, made, part.function_call.name, choice=at))
                events.append(chat.ToolCallDelta(index, arguments(part.function_call), choice=at))
            elif part.text:
                if part.thought:
                    events.append(chat.ThinkingDelta(part.text, choice=at))
                else:
                    events.append(chat.TextDelta(part.text, at, chances))
                    chances = None
        if chances:
            events.append(chat.TextDelta("", at, chances))
        if candidate.finish_reason is not None and at not in self._finished:
            self._finished.add(at)
            events.append(chat.Finished(finish_in(candidate.finish_reason, called=at in self._calls), choice=at))


class EventsOut:
    """
    Canonical events → Gemini's stream. Implements dialect.EventsOut.

    Gemini sends a call whole, so one waits for the end of its answer; and the reasons to finish go out with the usage
    in the last event, which is written when the stream is known to be complete.
    """

    def __init__(self, *, call_id: str, model: str) -> None:
        self._id = call_id
        self._tail = _tail(model, call_id)
        self._calls: dict[int, dict[int, chat.ToolCall]] = {}
        self._signatures: dict[int, str] = {}
        self._finished: dict[int, chat.FinishReason] = {}
        self._usage: Usage | None = None

    def write(self, events: Sequence[chat.Event]) -> bytes:
        """The wire events that they mean; `Ended` writes the last one."""
        return b"".join([self._event(event) for event in events])

    def _event(self, event: chat.Event) -> bytes:
        match event:
            case chat.TextDelta(logprobs=list(chances)):
                return self._text(event.text, event.choice, chances)
            case chat.TextDelta() | chat.RefusalDelta():
                return self._text(event.text, event.choice)
            case chat.ThinkingDelta():
                return self._thinking(event)
            case chat.ToolCallStarted():
                call = chat.ToolCall(event.id, event.name, "")
                self._calls.setdefault(event.choice, {})[event.index] = call
            case chat.ToolCallDelta():
                self._grow(event)
            case chat.Finished():
                self._finished[event.choice] = event.reason
                return self._whole_calls(event.choice)
            case chat.Started():
                self._start(event)
            case chat.UsageReported():
                self._usage = event.usage
            case chat.Ended():
                return self._end()
        return b""

    def _start(self, event: chat.Started) -> None:
        self._usage = event.usage
        if event.model:
            self._tail = _tail(event.model, self._id)

    def _text(self, text: str, choice: int, chances: list[Any] | None = None) -> bytes:
        signature = self._signatures.pop(choice, None)
        part = {"text": text} if signature is None else speech.signed({"text": text}, signature)
        return self._parts(choice, [part], chances)

    def _thinking(self, event: chat.ThinkingDelta) -> bytes:
        choice = event.choice
        said = self._parts(choice, [{"text": event.text, "thought": True}]) if event.text else b""
        own = signatures.unsealed(event.signature)
        if own is not None:
            # Gemini's own stands on the words or the call that follow it.
            before = self._loose_signature(choice)
            self._signatures[choice] = own
            return before + said
        wrapped = signatures.wrapped(event.signature, event.redacted)
        if wrapped is None:
            return said
        return said + self._parts(choice, [speech.signed({"text": "", "thought": True}, wrapped)])

    def _grow(self, event: chat.ToolCallDelta) -> None:
        calls = self._calls.get(event.choice, {})
        call = calls.get(event.index)
        if call is not None:
            calls[event.index] = chat.ToolCall(call.id, call.name, call.arguments + event.arguments)

    def _whole_calls(self, choice: int) -> bytes:
        parts = [speech.call_out(call) for _, call in sorted(self._calls.pop(choice, {}).items())]
        if parts and choice in self._signatures:
            parts[0] = speech.signed(parts[0], self._signatures.pop(choice))
        return (self._parts(choice, parts) if parts else b"") + self._loose_signature(choice)

    def _loose_signature(self, choice: int) -> bytes:
        signature = self._signatures.pop(choice, None)
        return b"" if signature is None else self._parts(choice, [speech.signed({"text": ""}, signature)])

    def _end(self) -> bytes:
        candidates = [
            {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": finish_out(reason), "index": choice}
            for choice, reason in sorted(self._finished.items())
        ]
        usage = b"" if self._usage is None else b',"usageMetadata":' + encode(usage_out(self._usage))
        return b'data: {"candidates":' + encode(candidates)[:-1] + b"]" + usage + self._tail[1:]

    def _parts(self, choice: int, parts: list[dict[str, Any]], chances: list[Any] | None = None) -> bytes:
        head = b'data: {"candidates":[{"content":{"parts":' + encode(parts) + b',"role":"model"}'
        if chances is not None:
            head += b',"logprobsResult":' + encode(tokens_out(chances))
        return head + b',"index":%d}' % choice + self._tail


def _tail(model: str, response_id: str) -> bytes:
    return b'],"modelVersion":' + encode(model) + b',"responseId":' + encode(response_id) + b"}\n\n"


def _chunk(data: bytes) -> Generated:
    return decode(data, "its stream")


_NOTHING = Seen(show=False, content=False)
_META = Seen(show=True, content=False)
_CONTENT = Seen(show=True, content=True)
