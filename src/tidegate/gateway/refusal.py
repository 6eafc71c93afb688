"""What the edge says to a request that it refuses before there is a call, in the words of its path's dialect."""

from __future__ import annotations

from http import HTTPStatus

from tidegate.core.errors import TidegateError
from tidegate.gateway.endpoints import dialect_of


def refusal_body(status: int, message: str, path: str) -> bytes:
    """The error as JSON. `path` may be cut short: a head that is too large is not read to its end."""
    error = TidegateError(message)
    error.http_status = status
    error.code = HTTPStatus(status).name.lower()
    return dialect_of(path).error_body(error)
