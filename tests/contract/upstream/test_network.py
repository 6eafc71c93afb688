"""The network between us and a provider: proxies, certificates, connection caps, codings nobody asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.upstream.provider import CA, HERE, OK, Provider, Talk, always, ask, pooled
from tidegate.core.errors import BadInput, UpstreamProtocol, UpstreamTimeout, UpstreamUnavailable
from tidegate.upstream.dial import Network
from tidegate.upstream.http1 import Pool
from tidegate.upstream.proxy import Proxies, Proxy

CLIENT = HERE / "client.pem"
"""A self-signed certificate and its key, good until 2126."""


async def fetch(pool: Pool, origin: str, **changes: object) -> bytes:
    async with pool.request(ask(origin, **changes)) as answer:
        return await answer.read(1 << 20)


@asynccontextmanager
async def connect_proxy(answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> AsyncIterator[Provider]:
    """A proxy for CONNECT; what it was asked for is in its `requests`."""

    async def script(talk: Talk) -> None:
        head = await talk.request()
        await talk.send(answer)
        if b" 200 " not in answer:
            await talk.gone()
            return
        port = int(head.split()[1].rpartition(b":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while part := await reader.read(1 << 16):
                await talk.send(part)

        returning = asyncio.create_task(back())
        try:
            while part := await talk._reader.read(1 << 16):
                writer.write(part)
        finally:
            writer.transport.abort()
            returning.cancel()
            await asyncio.gather(returning, return_exceptions=True)

    async with Provider(script) as proxy:
        yield proxy


async def test_an_https_provider_is_reached_through_a_tunnel() -> None:
    """The proxy sees the name and its own password, and neither the key nor what is said."""
    async with Provider(always(OK), tls=True) as provider, connect_proxy() as tunnel:
        proxies = Proxies(https=Proxy("127.0.0.1", tunnel.port, "Basic dTpw"))
        async with pooled(ca_file=CA, proxies=proxies) as pool:
            assert await fetch(pool, provider.origin) == b"ok"
            assert await fetch(pool, provider.origin) == b"ok"
        [asked] = tunnel.requests
        target = b"localhost:%d" % provider.port
        assert asked == b"CONNECT %b HTTP/1.1\r\nhost: %b\r\nproxy-authorization: Basic dTpw\r\n\r\n" % (target, target)
        assert len(provider.requests) == 2
        assert b"proxy-authorization" not in provider.requests[0]


async def test_the_certificate_is_still_the_providers_own() -> None:
    async with Provider(always(OK), tls=True) as provider, connect_proxy() as tunnel:
        async with pooled(proxies=Proxies(https=Proxy("127.0.0.1", tunnel.port))) as pool:
            with pytest.raises(UpstreamUnavailable, match="its certificate is not trusted"):
                await fetch(pool, provider.origin)
        assert provider.requests == []


async def test_an_http_provider_is_asked_for_by_its_whole_url() -> None:
    async with Provider(always(OK)) as proxy:
        proxies = Proxies(http=Proxy("127.0.0.1", proxy.port, "Basic dTpw"))
        async with pooled(proxies=proxies) as pool:
            assert await fetch(pool, "http://models.example:8080", headers=(("Proxy-Authorization", "x"),)) == b"ok"
        head = proxy.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert head[:3] == [
            b"POST http://models.example:8080/v1/chat/completions HTTP/1.1",
            b"host: models.example:8080",
            b"proxy-authorization: Basic dTpw",
        ]
        assert b"x" not in [line.partition(b": ")[2] for line in head]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "answered 407; its user and password belong into"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "answered 502"),
        (b"SSH-2.0-hello\r\n\r\n", "did not answer in HTTP"),
        (b"x" * (17 << 10), "did not answer in HTTP"),
    ],
)
async def test_what_a_proxy_refuses_is_said_without_its_password(answer: bytes, words: str) -> None:
    async with connect_proxy(answer) as tunnel:
        proxies = Proxies(https=Proxy("127.0.0.1", tunnel.port, "Basic c2VjcmV0"))
        async with pooled(proxies=proxies) as pool:
            with pytest.raises(UpstreamUnavailable, match=words) as caught:
                await fetch(pool, "https://models.example")
            assert "models.example:443" in str(caught.value)
            assert f"127.0.0.1:{tunnel.port}" in str(caught.value)
            assert "c2VjcmV0" not in f"{caught.value!r}{proxies!r}"
            assert pool.stats()["https://models.example"].open == 0
        await tunnel.settled()


async def test_a_proxy_that_says_nothing_is_given_up_at_the_connect_deadline() -> None:
    async def silent(talk: Talk) -> None:
        await talk.request()
        await talk.gone()

    async with Provider(silent) as proxy, pooled(proxies=Proxies(https=Proxy("127.0.0.1", proxy.port))) as pool:
        with pytest.raises(UpstreamTimeout, match=r"no connection within 0\.1 s"):
            await fetch(pool, "https://models.example", connect_s=0.1)
        await proxy.settled()


async def test_a_client_certificate_is_shown_to_who_asks_for_one() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "localhost.pem")
    context.load_verify_locations(CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.read()
        except (EOFError, OSError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    origin = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    mine = Network(ca_file=CA, client_cert=CLIENT)
    async with server, pooled(networks={origin: mine}) as pool, pooled(networks={origin: Network(CA)}) as bare:
        assert await fetch(pool, origin) == b"ok"
        with pytest.raises(UpstreamUnavailable):
            await fetch(bare, origin)


async def test_a_ca_file_counts_for_its_own_origin_only() -> None:
    async with (
        Provider(always(OK), tls=True) as one,
        Provider(always(OK), tls=True) as other,
        pooled(networks={one.origin: Network(ca_file=CA)}) as pool,
    ):
        assert await fetch(pool, one.origin) == b"ok"
        with pytest.raises(UpstreamUnavailable, match="not trusted"):
            await fetch(pool, other.origin)


async def test_an_origin_may_have_a_cap_of_its_own() -> None:
    async def silent(talk: Talk) -> None:
        await talk.request()
        await talk.gone()

    async with (
        Provider(silent) as provider,
        Provider(always(OK)) as other,
        pooled(networks={provider.origin: Network(max_connections=1)}) as pool,
    ):
        first = asyncio.create_task(fetch(pool, provider.origin))
        while not provider.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        with pytest.raises(UpstreamTimeout, match="all 1 connections were busy"):
            await fetch(pool, provider.origin, connect_s=0.05)
        assert await asyncio.gather(*(fetch(pool, other.origin) for _ in range(3))) == [b"ok"] * 3
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


def test_a_file_that_holds_no_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"ca\.pem: holds no private key"):
        Pool(networks={"https://a": Network(client_cert=CA)})
    with pytest.raises(BadInput, match=r"no\.pem: can not be read"):
        Pool(networks={"https://a": Network(client_cert=tmp_path / "no.pem")})


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip"])
async def test_a_compressed_answer_that_nobody_asked_for_is_not_taken(coding: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: 3\r\n\r\nabc".encode()
    async with Provider(always(answer)) as provider, pooled() as pool:
        with pytest.raises(UpstreamProtocol, match="the answer is compressed, which was not asked for"):
            await fetch(pool, provider.origin)
        assert b"accept-encoding: identity" in provider.requests[0]
        assert await fetch(pool, provider.origin, headers=(("accept-encoding", coding),)) == b"abc"


async def test_identity_is_no_compression_and_an_error_keeps_its_status() -> None:
    plain = b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 2\r\n\r\nok"
    async with Provider(always(plain)) as provider, pooled() as pool:
        assert await fetch(pool, provider.origin) == b"ok"
    limited = b"HTTP/1.1 429 Slow\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok"
    async with Provider(always(limited)) as provider, pooled() as pool, pool.request(ask(provider.origin)) as answer:
        assert answer.status == 429
