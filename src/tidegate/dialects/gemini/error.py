"""Google's error shape: `{"error": {"code", "message", "status", "details"}}`, with the names of google.rpc.Code."""

from __future__ import annotations

from typing import Any

from tidegate.core.errors import RequestError, TidegateError
from tidegate.dialects.fields import encode

_STATUS = {
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_TYPES = "type.googleapis.com/google.rpc."


def error_body(error: TidegateError, *, call_id: str | None = None) -> bytes:
    """The error as JSON; our code and the call's id are in an ErrorInfo, the field's name in a BadRequest."""
    status = error.http_status
    metadata = {"call_id": call_id} if call_id else {}
    info = {"@type": f"{_TYPES}ErrorInfo", "reason": error.code.upper(), "domain": "tidegate", "metadata": metadata}
    details: list[dict[str, Any]] = [info]
    if isinstance(error, RequestError) and error.param:
        violation = {"field": error.param, "description": str(error)}
        details.append({"@type": f"{_TYPES}BadRequest", "fieldViolations": [violation]})
    detail = {"code": status, "message": str(error), "status": status_name(status), "details": details}
    return encode({"error": detail})


def status_name(status: int) -> str:
    """The canonical name of an HTTP status."""
    return _STATUS.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
