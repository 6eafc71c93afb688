"""The top level of a JSON request: decoded one level deep, so that every value keeps its bytes and its place."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.core.errors import InvalidRequest
from tidegate.dialects.dialect import Fields

MAX_KEYS = 256
OWN_KEYS = ("variables",)
"""Keys of a request that are tidegate's and never go upstream."""

_fields = msgspec.json.Decoder(Fields)
encode = msgspec.json.Encoder().encode


def read_fields(body: bytes) -> Fields:
    """The top level of `body`. Raises InvalidRequest when it is not a JSON object, or has more than 256 keys."""
    try:
        # The values stay as they came, so it is here that all of them are known to be text.
        str(body, "utf-8")
        fields = _fields.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not a JSON object: {error}.") from error
    if len(fields) > MAX_KEYS:
        raise InvalidRequest(f"the body has more than {MAX_KEYS} keys.")
    return fields


def value(fields: Fields, key: str, kind: Any, expected: str) -> Any:
    """`fields[key]` as `kind`; None when it is absent or null. Raises InvalidRequest naming the key."""
    if key not in fields:
        return None
    raw = fields[key]
    if bytes(raw) == b"null":
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{key} must be {expected}{_where(error)}.", param=key) from error


def _where(error: Exception) -> str:
    """msgspec says where inside a value it stumbled: `… - at `$[3].content``."""
    place = str(error).rpartition(" - at `$")[2].rstrip("`") if " - at `$" in str(error) else ""
    return f" (at {place})" if place else ""
