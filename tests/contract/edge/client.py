"""Handlers to serve, and a raw socket to ask them with."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tidegate.gateway.edge import Edge, Handler, HttpReply, Limits, Request

TEXT = (("content-type", "text/plain"),)
PLAIN = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


async def echo(request: Request, reply: HttpReply) -> None:
    await reply.start(200, TEXT, streamed=False)
    await reply.end(
        f"{request.method} {request.path} {request.query} {len(request.body)} ".encode() + request.body[:64]
    )


@asynccontextmanager
async def serving(handler: Handler = echo, *, max_body_bytes: int = 1 << 20, **limits: float) -> AsyncIterator[int]:
    edge = Edge(handler, max_body_bytes=max_body_bytes, limits=Limits(**limits))  # type: ignore[arg-type]
    port = await edge.start()
    try:
        yield port
    finally:
        await edge.close(0)
        assert (edge.connections, edge.running) == (0, 0)


class Client:
    """A raw socket that can wait."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.received = b""

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 26)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.transport.abort()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def half_close(self) -> None:
        self._writer.write_eof()

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(5):
            return await self._reader.readuntil(mark)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer, whole; its framing is checked."""
        head = (await self.until(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        async with asyncio.timeout(5):
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(await self._reader.readuntil(b"\r\n"), 16):
                    body += await self._reader.readexactly(size)
                    assert await self._reader.readexactly(2) == b"\r\n"
                assert await self._reader.readexactly(2) == b"\r\n"
            else:
                body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return int(line.split()[1]), headers, body

    async def rest(self) -> bytes:
        """Everything until the server closes; a reset counts as the end."""
        data = b""
        async with asyncio.timeout(5):
            try:
                while part := await self._reader.read(1 << 16):
                    data += part
            except ConnectionResetError:
                pass
        return data

    @property
    def socket(self) -> socket.socket:
        return self._writer.get_extra_info("socket")  # type: ignore[no-any-return]


async def eventually(condition: Callable[[], bool], within_s: float = 2) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, "it never happened"
        await asyncio.sleep(0.002)
    return time.monotonic() - began


def error_of(body: bytes) -> dict[str, object]:
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


class Pieces:
    """A handler that streams what a test puts in, and remembers how it ended."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.running = asyncio.Event()
        self.ended: BaseException | None = None
        self.cleaned_up = False

    async def __call__(self, request: Request, reply: HttpReply) -> None:
        self.running.set()
        try:
            await reply.start(200, TEXT, streamed=True)
            while (piece := await self.queue.get()) is not None:
                await reply.send(piece)
            await reply.end()
        except BaseException as error:
            self.ended = error
            await asyncio.sleep(0.02)
            self.cleaned_up = True
            raise
