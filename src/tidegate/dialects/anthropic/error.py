"""Anthropic's error shape: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""

from __future__ import annotations

from typing import Any

from tidegate.core.errors import RequestError, TidegateError
from tidegate.dialects.fields import encode

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Anthropic's names by status (its API reference, errors, 2026-11); the rest go by their class."""


def error_body(error: TidegateError, *, call_id: str | None = None) -> bytes:
    """The error as JSON. Anthropic has no field for the offending parameter, so the message begins with it."""
    message = str(error)
    param = error.param if isinstance(error, RequestError) else None
    if param is not None and param not in message:
        message = f"{param}: {message}"
    status = error.http_status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    if call_id:
        body["request_id"] = call_id
    return encode(body)
