"""What a client may call – routes, prompts, models of providers – in the shape its dialect lists models in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate.dialects import anthropic, gemini, openai_chat
from tidegate.dialects.dialect import Dialect
from tidegate.gateway.edge import Request

LONG_AGO = "1970-01-01T00:00:00Z"


def asker(request: Request) -> Dialect:
    """Who asks at `/v1/models`, which three dialects share: by the headers that only one dialect's clients send."""
    if request.path.startswith("/v1beta/"):
        return gemini.DIALECT
    if "anthropic-version" in request.headers:
        return anthropic.DIALECT
    google = "x-goog-api-key" in request.headers or "x-goog-api-client" in request.headers
    return gemini.DIALECT if google else openai_chat.DIALECT


def models(dialect: Dialect, names: Sequence[str]) -> dict[str, Any]:
    """All of them, as an asker of `dialect` knows lists."""
    if dialect is anthropic.DIALECT:
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return {"data": [model(dialect, name) for name in names], "has_more": False, **ends}
    if dialect is gemini.DIALECT:
        return {"models": [model(dialect, name) for name in names]}
    return {"object": "list", "data": [model(dialect, name) for name in names]}


def model(dialect: Dialect, name: str) -> dict[str, Any]:
    """One of them."""
    if dialect is anthropic.DIALECT:
        return {"type": "model", "id": name, "display_name": name, "created_at": LONG_AGO}
    if dialect is gemini.DIALECT:
        methods = ["generateContent", "streamGenerateContent", "countTokens"]
        return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}
    return {"id": name, "object": "model", "created": 0, "owned_by": "tidegate"}
