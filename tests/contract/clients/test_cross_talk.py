"""Two hundred streams at once through one gateway, a third of them left: nobody reads a byte of anybody else's."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.contract.clients.gateway import gateway
from tidegate.fakes import as_read
from tidegate.ports import Pieces, UpstreamAnswer, UpstreamExchange, UpstreamRequest
from tidegate.simulate.server import Latency
from tidegate.upstream.http1 import Pool

STREAMS = 200
ABORTED = 0.3
AT_ONCE = 60
WORDS = 30
"""Tags in an answer that is read to its end."""
LONG = 2_000
"""Tags in an answer that is left: more than can be on its way before the gateway sees it."""
TAG = re.compile(rb"Q\d{5}")
PATHS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1beta/models/support:streamGenerateContent?alt=sse",
)


class Chopped:
    """Implements ports.Upstream before a pool: answers arrive cut anywhere, as on a real network."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def request(self, request: UpstreamRequest) -> UpstreamExchange:
        return ChoppedExchange(self._pool.request(request))

    async def close(self) -> None:
        await self._pool.close()


class ChoppedExchange:
    """One exchange of a Chopped."""

    def __init__(self, whole: UpstreamExchange) -> None:
        self._whole = whole

    async def __aenter__(self) -> UpstreamAnswer:
        return ChoppedAnswer(await self._whole.__aenter__())

    async def __aexit__(self, *exc: object) -> None:
        await self._whole.__aexit__(*exc)


class ChoppedAnswer:
    """One answer of a Chopped."""

    def __init__(self, whole: UpstreamAnswer) -> None:
        self._whole = whole
        self.status = whole.status
        self.headers = whole.headers
        self.read = whole.read

    def chunks(self) -> Pieces:
        """The same bytes, each time up to some place in what has come."""
        return ChoppedPieces(self._whole.chunks())


class ChoppedPieces(Pieces):
    """The body of one."""

    def __init__(self, whole: Pieces) -> None:
        self._whole = whole
        self._dice = random.Random(7)
        self._held = b""
        self._ended = False

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                self._held += await self._whole.__anext__()
            except StopAsyncIteration:
                self._ended = True
                break
            if cut := self._dice.randint(0, len(self._held)):
                return self._taken(cut)
        if not self._held:
            raise StopAsyncIteration
        return self._taken(len(self._held))

    async def pump(self, sink: Callable[[bytes], bool]) -> bool:
        """As it comes, like the real one: the cuts are in the sink's way."""

        def chop(chunk: bytes) -> bool:
            self._held += chunk
            cut = self._dice.randint(0, len(self._held))
            return sink(self._taken(cut)) if cut else True

        if not await self._whole.pump(chop):
            return False
        return not self._held or sink(self._taken(len(self._held)))

    def _taken(self, count: int) -> bytes:
        taken, self._held = self._held[:count], self._held[count:]
        return taken


def tag(number: int) -> str:
    return f"Q{number:05}"


def body(path: str, number: int, words: int) -> dict[str, Any]:
    """Asks the support model for a sentence that is one tag, many times."""
    own = tag(number)
    text = f"Context: {' '.join([own] * words)}.\n\nQuestion: {own}?"
    if "models/" in path:
        return {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    said = {"input": text} if path == "/v1/responses" else {"messages": [{"role": "user", "content": text}]}
    return {"model": "support", "stream": True, "max_tokens": 10_000, **said}


async def read(client: httpx.AsyncClient, number: int, leaves_after: int | None) -> bytes:
    """What comes of one stream, to its end or for `leaves_after` reads."""
    path = PATHS[number % len(PATHS)]
    read = b""
    asked = body(path, number, WORDS if leaves_after is None else LONG)
    async with client.stream("POST", path, json=asked) as answer:
        assert answer.status_code == 200
        reads = 0
        async for piece in answer.aiter_raw():
            read += piece
            reads += 1
            if reads == leaves_after:
                break
    return read


@pytest.mark.timeout(20)
async def test_no_stream_carries_a_byte_of_another() -> None:
    dice = random.Random(4)
    leaving = {number: dice.randint(1, 20) for number in range(STREAMS) if dice.random() < ABORTED}
    assert 40 < len(leaving) < 80
    gate = asyncio.Semaphore(AT_ONCE)
    async with (
        gateway(latency=Latency(first_byte_s=0.005, tokens_per_s=400, sigma=0.5), way_out=Chopped) as here,
        httpx.AsyncClient(base_url=here.origin, limits=httpx.Limits(max_connections=AT_ONCE), timeout=15) as client,
    ):

        async def one(number: int) -> bytes:
            async with gate:
                return await read(client, number, leaving.get(number))

        answers = await asyncio.gather(*(one(number) for number in range(STREAMS)))
        async with asyncio.timeout(2):
            while here.provider.running or len(here.spool.lines) < STREAMS:  # noqa: ASYNC110  neither tells
                await asyncio.sleep(0.01)
        assert here.provider.cancelled == len(leaving)
        asked = [request.body for request in here.provider.requests]
    for number, answer in enumerate(answers):
        found = TAG.findall(answer)
        assert set(found) <= {tag(number).encode()}
        assert number in leaving or len(found) >= WORDS
    assert sorted(len(set(TAG.findall(sent))) for sent in asked) == [1] * STREAMS
    entries = [as_read(line) for line in here.spool.lines]
    assert len({entry["call"]["id"] for entry in entries}) == len(entries) == STREAMS
    outcomes = {}
    for line, entry in zip(here.spool.lines, entries, strict=True):
        (own,) = set(TAG.findall(line))
        outcomes[own.decode()] = entry["call"]["outcome"]
    assert outcomes == {tag(at): "client_closed" if at in leaving else "ok" for at in range(STREAMS)}
