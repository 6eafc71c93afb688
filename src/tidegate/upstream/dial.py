"""
A connection to `host:port`: name resolution, the race over its addresses, TLS.

Hides that uvloop tries addresses one after another (it has no Happy Eyeballs), so that a provider whose IPv6 is a black
hole would cost the whole connect deadline. Here the next address starts when the one before failed, or 250 ms after it
began (RFC 8305); the first to end its handshake wins. With a proxy it is the proxy that is dialled, and an https
provider behind it through a tunnel.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from tidegate.core.errors import BadInput, UpstreamUnavailable
from tidegate.upstream.connection import Connection
from tidegate.upstream.proxy import Proxy, tunnel

HEAD_START_S = 0.25


@dataclass(frozen=True, slots=True)
class Network:
    """How one origin is reached where that is special. Files are PEM; `client_key` may stand in `client_cert`."""

    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    max_connections: int | None = None


def trust(
    ca_file: Path | None = None, client_cert: Path | None = None, client_key: Path | None = None
) -> ssl.SSLContext:
    """
    The system's certificate authorities, plus those of a PEM file; shows a client certificate to who asks for one.

    Blocks for about 25 ms. Raises BadInput.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except ssl.SSLError as error:
        raise BadInput(f"{ca_file}: holds no certificate in PEM form.") from error
    except OSError as error:
        raise BadInput(f"{ca_file}: can not be read: {error.strerror}.") from error
    try:
        if client_cert is not None:
            context.load_cert_chain(client_cert, client_key, password="")  # or OpenSSL would ask the terminal for it
    except ssl.SSLError as error:
        raise BadInput(
            f"{client_key or client_cert}: holds no private key for {client_cert} in PEM form, or an encrypted one."
        ) from error
    except OSError as error:
        raise BadInput(f"{client_key or client_cert}: can not be read: {error.strerror}.") from error
    return context


async def dial(
    host: str, port: int, tls: ssl.SSLContext | None, make: Callable[[], Connection], proxy: Proxy | None = None
) -> Connection:
    """
    An open connection made by `make`, its TLS handshake done. Has no deadline of its own: cancel it.

    With a `proxy` and no TLS it ends at the proxy, which is told the rest by each request.

    Raises UpstreamUnavailable, naming `host:port`, when no address can be reached.
    """

    async def connect(address: str) -> Connection:
        server_name = host if tls else None
        if proxy is not None and tls is not None:
            sock = await _tunnelled(address, proxy, host, port)
            try:
                _, connection = await loop.create_connection(make, sock=sock, ssl=tls, server_hostname=server_name)
            except BaseException:
                sock.close()
                raise
            return connection
        _, connection = await loop.create_connection(make, address, dialled[1], ssl=tls, server_hostname=server_name)
        return connection

    loop = asyncio.get_running_loop()
    dialled = (host, port) if proxy is None else (proxy.host, proxy.port)
    by = "" if proxy is None else f"by the proxy {proxy.place}: "
    try:
        addresses = await _resolve(loop, *dialled)
        if len(addresses) == 1:
            return await connect(addresses[0])
        return await _race(connect, addresses)
    except (OSError, UnicodeError) as error:
        raise UpstreamUnavailable(f"{host}:{port}: {by}{_reason(error)}") from error


async def _tunnelled(address: str, proxy: Proxy, host: str, port: int) -> socket.socket:
    """A socket that ends at `host:port`, through the proxy at `address`."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address, proxy.port))
        await tunnel(sock, proxy, host, port)
    except BaseException:
        sock.close()
        raise
    return sock


async def _resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[str]:
    """Addresses of a name, families taking turns (RFC 8305 §4); an address is itself, without a thread's help."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[int, list[str]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append(str(address[0]))
    turns = chain.from_iterable(zip_longest(*families.values()))
    return list(dict.fromkeys(address for address in turns if address is not None))


async def _race(connect: Callable[[str], Coroutine[Any, Any, Connection]], addresses: Sequence[str]) -> Connection:
    """The first connection that stands; every other one is closed. Raises the first address's error if none does."""
    tasks: list[asyncio.Task[Connection]] = []
    running: set[asyncio.Task[Connection]] = set()
    winner: asyncio.Task[Connection] | None = None
    try:
        for address in addresses:
            task = asyncio.create_task(connect(address))
            tasks.append(task)
            running.add(task)
            last = len(tasks) == len(addresses)
            while running:
                done, running = await asyncio.wait(
                    running, timeout=None if last else HEAD_START_S, return_when=asyncio.FIRST_COMPLETED
                )
                winner = next((task for task in done if task.exception() is None), None)
                if winner is not None:
                    return winner.result()
                if not last:
                    break
        raise next(error for task in tasks if (error := task.exception()))
    finally:
        for task in tasks:
            if task is not winner:
                task.cancel()
                task.add_done_callback(_drop)


def _drop(loser: asyncio.Task[Connection]) -> None:
    if not loser.cancelled() and loser.exception() is None:
        loser.result().close()


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}."
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection: {error.reason or 'the handshake failed'}."
    if isinstance(error, socket.gaierror):
        return f"the name can not be resolved: {error.strerror}."
    if isinstance(error, OSError):
        return f"no connection: {os.strerror(error.errno).lower() if error.errno else 'the network failed'}."
    return "not a host name."
