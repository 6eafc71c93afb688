"""What the edge takes from clients, how long it waits, and what hostile bytes get."""

from __future__ import annotations

import asyncio
import socket
import time
import tracemalloc

import pytest

from tests.contract.edge.client import CHUNKED, PLAIN, POST, Client, echo, error_of, serving
from tidegate.gateway.edge import HttpReply, Limits, Request
from tidegate.gateway.parser import RequestParser

# --- limits and deadlines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (PLAIN[:-2] + b"X: " + b"a" * 65536 + b"\r\n\r\n", 431),
        (PLAIN[:-2] + b"X: " + b"a" * 80000, 431),
        (PLAIN[:-2] + b"a" * 80000, 431),
        (PLAIN[:-2] + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n", 431),
        (PLAIN[:-2] + b"X: 1\r\n" * 202 + b"\r\n", 431),
        (POST + b"Content-Length: 1048577\r\n\r\n", 413),
        (POST + b"Content-Length: 18446744073709551615\r\n\r\n", 413),
        (CHUNKED + b"100001\r\n" + bytes(1048577), 413),
        (CHUNKED + b"0\r\nX: " + b"a" * 80000, 431),
        (CHUNKED + b"1;" + b"a" * 80000, 431),
        (POST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 415),
        (POST + b"Expect: the-unexpected\r\nContent-Length: 3\r\n\r\nabc", 417),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/0.9\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
    ],
)
async def test_a_request_over_a_limit_gets_its_status_and_the_end(request_bytes: bytes, status: int) -> None:
    async with serving() as port, Client(port) as client:
        client.send(request_bytes)
        got, headers, body = await client.answer()
        assert got == status
        assert headers["connection"] == "close"
        assert error_of(body)["type"] == ("server_error" if status >= 500 else "invalid_request_error")
        assert await client.rest() == b""


async def test_a_request_just_inside_the_limits_is_served() -> None:
    async with serving() as port, Client(port) as client:
        client.send(b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 56_000 + b"\r\n\r\n")
        assert (await client.answer())[0] == 200
        client.send(PLAIN[:-2] + b"".join(b"X-%d: 1\r\n" % n for n in range(199)) + b"\r\n")
        assert (await client.answer())[0] == 200
        client.send(POST + b"Content-Length: 1048576\r\n\r\n" + bytes(1 << 20))
        assert (await client.answer())[0] == 200
        client.send(CHUNKED + b"10000\r\n%b\r\n" % bytes(1 << 16) * 16 + b"0\r\n\r\n")
        assert (await client.answer())[0] == 200


