"""
The least that a gateway in Python can be: `python -m bench.relay PORT`, with the provider at PORT. Prints its own port.

Two HTTP parsers in C on uvloop, kept-alive connections, bytes moved in the callback that brought them: no task, no key,
no limit, no look into the body, no record, no deadline. What bench.load finds for it is the floor under any gateway
that is built so; what tidegate costs above it is what tidegate does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httptools
import uvloop

REQUEST = (
    b"%b %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer sk-upstream\r\ncontent-length: %d\r\n\r\n"
)
ANSWER = b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
STREAM = b"HTTP/1.1 %d OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection to the provider, of one client at a time."""

    def __init__(self, free: list[Upstream]) -> None:
        self._free = free
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._streamed = False
        self.client: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._streamed and self._pieces:
            body = b"".join(self._pieces)
            self._pieces.clear()
            self.client.write(b"%x\r\n%b\r\n" % (len(body), body))
        if self.client is None:
            self._streamed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if value == b"chunked":
            self._streamed = True
            self.client.write(STREAM % self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._pieces)
        self._pieces.clear()
        if self._streamed:
            self.client.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n")
        else:
            self.client.write(ANSWER % (self._parser.get_status_code(), len(body)) + body)
        self.client = None
        self._free.append(self)


class Client(asyncio.Protocol):
    """One connection of a client's; its requests come one after the other."""

    def __init__(self, provider: int, free: list[Upstream]) -> None:
        self._provider = provider
        self._free = free

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name] = value

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._pieces)
        request = REQUEST % (self._parser.get_method(), self._url, len(body)) + body
        self._begin()
        if self._free:
            self._ask(self._free.pop(), request)
        else:
            self._dialling = asyncio.ensure_future(self._dial(request))

    async def _dial(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: Upstream(self._free), "127.0.0.1", self._provider)
        self._ask(upstream, request)

    def _ask(self, upstream: Upstream, request: bytes) -> None:
        upstream.client = self._transport
        upstream.transport.write(request)


async def serve(provider: int) -> None:
    free: list[Upstream] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(provider, free), "127.0.0.1", 0, backlog=4_096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
