"""
OpenAI Chat Completions: what clients send and providers answer, at `/v1/chat/completions`.

Same dialect on both sides means bytes pass through: only the top level of a request is decoded, the few keys that must
change are changed, and every other value keeps its bytes and its place (providers' prompt caches depend on it). Of an
answer only what the record needs is read.
"""

from __future__ import annotations

from tidegate.core import chat
from tidegate.core.errors import TidegateError
from tidegate.dialects import openai_error
from tidegate.dialects.dialect import Answer, Dialect, Incoming
from tidegate.dialects.openai_chat import answer, request
from tidegate.dialects.openai_chat.answer import EventsIn, EventsOut, Reader
from tidegate.dialects.sse import EventSplitter


class OpenAIChat:
    """Implements dialect.Dialect."""

    name = "openai_chat"
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
        return request.request_in(incoming)

    def request_out(
        self, canonical: chat.Request, *, model: str, stream: bool, native: bool
    ) -> tuple[bytes, list[chat.Loss]]:
        """The canonical request on this wire."""
        return request.request_out(canonical, model=model, stream=stream, native=native)

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
        return Reader(wants_usage=wants_usage)

    def events_in(self) -> EventsIn:
        """Reads a provider's stream."""
        return EventsIn()

    def events_out(self, *, call_id: str, model: str, created: int, wants_usage: bool) -> EventsOut:
        """Writes a client's stream."""
        return EventsOut(call_id=call_id, model=model, created=created, wants_usage=wants_usage)

    def path(self, model: str, *, stream: bool) -> str:
        """Behind a base_url that ends in /v1."""
        return "/chat/completions"

    def credential(self, secret: str) -> tuple[str, str]:
        """A bearer token."""
        return "authorization", f"Bearer {secret}"

    def end(self) -> bytes:
        """The dialect's own end of a stream."""
        return answer.DONE

    def error_body(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """OpenAI's error shape."""
        return openai_error.error_body(error, call_id=call_id)

    def error_event(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """An error object and no `[DONE]`."""
        return b"data: " + self.error_body(error, call_id=call_id) + b"\n\n"


DIALECT = OpenAIChat()
_: Dialect = DIALECT
