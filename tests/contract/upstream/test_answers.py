"""What a provider may answer, however its bytes are cut, and what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.upstream.provider import OK, STREAM, Provider, Talk, Wire, always, ask, chunk, once, pooled
from tidegate.core.errors import BadInput, InvalidRequest
from tidegate.ports import Upstream, UpstreamAnswer, UpstreamExchange
from tidegate.upstream.connection import HEAD_LIMIT, UNREAD_LIMIT, Connection
from tidegate.upstream.http1 import Pool
from tidegate.upstream.outbox import Outbox

HEAD = b"HTTP/1.1 200 OK\r\n"
WHOLE = {
    "content-length": (HEAD + b"content-length: 5\r\n\r\nhello", True),
    "empty": (HEAD + b"content-length: 0\r\n\r\n", True),
    "chunked": (STREAM + chunk(b"he") + chunk(b"llo") + chunk(b""), True),
    "chunk extensions and trailers": (STREAM + b"5;a=b\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n", True),
    "one byte chunks": (STREAM + b"".join(chunk(b"%c" % byte) for byte in b"hello") + chunk(b""), True),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", True),
    "after 100 and 103": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
        + HEAD
        + b"content-length: 5\r\n\r\nhello",
        True,
    ),
    "connection: close": (HEAD + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", False),
}


@pytest.mark.parametrize(("answer", "kept"), WHOLE.values(), ids=WHOLE.keys())
async def test_a_whole_answer_is_read_and_its_connection_kept_when_both_sides_stay(answer: bytes, kept: bool) -> None:
    pool: Upstream = (real := Pool())
    async with Provider(always(answer)) as provider:
        exchange: UpstreamExchange = pool.request(ask(provider.origin))
        async with exchange as got:
            typed: UpstreamAnswer = got
            assert typed.status == 200
            assert await typed.read(5) == (b"" if b"length: 0" in answer else b"hello")
        stats = real.stats()[provider.origin]
        assert (stats.open, stats.idle, stats.leased) == ((1, 1, 0) if kept else (0, 0, 0))
        await pool.close()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\n"])
async def test_without_a_length_the_body_ends_with_the_connection(head: bytes) -> None:
    async with Provider(once(head + b"hello")) as provider, pooled() as pool, pool.request(ask(provider.origin)) as got:
        assert await got.read(100) == b"hello"


@pytest.mark.parametrize(
    ("method", "answer", "kept"),
    [
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n", True),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", True),
        ("HEAD", HEAD + b"content-length: 5\r\n\r\n", False),
        ("HEAD", HEAD + b"transfer-encoding: chunked\r\n\r\n", False),
    ],
)
async def test_some_answers_have_no_body_whatever_their_head_says(method: str, answer: bytes, kept: bool) -> None:
    async with Provider(always(answer)) as provider, pooled() as pool:
        for _ in range(2):
            async with pool.request(ask(provider.origin, method=method, body=b"")) as got:
                assert await got.read(0) == b""
        assert provider.connections == (1 if kept else 2)


def test_a_head_may_have_200_headers_and_64_kib() -> None:
    empty = HEAD + b"content-length: 0\r\n"
    room = HEAD_LIMIT - len("content-length0" + "a")
    assert receive([empty + b"".join(b"a%d: b\r\n" % i for i in range(199)) + b"\r\n"])[0] == 200
    assert receive([empty + b"a: " + b"b" * room + b"\r\n\r\n"])[0] == 200
    assert receive([empty + b"a: " + b"b" * (room + 1) + b"\r\n\r\n"])[0] == 0


def test_a_drip_of_tiny_pieces_is_held_back_by_what_it_costs_here() -> None:
    loop = asyncio.new_event_loop()
    wire, connection = connected(loop)
    connection.data_received(STREAM)
    events = 0
    while not wire.pauses:
        connection.data_received(chunk(b"a") + chunk(b"b"))
        events += 1
    assert events < UNREAD_LIMIT / 128
    assert loop.run_until_complete(connection.body(1)) == b"ab" * events
    assert (wire.pauses, wire.resumes) == (1, 1)
    connection.connection_lost(None)
    loop.close()


async def test_redirects_are_answers_like_others() -> None:
    """A credential goes to the host it is for."""
    answer = b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with Provider(always(answer)) as provider, pooled() as pool, pool.request(ask(provider.origin)) as got:
        assert (got.status, got.headers["location"]) == (307, "http://127.0.0.1:1/")


async def test_header_names_are_lower_case_and_the_last_of_repeats_counts() -> None:
    answer = HEAD + b"X-One: a \r\nx-one:  b\r\nX-Empty:\r\nContent-Length: 0\r\n\r\n"
    async with Provider(always(answer)) as provider, pooled() as pool, pool.request(ask(provider.origin)) as got:
        assert got.headers == {"x-one": "b", "x-empty": "", "content-length": "0"}


async def test_an_answer_keeps_its_headers_while_its_connection_goes_on() -> None:
    answers = iter((b"X-A: 1\r\n", b"X-A: 2\r\n", b"x-a: 3\r\nX-B: 4\r\n"))

    async def script(talk: Talk) -> None:
        for lines in answers:
            await talk.request()
            await talk.send(HEAD + lines + b"content-length: 0\r\n\r\n")

    async with Provider(script) as provider, pooled() as pool:
        got = []
        for _ in range(3):
            async with pool.request(ask(provider.origin)) as answer:
                await answer.read(0)
            got.append(answer.headers)
        assert provider.connections == 1
    assert [headers["x-a"] for headers in got] == ["1", "2", "3"]
    assert ["x-b" in headers for headers in got] == [False, False, True]
    assert [headers.get("x-b") for headers in got] == [None, None, "4"]


async def test_pieces_arrive_as_they_are_sent() -> None:
    """A piece is handed on before the provider sends the next one."""
    heard = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(STREAM)
        for piece in (b"a", b"b", b"c"):
            await talk.send(chunk(piece))
            await heard.wait()
            heard.clear()
        await talk.send(chunk(b""))
        await talk.gone()

    async with Provider(script) as provider, pooled() as pool, pool.request(ask(provider.origin)) as got:
        pieces = []
        async for piece in got.chunks():
            pieces.append(piece)
            heard.set()
        assert pieces == [b"a", b"b", b"c"]


async def test_what_comes_together_is_handed_on_together() -> None:
    async with (
        Provider(once(STREAM + chunk(b"a") + chunk(b"b") + chunk(b"c") + chunk(b""))) as provider,
        pooled() as pool,
        pool.request(ask(provider.origin)) as got,
    ):
        assert [piece async for piece in got.chunks()] == [b"abc"]


async def test_a_request_is_sent_whole_and_as_it_is_given() -> None:
    async with Provider(always(OK)) as provider, pooled() as pool:
        async with pool.request(ask(provider.origin, headers=(("X-Caf", "é"),), body=b"body")):
            pass
        host = provider.origin.removeprefix("http://").encode()
        assert provider.requests == [
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: " + host + b"\r\nX-Caf: \xe9\r\n"
            b"accept-encoding: identity\r\ncontent-length: 4\r\n\r\nbody"
        ]


async def test_headers_of_the_connection_are_never_the_callers() -> None:
    theirs = (("Host", "evil"), ("Content-Length", "999"), ("Transfer-Encoding", "chunked"), ("Connection", "close"))
    async with Provider(always(OK)) as provider, pooled() as pool:
        headers = (*theirs, ("Accept-Encoding", "gzip"))
        async with pool.request(ask(provider.origin, method="GET", headers=headers, body=b"", passed=theirs)):
            pass
        host = provider.origin.removeprefix("http://").encode()
        line = b"GET /v1/chat/completions HTTP/1.1\r\n"
        assert provider.requests == [line + b"host: " + host + b"\r\nAccept-Encoding: gzip\r\n\r\n"]


@pytest.mark.parametrize("value", ["a\r\nx: b", "a\nb", "a\rb", "a\0b", "a€b"])
async def test_a_header_that_would_be_two_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Pool().request(ask("http://127.0.0.1:1", headers=(("x-good", "1"), ("x-bad", value))))
    assert caught.value.param == "x-bad"
    assert value not in str(caught.value)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nx: y", "", "a", "/ü", "/a\0"])
async def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="path"):
        Pool().request(ask("http://127.0.0.1:1", path=path))


@pytest.mark.parametrize(
    "origin",
    ["", "ftp://a", "http://", "http://a/b", "https://user:sk-secret@a", "http://a:99999", "http://a b", "a:80"],
)
async def test_an_origin_that_is_none_is_refused_without_showing_it(origin: str) -> None:
    with pytest.raises(BadInput) as caught:
        Pool().request(ask(origin))
    assert "sk-secret" not in str(caught.value)


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.integers(1, 60), max_size=40))
def test_any_cut_of_the_bytes_gives_the_same_answer(name: str, sizes: list[int]) -> None:
    answer, kept = WHOLE[name]
    expected = receive([answer])
    pieces, rest = [], answer
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert receive([piece for piece in (*pieces, rest) if piece]) == expected
    assert expected[0] == 200
    assert expected[3] == kept


async def test_an_answer_before_its_request_has_left_ends_the_connection() -> None:
    """Else the request would go out late, and its answer to whoever asks next."""
    wire, connection = Wire(), Connection(asyncio.get_running_loop(), Outbox(asyncio.get_running_loop()), "p:80", print)
    connection.connection_made(wire)
    connection.send(b"request", head_only=False)
    connection.data_received(HEAD + b"content-length: 2\r\n\r\nok")
    assert connection.complete
    assert not connection.reusable
    connection.close()
    await asyncio.sleep(0)
    assert wire.written == []
    connection.connection_lost(None)


async def test_a_request_leaves_in_the_turn_it_was_made_in() -> None:
    wire, connection = Wire(), Connection(asyncio.get_running_loop(), Outbox(asyncio.get_running_loop()), "p:80", print)
    connection.connection_made(wire)
    connection.send(b"request", head_only=False)
    await asyncio.sleep(0)
    assert wire.written == [b"request"]
    connection.close()
    connection.connection_lost(None)


def connected(loop: asyncio.AbstractEventLoop) -> tuple[Wire, Connection]:
    """A connection that has sent its request over a wire without a socket."""
    wire = Wire()
    connection = Connection(loop, Outbox(loop), "provider:80", lambda _: None)
    connection.connection_made(wire)
    connection.send(b"", head_only=False)
    return wire, connection


def receive(pieces: list[bytes]) -> tuple[int, Mapping[str, str], bytes, bool]:
    """(status, headers, body, reusable) of one answer that comes in these pieces."""
    loop = asyncio.new_event_loop()
    _, connection = connected(loop)
    for piece in pieces:
        connection.data_received(piece)
    body = loop.run_until_complete(connection.body(1)) if connection.status else b""
    outcome = connection.status, connection.headers, body, connection.reusable
    connection.connection_lost(None)
    loop.close()
    return outcome
