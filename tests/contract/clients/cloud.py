"""A cloud that serves models: it says what the test has written, keeps what it was asked, and checks signatures."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import msgspec

from tests.contract.clients.gateway import Gateway
from tidegate.config import Config
from tidegate.core.retries import RetryBudget
from tidegate.fakes import FakePrompts, MemorySpool
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.edge import Edge
from tidegate.gateway.pipeline import Services
from tidegate.gateway.routes import Routes
from tidegate.system import SystemClock, SystemRandom
from tidegate.upstream.http1 import Pool
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

EVENT_STREAM = "application/vnd.amazon.eventstream"


@dataclass(frozen=True)
class Said:
    """One answer: whole, or in chunks, `pause_s` apart. `cut` ends it without its end."""

    body: bytes | Sequence[bytes]
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    pause_s: float = 0.0


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Cloud:
    """`say` is played in order; the last one is said again and again."""

    say: list[Said]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head[1:-2]}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked.append(Asked(method, path, headers, body))
                said = self.say.pop(0) if len(self.say) > 1 else self.say[0]
                for piece in _pieces(said):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(said.pause_s)
                if said.cut:
                    break
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def _pieces(said: Said) -> Iterator[bytes]:
    head = f"HTTP/1.1 {said.status} X\r\ncontent-type: {said.content_type}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in said.headers.items())
    if isinstance(said.body, bytes):
        yield f"{head}content-length: {len(said.body)}\r\n\r\n".encode() + said.body
        return
    yield f"{head}transfer-encoding: chunked\r\n\r\n".encode()
    yield from (b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in said.body)
    if not said.cut:
        yield b"0\r\n\r\n"


@asynccontextmanager
async def cloud(*say: Said) -> AsyncIterator[Cloud]:
    """It listens until the block ends."""
    here = Cloud(list(say))
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(here._serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    here.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield here
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def before(*clouds: tuple[str, dict[str, Any]], retries: int = 0) -> AsyncIterator[Gateway]:
    """A gateway whose route `m` leads to these (model, provider), in order: real edge, pipeline and pool."""
    clock, random = SystemClock(), SystemRandom()
    config = Config.model_validate(
        {
            "providers": {f"p{number}": provider for number, (_, provider) in enumerate(clouds)},
            "routes": {"m": {"targets": [f"p{n}/{model}" for n, (model, _) in enumerate(clouds)], "retries": retries}},
        }
    )
    inventors = {name: provider.dialect for name, provider in config.providers.items() if provider.native}
    pool = Pool()
    here = Gateway("", None, MemorySpool())  # type: ignore[arg-type]  # the provider is a Cloud
    services = Services(
        clock=clock,
        random=random,
        spool=here.spool,
        attempts=Attempts(pool, RetryBudget(), clock, random),
        targets=Targets(config, PriceList({}, inventors)),
        prompts=FakePrompts({}),
        keys=Keys(),
        project="default",
        content_sample=1.0,
    )
    edge = Edge(Routes(services))
    here.origin = f"http://127.0.0.1:{await edge.start()}"
    try:
        yield here
    finally:
        await edge.close(grace_s=1)
        await pool.close()


def rightly_signed(asked: Asked, *, secret: str, region: str, service: str = "bedrock") -> bool:
    """Whether the signature of a request is what AWS makes of its secret, step by step as its user guide has it."""
    scheme, _, rest = asked.headers["authorization"].partition(" ")
    said = dict(part.split("=", 1) for part in rest.split(", "))
    date = asked.headers["x-amz-date"]
    _, day, *scope = said["Credential"].split("/")
    names = said["SignedHeaders"].split(";")
    canonical = "\n".join(
        [
            asked.method,
            quote(asked.path, safe="/-_.~"),
            "",
            *[f"{name}:{asked.headers[name]}" for name in names],
            "",
            ";".join(names),
            sha256(asked.body).hexdigest(),
        ]
    )
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), sha256).digest()
    text = "\n".join([scheme, date, "/".join([day, *scope]), sha256(canonical.encode()).hexdigest()])
    right = hmac.new(key, text.encode(), sha256).hexdigest() == said["Signature"]
    return right and scope == [region, service, "aws4_request"] and {"host", "x-amz-date", "content-type"} <= set(names)
