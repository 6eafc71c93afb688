"""AWS's binary frames, written: the other side of `dialects/bedrock/eventstream.py`, by its specification."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgspec


def frame(payload: bytes, **headers: str) -> bytes:
    """One frame; a header's name is written with a colon before it and `-` for `_`."""
    written = b""
    for name, value in headers.items():
        key, text = f":{name.replace('_', '-')}".encode(), value.encode()
        written += bytes([len(key)]) + key + b"\x07" + struct.pack(">H", len(text)) + text
    prelude = struct.pack(">II", 16 + len(written) + len(payload), len(written))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + written + payload
    return head + struct.pack(">I", zlib.crc32(head))


def event(kind: str, payload: Any) -> bytes:
    """An event of a stream."""
    return frame(msgspec.json.encode(payload), message_type="event", event_type=kind, content_type="application/json")


def exception(kind: str, message: str) -> bytes:
    """An exception inside a stream."""
    body = msgspec.json.encode({"message": message})
    return frame(body, message_type="exception", exception_type=kind, content_type="application/json")
