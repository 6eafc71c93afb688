"""
The HTTP edge: our own HTTP/1.1 server on asyncio, for a gateway whose every microsecond and kilobyte is a promise.

Chosen over granian's RSGI by measurement (a third of its CPU per unary request) and by need: RSGI's writes know no
back-pressure. `connection.py` is one connection, `parser.py` its way in, `reply.py` its way out; this file is the
listener, the one timer that enforces every deadline, and the graceful end. Runs on uvloop and on asyncio's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from email.utils import formatdate

from tidegate.gateway.connection import Connection, ErrorBody, Handler, Shared
from tidegate.gateway.parser import Limits, Request
from tidegate.gateway.reply import HttpReply, error_body
from tidegate.ports import SERVER_CLOSING

__all__ = ["Edge", "Handler", "HttpReply", "Limits", "Request", "error_body"]

BACKLOG = 2048
LAST_WORDS_S = 5.0
"""How long cancelled handlers may take to close their records."""
DEFAULT_LIMITS = Limits()


class Edge:
    """
    One listening HTTP/1.1 server.

    `handler(request, reply)` runs in a task of its own per request; on one connection they run one after the other.
    When the client leaves, the task is cancelled at once (`CancelledError("the client has left")`); when `close` loses
    patience likewise (`CancelledError("the server is closing")`), and then the reply still works. A handler that raises
    gives a 500, or a visibly broken answer when it had begun. What is refused before a handler runs has the shape that
    `error_body` gives it: OpenAI's, by default.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        max_body_bytes: int = 10 << 20,
        limits: Limits = DEFAULT_LIMITS,
        error_body: ErrorBody = error_body,
    ) -> None:
        self._handler = handler
        self._error_body = error_body
        self._max_body_bytes = max_body_bytes
        self._limits = limits
        self._server: asyncio.Server | None = None
        self._shared: Shared | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._shared.connections) if self._shared else 0

    @property
    def running(self) -> int:
        """Handlers under way, those that clean up after a departed client included."""
        return len(self._shared.tasks) if self._shared else 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listens; returns the port, which matters when 0 was asked for. Raises OSError when it can not be had."""
        shared = Shared(self._handler, self._limits, self._max_body_bytes, self._error_body)
        self._server = await shared.loop.create_server(lambda: Connection(shared), host, port, backlog=BACKLOG)
        self._shared = shared
        self._tick(shared)
        return int(self._server.sockets[0].getsockname()[1])

    def _tick(self, shared: Shared) -> None:
        """One timer for all connections: one per request would cost more than the rest of its bookkeeping."""
        limits = self._limits
        shared.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        now = shared.loop.time()
        for connection in list(shared.connections):
            connection.expire(now)
        shortest = min(limits.header_s, limits.body_s, limits.idle_s, limits.stall_s)
        self._timer = shared.loop.call_later(min(1.0, max(0.01, shortest / 8)), self._tick, shared)

    async def close(self, grace_s: float = 30.0) -> None:
        """Stops accepting, lets running handlers finish for up to `grace_s`, cancels the rest, closes everything."""
        server, shared = self._server, self._shared
        if server is None or shared is None:
            return
        self._server = None
        time = shared.loop.time
        end = time() + grace_s
        server.close()
        shared.draining = True
        for connection in list(shared.connections):
            connection.drain()
        await _finish(shared, grace_s)
        for task in list(shared.tasks):
            if not task.cancelling():
                task.cancel(SERVER_CLOSING)
        await _finish(shared, LAST_WORDS_S)
        await _emptied(shared, end)  # answers on their way to slow readers
        for connection in list(shared.connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()
        await _emptied(shared, time() + LAST_WORDS_S)  # an aborted one hears of it in one of the loop's next turns
        with contextlib.suppress(TimeoutError):  # and one that was accepted just now is not among them yet
            await asyncio.wait_for(server.wait_closed(), LAST_WORDS_S)


async def _finish(shared: Shared, timeout_s: float) -> None:
    if shared.tasks:
        await asyncio.wait(shared.tasks, timeout=timeout_s)


async def _emptied(shared: Shared, end: float) -> None:
    """Returns when no connection is left, at the latest at `end`."""
    while shared.connections and shared.loop.time() < end:  # noqa: ASYNC110  an event would cost every connection
        await asyncio.sleep(0.01)
