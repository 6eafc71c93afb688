"""A provider made of raw bytes: a TCP server whose every connection plays a script."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tidegate.ports import UpstreamRequest
from tidegate.upstream.http1 import Pool

HERE = Path(__file__).parent
CA = HERE / "ca.pem"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Talk:
    """One connection of the provider's side."""

    def __init__(self, provider: Provider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = provider.connections
        self._provider = provider
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """The next request, head and body. Raises EOFError or ConnectionError when the client has gone."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        request = head + await self._reader.readexactly(size)
        self._provider.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def gone(self) -> None:
        """Returns when the client has closed the connection."""
        while await self._reader.read(1 << 16):
            pass

    def finish(self) -> None:
        """FIN."""
        self._writer.close()

    def reset(self) -> None:
        """RST."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()


Script = Callable[[Talk], Awaitable[None]]


class Provider:
    """`async with Provider(script) as provider`: listens on a free port until the block ends."""

    def __init__(self, script: Script, *, tls: bool = False) -> None:
        self.connections = 0
        """All that were ever made."""
        self.open = 0
        self.requests: list[bytes] = []
        self._script = script
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Provider:
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(HERE / "localhost.pem")
        self._server = await asyncio.start_server(self._play, "127.0.0.1", 0, ssl=context, limit=1 << 20, backlog=4096)
        self.port: int = self._server.sockets[0].getsockname()[1]
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        self.origin = f"{scheme}://{host}:{self.port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settled(self, open_connections: int = 0) -> None:
        """Returns when so many connections are open; a test's time limit is its deadline."""
        while self.open != open_connections:
            self._changed.clear()
            await self._changed.wait()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        self._changed.set()
        try:
            await self._script(Talk(self, reader, writer))
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._changed.set()
            self._tasks.discard(task)
            writer.transport.abort()


def always(answer: bytes) -> Script:
    """Answers every request with the same bytes."""

    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.send(answer)

    return script


def once(answer: bytes, then: Callable[[Talk], Any] = Talk.finish) -> Script:
    """Answers one request, then closes."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(answer)
        then(talk)

    return script


@asynccontextmanager
async def pooled(**options: Any) -> AsyncIterator[Pool]:
    """A pool that is closed at the end of the block."""
    pool = Pool(**options)
    try:
        yield pool
    finally:
        await pool.close()


def ask(origin: str, **changes: Any) -> UpstreamRequest:
    """A request with short deadlines; `changes` are its fields."""
    fields: dict[str, Any] = {
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": (("authorization", "Bearer sk-secret"),),
        "body": b'{"q":"private"}',
        "connect_s": 5.0,
        "first_byte_s": 5.0,
        "idle_s": 5.0,
    }
    return UpstreamRequest(origin=origin, **(fields | changes))


def chunk(data: bytes) -> bytes:
    """One chunk of chunked transfer coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Wire(asyncio.Transport):
    """A transport without a socket: the test says what is received."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 0
        self.resumes = 0
        self.written: list[object] = []

    def get_extra_info(self, name: str, default: object = None) -> Wire:
        return self

    def setsockopt(self, *options: int) -> None:
        pass

    def write(self, data: object) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.pauses += 1

    def resume_reading(self) -> None:
        self.resumes += 1

    def abort(self) -> None:
        pass
