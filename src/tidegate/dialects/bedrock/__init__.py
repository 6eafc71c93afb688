"""
Amazon Bedrock's Converse: how its models are asked and how they answer, whoever made them. Only providers speak it.

The package hides how this wire differs from the canonical shape: blocks without a type, media as bytes or in S3,
settings that only some models have beside the ones all have, input counts without the cached part, and streams in
AWS's binary frames.
"""

from __future__ import annotations

from urllib.parse import quote

from tidegate.core import chat
from tidegate.dialects.bedrock import answer, events, request_out
from tidegate.dialects.bedrock.eventstream import FrameSplitter
from tidegate.dialects.dialect import Wire


class Bedrock:
    """Implements dialect.Wire."""

    name = "bedrock"
    headers: tuple[tuple[str, str], ...] = ()
    splitter = FrameSplitter

    def request_out(
        self, request: chat.Request, *, model: str, stream: bool, native: bool
    ) -> tuple[bytes, list[chat.Loss]]:
        """The canonical request on this wire; model and stream go into the path."""
        return request_out.request_out(request, model=model)

    def answer_in(self, body: bytes) -> chat.Response:
        """An answer in the canonical shape; it names neither itself nor its model."""
        return answer.answer_in(body)

    def events_in(self) -> events.EventsIn:
        """Reads a provider's stream."""
        return events.EventsIn()

    def path(self, model: str, *, stream: bool) -> str:
        """The model's id or ARN, with its colons and slashes encoded."""
        return f"/model/{quote(model, safe='')}/{'converse-stream' if stream else 'converse'}"

    def credential(self, secret: str) -> tuple[str, str]:
        """A Bedrock API key. Access keys are not sent: they sign (`upstream/sigv4.py`)."""
        return "authorization", f"Bearer {secret}"


DIALECT = Bedrock()
_: Wire = DIALECT