async def test_a_refusal_arrives_although_the_client_is_still_sending() -> None:
    """Closing with unread input would reset the connection, and the client would see no answer."""

    def send_all_then_read(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(POST + b"Content-Length: 8388608\r\n\r\n" + bytes(8 << 20))
            return client.recv(1 << 16)

    async with serving(max_body_bytes=1000) as port:
        assert (await asyncio.to_thread(send_all_then_read, port)).startswith(b"HTTP/1.1 413 ")


async def test_headers_that_trickle_are_given_up_at_the_deadline() -> None:
    """The deadline counts from the first byte: further bytes do not extend it."""
    async with serving(header_s=0.3) as port, Client(port) as client:
        client.send(PLAIN)
        await client.answer()
        began = time.monotonic()

        async def trickle() -> None:
            client.send(PLAIN[:-2])
            while True:
                client.send(b"X: y\r\n")
                await asyncio.sleep(0.02)

        task = asyncio.create_task(trickle())
        assert (await client.answer())[0] == 408
        assert 0.25 < time.monotonic() - began < 1
        task.cancel()


async def test_a_body_that_trickles_is_given_up_at_the_deadline() -> None:
    async with serving(body_s=0.2) as port, Client(port) as client:
        client.send(POST + b"Content-Length: 1000\r\n\r\nabc")
        status, _, body = await client.answer()
        assert status == 408
        assert "body" in str(error_of(body)["message"])


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with serving(idle_s=0.2) as port, Client(port) as client:
        client.send(PLAIN)
        await client.answer()
        began = time.monotonic()
        assert await client.rest() == b""
        assert time.monotonic() - began > 0.15


async def test_a_running_handler_has_no_deadline_of_the_edges() -> None:
    async def slow(request: Request, reply: HttpReply) -> None:
        await asyncio.sleep(0.5)
        await echo(request, reply)

    async with serving(slow, header_s=0.1, body_s=0.1, idle_s=0.1, stall_s=0.1) as port, Client(port) as client:
        client.send(PLAIN)
        assert (await client.answer())[0] == 200


async def test_connections_over_the_limit_are_refused() -> None:
    async with serving(connections=1) as port, Client(port) as first:
        first.send(PLAIN)
        await first.answer()
        async with Client(port) as second:
            assert (await second.answer())[0] == 503
        first.send(PLAIN)
        assert (await first.answer())[0] == 200


async def test_bodies_on_their_way_in_are_bounded_together() -> None:
    """Who sends them is not known before they are whole; one that is over, or whose client has left, counts no more."""
    part = bytes(600_000)
    begin = POST + b"Content-Length: 600001\r\n\r\n" + part
    async with serving(bodies_bytes=1_000_000) as port, Client(port) as first:
        first.send(begin)
        await asyncio.sleep(0.05)
        for _ in range(2):
            async with Client(port) as second:
                second.send(begin)
                status, headers, body = await second.answer()
                assert (status, headers["connection"]) == (503, "close")
                assert "as much as it can hold" in str(error_of(body)["message"])
        async with Client(port) as small:
            small.send(PLAIN)
            assert (await small.answer())[0] == 200
        for _ in range(2):
            first.send(b"x")
            assert (await first.answer())[0] == 200
            first.send(begin)
            await asyncio.sleep(0.05)
    async with serving(bodies_bytes=1_000_000) as port:
        for _ in range(3):
            async with Client(port) as leaver:
                leaver.send(begin)
                await asyncio.sleep(0.05)
        async with Client(port) as client:
            client.send(begin + b"x")
            assert (await client.answer())[0] == 200


def test_a_body_in_tiny_chunks_takes_no_more_than_another() -> None:
    parser = RequestParser(Limits(), 2 << 20, "")
    parser.feed(CHUNKED)
    tracemalloc.start()
    try:
        for _ in range(500):
            parser.feed(b"2\r\nab\r\n" * 1_000)
        parser.feed(b"0\r\n\r\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    [request] = parser.ready
    assert isinstance(request, Request)
    assert request.body == b"ab" * 500_000
    assert peak < 4 << 20


# --- hostile bytes ------------------------------------------------------------------------------------------------

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 0\r\nContent-Length: 36\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Content-Length: 3, 3\r\n\r\nabc",
        POST + b"Content-Length: +3\r\n\r\nabc",
        POST + b"Content-Length: -3\r\n\r\nabc",
        POST + b"Content-Length: 0x3\r\n\r\nabc",
        POST + b"Content-Length: 3 4\r\n\r\nabc",
        POST + b"Content-Length:\r\n\r\nabc",
        POST + b"Content-Length : 3\r\n\r\nabc",
        POST + b"Content-Length: 99999999999999999999\r\n\r\nabc",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\nabc\n0\n\n",
        CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
        CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\rXabc\r\n0\r\n\r\n",
        CHUNKED + b"3;a\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3;a\n\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b'3;a="\r\n"\r\nabc\r\n0\r\n\r\n',
        CHUNKED + b"3\r\nabcXX0\r\n\r\n",
        CHUNKED + b"3\r\nabc\r\n0\n\r\n",
        CHUNKED + b"3\r\nabc\r\n0\r\n\n",
        CHUNKED + b"3\r\nabc\r\n0\r\nX: y\n\r\n",
        CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 10\r\n\r\n",
        POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
        POST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: \r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Content-Length\t: 3\r\n\r\nabc",
        POST + b"Content-Length: 3\x0b\r\n\r\nabc",
        POST + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET relative HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GE T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"FROBNICATE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 32,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
@pytest.mark.parametrize("ahead", [b"", PLAIN])
async def test_ambiguous_or_broken_requests_are_400_and_nothing_behind_them_is_served(
    ahead: bytes, request_bytes: bytes
) -> None:
    async with serving() as port, Client(port) as client:
        client.send(ahead + request_bytes + SMUGGLED)
        if ahead:
            assert (await client.answer())[0] == 200
        status, headers, body = await client.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert error_of(body)["type"] == "invalid_request_error"
        assert await client.rest() == b""


async def test_what_comes_behind_a_body_is_no_header() -> None:
    """Or a client could name itself, or its key, where nothing that stands before the gateway looks."""
    seen: list[dict[str, str]] = []

    async def look(request: Request, reply: HttpReply) -> None:
        seen.append(request.headers)
        await echo(request, reply)

    async with serving(look) as port, Client(port) as client:
        trailers = b"Authorization: Bearer x\r\nHost: b\r\nX-Api-Key: x\r\n\r\n"
        client.send(CHUNKED + b"3\r\nabc\r\n0\r\n" + trailers + PLAIN)
        assert (await client.answer())[2] == b"POST /  3 abc"
        assert (await client.answer())[0] == 200
    assert seen == [{"host": "a", "transfer-encoding": "chunked"}, {"host": "a"}]


async def test_arbitrary_cuts_of_a_request_change_nothing() -> None:
    whole = CHUNKED.replace(b"POST /", b"POST /p?q") + b"3\r\nabc\r\n0\r\n\r\n" + PLAIN
    async with serving() as port:
        for cut in range(1, len(whole), 3):
            async with Client(port) as client:
                client.send(whole[:cut])
                await asyncio.sleep(0.001)
                client.send(whole[cut:])
                assert (await client.answer())[2] == b"POST /p q 3 abc"
                assert (await client.answer())[2] == b"GET /  0 "
