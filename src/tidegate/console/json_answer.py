"""Answers of the API: any of our values as JSON, whatever a model has said in them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from starlette.responses import Response


def json_answer(value: Any, status: int = 200, *, indent: int = 0) -> Response:
    """
    The value as a JSON document, on one line or indented.

    A lone surrogate (half an emoji) stands in it as an escape: UTF-8 holds none.
    """
    try:
        body = msgspec.json.encode(value)
        body = msgspec.json.format(body, indent=indent) if indent else body
    except UnicodeEncodeError:
        body = json.dumps(msgspec.to_builtins(value), indent=indent or None).encode()
    return Response(body, status, media_type="application/json")
