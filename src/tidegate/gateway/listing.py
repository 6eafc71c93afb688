"""What a client may call – routes, prompts, models of providers – in the shape its dialect lists models in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

LONG_AGO = "1970-01-01T00:00:00Z"


def listing_for(headers: Mapping[str, str]) -> Callable[[Sequence[str]], dict[str, Any]]:
    """How to list at `/v1/models`, which three dialects share: by the headers that only one dialect's clients send."""
    if "anthropic-version" in headers:
        return anthropic
    return gemini if "x-goog-api-key" in headers or "x-goog-api-client" in headers else openai


def openai(names: Sequence[str]) -> dict[str, Any]:
    """As OpenAI does."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "tidegate"} for name in names]
    return {"object": "list", "data": data}


def anthropic(names: Sequence[str]) -> dict[str, Any]:
    """As Anthropic does."""
    data = [{"type": "model", "id": name, "display_name": name, "created_at": LONG_AGO} for name in names]
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return {"data": data, "has_more": False, **ends}


def gemini(names: Sequence[str]) -> dict[str, Any]:
    """As Google does, also at `/v1beta/models`."""
    methods = ["generateContent", "streamGenerateContent"]
    return {
        "models": [
            {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods} for name in names
        ]
    }
