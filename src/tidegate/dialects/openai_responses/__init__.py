"""
OpenAI Responses: what clients send and providers answer, at `/v1/responses`.

Input and output are lists of items (messages, function calls, their results, reasoning), and a stream is a sequence of
typed, numbered events that ends in `response.completed`, `.incomplete` or `.failed`. The API can keep state: what
refers to it passes through to a provider of this dialect, and is a loss for any other.
"""

from __future__ import annotations

import msgspec

from tidegate.core import chat
from tidegate.core.errors import TidegateError
from tidegate.dialects import openai_error
from tidegate.dialects.dialect import Answer, Dialect, Incoming
from tidegate.dialects.openai_responses import answer, request, request_in, request_out
from tidegate.dialects.openai_responses.events_in import EventsIn, Reader
from tidegate.dialects.openai_responses.events_out import EventsOut
from tidegate.dialects.sse import EventSplitter

LAST = 2**31 - 1
"""The number of an error event: it follows every other, and who writes it has not counted them."""


class OpenAIResponses:
    """Implements dialect.Dialect."""

    name = "openai_responses"
    operation = "chat"
    headers: tuple[tuple[str, str], ...] = ()
    splitter = EventSplitter

    def parse_request(self, body: bytes, *, model: str | None = None, stream: bool | None = None) -> Incoming:
        """The top level of a request; model and stream stand in its body."""
        return request.parse_request(body)

    def same_body(self, incoming: Incoming, *, model: str, native: bool) -> bytes:
        """The request, passed through."""
        return request.same_body(incoming, model=model)

    def system_bytes(self, incoming: Incoming) -> bytes:
        """What shapes an answer besides the conversation."""
        return request.system_bytes(incoming)

    def input_text(self, incoming: Incoming) -> str:
        """The conversation as JSON text, for the record."""
        return request.input_text(incoming)

    def request_in(self, incoming: Incoming) -> chat.Request:
        """The request in the canonical shape."""
        return request_in.request_in(incoming)

    def request_out(
        self, canonical: chat.Request, *, model: str, stream: bool, native: bool
    ) -> tuple[bytes, list[chat.Loss]]:
        """The canonical request on this wire."""
        return request_out.request_out(canonical, model=model, stream=stream)

    def read_answer(self, body: bytes) -> Answer:
        """What the record needs of an answer."""
        return answer.read_answer(body)

    def answer_in(self, body: bytes) -> chat.Response:
        """An answer in the canonical shape."""
        return answer.answer_in(body)

    def answer_out(self, response: chat.Response) -> bytes:
        """The canonical answer on this wire."""
        return answer.answer_out(response)

    def reader(self, *, wants_usage: bool) -> Reader:
        """Follows a stream that passes through; its last event always holds the usage."""
        return Reader()

    def events_in(self) -> EventsIn:
        """Reads a provider's stream."""
        return EventsIn()

    def events_out(self, *, call_id: str, model: str, created: int, wants_usage: bool) -> EventsOut:
        """Writes a client's stream; its last event always holds the usage."""
        return EventsOut(call_id=call_id, model=model, created=created)

    def end(self) -> bytes:
        """Nothing: the stream's last event is its end, and has been shown."""
        return b""

    def path(self, model: str, *, stream: bool) -> str:
        """Behind a base_url that ends in /v1."""
        return "/responses"

    def credential(self, secret: str) -> tuple[str, str]:
        """A bearer token."""
        return "authorization", f"Bearer {secret}"

    def error_body(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """OpenAI's error shape."""
        return openai_error.error_body(error, call_id=call_id)

    def error_event(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """
        An `error` event.

        OpenAI documents its fields at the top level and sends them under `error`, which is where its SDKs look; clients
        of either kind find them.
        """
        detail = msgspec.json.decode(self.error_body(error, call_id=call_id))["error"]
        flat = {key: detail[key] for key in ("code", "message", "param")}
        event = {"type": "error", "sequence_number": LAST, **flat, "error": detail}
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"


DIALECT = OpenAIResponses()
_: Dialect = DIALECT
