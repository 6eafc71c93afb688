"""
Gemini's other form of a stream: one JSON array of the same messages, for clients that do not ask for `alt=sse`.

It stands between the pipeline and the client's reply, so that a call is one and the same whichever form its client
reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.dialects.sse import data_of
from tidegate.ports import Reply


class JsonArrayReply:
    """Turns the events of a streamed answer into the elements of an array. Implements ports.Reply."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._next = b"["
        """What goes before the next element."""

    @property
    def started(self) -> bool:
        return self._reply.started

    async def start(self, status: int, headers: Sequence[tuple[str, str]], *, streamed: bool) -> None:
        """The head; an error that comes instead of a stream is the array's only element, as Google sends it."""
        json = [("content-type", "application/json"), *(pair for pair in headers if pair[0] != "content-type")]
        self._streamed = streamed
        await self._reply.start(status, json, streamed=streamed)

    def push(self, chunk: bytes) -> bool:
        """Whole events, as the pipeline sends them."""
        elements = self._elements(chunk)
        return self._reply.push(elements) if elements else True

    async def drained(self) -> None:
        """As the reply itself."""
        await self._reply.drained()

    async def end(self, tail: bytes = b"") -> None:
        """The last events, or the whole body."""
        if not self._streamed:
            await self._reply.end(b"[" + tail + b"]")
            return
        elements = self._elements(tail)
        await self._reply.end(elements + (b"[]" if self._next == b"[" else b"]"))

    def _elements(self, events: bytes) -> bytes:
        written = b""
        for event in events.split(b"\n\n"):
            if data := data_of(event):
                written += self._next + data
                self._next = b",\r\n"
        return written
