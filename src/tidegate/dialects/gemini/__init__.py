"""
Gemini generateContent: what clients send and providers answer, at `/v1beta/models/MODEL:generateContent`.

Model and stream stand in the URL, the credential in a header of its own. A stream (`:streamGenerateContent?alt=sse`) is
one whole GenerateContentResponse per event and has no end of its own: it is complete when the body ends cleanly after
every candidate has given its finishReason.
"""

from __future__ import annotations

from urllib.parse import quote

from tidegate.core import chat
from tidegate.core.errors import TidegateError
from tidegate.dialects.dialect import Answer, Dialect, Incoming
from tidegate.dialects.gemini import answer, request, request_in, request_out
from tidegate.dialects.gemini.error import error_body
from tidegate.dialects.gemini.events import EventsIn, EventsOut, Reader
from tidegate.dialects.sse import EventSplitter


class Gemini:
    """Implements dialect.Dialect."""

    name = "gemini"
    operation = "chat"
    headers: tuple[tuple[str, str], ...] = ()
    splitter = EventSplitter

    def parse_request(self, body: bytes, *, model: str | None = None, stream: bool | None = None) -> Incoming:
        """The top level of a request; model and stream are given, from its URL."""
        return request.parse_request(body, model=model, stream=stream)

    def same_body(self, incoming: Incoming, *, model: str, native: bool) -> bytes:
        """The request, passed through; its model goes into the path."""
        return request.same_body(incoming)

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
        """Follows a stream that passes through."""
        return Reader()

    def events_in(self) -> EventsIn:
        """Reads a provider's stream."""
        return EventsIn()

    def events_out(self, *, call_id: str, model: str, created: int, wants_usage: bool) -> EventsOut:
        """Writes a client's stream."""
        return EventsOut(call_id=call_id, model=model)

    def path(self, model: str, *, stream: bool) -> str:
        """Behind a base_url that ends in /v1beta."""
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/models/{quote(model.removeprefix('models/'), safe='')}:{method}"

    def credential(self, secret: str) -> tuple[str, str]:
        """Google's header; never the query, which ends up in logs."""
        return "x-goog-api-key", secret

    def end(self) -> bytes:
        """Nothing: the body just ends."""
        return b""

    def error_body(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """Google's error shape."""
        return error_body(error, call_id=call_id)

    def error_event(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """An error object and no finishReason."""
        return b"data: " + error_body(error, call_id=call_id) + b"\n\n"


DIALECT = Gemini()
_: Dialect = DIALECT
