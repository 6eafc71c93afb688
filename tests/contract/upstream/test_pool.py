"""Who may use which connection, and that none is ever lost, shared or used again half-read."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from tests.contract.upstream.provider import CA, OK, STREAM, Provider, Talk, always, ask, chunk, pooled
from tidegate.core.errors import UpstreamTimeout, UpstreamUnavailable
from tidegate.upstream import http1
from tidegate.upstream.connection import UNREAD_LIMIT
from tidegate.upstream.http1 import OriginStats, Pool


async def fetch(pool: Pool, provider: Provider, **changes: object) -> bytes:
    async with pool.request(ask(provider.origin, **changes)) as answer:
        return await answer.read(1 << 20)


async def endless(talk: Talk) -> None:
    """Answers with a stream that never ends by itself."""
    await talk.request()
    await talk.send(STREAM + chunk(b"tick"))
    await talk.gone()


def stats(pool: Pool, provider: Provider) -> OriginStats:
    return pool.stats()[provider.origin]


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the pool has no event for it
            await asyncio.sleep(0.001)


async def test_a_connection_is_used_again() -> None:
    async with Provider(always(OK)) as provider, pooled() as pool:
        for _ in range(5):
            assert await fetch(pool, provider) == b"ok"
            assert stats(pool, provider) == OriginStats(open=1, idle=1, leased=0, waiting=0)
        assert provider.connections == 1


async def test_calls_above_the_cap_stand_in_line_and_are_served_in_order() -> None:
    release = asyncio.Event()

    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            await release.wait()
            await talk.send(OK)

    async with Provider(script) as provider, pooled(max_per_origin=2) as pool:
        calls = []
        for number in range(8):
            calls.append(asyncio.create_task(fetch(pool, provider, body=b"%d" % number)))
            await asyncio.sleep(0.002)
        await until(lambda: len(provider.requests) == 2)
        assert stats(pool, provider) == OriginStats(open=2, idle=0, leased=2, waiting=6)
        release.set()
        assert await asyncio.gather(*calls) == [b"ok"] * 8
        assert provider.connections == 2
        order = [int(request[-1:]) for request in provider.requests]
        assert all(abs(place - number) < 2 for place, number in enumerate(order)), order


async def test_the_wait_in_line_ends_with_the_connect_deadline() -> None:
    async with Provider(endless) as provider, pooled(max_per_origin=1) as pool, pool.request(ask(provider.origin)):
        with pytest.raises(UpstreamTimeout, match=r"all 1 connections were busy for 0\.05 s") as caught:
            await fetch(pool, provider, connect_s=0.05)
        assert caught.value.phase == "connect"
        assert stats(pool, provider).waiting == 0


async def test_the_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LINE_LIMIT", 1)
    async with Provider(endless) as provider, pooled(max_per_origin=1) as pool, pool.request(ask(provider.origin)):
        waiting = asyncio.create_task(fetch(pool, provider))
        await until(lambda: stats(pool, provider).waiting == 1)
        with pytest.raises(UpstreamUnavailable, match="all connections are busy and 1 calls wait already"):
            await fetch(pool, provider)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_who_leaves_the_line_when_its_turn_comes_passes_it_on(turns: int) -> None:
    """The cancel lands before, in and after the moment in which the connection is handed over."""
    async with Provider(always(OK)) as provider, pooled(max_per_origin=1) as pool:
        async with pool.request(ask(provider.origin)) as answer:
            calls = [asyncio.create_task(fetch(pool, provider)) for _ in range(2)]
            await until(lambda: stats(pool, provider).waiting == 2)
            await answer.read(2)
        for _ in range(turns):
            await asyncio.sleep(0)
        calls[0].cancel()
        await asyncio.gather(calls[0], return_exceptions=True)
        assert await calls[1] == b"ok"
        assert stats(pool, provider) == OriginStats(open=1, idle=1, leased=0, waiting=0)


async def test_who_is_given_a_connection_that_breaks_in_that_moment_gets_another() -> None:
    async with Provider(always(OK)) as provider, pooled(max_per_origin=1) as pool:
        async with pool.request(ask(provider.origin)) as answer:
            call = asyncio.create_task(fetch(pool, provider))
            await until(lambda: stats(pool, provider).waiting == 1)
            await answer.read(2)
            (connection,) = pool._origins[provider.origin]._connections
        connection.eof_received()  # handed over, and not yet taken
        assert await call == b"ok"
        assert provider.connections == 2


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_that_is_left_early_is_cancelled_at_once(tls: bool) -> None:
    async with Provider(endless, tls=tls) as provider, pooled(ca_file=CA) as pool:
        async with pool.request(ask(provider.origin)) as answer:
            assert await anext(answer.chunks()) == b"tick"
        began = time.monotonic()
        assert stats(pool, provider).open == 0
        await provider.settled()
        assert time.monotonic() - began < 0.25


async def silent(talk: Talk) -> None:
    await talk.request()
    await talk.gone()


@pytest.mark.parametrize("script", [endless, silent])
async def test_a_cancelled_call_is_cancelled_upstream_at_once(script: Callable[[Talk], Awaitable[None]]) -> None:
    async with Provider(script) as provider, pooled() as pool:
        call = asyncio.create_task(fetch(pool, provider))
        await until(lambda: len(provider.requests) == 1)
        await asyncio.sleep(0.01)
        call.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await call
        await provider.settled()
        assert time.monotonic() - began < 0.25
        assert stats(pool, provider).open == 0


async def test_bytes_that_nobody_read_are_not_the_next_answer() -> None:
    """The first answer came whole and was not read; the second is its own, on the same connection."""
    numbers = count(1)

    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % next(numbers))

    async with Provider(script) as provider, pooled(max_per_origin=1) as pool:
        async with pool.request(ask(provider.origin)):
            waiting = asyncio.create_task(fetch(pool, provider))
            await until(lambda: stats(pool, provider).waiting == 1)
        assert await waiting == b"2"
        async with pool.request(ask(provider.origin)):
            pass
        assert await fetch(pool, provider) == b"4"
        assert provider.connections == 1


@pytest.mark.parametrize("surplus", [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"H", b"\0"])
async def test_a_second_answer_to_one_request_is_never_used(surplus: bytes) -> None:
    async with Provider(always(OK + surplus)) as provider, pooled() as pool:
        for _ in range(3):
            assert await fetch(pool, provider) == b"ok"
        assert provider.connections == 3


@pytest.mark.parametrize("what", [b"HTTP/1.1 408 Request Timeout\r\n\r\n", b""])
async def test_an_idle_connection_that_hears_anything_is_dropped_at_once(what: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await asyncio.sleep(0.02)
        if what:
            await talk.send(what)
            await talk.gone()

    async with Provider(script) as provider, pooled() as pool:
        assert await fetch(pool, provider) == b"ok"
        assert stats(pool, provider).idle == 1
        await until(lambda: stats(pool, provider).open == 0)
        await provider.settled()


async def test_a_request_that_met_a_closing_connection_is_sent_again_once() -> None:
    """The provider closed a kept connection while the request was on its way."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await talk.request()
        if talk.number > 1:
            await talk.send(OK)

    async with Provider(script) as provider, pooled() as pool:
        assert [await fetch(pool, provider) for _ in range(2)] == [b"ok"] * 2
        assert (provider.connections, len(provider.requests)) == (2, 3)
        assert stats(pool, provider) == OriginStats(open=1, idle=1, leased=0, waiting=0)


