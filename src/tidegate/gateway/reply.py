"""
The answer to one request, on the wire: head, framing, and one write per turn of the loop.

Hides content-length against chunked against HTTP/1.0, and what HEAD, 204 and 304 leave out. Headers that a handler
names are checked, so that no value from outside can split a head and no copied one can contradict the framing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol

import msgspec

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_FRAMING = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade"})
_BODILESS = frozenset({204, 304})
_SPLITS = "a header may not hold CR, LF or NUL."


class Wire(Protocol):
    """What a reply needs of its connection."""

    congested: bool
    """More waits for the reader than `send` may leave behind."""

    def write(self, data: bytes) -> None: ...
    async def drained(self) -> None: ...
    def cut(self, *, reset: bool) -> None: ...
    def date(self) -> bytes:
        """The `date:` header line."""
        ...


class HttpReply(msgspec.Struct, eq=False):
    """
    The answer to one request: one `start`, any number of `send`, one `end` (ports.Reply).

    A piece of a streamed answer leaves at the end of the turn it was sent in (upstream/outbox.py). Any other answer is
    held back until `end` and goes out whole with its content-length. Framing headers (content-length,
    transfer-encoding, connection, date) are the edge's: naming one is a ValueError, as is CR, LF or NUL in any header.
    Raises ConnectionResetError when the client has left, which only a handler that swallowed its cancellation can see.
    One task at a time.
    """

    _wire: Wire
    _bodiless: bool
    _old: bool
    keep_alive: bool
    """The connection takes another request after this answer."""
    sent: bool = False
    """The head is on its way: it is too late for another status."""
    ended: bool = False
    _streamed: bool = False
    _chunked: bool = False
    _head: bytes | None = None
    _body: list[bytes] | None = None

    @property
    def started(self) -> bool:
        """`start` was called."""
        return self._head is not None

    async def start(self, status: int, headers: Sequence[tuple[str, str]], *, streamed: bool) -> None:
        if self._head is not None:
            raise RuntimeError("start() was called twice on one reply.")
        self._head = head = head_bytes(status, headers)
        if status in _BODILESS:
            self._bodiless = streamed = True
        self._streamed = streamed
        if not streamed:
            return
        if not self._bodiless:
            if self._old:
                self.keep_alive = False  # HTTP/1.0 knows no chunks: the body ends where the connection does
            else:
                self._chunked = True
                head += b"transfer-encoding: chunked\r\n"
        self.sent = True
        self._wire.write(head + self._persistence())

    def push(self, chunk: bytes) -> bool:
        wire = self._wire
        if not self._streamed:
            self._body = [*(self._body or ()), chunk]
        elif chunk and not self._bodiless:
            wire.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        return not wire.congested

    async def drained(self) -> None:
        if self._wire.congested:
            await self._wire.drained()

    async def send(self, chunk: bytes) -> None:
        """Both, for handlers that write one chunk after the other."""
        if not self.push(chunk):
            await self.drained()

    async def end(self, tail: bytes = b"") -> None:
        head = self._head
        if head is None or self.ended:
            raise RuntimeError("end() comes once, after start().")
        self.ended = True
        if not self._streamed:
            body = b"".join((*self._body, tail)) if self._body else tail
            self.sent = True
            shown = b"" if self._bodiless else body
            self._wire.write(b"%bcontent-length: %d\r\n%b%b" % (head, len(body), self._persistence(), shown))
        elif self._chunked:
            self._wire.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(tail), tail) if tail else b"0\r\n\r\n")
        elif tail and not self._bodiless:
            self._wire.write(tail)

    def _persistence(self) -> bytes:
        date = self._wire.date()
        if not self.keep_alive:
            return date + b"connection: close\r\n\r\n"
        return date + (b"connection: keep-alive\r\n\r\n" if self._old else b"\r\n")

    def raw(self, data: bytes) -> None:
        """Writes bytes past all framing: for fault injection only."""
        self.sent = True
        self._wire.write(data)

    def abort(self, *, reset: bool = False) -> None:
        """
        Ends the connection in the middle of the answer: by FIN after what was written so far, or by RST, which may
        overtake it.
        """
        self.ended = True
        self._wire.cut(reset=reset)


def head_bytes(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    """Status line and header lines. Raises ValueError on a header that is the edge's own or could split the head."""
    names, values = zip(*headers, strict=True) if headers else ((), ())
    said = "".join(values)
    if "\n" in said or "\r" in said or "\0" in said:
        raise ValueError(_SPLITS)
    return (_head_format(status, names) % values).encode("latin-1")


@lru_cache(256)
def _head_format(status: int, names: tuple[str, ...]) -> str:
    """The head of such an answer, with a `%s` for each value."""
    if not _FRAMING.isdisjoint([name.lower() for name in names]):
        raise ValueError(f"a header of {', '.join(sorted(_FRAMING))} belongs to the edge.")
    if any(mark in name for name in names for mark in "\r\n\0"):
        raise ValueError(_SPLITS)
    lines = "".join([name.replace("%", "%%") + ": %s\r\n" for name in names])
    return f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n{lines}"


def error_body(status: int, message: str, _path: str = "") -> bytes:
    """OpenAI's error shape as JSON bytes; `status` is one of HTTP's own."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    code = HTTPStatus(status).name.lower()
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})
