"""
OpenAI Embeddings: texts to vectors, at `/v1/embeddings`.

An operation beside the conversation: there is nothing to stream and nothing to translate, so a call goes only to a
provider that speaks it, byte for byte. Vectors pass through as they come, as floats or as base64; of an answer only the
usage and the model are read.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest, TidegateError, UpstreamProtocol
from tidegate.core.usage import Usage, counted
from tidegate.dialects import loosely, openai_error
from tidegate.dialects.dialect import Answer, Dialect, Incoming
from tidegate.dialects.fields import encode, read_fields, value
from tidegate.dialects.openai_chat import request as openai_chat
from tidegate.dialects.sse import EventSplitter

MAX_VALUES = 400_000
"""OpenAI takes 300,000 tokens at once. They are passed through as they come, and never become values here."""
_NOT_SHAPING = ("model", "input", "user", "encoding_format")


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Embeddings(msgspec.Struct):
    data: list[msgspec.Raw] = []
    model: str | None = None
    usage: _Usage | None = None


_embeddings = msgspec.json.Decoder(_Embeddings)


class OpenAIEmbeddings:
    """Implements dialect.Dialect, as far as there is something to do without a conversation."""

    name = "openai_embeddings"
    operation = "embeddings"
    headers: tuple[tuple[str, str], ...] = ()
    splitter = EventSplitter

    def parse_request(self, body: bytes, *, model: str | None = None, stream: bool | None = None) -> Incoming:
        """The top level of a request. What is in `input`, only the provider judges. Raises InvalidRequest."""
        fields = read_fields(body, max_values=MAX_VALUES)
        named = value(fields, "model", str, "a string")
        if not named:
            raise InvalidRequest("model is missing: the name of a route or provider/model.", param="model")
        if bytes(fields.get("input", b""))[:1] not in (b'"', b"["):
            raise InvalidRequest("input must be a string, or a list of strings or of tokens.", param="input")
        if value(fields, "stream", bool, "true or false"):
            raise InvalidRequest("embeddings come whole: leave stream out.", param="stream")
        variables = value(fields, "variables", dict[str, Any], "an object")
        return Incoming(fields=fields, model=named, stream=False, variables=variables)

    def same_body(self, incoming: Incoming, *, model: str, native: bool) -> bytes:
        """The request, passed through."""
        return openai_chat.same_body(incoming, model=model)

    def system_bytes(self, incoming: Incoming) -> bytes:
        """What shapes the vectors besides the text: their dimensions."""
        return encode({key: given for key, given in incoming.fields.items() if key not in _NOT_SHAPING})

    def input_text(self, incoming: Incoming) -> str:
        """What is embedded, as JSON text."""
        return bytes(incoming.fields["input"]).decode()

    def read_answer(self, body: bytes) -> Answer:
        """What the record needs of an answer; vectors are not kept. Raises UpstreamProtocol."""
        try:
            answer = _embeddings.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            answer = loosely.read(body, _Embeddings, "a list of embeddings")
        if not answer.data:
            raise UpstreamProtocol("the provider answered 200 without any embeddings")
        given = answer.usage.prompt_tokens if answer.usage is not None else None
        return Answer(model=answer.model, usage=None if given is None else Usage(input_tokens=counted(given)))

    def request_in(self, incoming: Incoming) -> chat.Request:
        """Raises InvalidRequest: vectors are no conversation."""
        _no_conversation()

    def path(self, model: str, *, stream: bool) -> str:
        """Behind a base_url that ends in /v1."""
        return "/embeddings"

    def credential(self, secret: str) -> tuple[str, str]:
        """A bearer token."""
        return "authorization", f"Bearer {secret}"

    def error_body(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """OpenAI's error shape."""
        return openai_error.error_body(error, call_id=call_id)

    def _never(self, *_: object, **__: object) -> NoReturn:
        """What only happens to conversations and streams."""
        _no_conversation()

    request_out = answer_in = answer_out = reader = events_in = events_out = end = error_event = _never


def _no_conversation() -> NoReturn:
    raise InvalidRequest(
        "embeddings come from a provider that speaks OpenAI's dialect: name an embedding model of one.",
        param="model",
    )


DIALECT = OpenAIEmbeddings()
_: Dialect = DIALECT
