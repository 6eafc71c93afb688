"""A kept answer, on its way as if it came from the provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

PIECE_BYTES = 16 << 10
"""Other calls have their turn between two pieces."""
_NO_HEADERS: Mapping[str, str] = {}


class Replay:
    """Implements ports.UpstreamAnswer."""

    status = 200
    headers = _NO_HEADERS

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, a piece at a time."""
        for start in range(0, len(self._body), PIECE_BYTES):
            if start:
                await asyncio.sleep(0)
            yield self._body[start : start + PIECE_BYTES]

    async def read(self, limit: int) -> bytes:
        """The whole body; it was within every limit when it came."""
        return self._body
