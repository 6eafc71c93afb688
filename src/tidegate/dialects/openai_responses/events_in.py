"""Streams, read: followed for the record while they pass through, or turned into canonical events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.core.errors import UpstreamProtocol
from tidegate.dialects.dialect import Answer, Seen
from tidegate.dialects.openai_responses import items
from tidegate.dialects.openai_responses.answer import (
    Fault,
    Message,
    Response,
    answer_of,
    decode,
    fail,
    finish_of,
    read_output,
    usage_in,
)
from tidegate.dialects.sse import data_of

IN_STREAM = "the provider reported an error inside its stream"
_ENDS = ("response.completed", "response.incomplete")
_WORDS = ("response.output_text.delta", "response.refusal.delta")
_BEFORE = frozenset(
    {
        *("response.created", "response.queued", "response.in_progress", "response.output_item.added"),
        *("response.content_part.added", "response.reasoning_summary_part.added"),
    }
)
"""Events that come before any content."""
_NOTHING = Seen(show=False, content=False)
_META = Seen(show=True, content=False)
_CONTENT = Seen(show=True, content=True)


class _Item(msgspec.Struct):
    type: str = ""


class _Event(msgspec.Struct):
    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    logprobs: list[Any] | None = None
    item: msgspec.Raw = msgspec.Raw(b"{}")
    response: msgspec.Raw = msgspec.Raw(b"{}")
    error: Fault | None = None
    code: str | None = None


class _Kind(msgspec.Struct):
    type: str = ""


_event = msgspec.json.Decoder(_Event)


def _read(event: bytes) -> _Event | None:
    """The event, or None when there is nothing to read in it. Raises UpstreamProtocol for an error or garbage."""
    data = data_of(event)
    if data is None or data == b"[DONE]":  # not of this dialect, but some look-alikes send it after the end
        return None
    try:
        read = _event.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        read = _read_slowly(data)
    if read.type == "error" or (read.error is not None and not read.type):
        fail(IN_STREAM, read.error or Fault(code=read.code))
    if read.type == "response.failed":
        fail(IN_STREAM, decode(read.response, Response).error or Fault())
    return read


def _read_slowly(data: bytes) -> _Event:
    """An event that is not as documented: ignored when it is of a type that nobody here reads."""
    kind = decode(data, _Kind).type
    if kind == "error":
        raise UpstreamProtocol(IN_STREAM)
    return decode(data, _Event) if kind in _READ else _Event(type=kind)


class Reader:
    """Follows a stream that passes through. Implements dialect.StreamReader."""

    def __init__(self) -> None:
        self.done = False
        self._answer = Answer()
        self._texts: list[str] = []

    def read(self, event: bytes) -> Seen:
        """Takes in one event. Raises UpstreamProtocol for an error or garbage in it."""
        read = _read(event)
        if read is None:
            return _NOTHING
        if read.type in _WORDS and read.delta is not None:
            self._texts.append(read.delta)
        elif read.delta is not None:
            self._answer.unseen_chars += len(read.delta)
        elif read.type in _ENDS:
            self.done = True
            self._answer = answer_of(decode(read.response, Response))
        elif read.type == "response.created":
            self._answer.model = decode(read.response, Response).model
        elif read.type == "response.output_item.added" and decode(read.item, _Item).type == "function_call":
            self._answer.tool_calls = True
        return _META if read.type in _BEFORE or not read.type.startswith("response.") else _CONTENT

    def finish(self) -> Answer:
        """The answer so far; also of a stream that broke. A complete one stands in the stream's last event."""
        if not self._answer.text:
            self._answer.text = "".join(self._texts)
        return self._answer