async def test_the_second_time_goes_over_a_fresh_connection() -> None:
    """All that were kept may be stale at once; at the cap, one of them makes room."""
    async with Provider(always(OK)) as provider, pooled(max_per_origin=1) as pool:
        await fetch(pool, provider)
        connection = await pool._origins[provider.origin].lease(1, fresh=True)
        assert connection.requests == 0
        assert stats(pool, provider) == OriginStats(open=1, idle=0, leased=1, waiting=0)
        connection.close()


async def test_it_is_never_sent_a_third_time() -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        if talk.number == 1:
            await talk.send(OK)
            await talk.request()

    async with Provider(script) as provider, pooled() as pool:
        await fetch(pool, provider)
        with pytest.raises(UpstreamUnavailable):
            await fetch(pool, provider)
        assert len(provider.requests) == 3


async def test_it_is_not_sent_again_once_a_byte_of_the_answer_came() -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await talk.request()
        await talk.send(b"H")

    async with Provider(script) as provider, pooled() as pool:
        await fetch(pool, provider)
        with pytest.raises(UpstreamUnavailable):
            await fetch(pool, provider)
        assert (provider.connections, len(provider.requests)) == (1, 2)


async def test_it_is_not_sent_again_once_the_provider_may_have_worked_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that breaks after a while was not closed before: whoever wants to pay twice has retries."""
    monkeypatch.setattr("tidegate.upstream.connection.STALE_S", 0.05)

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await talk.request()
        await asyncio.sleep(0.1)

    async with Provider(script) as provider, pooled() as pool:
        await fetch(pool, provider)
        with pytest.raises(UpstreamUnavailable):
            await fetch(pool, provider)
        assert (provider.connections, len(provider.requests)) == (1, 2)


async def test_it_is_not_sent_again_after_a_time_out() -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await talk.request()
        await talk.gone()

    async with Provider(script) as provider, pooled() as pool:
        await fetch(pool, provider)
        with pytest.raises(UpstreamTimeout):
            await fetch(pool, provider, first_byte_s=0.05)
        assert len(provider.requests) == 2


async def test_an_answer_before_the_whole_request_costs_the_connection() -> None:
    """What is left of the request is not the start of the next one."""

    async def script(talk: Talk) -> None:
        await asyncio.sleep(0.05)
        await talk.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await asyncio.sleep(1)

    async with Provider(script) as provider, pooled() as pool:
        assert await fetch(pool, provider, body=b"x" * (64 << 20)) == b""
        assert stats(pool, provider).open == 0


@pytest.mark.parametrize(
    ("said", "kept"), [(b"timeout=1", 0), (b"timeout=0, max=5", 0), (b"timeout=30", 1), (b"max=5", 1)]
)
async def test_the_providers_word_on_idle_connections_counts(said: bytes, kept: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nkeep-alive: " + said + b"\r\ncontent-length: 0\r\n\r\n"
    async with Provider(always(answer)) as provider, pooled() as pool:
        await fetch(pool, provider)
        assert stats(pool, provider).open == kept


async def test_an_idle_connection_is_closed_after_its_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "IDLE_S", 0.05)
    async with Provider(always(OK)) as provider, pooled() as pool:
        await fetch(pool, provider)
        assert stats(pool, provider).idle == 1
        await provider.settled()
        assert stats(pool, provider).open == 0


async def test_close_ends_calls_under_way_and_in_line_and_takes_no_more() -> None:
    async with Provider(endless) as provider, pooled(max_per_origin=1) as pool:
        under_way = asyncio.create_task(fetch(pool, provider))
        await until(lambda: len(provider.requests) == 1)
        in_line = asyncio.create_task(fetch(pool, provider))
        await until(lambda: stats(pool, provider).waiting == 1)
        await pool.close()
        for call in (under_way, in_line, asyncio.create_task(fetch(pool, provider))):
            with pytest.raises(UpstreamUnavailable, match="the pool is closed"):
                await call
        assert stats(pool, provider) == OriginStats(open=0, idle=0, leased=0, waiting=0)
        await provider.settled()
        await pool.close()


async def test_a_pool_that_closes_while_a_call_connects_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = asyncio.Event()

    async def late(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        await resolve.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", late)
    async with Provider(always(OK)) as provider, pooled() as pool:
        origin = f"http://models.example:{provider.port}"

        async def call() -> None:
            async with pool.request(ask(origin)):
                pass

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        await pool.close()
        resolve.set()
        with pytest.raises(UpstreamUnavailable, match="the pool is closed"):
            await task
        assert provider.requests == []
        assert pool.stats()[origin].open == 0


async def test_a_slow_reader_makes_the_provider_wait() -> None:
    sent = 0
    whole = 64 << 20

    async def script(talk: Talk) -> None:
        nonlocal sent
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % whole)
        while sent < whole:
            await talk.send(b"x" * 65_536)
            sent += 65_536
        await talk.gone()

    async with Provider(script) as provider, pooled() as pool, pool.request(ask(provider.origin)) as answer:
        pieces = answer.chunks()
        size = len(await anext(pieces))
        await asyncio.sleep(0.2)
        waiting = sent
        await asyncio.sleep(0.1)
        assert sent == waiting, "the provider stands still"
        assert sent < 16 << 20, "socket buffers and our own 256 KiB"
        largest = 0
        async for piece in pieces:
            size += len(piece)
            largest = max(largest, len(piece))
        assert size == whole
        assert largest <= 2 * UNREAD_LIMIT + 65_536


async def test_concurrent_answers_never_mix() -> None:
    """200 streams with their own word each, 30 % of them left at a random moment."""

    async def script(talk: Talk) -> None:
        while True:
            word = (await talk.request()).rpartition(b"\r\n\r\n")[2]
            await talk.send(STREAM)
            for _ in range(5):
                await talk.send(chunk(word))
                await asyncio.sleep(0)
            await talk.send(chunk(b""))

    async def call(number: int, leaves_after: int) -> None:
        word = b"<%d>" % number
        body = b""
        async with pool.request(ask(provider.origin, body=word)) as answer:
            async for piece in answer.chunks():
                body += piece
                if leaves_after and len(body) >= leaves_after:
                    break
        assert body == word * (len(body) // len(word))
        assert leaves_after or body == word * 5

    dice = random.Random(7)
    async with Provider(script) as provider, pooled(max_per_origin=20) as pool:
        await asyncio.gather(
            *(call(number, dice.randrange(1, 20) if dice.random() < 0.3 else 0) for number in range(200))
        )
        assert stats(pool, provider).leased == 0


@pytest.mark.parametrize("tls", [False, True])
async def test_the_abort_storm(tls: bool) -> None:
    """3,000 streams cancelled at random moments over 10 connections leave no slot, no socket and no task behind."""

    async def script(talk: Talk) -> None:
        while True:
            short = b"short" in await talk.request()
            await talk.send(STREAM)
            for _ in range(2 if short else 1_000):
                await talk.send(chunk(b"tick"))
                await asyncio.sleep(0.001)
            await talk.send(chunk(b""))

    dice = random.Random(11)
    storm = 300 if tls else 3_000
    async with Provider(script, tls=tls) as provider, pooled(max_per_origin=10, ca_file=CA) as pool:
        await fetch(pool, provider, body=b"short")
        gc.collect()
        files, tasks = open_files(), len(asyncio.all_tasks())
        running: set[asyncio.Task[bytes]] = set()
        for number in range(storm):
            body = b"short" if number % 10 == 0 else b"long"
            call = asyncio.create_task(fetch(pool, provider, body=body))
            running.add(call)
            call.add_done_callback(running.discard)
            asyncio.get_running_loop().call_later(dice.random() * 0.05, call.cancel)
            if number % 50 == 0:
                await asyncio.sleep(dice.random() * 0.02)
        await asyncio.wait(running)

        began = time.monotonic()
        answers = await asyncio.gather(*(fetch(pool, provider, body=b"short") for _ in range(20)))
        assert time.monotonic() - began < 1
        assert answers == [b"ticktick"] * 20
        left = stats(pool, provider)
        assert left.open == left.idle <= 10
        assert left.waiting == 0
        await provider.settled(left.open)
        gc.collect()
        # each connection that is left is two descriptors and one task in this process: both ends are here
        assert open_files() - 2 * (left.open - 1) <= files + 5
        assert len(asyncio.all_tasks()) - (left.open - 1) <= tasks
