"""Clouds that serve the dialects of others: what differs there is the path, the credential, and for one the body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import msgspec

from tidegate.dialects import anthropic
from tidegate.dialects.dialect import Wire
from tidegate.dialects.fields import encode

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Host(Protocol):
    """Stands between a target and its dialect. Implementations: Azure, Vertex."""

    def path(self, wire: Wire, model: str, *, stream: bool) -> str:
        """Behind the provider's base path."""
        ...

    def credential(self, wire: Wire, secret: str) -> tuple[str, str]:
        """The header that carries the provider's key."""
        ...

    def body(self, wire: Wire, body: bytes) -> bytes:
        """The request as it is taken here."""
        ...

    def refuses_in(self, wire: Wire) -> bool:
        """Whether errors are in the shape of the dialect that is spoken."""
        ...


@dataclass(frozen=True, slots=True)
class Azure:
    """Azure OpenAI. Models are deployments, by names of the operator's choice."""

    api_version: str | None
    """The older API, where the deployment stands in the path; None: the one that is as OpenAI's own, `/openai/v1`."""

    def path(self, wire: Wire, model: str, *, stream: bool) -> str:
        """`/openai/v1/chat/completions`, or `/openai/deployments/MODEL/chat/completions?api-version=…`."""
        own = wire.path(model, stream=stream)
        if self.api_version is None:
            return f"/openai/v1{own}"
        return f"/openai/deployments/{quote(model, safe='')}{own}?api-version={self.api_version}"

    def credential(self, wire: Wire, secret: str) -> tuple[str, str]:
        """Azure's own header."""
        return "api-key", secret

    def body(self, wire: Wire, body: bytes) -> bytes:
        """As it is."""
        return body

    def refuses_in(self, wire: Wire) -> bool:
        """They are OpenAI's."""
        return True


@dataclass(frozen=True, slots=True)
class Vertex:
    """Vertex AI: Gemini as Google's own API has it, and Claude without its name in the body."""

    place: str
    """`/v1/projects/PROJECT/locations/LOCATION`, or `/v1` for keys that know their project."""
    bearer: bool
    """The credential is an access token, not an API key."""

    def path(self, wire: Wire, model: str, *, stream: bool) -> str:
        """`…/publishers/google/models/MODEL:generateContent`, `…/publishers/anthropic/models/MODEL:rawPredict`."""
        if wire is anthropic.DIALECT:
            method = "streamRawPredict" if stream else "rawPredict"
            return f"{self.place}/publishers/anthropic/models/{quote(model, safe='@')}:{method}"
        return f"{self.place}/publishers/google{wire.path(model, stream=stream)}"

    def credential(self, wire: Wire, secret: str) -> tuple[str, str]:
        """Google's headers, whatever is spoken."""
        return ("authorization", f"Bearer {secret}") if self.bearer else ("x-goog-api-key", secret)

    def body(self, wire: Wire, body: bytes) -> bytes:
        """Claude's model stands in the path, and the version of the dialect in the body."""
        if wire is not anthropic.DIALECT:
            return body
        fields = _fields.decode(body)
        fields.pop("model", None)
        return encode({"anthropic_version": "vertex-2023-10-16", **fields})

    def refuses_in(self, wire: Wire) -> bool:
        """They are Google's, whatever is spoken."""
        return wire is not anthropic.DIALECT
