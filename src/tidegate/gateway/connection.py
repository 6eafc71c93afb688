"""
One client connection: bytes in, requests handled in order and one at a time, answers out.

Hides HTTP/1.1: framing, keep-alive, pipelining, 100-continue, back-pressure, and everything a hostile client can do
with bytes or with time. llhttp is strict by default and refuses the smuggling forms (CL with TE, two lengths, bare LF,
folded headers); this file adds what it leaves to its user: sizes, counts, Host, codings, versions, and deadlines.

Decided here:
- End of input is the client's departure, also as a half-close (`shutdown(SHUT_WR)`) after a complete request: on the
  wire the two look the same until something is written, and an unread answer costs money. The handler is cancelled.
- While a request is being handled, bytes that follow it wait unparsed, 64 KiB at most; then reading pauses, and with it
  the sight of a departure.
- An answer that broke off is never made to look whole: a chunked one lacks its last chunk, and the connection is reset.
- A refusal (4xx before any handler ran) is followed by a short time in which input is read and dropped: closing at once
  would reset the connection and take the refusal with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import struct
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NoReturn, cast

import httptools
import msgspec

from tidegate.gateway.reply import HttpReply, error_body, head_bytes

_log = logging.getLogger("tidegate.edge")

HELD_BYTES = 64 << 10
"""Input behind the request being handled that may wait unparsed, before reading pauses."""
SLICE_BYTES = 8 << 10
"""The parser is fed this much at a time: it can not be stopped inside a read, and a read may hold 10,000 requests."""
LINGER_S = 2.0
"""How long a refused client is still listened to."""

_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
# fmt: off
_COMMON = (
    "host", "user-agent", "accept", "accept-encoding", "accept-language", "authorization", "connection", "content-type",
    "content-length", "transfer-encoding", "traceparent", "tracestate", "x-request-id", "x-stainless-lang",
    "x-stainless-package-version", "x-stainless-os", "x-stainless-arch", "x-stainless-runtime", "x-stainless-async",
    "x-stainless-runtime-version", "x-stainless-retry-count", "x-stainless-read-timeout",
)
# fmt: on
_NAMES = {spelling.encode(): name for name in _COMMON for spelling in (name, name.title())}

LEFT = "the client has left"


class Request(msgspec.Struct, frozen=True, gc=False):
    """One whole request. `path` and `query` (without `?`) are as sent, not percent-decoded."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in lower case; repeated ones joined by `, ` (cookies by `; `). Values are Latin-1."""
    body: bytes
    peer: str
    """The client's IP address."""


Handler = Callable[[Request, HttpReply], Awaitable[None]]


class Limits(msgspec.Struct, frozen=True):
    """What a client may take: bytes, counts and seconds."""

    head_bytes: int = 64 << 10
    headers: int = 200
    target_bytes: int = 8 << 10
    write_buffer_bytes: int = 256 << 10
    """`send` waits while more than this is on its way to a slow reader."""
    connections: int = 10_000
    header_s: float = 10.0
    """From a request's first byte to the end of its headers."""
    body_s: float = 30.0
    """From there to the end of its body."""
    idle_s: float = 75.0
    """A kept-alive connection between requests."""
    stall_s: float = 60.0
    """A reader that takes not one byte of a full write buffer for this long is cut off."""


