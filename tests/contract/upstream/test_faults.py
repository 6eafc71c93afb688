"""Everything that goes wrong on the way becomes one error of our tree, with the place and without any content."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.contract.upstream.provider import (
    CA,
    OK,
    STREAM,
    Provider,
    Script,
    Talk,
    Wire,
    always,
    ask,
    chunk,
    once,
    pooled,
)
from tidegate.core.errors import (
    BadInput,
    InternalError,
    StreamBroken,
    UpstreamError,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tidegate.ports import UpstreamRequest
from tidegate.upstream import dial
from tidegate.upstream.connection import Connection
from tidegate.upstream.http1 import Pool
from tidegate.upstream.outbox import Outbox

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
ENDLESS = 64 << 20


def pouring(start: bytes, more: bytes) -> Script:
    """After a request: `start`, then `more` until the client goes, at most 64 MiB."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(start)
        block = more * (1 + 65_536 // len(more))
        for _ in range(ENDLESS // len(block)):
            await talk.send(block)
        raise AssertionError("the client took it all")

    return script


def resetting(start: bytes) -> Script:
    """After a request: `start`, and a reset once it has been received (a reset at once would take it back)."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(start)
        await asyncio.sleep(0.05)
        talk.reset()

    return script


def dripping(start: bytes, more: bytes, every_s: float) -> Script:
    """After a request: `start`, then `more` again and again."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(start)
        while more:
            await asyncio.sleep(every_s)
            await talk.send(more)
        await talk.gone()

    return script


BEFORE_THE_HEAD: dict[str, tuple[Script, type[UpstreamError], str]] = {
    "closed": (once(b""), UpstreamUnavailable, "broke before an answer"),
    "reset": (once(b"", Talk.reset), UpstreamUnavailable, "broke before an answer"),
    "closed in the head": (once(b"HTTP/1.1 200 OK\r\nx-private: 1\r\n"), UpstreamUnavailable, "broke before an answer"),
    "closed after a 100": (once(b"HTTP/1.1 100 Continue\r\n\r\n"), UpstreamUnavailable, "broke before an answer"),
    "not HTTP": (once(b"SSH-2.0-private\r\n"), UpstreamProtocol, "not HTTP/1.1"),
    "an upgrade": (once(b"HTTP/1.1 101 Switching\r\nupgrade: private\r\n\r\n"), UpstreamProtocol, "not HTTP/1.1"),
    "two lengths": (
        once(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"),
        UpstreamProtocol,
        "not HTTP/1.1",
    ),
    "length and chunks": (
        once(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
        UpstreamProtocol,
        "not HTTP/1.1",
    ),
    "a header of 1 MiB": (
        pouring(b"HTTP/1.1 200 OK\r\nx: ", b"private"),
        UpstreamProtocol,
        "over 200 headers or 64 KiB",
    ),
    "a header of 1 MiB at once": (
        once(b"HTTP/1.1 200 OK\r\nx: " + b"a" * (1 << 20) + b"\r\n\r\n"),
        UpstreamProtocol,
        "over 200 headers or 64 KiB",
    ),
    "100,000 headers": (
        once(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000 + b"\r\n"),
        UpstreamProtocol,
        "over 200 headers or 64 KiB",
    ),
    "201 headers": (
        once(b"HTTP/1.1 200 OK\r\n" + b"".join(b"a%d: b\r\n" % i for i in range(201)) + b"\r\n"),
        UpstreamProtocol,
        "over 200 headers",
    ),
    "endless 1xx": (pouring(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), UpstreamProtocol, "over 200 headers or 64 KiB"),
}

IN_THE_BODY: dict[str, tuple[Script, type[UpstreamError], str]] = {
    "cut": (once(LENGTH + b"private"), StreamBroken, "broke in the middle"),
    "cut by a reset": (
        resetting(STREAM + chunk(b"private")),
        StreamBroken,
        "broke in the middle",
    ),
    "a reset where the end would be a FIN": (
        resetting(b"HTTP/1.1 200 OK\r\n\r\nprivate"),
        StreamBroken,
        "broke in the middle",
    ),
    "cut between chunks": (once(STREAM + chunk(b"private")), StreamBroken, "broke in the middle"),
    "cut in the last chunk": (once(STREAM + chunk(b"private") + b"0\r\n"), StreamBroken, "broke in the middle"),
    "a length that is none": (once(STREAM + chunk(b"private") + b"xyz\r\n"), UpstreamProtocol, "not HTTP/1.1"),
    "endless chunk extension": (
        pouring(STREAM + chunk(b"private") + b"1;", b"private"),
        UpstreamProtocol,
        "over 200 headers or 64 KiB",
    ),
    "endless trailers": (
        pouring(STREAM + chunk(b"private") + b"0\r\n", b"private: private\r\n"),
        UpstreamProtocol,
        "over 200 headers or 64 KiB",
    ),
}


@contextmanager
def told(provider: Provider, kind: type[UpstreamError], words: str, phase: str | None = None) -> Iterator[None]:
    """The error inside is exactly of this kind, names the place, and shows nothing that was sent."""
    with pytest.raises(UpstreamError, match=words) as caught:
        yield
    assert type(caught.value) is kind
    assert getattr(caught.value, "phase", None) == phase
    assert str(caught.value).startswith(f"127.0.0.1:{provider.port}: ")
    assert not {"sk-secret", "private"} & set(str(caught.value).replace(":", " ").split())


@pytest.mark.parametrize(("script", "kind", "words"), BEFORE_THE_HEAD.values(), ids=BEFORE_THE_HEAD.keys())
async def test_before_the_head(script: Script, kind: type[UpstreamError], words: str) -> None:
    async with Provider(script) as provider, pooled() as pool:
        with told(provider, kind, words):
            async with pool.request(ask(provider.origin)):
                pass
        assert len(provider.requests) == 1, "a new connection is no reason to ask twice"
        assert pool.stats()[provider.origin].open == 0
        await provider.settled()


@pytest.mark.parametrize(("script", "kind", "words"), IN_THE_BODY.values(), ids=IN_THE_BODY.keys())
async def test_in_the_body_after_the_bytes_that_came(script: Script, kind: type[UpstreamError], words: str) -> None:
    async with Provider(script) as provider, pooled() as pool:
        got = []
        with told(provider, kind, words):
            async with pool.request(ask(provider.origin)) as answer:
                async for piece in answer.chunks():
                    got.append(piece)  # noqa: PERF401 - what came before the error counts
        assert b"".join(got) == b"private"
        assert pool.stats()[provider.origin].open == 0
        await provider.settled()


async def test_a_cut_answer_is_never_read_as_whole() -> None:
    async with Provider(once(LENGTH + b"half")) as provider, pooled() as pool:
        with told(provider, StreamBroken, "broke in the middle"):
            async with pool.request(ask(provider.origin)) as answer:
                await answer.read(1_000)


@pytest.mark.parametrize(
    "start", [STREAM, b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"]
)
async def test_a_body_above_the_limit_is_not_read_to_its_end(start: bytes) -> None:
    async with Provider(pouring(start, chunk(b"private" * 100))) as provider, pooled() as pool:
        async with pool.request(ask(provider.origin)) as answer:
            with told(provider, UpstreamProtocol, "over 100000 bytes"):
                await answer.read(100_000)
        await provider.settled()


@pytest.mark.parametrize("script", [dripping(b"", b"", 0), dripping(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n", 0.01)])
async def test_a_head_that_is_not_whole_in_time_is_given_up(script: Script) -> None:
    async with Provider(script) as provider, pooled() as pool:
        with told(provider, UpstreamTimeout, r"no answer for 0\.1 s", phase="first_byte"):
            async with pool.request(ask(provider.origin, first_byte_s=0.1)):
                pass
        assert len(provider.requests) == 1
        await provider.settled()


@pytest.mark.parametrize("more", [b"", b";a"])
async def test_a_body_that_stands_still_is_given_up(more: bytes) -> None:
    """Chunk framing without a byte of body is standing still too."""
    async with Provider(dripping(STREAM + chunk(b"a") + b"1", more, 0.01)) as provider, pooled() as pool:
        async with pool.request(ask(provider.origin, idle_s=0.1)) as answer:
            pieces = answer.chunks()
            assert await anext(pieces) == b"a"
            with told(provider, UpstreamTimeout, r"stood still for 0\.1 s", phase="idle"):
                await anext(pieces)
        await provider.settled()


async def test_a_slow_body_has_all_the_time_it_moves() -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(STREAM)
        for _ in range(8):
            await asyncio.sleep(0.05)
            await talk.send(chunk(b"a"))
        await talk.send(chunk(b""))

    async with (
        Provider(script) as provider,
        pooled() as pool,
        pool.request(ask(provider.origin, idle_s=0.25)) as answer,
    ):
        assert await answer.read(100) == b"a" * 8


async def test_a_deadline_may_be_later_than_the_one_before_it() -> None:
    """A connection moves its timer only when a deadline comes closer."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(OK)
        await talk.gone()

    async with Provider(script) as provider, pooled() as pool:
        async with pool.request(ask(provider.origin, first_byte_s=0.1)):
            pass
        began = time.monotonic()
        with told(provider, UpstreamTimeout, r"no answer for 0\.3 s", phase="first_byte"):
            async with pool.request(ask(provider.origin, first_byte_s=0.3)):
                pass
        assert 0.29 < time.monotonic() - began < 1


async def test_a_slow_reader_is_not_the_providers_fault() -> None:
    async with (
        Provider(once(STREAM + chunk(b"a") + chunk(b""))) as provider,
        pooled() as pool,
        pool.request(ask(provider.origin, idle_s=0.05)) as answer,
    ):
        await asyncio.sleep(0.15)
        assert await answer.read(100) == b"a"


async def test_a_refused_connection_names_the_place() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}"
        async with pooled() as pool:
            with pytest.raises(UpstreamUnavailable, match=f"^{place}: no connection: connection refused.$"):
                async with pool.request(ask(f"http://{place}")):
                    pass
            assert pool.stats()[f"http://{place}"].open == 0


async def test_a_name_that_nobody_knows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nobody)
    async with pooled() as pool:
        with pytest.raises(UpstreamUnavailable, match=r"^models\.invalid:443: the name can not be resolved: "):
            async with pool.request(ask("https://models.invalid")):
                pass


async def test_a_host_that_does_not_answer_costs_the_connect_deadline() -> None:
    with black_hole() as (host, port):
        async with pooled() as pool:
            with pytest.raises(UpstreamTimeout, match=r"no connection within 0\.1 s") as caught:
                async with pool.request(ask(f"http://{host}:{port}", connect_s=0.1)):
                    pass
            assert caught.value.phase == "connect"
            assert pool.stats()[f"http://{host}:{port}"].open == 0


@pytest.mark.parametrize("first", ["refuses", "is a black hole"])
async def test_the_next_address_is_tried_before_the_first_has_cost_the_deadline(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def both(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    async with Provider(always(OK)) as provider, pooled() as pool:
        with black_hole(provider.port if first != "refuses" else 0):
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
            began = time.monotonic()
            async with pool.request(ask(f"http://models.example:{provider.port}", connect_s=5)) as answer:
                assert await answer.read(2) == b"ok"
            assert time.monotonic() - began < 2
        assert len(asyncio.all_tasks()) <= 1 + provider.open, "no attempt is left behind"


async def test_two_that_connect_in_the_same_moment_leave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "HEAD_START_S", 0.01)
    loop, both_started, made = asyncio.get_running_loop(), asyncio.Barrier(2), []

    async def connect(address: str) -> Connection:
        await both_started.wait()
        connection = Connection(loop, Outbox(loop), address, lambda _: None)
        connection.connection_made(Wire())
        made.append(connection)
        return connection

    winner = await dial._race(connect, ["127.0.0.1", "127.0.0.2"])
    await asyncio.sleep(0)
    assert [connection for connection in made if not connection.closed] == [winner]
    assert len(made) == 2


async def test_when_no_address_answers_the_first_one_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.3")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    async with pooled() as pool:
        with pytest.raises(UpstreamUnavailable, match=r"^models\.example:9: no connection: connection refused\.$"):
            async with pool.request(ask("http://models.example:9")):
                pass


async def test_tls_is_trusted_by_a_ca_file() -> None:
    async with Provider(always(OK), tls=True) as provider, pooled(ca_file=CA) as pool:
        for _ in range(2):
            async with pool.request(ask(provider.origin)) as answer:
                assert await answer.read(2) == b"ok"
        assert provider.connections == 1


async def test_a_certificate_that_is_not_trusted_or_not_for_this_host_is_refused() -> None:
    async with Provider(always(OK), tls=True) as provider, pooled() as strict, pooled(ca_file=CA) as trusting:
        with pytest.raises(UpstreamUnavailable, match="its certificate is not trusted"):
            async with strict.request(ask(provider.origin)):
                pass
        with pytest.raises(UpstreamUnavailable, match="its certificate is not trusted"):
            async with trusting.request(ask(provider.origin.replace("localhost", "127.0.0.1"))):
                pass
        assert provider.requests == []


async def test_tls_to_a_plain_server_is_one_clear_sentence() -> None:
    async def script(talk: Talk) -> None:
        await talk.send(b"220 hello there, this is not TLS\r\n")

    async with Provider(script) as provider, pooled(ca_file=CA) as pool:
        with pytest.raises(UpstreamUnavailable, match=f"^127.0.0.1:{provider.port}: no "):
            async with pool.request(ask(provider.origin.replace("http:", "https:"), connect_s=1)):
                pass


def test_a_ca_file_that_is_none_is_told_at_once(tmp_path: object) -> None:
    file = CA.parent / "no-such.pem"
    with pytest.raises(BadInput, match="can not be read"):
        Pool(ca_file=file)
    with pytest.raises(BadInput, match="no certificate in PEM form"):
        Pool(ca_file=CA.parent / "provider.py")


async def test_an_answer_outside_of_its_block_is_a_bug_of_ours() -> None:
    async with Provider(always(OK)) as provider, pooled() as pool:
        async with pool.request(ask(provider.origin)) as answer:
            pass
        with pytest.raises(InternalError):
            await answer.read(1)


@contextmanager
def black_hole(port: int = 0) -> Iterator[tuple[str, int]]:
    """An address that neither takes nor refuses a connection: its backlog is full."""
    with socket.socket() as hole, socket.socket() as one, socket.socket() as two:
        hole.bind(("127.0.0.2", port))
        hole.listen(0)
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        yield hole.getsockname()


def test_a_request_does_not_show_its_credential() -> None:
    request: UpstreamRequest = ask("http://a")
    assert "sk-secret" not in repr(request)
