"""A whole gateway – edge, routes, pipeline, pool – before one provider of raw bytes that speaks what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from tidegate.config import Config
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.fakes import FakePrompts, MemorySpool
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.edge import Edge
from tidegate.gateway.pipeline import Services
from tidegate.gateway.refusal import refusal_body
from tidegate.gateway.routes import Routes
from tidegate.ports import Clock, Random
from tidegate.system import SystemClock, SystemRandom
from tidegate.telemetry.record import ContentRow, Entry
from tidegate.upstream.http1 import Pool
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

SECRETS = {name: f"sk-canary-{name}-7Zq4Lw9XbT2mVc8R" for name in ("oai", "res", "ant", "goo")}
"""The providers' keys, by the provider's name."""
DIALECTS = {
    "oai": ("openai", "/v1"),
    "res": ("openai_responses", "/v1"),
    "ant": ("anthropic", ""),
    "goo": ("gemini", "/v1beta"),
}


@dataclass(frozen=True)
class Asked:
    """What the provider was sent."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def header(self, name: str) -> list[str]:
        """Every value that goes by this name."""
        return [value for key, value in self.headers if key.lower() == name]


Write = Callable[[bytes], Awaitable[None]]
Script = Callable[[Asked, Write], Awaitable[None]]
"""Answers one request; the connection stays open behind it unless it raises ConnectionError."""


def answers(body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> Script:
    """The same answer to everything."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{lines}\r\n"

    async def script(_: Asked, write: Write) -> None:
        await write(head.encode() + body)

    return script


def streams(
    *pieces: bytes, cut: bool = False, pause_s: float = 0, then: Callable[[], Awaitable[Any]] | None = None
) -> Script:
    """
    Events, piece by piece.

    Args:
        cut: the connection breaks behind them.
        pause_s: after each of them.
        then: is awaited before the end.
    """

    async def script(_: Asked, write: Write) -> None:
        await write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            await write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(pause_s)
        if then is not None:
            await then()
        if cut:
            raise ConnectionResetError
        await write(b"0\r\n\r\n")

    return script


@dataclass
class Whole:
    """The gateway, the provider behind it, and what both kept."""

    script: Script
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The gateway has closed a connection to the provider."""
    spool: MemorySpool = field(default_factory=MemorySpool)
    services: Services = field(init=False)
    edge: Edge = field(init=False)
    client: httpx.AsyncClient = field(init=False)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def entries(self) -> list[Entry]:
        """What was recorded of all calls, in the order they ended."""
        return [msgspec.json.decode(line, type=Entry) for line in self.spool.lines]

    def record(self) -> dict[str, Any]:
        """The one record of the one call."""
        (entry,) = self.entries()
        return {**msgspec.structs.asdict(entry.call), "attempts": msgspec.to_builtins(entry.call.attempts)}

    def content(self) -> ContentRow | None:
        """What was kept of what the one call said."""
        (entry,) = self.entries()
        return entry.content

    async def recorded(self, count: int = 1) -> None:
        """Returns when so many calls are recorded."""
        async with asyncio.timeout(5):
            while len(self.spool.lines) < count:  # noqa: ASYNC110  the spool does not tell
                await asyncio.sleep(0.002)

    async def raw(self, request: bytes) -> bytes:
        """All that comes back for these bytes until the gateway closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def provide(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the provider's."""

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.rstrip("\r\n").split("\r\n")
                headers = tuple((name, value.strip()) for name, _, value in (item.partition(":") for item in rest))
                size = next((int(value) for name, value in headers if name == "content-length"), 0)
                asked = Asked(line, headers, await reader.readexactly(size))
                self.asked.append(asked)
                answering = asyncio.ensure_future(self.script(asked, write))
                try:
                    while not answering.done() and not reader.at_eof() and reader.exception() is None:
                        await asyncio.wait([answering], timeout=0.002)
                    if not answering.done():
                        return
                    await answering
                finally:
                    answering.cancel()
                    await asyncio.gather(answering, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.gone.set()
            writer.transport.abort()


@asynccontextmanager
async def whole(
    script: Script,
    *,
    keys: Keys = Keys(),  # noqa: B008  a frozen value
    prompts: Mapping[tuple[str, str], Served] = {},
    providers: Mapping[str, Mapping[str, Any]] = {},
    content_sample: float = 1.0,
    clock: Clock = SystemClock(),  # noqa: B008  stateless
    random: Random = SystemRandom(),  # noqa: B008  stateless
    **config: Any,
) -> AsyncIterator[Whole]:
    """
    A gateway with the providers `oai`, `res`, `ant` and `goo`, one of each dialect; no retries on the route `one`.

    Args:
        providers: more about them, by their names.
    """
    here = Whole(script)
    server = await asyncio.start_server(here.provide, "127.0.0.1", 0, limit=32 << 20)
    place = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    made = {
        name: {"dialect": dialect, "base_url": place + path, "api_key": SECRETS[name], **providers.get(name, {})}
        for name, (dialect, path) in DIALECTS.items()
    }
    parsed = Config.model_validate({"providers": made, **config})
    pool = Pool()
    here.services = Services(
        clock=clock,
        random=random,
        spool=here.spool,
        attempts=Attempts(pool, RetryBudget(), clock, random),
        targets=Targets(parsed, PriceList(parsed.prices, {})),
        prompts=FakePrompts(dict(prompts)),
        keys=keys,
        project=parsed.project,
        content_sample=content_sample,
    )
    here.edge = Edge(Routes(here.services), error_body=refusal_body)
    here.port = await here.edge.start()
    async with httpx.AsyncClient(base_url=here.origin, timeout=10, trust_env=False) as here.client:
        try:
            yield here
        finally:
            await here.edge.close(grace_s=0.2)
            await pool.close()
            server.close()
            await server.wait_closed()
