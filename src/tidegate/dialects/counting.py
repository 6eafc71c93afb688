"""
Counting tokens before a call: Anthropic's `/v1/messages/count_tokens` and Gemini's `:countTokens`.

An operation beside the conversation, as embeddings are: only a model's own provider can count, so a request passes
through to one that speaks the client's dialect, and is refused where there is none. No count is ever made up.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest, TidegateError, UpstreamProtocol
from tidegate.core.usage import Usage
from tidegate.dialects import anthropic, gemini
from tidegate.dialects.dialect import Answer, Dialect, Fields, Incoming
from tidegate.dialects.fields import encode, value

NESTED = "generateContentRequest"
"""Where Gemini's clients may put the whole request that they want counted, its model included."""


class TokenCount:
    """Implements dialect.Dialect, as far as there is something to do without an answer in words."""

    operation = "count_tokens"

    def __init__(self, of: Dialect, *, counted: str) -> None:
        """
        Args:
            of: the dialect whose conversations are counted.
            counted: the key of the answer that holds the count.
        """
        self.name = f"{of.name}_count_tokens"
        self.headers = of.headers
        self.splitter = of.splitter
        self._of = of
        self._counted = counted

    def parse_request(self, body: bytes, *, model: str | None = None, stream: bool | None = None) -> Incoming:
        """As of the conversation; a count always comes whole. Raises InvalidRequest."""
        incoming = self._of.parse_request(body, model=model, stream=stream)
        if incoming.stream:
            raise InvalidRequest("a count comes whole: leave stream out.", param="stream")
        return incoming

    def same_body(self, incoming: Incoming, *, model: str, native: bool) -> bytes:
        """The request, passed through; a model's name inside it is the provider's own."""
        nested = value(incoming.fields, NESTED, Fields, "an object")
        if nested is None:
            return self._of.same_body(incoming, model=model, native=native)
        inner = encode({**nested, "model": f"models/{model.removeprefix('models/')}"})
        fields = {**incoming.fields, NESTED: msgspec.Raw(inner)}
        return self._of.same_body(msgspec.structs.replace(incoming, fields=fields), model=model, native=native)

    def system_bytes(self, incoming: Incoming) -> bytes:
        """As of the conversation."""
        return self._of.system_bytes(incoming)

    def input_text(self, incoming: Incoming) -> str:
        """As of the conversation."""
        return self._of.input_text(incoming)

    def read_answer(self, body: bytes) -> Answer:
        """Raises UpstreamProtocol when there is no count in it. Nothing was used: counting is free."""
        try:
            count = msgspec.json.decode(body, type=dict[str, msgspec.Raw]).get(self._counted)
            if count is not None and msgspec.json.decode(count, type=int) >= 0:
                return Answer(usage=Usage())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamProtocol("the provider's answer is no count of tokens") from error
        raise UpstreamProtocol("the provider answered 200 without a count of tokens")

    def path(self, model: str, *, stream: bool) -> str:
        """Beside the conversation's."""
        path = self._of.path(model, stream=False)
        return f"{path}/count_tokens" if self._of is anthropic.DIALECT else f"{path.rpartition(':')[0]}:countTokens"

    def credential(self, secret: str) -> tuple[str, str]:
        """As of the conversation."""
        return self._of.credential(secret)

    def error_body(self, error: TidegateError, *, call_id: str | None = None) -> bytes:
        """As of the conversation."""
        return self._of.error_body(error, call_id=call_id)

    def request_in(self, incoming: Incoming) -> chat.Request:
        """Raises InvalidRequest: another dialect's provider can not be asked."""
        self._only_its_own()

    def _only_its_own(self, *_: object, **__: object) -> NoReturn:
        raise InvalidRequest(
            "only a model's own provider can count its tokens, and this one does not speak the dialect of this path: "
            "name a model of one that does.",
            param="model",
        )

    request_out = answer_in = answer_out = reader = events_in = events_out = end = error_event = _only_its_own


ANTHROPIC = TokenCount(anthropic.DIALECT, counted="input_tokens")
GEMINI = TokenCount(gemini.DIALECT, counted="totalTokens")
_: tuple[Dialect, Dialect] = (ANTHROPIC, GEMINI)
