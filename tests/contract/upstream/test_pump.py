"""A body that is pumped: each piece in the moment it comes, and every way for that to end."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.upstream.provider import STREAM, Provider, Script, Talk, ask, chunk, pooled
from tidegate.core.errors import StreamBroken, UpstreamTimeout
from tidegate.upstream.connection import UNREAD_LIMIT

PIECES = [b"a", b"bb", b"ccc", b"dddd"]


def streaming(*pieces: bytes, pause_s: float = 0.01, end: bytes | None = chunk(b"")) -> Script:
    """Sends the pieces one after the other; without an `end` it cuts the stream."""

    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.send(STREAM)
            for piece in pieces:
                await asyncio.sleep(pause_s)
                await talk.send(chunk(piece))
            if end is None:
                return
            await talk.send(end)

    return script


async def test_every_piece_is_handed_on_and_the_connection_lives_on() -> None:
    async with Provider(streaming(*PIECES)) as provider, pooled() as pool:
        for _ in range(3):
            got: list[bytes] = []
            async with pool.request(ask(provider.origin)) as answer:
                assert await answer.chunks().pump(lambda piece, got=got: got.append(piece) is None)  # type: ignore[misc]
            assert b"".join(got) == b"".join(PIECES)
        assert provider.connections == 1


async def test_a_piece_is_handed_on_before_the_provider_sends_the_next() -> None:
    heard = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(STREAM)
        for piece in PIECES:
            await talk.send(chunk(piece))
            await heard.wait()
            heard.clear()
        await talk.send(chunk(b""))
        await talk.gone()

    got: list[bytes] = []

    def sink(piece: bytes) -> bool:
        got.append(piece)
        heard.set()
        return True

    async with Provider(script) as provider, pooled() as pool, pool.request(ask(provider.origin)) as answer:
        assert await answer.chunks().pump(sink)
    assert got == PIECES


async def test_one_who_says_stop_gets_the_rest_later_and_misses_nothing() -> None:
    async with Provider(streaming(*PIECES)) as provider, pooled() as pool, pool.request(ask(provider.origin)) as answer:
        pieces, got = answer.chunks(), list[bytes]()

        def one(piece: bytes) -> bool:
            got.append(piece)
            return False

        assert not await pieces.pump(one)
        assert len(got) == 1
        await asyncio.sleep(0.1)  # what comes meanwhile waits
        assert not await pieces.pump(one)
        got.append(await pieces.__anext__() if len(b"".join(got)) < 10 else b"")
        while not await pieces.pump(one):
            pass
        assert b"".join(got) == b"".join(PIECES)


async def test_a_slow_reader_holds_the_provider_back() -> None:
    big = b"x" * 100_000
    async with (
        Provider(streaming(*[big] * 20, pause_s=0)) as provider,
        pooled() as pool,
        pool.request(ask(provider.origin)) as answer,
    ):
        pieces, size = answer.chunks(), 0

        def some(piece: bytes) -> bool:
            nonlocal size
            size += len(piece)
            return False

        assert not await pieces.pump(some)
        await asyncio.sleep(0.1)
        before = size
        assert not await pieces.pump(some)
        assert size - before <= UNREAD_LIMIT + 256 * 1024  # one read of the socket more
        while not await pieces.pump(some):
            pass
        assert size == 20 * len(big)


async def test_what_the_sink_raises_is_raised_to_the_owner() -> None:
    async with Provider(streaming(*PIECES)) as provider, pooled() as pool:

        def sink(piece: bytes) -> bool:
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            async with pool.request(ask(provider.origin)) as answer:
                await answer.chunks().pump(sink)
        await provider.settled()


async def test_a_stream_that_stands_still_is_late_and_one_that_goes_on_is_not() -> None:
    async with (
        Provider(streaming(*PIECES, pause_s=0.08)) as provider,
        pooled() as pool,
        pool.request(ask(provider.origin, idle_s=0.15)) as answer,
    ):
        assert await answer.chunks().pump(lambda _: True)

    async def silent(talk: Talk) -> None:
        await talk.request()
        await talk.send(STREAM + chunk(b"a"))
        await talk.gone()

    async with Provider(silent) as provider, pooled() as pool:
        with pytest.raises(UpstreamTimeout, match="stood still") as caught:
            async with pool.request(ask(provider.origin, idle_s=0.1)) as answer:
                await answer.chunks().pump(lambda _: True)
        assert caught.value.phase == "idle"


async def test_a_cut_is_told_after_what_came_before_it() -> None:
    async with Provider(streaming(*PIECES, end=None)) as provider, pooled() as pool:
        got: list[bytes] = []

        def sink(piece: bytes) -> bool:
            got.append(piece)
            return True

        with pytest.raises(StreamBroken):
            async with pool.request(ask(provider.origin)) as answer:
                await answer.chunks().pump(sink)
        assert b"".join(got) == b"".join(PIECES)


async def test_a_reader_that_is_cancelled_leaves_the_rest_to_the_next() -> None:
    async with (
        Provider(streaming(*PIECES, pause_s=0.03)) as provider,
        pooled() as pool,
        pool.request(ask(provider.origin)) as answer,
    ):
        pieces, got = answer.chunks(), list[bytes]()
        first = asyncio.create_task(pieces.pump(lambda piece: got.append(piece) is None))  # type: ignore[func-returns-value]
        await asyncio.sleep(0.045)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        async for piece in pieces:
            got.append(piece)
        assert b"".join(got) == b"".join(PIECES)


async def test_no_deadline_runs_while_nobody_waits() -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(STREAM + chunk(b"a"))
        await asyncio.sleep(0.4)
        await talk.send(chunk(b"bb") + chunk(b""))

    async with (
        Provider(script) as provider,
        pooled() as pool,
        pool.request(ask(provider.origin, idle_s=0.2)) as answer,
    ):
        pieces, got = answer.chunks(), list[bytes]()
        first = asyncio.create_task(pieces.pump(lambda piece: got.append(piece) is None))  # type: ignore[func-returns-value]
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await asyncio.sleep(0.25)
        got += [piece async for piece in pieces]
        assert got == [b"a", b"bb"]
