"""
Anthropic Messages: what clients send and providers answer, at `/v1/messages`.

The package hides how Anthropic's wire differs from the canonical shape: system text beside the conversation, content
in blocks, tool results inside user turns, signed thinking, input counts without the cached part, and streams of blocks
that are opened and closed one after another.
"""

from __future__ import annotations

from tidegate.core import chat
from tidegate.core.errors import TidegateError
from tidegate.dialects.anthropic import answer, error, events, request_in, request_out
from tidegate.dialects.dialect import Answer, Dialect, Incoming
from tidegate.dialects.sse import EventSplitter


class Anthropic:
    """Implements dialect.Dialect."""

    name = "anthropic"
    operation = "chat"
    headers: tuple[tuple[str, str], ...] = (("anthropic-version", "2023-06-01"),)
    splitter = EventSplitter

    def parse_request(self, body: bytes, *, model: str | None = None, stream: bool | None = None) -> Incoming:
        """The top level of a request; model and stream stand in its body."""
        return request_in.parse_request(body)

    def same_body(self, incoming: Incoming, *, model: str, native: bool) -> bytes:
        """The request, passed through; Anthropic always tells the usage."""
        return request_in.same_body(incoming, model=model)

    def system_bytes(self, incoming: Incoming) -> bytes:
        """What shapes an answer besides the conversation."""
        return request_in.system_bytes(incoming)

    def input_text(self, incoming: Incoming) -> str:
        """The conversation as JSON text, for the record."""
        return request_in.input_text(incoming)

    def request_in(self, incoming: Incoming) -> chat.Request:
        """The request in the canonical shape."""
        return request_in.request_in(incoming)

    def request_out(
        self, request: chat.Request, *, model: str, stream: bool, native: bool
    ) -> tuple[bytes, list[chat.Loss]]:
        """The canonical request on this wire; look-alikes speak it as Anthropic does."""
        return request_out.request_out(request, model=model, stream=stream)

    def read_answer(self, body: bytes) -> Answer:
        """What the record needs of an answer."""
        return answer.read_answer(body)

    def answer_in(self, body: bytes) -> chat.Response:
        """An answer in the canonical shape."""
        return answer.answer_in(body)

    def answer_out(self, response: chat.Response) -> bytes:
        """The canonical answer on this wire."""
        return answer.answer_out(response)

    def reader(self, *, wants_usage: bool) -> events.Reader:
        """Follows a stream that passes through."""
        return events.Reader()

    def events_in(self) -> events.EventsIn:
        """Reads a provider's stream."""
        return events.EventsIn()

    def events_out(self, *, call_id: str, model: str, created: int, wants_usage: bool) -> events.EventsOut:
        """Writes a client's stream; Anthropic's clients always get the usage and never a time."""
        return events.EventsOut(call_id=call_id, model=model)

    def path(self, model: str, *, stream: bool) -> str:
        """Behind a bare base_url, as Anthropic's SDKs have it."""
        return "/v1/messages"

    def credential(self, secret: str) -> tuple[str, str]:
        """Anthropic's own header."""
        return "x-api-key", secret

    def end(self) -> bytes:
        """The dialect's own end of a stream."""
        return events.END

    def error_body(self, error_: TidegateError, *, call_id: str | None = None) -> bytes:
        """Anthropic's error shape."""
        return error.error_body(error_, call_id=call_id)

    def error_event(self, error_: TidegateError, *, call_id: str | None = None) -> bytes:
        """An `error` event and no message_stop."""
        return b"event: error\ndata: " + error.error_body(error_, call_id=call_id) + b"\n\n"


DIALECT = Anthropic()
_: Dialect = DIALECT
