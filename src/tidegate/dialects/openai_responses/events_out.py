"""Streams, written: canonical events become the typed, numbered events that a Responses client expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate.core import chat
from tidegate.core.usage import Usage
from tidegate.dialects.fields import encode
from tidegate.dialects.openai_responses import items
from tidegate.dialects.openai_responses.answer import response_out, status_out


class _Speech:
    """The message being written; its last part is open."""

    def __init__(self, item_id: str, at: int) -> None:
        self.id, self.at = item_id, at
        self.content: list[dict[str, Any]] = []
        self.kind = ""
        """output_text or refusal: of the open part."""
        self.words: list[str] = []
        self.logprobs: list[Any] = []


class _Thought:
    """The reasoning being written."""

    def __init__(self, item_id: str, at: int) -> None:
        self.id, self.at = item_id, at
        self.words: list[str] = []


class _Call:
    """A function call being written. Several may be: dialects differ in whether calls arrive one after the other."""

    def __init__(self, item_id: str, at: int, started: chat.ToolCallStarted) -> None:
        self.id, self.at = item_id, at
        self.started = started
        self.arguments: list[str] = []


class EventsOut:
    """
    Canonical events → a Responses client's stream. Implements dialect.EventsOut.

    Writes the first choice: a client of this dialect can not ask for more. The last event holds the whole response.
    """

    def __init__(self, *, call_id: str, model: str, created: int) -> None:
        self._id = f"resp_{call_id}"
        self._model = model
        self._created = created
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        """Every item by its output_index, as far as it is known."""
        self._open: _Speech | _Thought | None = None
        self._calls: dict[int, _Call] = {}
        self._finish: chat.FinishReason | None = None
        self._refuses = False
        self._usage: Usage | None = None

    def write(self, events: Sequence[chat.Event]) -> bytes:
        """The wire events that they mean; `Ended` writes the last one."""
        return b"".join([self._event(event) for event in events])

    def _event(self, event: chat.Event) -> bytes:
        if isinstance(event, chat.Started):
            return self._start(event)
        begin = b"" if self._sequence else self._begin()
        match event:
            case chat.UsageReported():
                self._usage = event.usage
                return begin
            case chat.Ended():
                return begin + self._end()
            case _:
                return begin if event.choice else begin + self._choice(event)

    def _choice(
        self,
        event: chat.TextDelta
        | chat.ThinkingDelta
        | chat.RefusalDelta
        | chat.ToolCallStarted
        | chat.ToolCallDelta
        | chat.Finished,
    ) -> bytes:
        match event:
            case chat.TextDelta():
                return self._speak("output_text", event.text, event.logprobs)
            case chat.ToolCallDelta():
                return self._argue(self._calls.get(event.index), event.arguments)
            case chat.ThinkingDelta():
                return self._think(event)
            case chat.RefusalDelta():
                self._refuses = True
                return self._speak("refusal", event.text)
            case chat.ToolCallStarted():
                return self._call(event)
            case chat.Finished():
                self._finish = event.reason
                return self._close_all()

    def _start(self, event: chat.Started) -> bytes:
        self._id = event.id or self._id
        self._model = event.model or self._model
        self._usage = event.usage
        return self._begin()

    def _begin(self) -> bytes:
        body = self._response("in_progress")
        return self._emit("response.created", {"response": body}) + self._emit(
            "response.in_progress", {"response": body}
        )

    def _end(self) -> bytes:
        closed = self._close_all()
        status, reason = status_out(self._finish, refuses=self._refuses)
        return closed + self._emit(f"response.{status}", {"response": self._response(status, reason)})

    def _speak(self, kind: str, text: str, logprobs: list[Any] | None = None) -> bytes:
        if not text and not logprobs:
            return b""
        opened = b""
        if not isinstance(self._open, _Speech):
            opened = self._close()
            self._open = _Speech(*self._place("msg"))
            item = items.message(self._open.id, [], status="in_progress")
            opened += self._add(self._open.at, item)
        speech = self._open
        if speech.kind != kind:
            opened += self._close_part(speech)
            speech.kind = kind
            opened += self._emit("response.content_part.added", {**self._at(speech), "part": _part(kind, "", [])})
        speech.words.append(text)
        delta: dict[str, Any] = {**self._at(speech), "delta": text}
        if kind == "output_text":
            delta["logprobs"] = logprobs or []
            speech.logprobs += logprobs or ()
        return opened + self._emit(f"response.{kind}.delta", delta)

    def _close_part(self, speech: _Speech) -> bytes:
        if not speech.kind:
            return b""
        text = "".join(speech.words)
        place, part = self._at(speech), _part(speech.kind, text, speech.logprobs)
        said = {"text": text, "logprobs": speech.logprobs} if speech.kind == "output_text" else {"refusal": text}
        speech.content.append(part)
        speech.words, speech.logprobs = [], []
        return self._emit(f"response.{speech.kind}.done", {**place, **said}) + self._emit(
            "response.content_part.done", {**place, "part": part}
        )

    def _think(self, event: chat.ThinkingDelta) -> bytes:
        closes = event.signature is not None or event.redacted is not None
        if not event.text and not closes:
            return b""
        opened = b""
        if not isinstance(self._open, _Thought):
            opened = self._close()
            self._open = _Thought(*self._place("rs"))
            opened += self._add(
                self._open.at, items.reasoning_to_client(self._open.id, "", None, None, status="in_progress")
            )
        thought = self._open
        if event.text:
            place = {"item_id": thought.id, "output_index": thought.at, "summary_index": 0}
            if not thought.words:
                part = {"type": "summary_text", "text": ""}
                opened += self._emit("response.reasoning_summary_part.added", {**place, "part": part})
            thought.words.append(event.text)
            opened += self._emit("response.reasoning_summary_text.delta", {**place, "delta": event.text})
        return opened + (self._close_thought(thought, event.signature, event.redacted) if closes else b"")

    def _close_thought(self, thought: _Thought, signature: str | None, redacted: str | None) -> bytes:
        text = "".join(thought.words)
        said = b""
        if text:
            place = {"item_id": thought.id, "output_index": thought.at, "summary_index": 0}
            part = {"type": "summary_text", "text": text}
            said = self._emit("response.reasoning_summary_text.done", {**place, "text": text})
            said += self._emit("response.reasoning_summary_part.done", {**place, "part": part})
        self._open = None
        return said + self._done(thought.at, items.reasoning_to_client(thought.id, text, signature, redacted))

    def _call(self, event: chat.ToolCallStarted) -> bytes:
        closed = self._close()
        call = _Call(*self._place("fc"), event)
        self._calls[event.index] = call
        return closed + self._add(call.at, self._call_item(call, "in_progress"))

    def _argue(self, call: _Call | None, arguments: str) -> bytes:
        if call is None or not arguments:
            return b""
        call.arguments.append(arguments)
        place = {"item_id": call.id, "output_index": call.at}
        return self._emit("response.function_call_arguments.delta", {**place, "delta": arguments})

    def _close_call(self, call: _Call, status: str) -> bytes:
        item = self._call_item(call, status)
        place = {"item_id": call.id, "output_index": call.at}
        return self._emit(
            "response.function_call_arguments.done",
            {**place, "name": call.started.name, "arguments": item["arguments"]},
        ) + self._done(call.at, item)

    def _call_item(self, call: _Call, status: str) -> dict[str, Any]:
        whole = chat.ToolCall(call.started.id, call.started.name, "".join(call.arguments))
        return items.function_call(call.id, whole, status=status)

    def _close_all(self) -> bytes:
        """Ends every item that is open; those of a cut answer are as incomplete as it is."""
        status, _ = status_out(self._finish, refuses=self._refuses)
        closed = self._close(status)
        closed += b"".join([self._close_call(call, status) for call in self._calls.values()])
        self._calls = {}
        return closed

    def _close(self, status: str = "completed") -> bytes:
        """Ends the message or the reasoning that is open."""
        if isinstance(self._open, _Thought):
            return self._close_thought(self._open, None, None)
        if self._open is None:
            return b""
        speech, self._open = self._open, None
        said = self._close_part(speech)
        return said + self._done(speech.at, items.message(speech.id, speech.content, status=status))

    def _place(self, kind: str) -> tuple[str, int]:
        """The id and the output_index of the next item."""
        at = len(self._output)
        return f"{kind}_{self._id.removeprefix('resp_')}_{at}", at

    def _at(self, speech: _Speech) -> dict[str, Any]:
        return {"item_id": speech.id, "output_index": speech.at, "content_index": len(speech.content)}

    def _add(self, at: int, item: dict[str, Any]) -> bytes:
        self._output.append(item)
        return self._emit("response.output_item.added", {"output_index": at, "item": item})

    def _done(self, at: int, item: dict[str, Any]) -> bytes:
        self._output[at] = item
        return self._emit("response.output_item.done", {"output_index": at, "item": item})

    def _response(self, status: str, reason: str | None = None) -> dict[str, Any]:
        return response_out(
            self._id,
            model=self._model,
            created=self._created,
            status=status,
            reason=reason,
            output=self._output,
            usage=None if status == "in_progress" else self._usage,
        )

    def _emit(self, kind: str, payload: dict[str, Any]) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        head = {"type": kind, "sequence_number": number}
        return b"event: " + kind.encode() + b"\ndata: " + encode({**head, **payload}) + b"\n\n"


def _part(kind: str, text: str, logprobs: list[Any]) -> dict[str, Any]:
    return items.output_text(text, logprobs) if kind == "output_text" else items.refusal(text)
