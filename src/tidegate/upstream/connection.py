"""
One connection to a provider: a request out, its answer in.

Hides the parser (llhttp through httptools), the hand-off from the loop's callbacks to the one task that waits, flow
control and deadlines. No task, no queue and no timer per request: one future while the owner waits, and one timer per
connection that is moved only when a deadline comes closer than the one it is set to.

What fails is kept and raised to the owner after the body bytes that came before it. Messages name `host:port` and
never show what was sent or received.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import httptools

from tidegate.core.errors import StreamBroken, UpstreamError, UpstreamProtocol, UpstreamTimeout, UpstreamUnavailable
from tidegate.upstream.headers import Headers
from tidegate.upstream.outbox import Outbox

HEAD_LIMIT = 64 << 10
"""Bytes in a row that are not body: the head of an answer, later chunk framing and trailers."""
HEADER_LIMIT = 200
UNREAD_LIMIT = 256 << 10
"""Bytes that wait for a slow reader before the provider has to wait."""
PIECE_COST = 64
"""What one piece of body costs beside its bytes, so that a drip of tiny pieces is bounded too."""
NO_HEADERS = Headers({})
STALE_S = 1.0
"""That a provider had closed a kept connection is heard of so soon; later it has worked on the request, and failed."""
NEVER = float("inf")
SLACK_S = 0.001
"""Timers of uvloop tick in milliseconds and may be early by one."""


class Connection(asyncio.Protocol):
    """
    Owned by one task at a time, from `send` until it calls `rest` or `close`.

    `place` is `host:port`; `gone` is called once, as soon as the connection is of no more use.
    """

    _transport: asyncio.Transport

    def __init__(
        self, loop: asyncio.AbstractEventLoop, outbox: Outbox, place: str, gone: Callable[[Connection], None]
    ) -> None:
        self.status = 0
        """0 until the head of the answer is whole."""
        self.headers = NO_HEADERS
        self.requests = 0
        self.answered = False
        """Whether a byte of this answer has come."""
        self.stale = False
        """It broke because the provider had closed it before this request came."""
        self.complete = True
        self.closed = False
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the socket is gone."""
        self._loop = loop
        self._outbox = outbox
        self._unsent = b""
        self._place = place
        self._gone = gone
        self._failure: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._deadline = NEVER
        self._patience_s = 0.0
        self._phase = ""
        self._body: list[bytes] = []
        self._unread = 0
        self._barren = 0
        self._head: dict[bytes, bytes] = {}
        self._head_only = False
        self._keep_alive = False
        self._paused = False
        self._sink: Callable[[bytes], bool] | None = None
        self._refused = False
        self._mishap: Exception | None = None
        # Straight into the containers: a Python function for each header costs more than the rest of the parsing.
        self.on_header = self._head.__setitem__
        self.on_body = self._body.append
        self._parser = httptools.HttpResponseParser(self)

    # The owner's side.

    def send(self, payload: bytes, *, head_only: bool) -> None:
        """Sends a whole request. `head_only`: the answer has no body, whatever its head says (HEAD)."""
        self.requests += 1
        self.take()  # what nobody read
        self.status = self._barren = 0
        self.headers = NO_HEADERS
        self._head.clear()
        self.answered = self.complete = self._keep_alive = False
        self._head_only = head_only
        self._unsent = payload
        self._outbox.add(self)

    def send_now(self) -> None:
        payload, self._unsent = self._unsent, b""
        if payload and not self._transport.is_closing():
            self._transport.write(payload)

    async def ask(self, payload: bytes, patience_s: float, *, head_only: bool) -> None:
        """
        As `send`, and waits for `status` and `headers`; closed when they do not come.

        Raises UpstreamUnavailable, -Protocol, -Timeout(phase=first_byte).
        """
        try:
            self.send(payload, head_only=head_only)
            if self._failure is None:
                await self._wait(patience_s, "first_byte")
            if not self.status and self._failure is not None:
                raise self._failure
        except BaseException:  # a cancel too: the answer may still come
            self.close()
            raise

    async def body(self, patience_s: float) -> bytes:
        """What came of the body since last time; empty at its end. Raises StreamBroken, -Protocol, -Timeout(idle)."""
        body = self._body
        if not body and not self.complete and self._failure is None:
            await self._wait(patience_s, "idle")
        if body:
            return self.take()
        if not self.complete and self._failure is not None:
            raise self._failure
        return b""

    async def pump(self, sink: Callable[[bytes], bool], patience_s: float) -> bool:
        """
        Hands each piece of the body to `sink` in the moment it comes, until that says False; True at the body's end.

        Raises as `body` does, and what `sink` raises.
        """
        while True:
            while self._body:
                if not sink(self.take()):
                    return False
            if self.complete:
                return True
            if self._failure is not None:
                raise self._failure
            self._sink, self._refused, self._mishap = sink, False, None
            try:
                await self._wait(patience_s, "idle")
            finally:
                self._sink = None
            if self._mishap is not None:
                raise self._mishap
            if self._refused:
                return False

    def _pour(self, sink: Callable[[bytes], bool]) -> None:
        """In a callback of the loop's: what goes wrong is raised to the owner."""
        self._deadline = self._loop.time() + self._patience_s
        try:
            self._refused = not sink(self.take())
        except Exception as error:  # noqa: BLE001  whatever it is
            self._mishap = error
        if self._refused or self._mishap is not None:
            self._sink = None

    def take(self) -> bytes:
        """What is there of the body; perhaps nothing."""
        body = self._body
        piece = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self._unread = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return piece

    @property
    def unread(self) -> int:
        """No more than so many bytes of body are there."""
        return self._unread

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the answer is whole, all was sent, and both sides stay."""
        sent = not self._unsent and self._transport.get_write_buffer_size() == 0
        return not self.closed and self._keep_alive and sent

    def rest(self, patience_s: float) -> None:
        """No owner for now. Closes itself after `patience_s`, on any byte, and when the provider does."""
        self._expire_after(patience_s, "rest")

    def fail(self, error: UpstreamError) -> None:
        """Ends an unfinished answer with `error`, and the connection with it."""
        if not self.complete and self._failure is None:
            self._failure = error
        self.close()
        self._wake()

    def close(self) -> None:
        """Lets go of the socket at once, which cancels an unfinished answer. Any number of times."""
        if self.closed:
            return
        self.closed = True
        self._unsent = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, NEVER
        self._transport.abort()
        self._gone(self)

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.complete:  # nobody asked for it, so it is not the answer to what will be asked
            self.close()
            return
        self.answered = True
        before = len(self._body)
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._misunderstood(error)
        pieces = len(self._body) - before
        if not pieces and not self.complete:
            if self._barren > HEAD_LIMIT:
                self.fail(self._too_long())
            return
        self._barren = 0
        if self._sink is not None and pieces:
            self._pour(self._sink)
            if self._sink is not None and not self.complete:
                return  # the owner need not know
        else:
            self._unread += len(data) + pieces * PIECE_COST
            if self._unread > UNREAD_LIMIT and not self.complete and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended(cut=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(cut=exc is not None)
        del self._parser, self.on_body, self.on_header  # a cycle would keep the buffers until the collector finds it
        self.lost.set_result(None)

    def _ended(self, *, cut: bool) -> None:
        if self.closed:
            return
        if self.status and not cut and self._ends_with_connection():
            self.complete = True
        if self.status:
            self.fail(StreamBroken(f"{self._place}: the connection broke in the middle of the answer."))
        else:
            soon = self._loop.time() - (self._deadline - self._patience_s) < STALE_S
            self.stale = soon and self.requests > 1 and not self.answered
            self.fail(UpstreamUnavailable(f"{self._place}: the connection broke before an answer."))

    def _ends_with_connection(self) -> bool:
        headers = self.headers
        return (
            "content-length" not in headers
            and self.status not in (204, 304)
            and not headers.get("transfer-encoding", "").lower().endswith("chunked")
        )

    # The parser's side.

    def on_message_begin(self) -> None:
        if self.complete:
            raise self._nonsense()  # a second answer to one request

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status == 101:
            raise self._nonsense()  # an upgrade that nobody asked for
        head = self._head
        if status < 200:
            head.clear()
            return
        too_large = self._barren > HEAD_LIMIT and sum(map(len, (*head, *head.values()))) > HEAD_LIMIT
        if too_large or len(head) > HEADER_LIMIT:
            raise self._too_long()
        self.headers = Headers(head.copy())  # trailers come too late to be seen
        self.status = status
        if self._head_only:
            self.complete = True
            raise self._nonsense()  # httptools can not be told that no body follows: this connection ends here
        self._wake()

    def on_message_complete(self) -> None:
        if self.status:  # else it was a 1xx: the answer is still to come
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _misunderstood(self, error: Exception) -> None:
        """Bytes after a whole answer only cost the connection; before its end they cost the answer."""
        self._keep_alive = False
        if not self.complete:
            cause = error.__context__
            self.fail(cause if isinstance(cause, UpstreamError) else self._nonsense())

    def _nonsense(self) -> UpstreamError:
        return UpstreamProtocol(f"{self._place}: the answer is not HTTP/1.1.")

    def _too_long(self) -> UpstreamError:
        return UpstreamProtocol(
            f"{self._place}: the head of the answer is over {HEADER_LIMIT} headers or {HEAD_LIMIT >> 10} KiB."
        )

    # Waiting.

    def _wait(self, patience_s: float, phase: str) -> asyncio.Future[None]:
        """To be awaited at once: done when there is news for the owner."""
        self._expire_after(patience_s, phase)
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            self._deadline = NEVER
            waiter.set_result(None)

    def _expire_after(self, patience_s: float, phase: str) -> None:
        deadline = self._deadline = self._loop.time() + patience_s
        self._patience_s = patience_s
        self._phase = phase
        if deadline < self._timer_at:
            self._set_timer(deadline)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, NEVER
        if self._deadline == NEVER:
            return
        if self._loop.time() < self._deadline - SLACK_S:
            self._set_timer(self._deadline)
        elif self._phase == "rest":
            self.close()
        elif self._waiter is not None and not self._waiter.done():
            gap = "no answer" if self._phase == "first_byte" else "the answer stood still"
            message = f"{self._place}: {gap} for {self._patience_s:g} s."
            self.fail(UpstreamTimeout(message, phase=self._phase))
