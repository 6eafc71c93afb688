"""OpenAI's error shape, which its dialects share: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.core.errors import RequestError, TidegateError


def error_body(error: TidegateError, *, call_id: str | None = None) -> bytes:
    """The error as JSON; `call_id` stands beside OpenAI's four fields."""
    param = error.param if isinstance(error, RequestError) else None
    detail: dict[str, Any] = {
        "message": str(error),
        "type": _kind(error.http_status),
        "param": param,
        "code": error.code,
    }
    if call_id:
        detail["call_id"] = call_id
    return msgspec.json.encode({"error": detail})


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "api_error"