class Shared:
    """What all connections of one edge share."""

    def __init__(self, handler: Handler, limits: Limits, max_body_bytes: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.handler = handler
        self.limits = limits
        self.max_body_bytes = max_body_bytes
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        """Running handlers, also those whose client has left and that are still cleaning up."""
        self.draining = False
        self.date = b""
        """The `date:` header line, kept fresh by the edge."""


class _Refusal(Exception):
    """Ends a connection with an error answer. Raised in a parser's callback, it stops the parser."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection(asyncio.Protocol):
    """The protocol behind one socket. Its state changes only in callbacks and at the end of its one running task."""

    def __init__(self, shared: Shared) -> None:
        self.congested = False
        """More than `write_buffer_bytes` wait for the reader."""
        self._shared = shared
        self._limits = shared.limits
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._peer = ""
        self._deadline = math.inf
        self._closing = False
        """Nothing more is read or answered."""
        # The way in: a message is partial from its first byte on; then ready; then it is the running task's.
        self._partial = False
        self._ready: deque[tuple[Request, HttpReply] | _Refusal] = deque()
        self._task: asyncio.Task[None] | None = None
        self._held = bytearray()
        self._refused: _Refusal | None = None
        self._dry_bytes = 0
        """Bytes since the message began or its body last grew: bounds headers, trailers and chunk framing."""
        self._forget_message()
        # The way out.
        self._drained: asyncio.Future[None] | None = None
        self._stalled_at = 0

    def _forget_message(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._repeats = 0
        self._head_done = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._old = False
        self._upgrading = False
        self._replaying = False
        self._continue_due = False

    # --- the transport's callbacks ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        address = transport.get_extra_info("peername")
        self._peer = address[0] if address else ""
        connections = self._shared.connections
        connections.add(self)
        self._wait(self._limits.header_s)
        if self._shared.draining:
            self.close()
        elif len(connections) > self._limits.connections:
            self._refuse(_Refusal(503, "The server has as many connections as it takes. Try again shortly."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.connections.discard(self)
        self._transport = None
        self._closing = True
        self._ready.clear()
        self._cancel()

    def eof_received(self) -> bool:
        if self._task is not None:
            self._cancel()
            self.abort()
        return False

    def _cancel(self) -> None:
        """Once: a second cancellation would break off what the first one set going, such as closing a record."""
        if self._task is not None and not self._task.cancelling():
            self._task.cancel(LEFT)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._task is None and not self._held and not self.congested:
            self._feed(data)
            return
        self._held += data
        if len(self._held) > HELD_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self.congested = True
        self._stalled_at = self._buffered()
        self._wait(self._limits.stall_s)

    def resume_writing(self) -> None:
        self.congested = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._task is not None:
            self._deadline = math.inf
        elif not self._closing:
            self._wait(self._limits.idle_s)
            self._advance()

    # --- from bytes to requests -------------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        """Parses up to the slice that completes a request and begins that; the rest is held."""
        began, head_done = self._partial, self._head_done
        self._partial = True
        if len(data) <= SLICE_BYTES:
            self._parse(data)
        else:
            view = memoryview(data)
            for at in range(0, len(data), SLICE_BYTES):
                self._parse(view[at : at + SLICE_BYTES])
                if self._ready:
                    self._held[:0] = view[at + SLICE_BYTES :]
                    break
        if self._ready:
            self._begin()
        elif not began or head_done != self._head_done:
            self._await_rest()

    def _await_rest(self) -> None:
        self._wait(self._limits.body_s if self._head_done else self._limits.header_s)
        if self._continue_due:
            self._continue_due = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _parse(self, data: bytes | memoryview) -> None:
        if self._refused is not None:
            return
        self._dry_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._dry_bytes > self._limits.head_bytes + SLICE_BYTES:
                self._fail_large_head()
        except httptools.HttpParserUpgrade as offer:
            self._replay()
            self._parse(memoryview(data)[offer.args[0] :])
        except _Refusal as refusal:
            self._stop(refusal)
        except httptools.HttpParserError as error:
            self._stop(self._refused or _Refusal(400, f"The request is not valid HTTP/1.1: {error}."))

    def _replay(self) -> None:
        """
        llhttp reads no body behind an offer to upgrade, which we ignore as RFC 9110 §7.8 allows (Java's client offers
        h2c on every first request): a parser that never saw the offer reads it.
        """
        headers = self._headers
        framing = "transfer-encoding" if "transfer-encoding" in headers else "content-length"
        persistence = "close" if "close" in headers.get("connection", "").lower() else "keep-alive"
        method = self._method()
        self._parser = httptools.HttpRequestParser(self)
        self._upgrading = False
        self._replaying = True
        head = f"{method} / HTTP/1.1\r\nConnection: {persistence}\r\n{framing}: {headers.get(framing, '0')}\r\n\r\n"
        self._parse(head.encode("latin-1"))

    def _stop(self, refusal: _Refusal) -> None:
        """Nothing after this is parsed. What was complete before it is still answered."""
        self._refused = refusal
        self._ready.append(refusal)

    def _fail(self, status: int, message: str) -> NoReturn:
        """Stops the parser from inside one of its callbacks."""
        self._refused = _Refusal(status, message)
        raise self._refused

    def _fail_large_head(self) -> NoReturn:
        self._fail(431, f"The request's headers or trailers are larger than {self._limits.head_bytes} bytes.")

    def _fail_many_headers(self) -> NoReturn:
        self._fail(431, f"The request has more than {self._limits.headers} headers.")

    # --- the parser's callbacks -------------------------------------------------------------------------------------

    def on_url(self, part: bytes) -> None:
        if self._replaying:
            return
        self._partial = True
        self._url += part
        if len(self._url) > self._limits.target_bytes:
            self._fail(414, f"The request's target is longer than {self._limits.target_bytes} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._replaying or self._head_done:  # trailers are dropped
            return
        key = _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.decode("latin-1").rstrip(" \t")
        if key not in self._headers:
            self._headers[key] = text
        else:
            self._repeat(key, text)

    def _repeat(self, key: str, text: str) -> None:
        if key == "host":
            self._fail(400, "The request has more than one Host header.")
        self._repeats += 1
        if self._repeats > self._limits.headers:
            self._fail_many_headers()
        self._headers[key] += ("; " if key == "cookie" else ", ") + text

    def on_headers_complete(self) -> None:
        if self._replaying:
            return
        self._head_done = True
        headers = self._headers
        version = self._parser.get_http_version()
        if version != "1.1":
            self._old = True
            if version != "1.0":
                self._fail(505, "This server speaks HTTP/1.1 and HTTP/1.0.")
        elif "host" not in headers:
            self._fail(400, "The request has no Host header.")
        self._check_size()
        if "content-length" in headers:
            self._check_body(int(headers["content-length"]))
        elif "transfer-encoding" in headers and (self._old or headers["transfer-encoding"].lower() != "chunked"):
            self._fail(400, "The only transfer coding accepted is chunked, with HTTP/1.1.")
        if "content-encoding" in headers and headers["content-encoding"].lower() != "identity":
            self._fail(415, "Compressed request bodies are not accepted. Send the body without Content-Encoding.")
        if "expect" in headers:
            self._expect(headers["expect"])
        if self._parser.should_upgrade():
            self._upgrade()

    def _check_size(self) -> None:
        headers, limits = self._headers, self._limits
        if len(headers) + self._repeats > limits.headers:
            self._fail_many_headers()
        if self._dry_bytes > limits.head_bytes:
            size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers.items())
            if size > limits.head_bytes:
                self._fail_large_head()

    def _expect(self, what: str) -> None:
        if what.lower() != "100-continue":
            self._fail(417, "The only expectation that can be met is 100-continue.")
        self._continue_due = not self._old

    def _upgrade(self) -> None:
        if self._parser.get_method() == b"CONNECT":
            self._fail(501, "This server is not a proxy.")
        self._upgrading = True

    def on_body(self, part: bytes) -> None:
        self._dry_bytes = 0
        self._continue_due = False
        self._body_bytes += len(part)
        self._check_body(self._body_bytes)
        self._body.append(part)

    def _check_body(self, size: int) -> None:
        if size > self._shared.max_body_bytes:
            self._fail(413, f"The request's body is larger than {self._shared.max_body_bytes} bytes.")

    def on_message_complete(self) -> None:
        if self._upgrading:
            return  # not complete at all, see _replay
        method = self._method()
        path, query = self._target()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        keep_alive = self._parser.should_keep_alive()
        reply = HttpReply(self, head_only=method == "HEAD", keep_alive=keep_alive, old=self._old)
        self._ready.append((Request(method, path, query, self._headers, body, self._peer), reply))
        self._partial = False
        self._dry_bytes = 0
        self._forget_message()

    def _method(self) -> str:
        method: bytes = self._parser.get_method()
        return _METHODS.get(method) or method.decode("latin-1")

    def _target(self) -> tuple[str, str]:
        """Path and query of the origin form, or of an absolute form, whose authority is never looked at."""
        target = self._url.decode("latin-1")
        if target[0] != "/" and target != "*":
            rest = target.partition("://")[2]
            if not rest:
                self._fail(400, "The request's target is neither a path nor a URL.")
            target = rest[min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest)) :]
            target = target if target.startswith("/") else f"/{target}"
        path, _, query = target.partition("#")[0].partition("?")
        return path, query

    # --- one request after the other --------------------------------------------------------------------------------

    def _begin(self) -> None:
        item = self._ready.popleft()
        if isinstance(item, _Refusal):
            self._refuse(item)
            return
        self._deadline = math.inf
        shared = self._shared
        self._task = task = shared.loop.create_task(self._serve(*item))
        shared.tasks.add(task)

    async def _serve(self, request: Request, reply: HttpReply) -> None:
        """Owner of one handler: whatever it does, the client gets a whole answer or a visibly broken one."""
        refusal = None
        try:
            await self._shared.handler(request, reply)
            if not reply.ended:
                _log.error("handler of %s %.200r returned without ending its reply", request.method, request.path)
                refusal = _Refusal(500, "An internal error happened. The server's log has more.")
        except asyncio.CancelledError:
            refusal = _Refusal(503, "The server is shutting down.")
            raise
        except Exception as error:  # noqa: BLE001  the server's last resort
            if self._transport is not None or not isinstance(error, ConnectionResetError):
                _report(request, error)
            refusal = _Refusal(500, "An internal error happened. The server's log has more.")
        finally:
            if self._task is not None:
                self._shared.tasks.discard(self._task)
                self._task = None
            if not self._closing:
                self._conclude(reply, refusal)

    def _conclude(self, reply: HttpReply, refusal: _Refusal | None) -> None:
        if refusal is not None and not reply.ended:
            self.cut(reset=True) if reply.sent else self._refuse(refusal)
        elif not reply.keep_alive or self._shared.draining:
            self.close()
        elif self.congested:
            self._wait(self._limits.stall_s)
        else:
            self._wait(self._limits.idle_s)
            self._advance()

    def _advance(self) -> None:
        """The next request: one that is parsed already, or what the held bytes bring."""
        if self._ready:
            self._begin()
        elif self._held:
            held = bytes(self._held)
            self._held.clear()
            if len(held) > HELD_BYTES and self._transport is not None:
                self._transport.resume_reading()
            self._feed(held)
        if self._task is None and self._partial and not self._closing:
            self._await_rest()

    # --- out --------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Raises ConnectionResetError when the client has left."""
        if self._transport is None or self._closing:
            raise ConnectionResetError(LEFT)
        self._transport.write(data)

    def date(self) -> bytes:
        return self._shared.date

    async def drained(self) -> None:
        """Returns when the write buffer has gone down; a reader that takes nothing is cut off after `stall_s`."""
        self._drained = self._shared.loop.create_future()
        await self._drained

    def _refuse(self, refusal: _Refusal) -> None:
        """Answers without a handler, then reads on for a moment so that the answer arrives."""
        transport = self._transport
        if transport is None or self._closing:
            return
        body = error_body(refusal.status, str(refusal))
        head = head_bytes(refusal.status, (("content-type", "application/json"),)) + self._shared.date
        transport.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        transport.write_eof()
        transport.resume_reading()
        self._closing = True
        self._held.clear()
        self._ready.clear()
        self._wait(LINGER_S)

    def close(self) -> None:
        """Closes when all that was written has gone out; a reader that takes nothing of it is cut off."""
        self._closing = True
        if self._transport is not None:
            self._stalled_at = self._buffered()
            self._wait(self._limits.stall_s)
            self._transport.close()

    def cut(self, *, reset: bool) -> None:
        """Ends the connection without a clean end of the answer: by RST at once, or by FIN behind what was written."""
        transport = self._transport
        if transport is None:
            return
        if not reset:
            self.close()
            return
        # Neither loop lets its socket's options be set; a duplicate of the descriptor means the same socket.
        with contextlib.suppress(OSError), socket.socket(fileno=_duplicate(transport)) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def abort(self) -> None:
        """Closes now, whatever was still to be written."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def drain(self) -> None:
        """The edge is closing: an idle connection ends now, a busy one after its reply."""
        if self._task is not None or self._closing:
            return
        if self._partial:
            self._refuse(_Refusal(503, "The server is shutting down."))
        else:
            self.close()

    # --- time -------------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self._deadline = self._shared.loop.time() + seconds

    def _buffered(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def expire(self, now: float) -> None:
        """Enforces the deadline, if it has passed. The edge calls this several times per shortest deadline."""
        if now < self._deadline:
            return
        if self.congested or self._closing:
            buffered = self._buffered()
            if buffered < self._stalled_at and buffered:
                self._stalled_at = buffered
                self._wait(self._limits.stall_s)
            else:
                self.abort()
        elif self._partial:
            what = "body" if self._head_done else "headers"
            self._refuse(_Refusal(408, f"The request's {what} took too long to arrive."))
        else:
            self.close()


def _duplicate(transport: asyncio.Transport) -> int:
    return socket.dup(transport.get_extra_info("socket").fileno())


def _report(request: Request, error: Exception) -> None:
    """The exception's own words may quote content, so only its type and its place are logged."""
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("handler of %s %.200r failed with %s\n%s", request.method, request.path, type(error).__name__, place)
