"""
AWS's binary frames (`application/vnd.amazon.eventstream`), from bytes cut anywhere.

A frame is two lengths, their CRC32, headers, a payload, and the CRC32 of all of it; numbers are big-endian. Source:
AWS, "Event stream encoding" (Amazon Lex V2 developer guide, 2026-11).
"""

from __future__ import annotations

import struct
import zlib

from tidegate.core.errors import UpstreamProtocol

MAX_FRAME_BYTES = 4 << 20
_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_SHORT = struct.Struct(">H")
_OVERHEAD = _PRELUDE.size + _CRC.size
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Type of a header's value → its bytes; 6 (bytes) and 7 (text) say their own length."""
_TEXT = 7


class FrameSplitter:
    """Collects chunks and hands out whole frames whose checksums are right. Implements dialect.Splitter."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The frames that `chunk` completes, in order. Raises UpstreamProtocol when one is damaged or over 4 MiB."""
        self._rest += chunk
        frames: list[bytes] = []
        at = 0
        while len(self._rest) - at >= _PRELUDE.size:
            size, headers, crc = _PRELUDE.unpack_from(self._rest, at)
            if zlib.crc32(self._rest[at : at + 8]) != crc:
                raise UpstreamProtocol("the provider's stream is damaged: the checksum of a frame's lengths is wrong")
            if size > MAX_FRAME_BYTES or size < headers + _OVERHEAD:
                raise UpstreamProtocol(f"the provider sent a frame of {size:,} bytes, {headers:,} of them headers")
            if len(self._rest) - at < size:
                break
            frame = bytes(self._rest[at : at + size])
            if zlib.crc32(frame[:-4]) != _CRC.unpack_from(frame, size - 4)[0]:
                raise UpstreamProtocol("the provider's stream is damaged: the checksum of a frame is wrong")
            frames.append(frame)
            at += size
        del self._rest[:at]
        return frames


def parse(frame: bytes) -> tuple[dict[str, str], bytes]:
    """The text headers and the payload of a frame that a splitter has handed out. Raises UpstreamProtocol."""
    _, size, _ = _PRELUDE.unpack_from(frame)
    at, end = _PRELUDE.size, _PRELUDE.size + size
    headers: dict[str, str] = {}
    try:
        while at < end:
            name_end = at + 1 + frame[at]
            name, kind = frame[at + 1 : name_end].decode(), frame[name_end]
            at = name_end + 1
            if kind in _SIZES:
                at += _SIZES[kind]
                continue
            (length,) = _SHORT.unpack_from(frame, at)
            at += 2 + length
            if kind == _TEXT:
                headers[name] = frame[at - length : at].decode()
    except (UnicodeDecodeError, IndexError, struct.error):
        at = -1
    if at != end:
        raise UpstreamProtocol("the provider sent a frame whose headers can not be read")
    return headers, frame[end:-4]