class EventsIn:
    """
    A provider's typed events → canonical events. Implements dialect.EventsIn.

    What only a `.done` event tells, or only the last one, is taken from there.
    """

    def __init__(self) -> None:
        self._started = False
        self._begun: set[int] = set()
        """The items that were announced, by their output_index."""
        self._calls: dict[int, int] = {}
        """output_index of a function call → its canonical index."""
        self._argued: set[int] = set()
        self._said: set[tuple[int, str, int]] = set()
        """Parts of which something came: (output_index, what, index in it)."""
        self._refuses = False

    def read(self, event: bytes) -> Sequence[chat.Event]:
        """The events that one wire event means. Raises UpstreamProtocol for an error or garbage in it."""
        read = _read(event)
        handle = None if read is None else _HANDLERS.get(read.type)
        return () if read is None or handle is None else handle(self, read)

    def _head(self, event: _Event) -> list[chat.Event]:
        return self._start(decode(event.response, Response))

    def _start(self, response: Response) -> list[chat.Event]:
        if self._started:
            return []
        self._started = True
        return [chat.Started(response.id or "", response.model or "")]

    def _added(self, event: _Event) -> list[chat.Event]:
        self._begun.add(event.output_index)
        if decode(event.item, _Item).type != "function_call":
            return []
        return self._call(event.output_index, decode(event.item, items.FunctionCall))

    def _call(self, at: int, call: items.FunctionCall) -> list[chat.Event]:
        if at in self._calls:
            return []
        self._calls[at] = len(self._calls)
        return [chat.ToolCallStarted(self._calls[at], call.call_id, call.name)]

    def _arguments_delta(self, event: _Event) -> list[chat.Event]:
        return self._arguments(event.output_index, event.delta, whole=False)

    def _arguments_done(self, event: _Event) -> list[chat.Event]:
        return self._arguments(event.output_index, event.arguments, whole=True)

    def _arguments(self, at: int, text: str | None, *, whole: bool) -> list[chat.Event]:
        if at not in self._calls:
            raise UpstreamProtocol("the provider sent arguments of a function call that it did not begin")
        if not text or (whole and at in self._argued):
            return []
        self._argued.add(at)
        return [chat.ToolCallDelta(self._calls[at], text)]

    def _text_delta(self, event: _Event) -> list[chat.Event]:
        return self._text(event, event.delta, whole=False)

    def _text_done(self, event: _Event) -> list[chat.Event]:
        return self._text(event, event.text, whole=True)

    def _text(self, event: _Event, text: str | None, *, whole: bool) -> list[chat.Event]:
        said = self._words(event.output_index, "text", event.content_index, text, whole=whole)
        return [chat.TextDelta(text or "", logprobs=event.logprobs)] if said and event.logprobs else said

    def _refusal_delta(self, event: _Event) -> list[chat.Event]:
        return self._words(event.output_index, "refusal", event.content_index, event.delta, whole=False)

    def _refusal_done(self, event: _Event) -> list[chat.Event]:
        return self._words(event.output_index, "refusal", event.content_index, event.refusal, whole=True)

    def _summary_delta(self, event: _Event) -> list[chat.Event]:
        return self._words(event.output_index, "summary", event.summary_index, event.delta, whole=False)

    def _summary_done(self, event: _Event) -> list[chat.Event]:
        return self._words(event.output_index, "summary", event.summary_index, event.text, whole=True)

    def _reasoning_delta(self, event: _Event) -> list[chat.Event]:
        return self._words(event.output_index, "reasoning", event.content_index, event.delta, whole=False)

    def _reasoning_done(self, event: _Event) -> list[chat.Event]:
        return self._words(event.output_index, "reasoning", event.content_index, event.text, whole=True)

    def _words(self, at: int, what: str, index: int, text: str | None, *, whole: bool) -> list[chat.Event]:
        """More of a part, or all of it when nothing of it came before."""
        part = (at, what, index)
        known = part in self._said
        if not text or (whole and known):
            return []
        if what == "text":
            self._said.add(part)
            return [chat.TextDelta(text)]
        if what == "refusal":
            self._said.add(part)
            self._refuses = True
            return [chat.RefusalDelta(text)]
        follows = not known and self._thought(at)
        self._said.add(part)
        return [chat.ThinkingDelta(items.BETWEEN_PARTS + text if follows else text)]

    def _thought(self, at: int) -> bool:
        """Reasoning item `at` has shown something."""
        return any(part[0] == at for part in self._said)

    def _item_done(self, event: _Event) -> list[chat.Event]:
        self._begun.add(event.output_index)
        return self._item(event.output_index, event.item)

    def _item(self, at: int, raw: msgspec.Raw) -> list[chat.Event]:
        kind = decode(raw, items.Kind).name
        if kind == "function_call":
            call = decode(raw, items.FunctionCall)
            return [*self._call(at, call), *self._arguments(at, call.arguments, whole=True)]
        if kind == "message":
            events: list[chat.Event] = []
            for index, part in enumerate(decode(raw, Message).content):
                events += self._words(at, "text", index, part.text, whole=True)
                events += self._words(at, "refusal", index, part.refusal, whole=True)
            return events
        return self._reasoning(at, decode(raw, items.Reasoning)) if kind == "reasoning" else []

    def _reasoning(self, at: int, item: items.Reasoning) -> list[chat.Event]:
        events: list[chat.Event] = []
        for index, words in enumerate(item.summary or []):
            events += self._words(at, "summary", index, words.text, whole=True)
        for index, words in enumerate(item.content or []):
            events += self._words(at, "reasoning", index, words.text, whole=True)
        signature, redacted = items.signature_in(item, shown=self._thought(at))
        if signature is not None or redacted is not None:
            events.append(chat.ThinkingDelta("", signature, redacted))
        return events

    def _end(self, event: _Event) -> list[chat.Event]:
        response = decode(event.response, Response)
        events = self._start(response)
        if not self._begun:
            events += [said for at, raw in enumerate(response.output or []) for said in self._item(at, raw)]
        finish = finish_of(response, calls=bool(self._calls), refuses=self._refuses)
        events.append(chat.Finished(finish or "stop"))
        usage = usage_in(response, read_output(response.output or []))
        if usage is not None:
            events.append(chat.UsageReported(usage))
        events.append(chat.Ended())
        return events


_HANDLERS: dict[str, Callable[[EventsIn, _Event], list[chat.Event]]] = {
    "response.output_text.delta": EventsIn._text_delta,
    "response.output_text.done": EventsIn._text_done,
    "response.refusal.delta": EventsIn._refusal_delta,
    "response.refusal.done": EventsIn._refusal_done,
    "response.reasoning_summary_text.delta": EventsIn._summary_delta,
    "response.reasoning_summary_text.done": EventsIn._summary_done,
    "response.reasoning_text.delta": EventsIn._reasoning_delta,
    "response.reasoning_text.done": EventsIn._reasoning_done,
    "response.function_call_arguments.delta": EventsIn._arguments_delta,
    "response.function_call_arguments.done": EventsIn._arguments_done,
    "response.output_item.added": EventsIn._added,
    "response.output_item.done": EventsIn._item_done,
    "response.created": EventsIn._head,
    "response.queued": EventsIn._head,
    "response.in_progress": EventsIn._head,
    "response.completed": EventsIn._end,
    "response.incomplete": EventsIn._end,
}
_READ = frozenset({*_HANDLERS, "response.failed"})
