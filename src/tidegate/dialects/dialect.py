"""
What a dialect is: how clients ask and providers answer on one kind of wire.

Client and provider of one dialect: bytes pass through, and only what the record needs is read. Of two dialects: the
request goes through `core.chat`, and so do the answer and the events of a stream. A dialect therefore has three pairs
of functions (request, answer, events; in and out), its error shape, and its path and credential header. Half of that,
a `Wire`, is enough for what only providers speak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from tidegate.core import chat
from tidegate.core.errors import TidegateError
from tidegate.core.usage import Usage

Fields = dict[str, msgspec.Raw]


class Incoming(msgspec.Struct, frozen=True):
    """A client's request: its top level as it came, and the few values tidegate acts on."""

    fields: Fields
    model: str
    stream: bool
    wants_usage: bool = True
    """False: the client did not ask for usage in its stream, so it does not see any."""
    variables: dict[str, Any] | None = None
    """Values for the prompt's templates."""


class Answer(msgspec.Struct):
    """What the record needs of an answer, whole or summed over a stream. `text` is that of the first choice."""

    text: str = ""
    finish_reason: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
    tool_calls: bool = False
    unseen_chars: int = 0
    """Of reasoning and of what tools are called with: output too, should nobody count the tokens."""
    running: bool = False
    """The provider still works on it (OpenAI's background): what it will cost nobody knows yet."""


class Seen(msgspec.Struct, frozen=True):
    """What a reader says of one event of a stream in the client's own dialect."""

    show: bool
    """The client should see it."""
    content: bool
    """It carries content: from the first such event on, the answer has begun."""


class StreamReader(Protocol):
    """Follows a stream whose bytes pass through."""

    @property
    def done(self) -> bool:
        """The dialect's own end has come."""
        ...

    def read(self, event: bytes) -> Seen:
        """Takes in one event (LF lines, no blank line). Raises UpstreamProtocol for an error or garbage in it."""
        ...

    def finish(self) -> Answer:
        """The answer so far; also of a stream that broke."""
        ...


class EventsIn(Protocol):
    """A provider's stream → canonical events."""

    def read(self, event: bytes) -> Sequence[chat.Event]:
        """The events that one wire event means. Raises UpstreamProtocol for an error or garbage in it."""
        ...


class EventsOut(Protocol):
    """Canonical events → a client's stream."""

    def write(self, events: Sequence[chat.Event]) -> bytes:
        """The wire events that they mean, as one piece of bytes; may be empty. `Ended` writes the dialect's end."""
        ...


class Splitter(Protocol):
    """Parts a provider's stream, cut anywhere, into its events."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes, in order. Raises UpstreamProtocol when one is too large or damaged."""
        ...


class Wire(Protocol):
    """What a provider is spoken to in. Stateless: one object serves every call."""

    @property
    def name(self) -> str:
        """`openai_chat`, `openai_responses`, `anthropic`, `gemini`, `bedrock`, `openai_embeddings`."""
        ...

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What every request of this dialect carries besides the credential (Anthropic's version header)."""
        ...

    def request_out(
        self, request: chat.Request, *, model: str, stream: bool, native: bool
    ) -> tuple[bytes, list[chat.Loss]]:
        """The canonical request on this wire, and what this wire can not say."""
        ...

    def answer_in(self, body: bytes) -> chat.Response:
        """A provider's whole answer. Raises UpstreamProtocol when it is none, or hides an error in a 200."""
        ...

    def events_in(self) -> EventsIn:
        """Reads a provider's stream."""
        ...

    @property
    def splitter(self) -> Callable[[], Splitter]:
        """Makes what parts a stream of this dialect into events: server-sent ones, all but Bedrock's."""
        ...

    def path(self, model: str, *, stream: bool) -> str:
        """The path behind a provider's base_url."""
        ...

    def credential(self, secret: str) -> tuple[str, str]:
        """The header that carries the provider's key."""
        ...


class Dialect(Wire, Protocol):
    """What clients speak too: the whole of a kind of wire."""

    @property
    def operation(self) -> str:
        """What its calls ask for, in OpenTelemetry's words: `chat` or `embeddings`."""
        ...

    def parse_request(self, body: bytes, *, model: str | None = None, stream: bool | None = None) -> Incoming:
        """
        Reads the top level of a request. Where the URL says `model` and `stream` (Gemini) they are given.

        Raises InvalidRequest, naming the field.
        """
        ...

    def same_body(self, incoming: Incoming, *, model: str, native: bool) -> bytes:
        """
        The request for a provider of this dialect: its own model name, usage asked for, none of tidegate's own keys,
        every other value's bytes as they came. `native`: the provider is the dialect's inventor, not a look-alike.
        """
        ...

    def system_bytes(self, incoming: Incoming) -> bytes:
        """What shapes an answer besides the conversation – system text, tools, params – as the client's own bytes."""
        ...

    def input_text(self, incoming: Incoming) -> str:
        """The conversation as JSON text, for the record's content."""
        ...

    def request_in(self, incoming: Incoming) -> chat.Request:
        """The whole request in the canonical shape; what does not fit is in its `losses`. Raises InvalidRequest."""
        ...

    def answer_out(self, response: chat.Response) -> bytes:
        """The canonical answer as a client of this dialect gets it."""
        ...

    def read_answer(self, body: bytes) -> Answer:
        """What the record needs of a whole answer. Raises as `answer_in`."""
        ...

    def reader(self, *, wants_usage: bool) -> StreamReader:
        """Follows a stream that passes through."""
        ...

    def events_out(self, *, call_id: str, model: str, created: int, wants_usage: bool) -> EventsOut:
        """Writes a client's stream; `call_id`, `model` and `created` fill what the provider's dialect does not say."""
        ...

    def end(self) -> bytes:
        """What ends a complete stream of this dialect that passes through; the record is written before it goes out."""
        ...

    def error_body(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """An error in this dialect's shape."""
        ...

    def error_event(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """How a broken stream ends: this dialect's error event, without a made-up finish."""
        ...
