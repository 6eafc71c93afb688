"""
One client connection: bytes in, requests handled in order and one at a time, answers out.

Hides keep-alive, pipelining, 100-continue, back-pressure, deadlines, and the ends: of input, of patience, of the
process. `parser.py` reads requests, `reply.py` writes answers.

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
from collections.abc import Awaitable, Callable
from typing import cast

from tidegate.gateway.parser import SLICE_BYTES, Limits, Refusal, Request, RequestParser
from tidegate.gateway.reply import HttpReply, head_bytes
from tidegate.upstream.outbox import Outbox

_log = logging.getLogger("tidegate.edge")

UNSENT_BYTES = 16 << 10
UNSENT_PIECES = 8
"""More than the one in a piece, or as many as the other, do not wait for the end of the turn."""
HELD_BYTES = 64 << 10
"""Input behind the request being handled that may wait unparsed, before reading pauses."""
LINGER_S = 2.0
"""How long a refused client is still listened to."""

LEFT = "the client has left"


Handler = Callable[[Request, HttpReply], Awaitable[None]]
ErrorBody = Callable[[int, str, str], bytes]
"""(status, message, path as far as it is known) → the JSON of an error that no handler gave."""


class Shared:
    """What all connections of one edge share."""

    def __init__(self, handler: Handler, limits: Limits, max_body_bytes: int, error_body: ErrorBody) -> None:
        self.loop = asyncio.get_running_loop()
        self.handler = handler
        self.limits = limits
        self.max_body_bytes = max_body_bytes
        self.error_body = error_body
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        """Running handlers, also those whose client has left and that are still cleaning up."""
        self.arriving = 0
        """Bytes of bodies that are still on their way in."""
        self.draining = False
        self.outbox = Outbox(self.loop)
        self.date = b""
        """The `date:` header line, kept fresh by the edge."""


class Connection(asyncio.Protocol):
    """The protocol behind one socket. Its state changes only in callbacks and at the end of its one running task."""

    def __init__(self, shared: Shared) -> None:
        self.congested = False
        """More than `write_buffer_bytes` wait for the reader."""
        self._shared = shared
        self._limits = shared.limits
        self._transport: asyncio.Transport | None = None
        self._deadline = math.inf
        self._closing = False
        """Nothing more is read or answered."""
        # The way in.
        self._parser: RequestParser
        self._task: asyncio.Task[None] | None = None
        """While a request is being handled: the connection's own task."""
        self._worker: asyncio.Task[None] | None = None
        self._next: asyncio.Future[tuple[Request, HttpReply]] = shared.loop.create_future()
        self._held = bytearray()
        self._arriving = 0
        """Of the body that is coming in, as far as `Shared` knows."""
        # The way out.
        self._unsent: list[bytes] = []
        self._drained: asyncio.Future[None] | None = None
        self._stalled_at = 0

    # --- the transport's callbacks ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        address = transport.get_extra_info("peername")
        peer = address[0] if address else ""
        self._parser = RequestParser(self._limits, self._shared.max_body_bytes, peer)
        connections = self._shared.connections
        connections.add(self)
        self._wait(self._limits.header_s)
        if self._shared.draining:
            self.close()
        elif len(connections) > self._limits.connections:
            self._refuse(Refusal(503, "The server has as many connections as it takes. Try again shortly."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.connections.discard(self)
        self._transport = None
        self._unsent.clear()
        self._closing = True
        self._parser.ready.clear()
        self._arrive(0)
        if self._task is None and self._worker is not None:
            self._worker.cancel(LEFT)
        self._cancel()

    def eof_received(self) -> bool:
        if self._task is not None:
            self._cancel()
            self.abort()
        self.send_now()
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
        parser = self._parser
        began, head_done = parser.partial, parser.head_done
        parser.partial = True
        if len(data) <= SLICE_BYTES:
            parser.feed(data)
        else:
            view = memoryview(data)
            for at in range(0, len(data), SLICE_BYTES):
                parser.feed(view[at : at + SLICE_BYTES])
                if parser.ready:
                    self._held[:0] = view[at + SLICE_BYTES :]
                    break
        if self._arriving != parser.body_bytes:
            self._arrive(parser.body_bytes)
        if parser.ready:
            self._begin()
        elif not began or head_done != parser.head_done:
            self._await_rest()

    def _arrive(self, size: int) -> None:
        """So much has come of a body whose rest is awaited."""
        shared = self._shared
        more, self._arriving = size - self._arriving, size
        shared.arriving += more
        if more > 0 and shared.arriving > self._limits.bodies_bytes:
            self._give_up(503, "The server is receiving as much as it can hold. Try again shortly.")

    def _await_rest(self) -> None:
        parser = self._parser
        self._wait(self._limits.body_s if parser.head_done else self._limits.header_s)
        if parser.continue_due:
            parser.continue_due = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- one request after the other --------------------------------------------------------------------------------

    def _begin(self) -> None:
        request = self._parser.ready.popleft()
        if isinstance(request, Refusal):
            self._refuse(request)
            return
        self._deadline = math.inf
        self._next.set_result((request, HttpReply(self, request.method == "HEAD", request.old, request.keep_alive)))
        if self._worker is None:
            self._worker = self._shared.loop.create_task(self._work())
        self._task = self._worker
        self._shared.tasks.add(self._worker)

    async def _work(self) -> None:
        """One task for all requests of a connection: one for each would cost as much as parsing it."""
        while not self._closing:
            request, reply = await self._next
            self._next = self._shared.loop.create_future()
            await self._serve(request, reply)

    async def _serve(self, request: Request, reply: HttpReply) -> None:
        """Owner of one handler: whatever it does, the client gets a whole answer or a visibly broken one."""
        refusal = None
        try:
            await self._shared.handler(request, reply)
            if not reply.ended:
                _log.error("handler of %s %.200r returned without ending its reply", request.method, request.path)
                refusal = Refusal(500, "An internal error happened. The server's log has more.")
        except asyncio.CancelledError:
            refusal = Refusal(503, "The server is shutting down.")
            reply.keep_alive = False  # the task ends here
            raise
        except Exception as error:  # noqa: BLE001  the server's last resort
            if self._transport is not None or not isinstance(error, ConnectionResetError):
                _report(request, error)
            refusal = Refusal(500, "An internal error happened. The server's log has more.")
        finally:
            if self._task is not None:
                self._shared.tasks.discard(self._task)
                self._task = None
            if not self._closing:
                self._conclude(reply, refusal)

    def _conclude(self, reply: HttpReply, refusal: Refusal | None) -> None:
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
        if self._parser.ready:
            self._begin()
        elif self._held:
            held = bytes(self._held)
            self._held.clear()
            if len(held) > HELD_BYTES and self._transport is not None:
                self._transport.resume_reading()
            self._feed(held)
        if self._task is None and self._parser.partial and not self._closing:
            self._await_rest()

    # --- out --------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """At the end of this turn. Raises ConnectionResetError when the client has left."""
        if self._transport is None or self._closing:
            raise ConnectionResetError(LEFT)
        unsent = self._unsent
        unsent.append(data)
        if len(data) > UNSENT_BYTES or len(unsent) == UNSENT_PIECES:
            self.send_now()
        elif len(unsent) == 1:
            self._shared.outbox.add(self)

    def send_now(self) -> None:
        unsent, transport = self._unsent, self._transport
        if not unsent:
            return
        data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        unsent.clear()
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def date(self) -> bytes:
        return self._shared.date

    async def drained(self) -> None:
        """Returns when the write buffer has gone down; a reader that takes nothing is cut off after `stall_s`."""
        self._drained = self._shared.loop.create_future()
        await self._drained

    def _refuse(self, refusal: Refusal) -> None:
        """Answers without a handler, then reads on for a moment so that the answer arrives."""
        transport = self._transport
        if transport is None or self._closing:
            return
        body = self._shared.error_body(refusal.status, str(refusal), refusal.path)
        head = head_bytes(refusal.status, (("content-type", "application/json"),)) + self._shared.date
        self.send_now()
        transport.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        transport.write_eof()
        transport.resume_reading()
        self._closing = True
        self._held.clear()
        self._parser.ready.clear()
        self._parser.discard()
        self._arrive(0)
        self._wait(LINGER_S)

    def _give_up(self, status: int, message: str) -> None:
        """Refuses the request that is coming in."""
        refusal = Refusal(status, message)
        refusal.path = self._parser.path
        self._refuse(refusal)

    def close(self) -> None:
        """Closes when all that was written has gone out; a reader that takes nothing of it is cut off."""
        self._closing = True
        self.send_now()
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
        self.send_now()
        # Neither loop lets its socket's options be set; a duplicate of the descriptor means the same socket.
        with contextlib.suppress(OSError), socket.socket(fileno=_duplicate(transport)) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def abort(self) -> None:
        """Closes now, whatever was still to be written."""
        self._closing = True
        self._unsent.clear()
        if self._transport is not None:
            self._transport.abort()

    def drain(self) -> None:
        """The edge is closing: an idle connection ends now, a busy one after its reply."""
        if self._task is not None or self._closing:
            return
        if self._parser.partial:
            self._give_up(503, "The server is shutting down.")
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
        elif self._parser.partial:
            what = "body" if self._parser.head_done else "headers"
            self._give_up(408, f"The request's {what} took too long to arrive.")
        else:
            self.close()


def _duplicate(transport: asyncio.Transport) -> int:
    return socket.dup(transport.get_extra_info("socket").fileno())


def _report(request: Request, error: Exception) -> None:
    """The exception's own words may quote content, so only its type and its place are logged."""
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("handler of %s %.200r failed with %s\n%s", request.method, request.path, type(error).__name__, place)
