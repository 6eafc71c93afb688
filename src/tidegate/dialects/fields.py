"""The top level of a JSON request: decoded one level deep, so that every value keeps its bytes and its place."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from tidegate.core.errors import InvalidRequest
from tidegate.dialects.dialect import Fields

MAX_KEYS = 256
MAX_VALUES = 100_000
"""JSON values in one body: 20,000 messages of five. Decoding more would stop every other call for over 100 ms."""
OWN_KEYS = ("variables",)
"""Keys of a request that are tidegate's and never go upstream."""

_fields = msgspec.json.Decoder(Fields)
encode = msgspec.json.Encoder().encode


def read_fields(body: bytes, *, max_values: int = MAX_VALUES) -> Fields:
    """
    The top level of `body`.

    Raises InvalidRequest when it is not a JSON object, or has more than 256 keys or `max_values` values in all.
    """
    if not body:
        raise InvalidRequest("the body is empty: send a JSON object.")
    if len(body) > 2 * max_values and _has_many_values(body, max_values):
        raise InvalidRequest(f"the body holds more than {max_values:,} JSON values.")
    try:
        # The values stay as they came, so it is here that all of them are known to be text.
        if not body.isascii():
            str(body, "utf-8")
        fields = _fields.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not a JSON object: {error}.") from error
    if len(fields) > MAX_KEYS:
        raise InvalidRequest(f"the body has more than {MAX_KEYS} keys.")
    return fields


def _has_many_values(body: bytes, most: int) -> bool:
    """More than `most`, by counting what stands between the strings; 60 ms at worst for 10 MiB, and no objects."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") < most:
        return False  # every value follows one of them
    marks = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if marks.count(b'"') > 4 * most:  # two of each string, which is a value or a value's key
        return True
    between = b"".join(marks.split(b'"')[::2])
    return between.count(b",") + between.count(b"[") + between.count(b"{") >= most


def arguments(raw: msgspec.Raw) -> str:
    """
    What a provider calls a tool with, as JSON text; nothing is `{}`.

    Decoders do not look into what they leave raw: what is no UTF-8 there becomes U+FFFD.
    """
    given = str(raw, "utf-8", "replace")
    return "{}" if given in ("", "null") else given


def value(fields: Fields, key: str, kind: Any, expected: str) -> Any:
    """`fields[key]` as `kind`; None when it is absent or null. Raises InvalidRequest naming the key."""
    if key not in fields:
        return None
    try:
        return _decoder(kind).decode(fields[key])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{key} must be {expected}{_where(error)}.", param=key) from error


@lru_cache(256)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Of a value or null. Making one takes longer than most decoding."""
    return msgspec.json.Decoder(kind | None)


def _where(error: Exception) -> str:
    """msgspec says where inside a value it stumbled: `… - at `$[3].content``."""
    place = str(error).rpartition(" - at `$")[2].rstrip("`") if " - at `$" in str(error) else ""
    return f" (at {place})" if place else ""
