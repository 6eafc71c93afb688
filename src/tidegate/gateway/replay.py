"""A kept answer, on its way as if it came from the provider."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tidegate.ports import Pieces

PIECE_BYTES = 16 << 10
"""Other calls have their turn between two pieces."""
_NO_HEADERS: Mapping[str, str] = {}


class Replay:
    """Implements ports.UpstreamAnswer."""

    status = 200
    headers = _NO_HEADERS

    def __init__(self, body: bytes) -> None:
        self._body = body

    def chunks(self) -> Pieces:
        """The body, a piece at a time."""
        return _Slices(self._body)

    async def read(self, limit: int) -> bytes:
        """The whole body; it was within every limit when it came."""
        return self._body


class _Slices(Pieces):
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    async def __anext__(self) -> bytes:
        if self._at:
            await asyncio.sleep(0)
        piece = self._body[self._at : self._at + PIECE_BYTES]
        if not piece:
            raise StopAsyncIteration
        self._at += PIECE_BYTES
        return piece
