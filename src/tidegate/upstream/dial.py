"""
A connection to `host:port`: name resolution, the race over its addresses, TLS.

Hides that uvloop tries addresses one after another (it has no Happy Eyeballs), so that a provider whose IPv6 is a black
hole would cost the whole connect deadline. Here the next address starts when the one before failed, or 250 ms after it
began (RFC 8305); the first to end its handshake wins. A proxy or a client certificate belongs here: they change what is
dialled, and nothing after it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from tidegate.core.errors import BadInput, UpstreamUnavailable
from tidegate.upstream.connection import Connection

HEAD_START_S = 0.25


def trust(ca_file: Path | None = None) -> ssl.SSLContext:
    """The system's certificate authorities, plus those of a PEM file. Blocks for about 25 ms. Raises BadInput."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except ssl.SSLError as error:
        raise BadInput(f"{ca_file}: holds no certificate in PEM form.") from error
    except OSError as error:
        raise BadInput(f"{ca_file}: can not be read: {error.strerror}.") from error
    return context


async def dial(host: str, port: int, tls: ssl.SSLContext | None, make: Callable[[], Connection]) -> Connection:
    """
    An open connection made by `make`, its TLS handshake done. Has no deadline of its own: cancel it.

    Raises UpstreamUnavailable, naming `host:port`, when no address can be reached.
    """

    async def connect(address: str) -> Connection:
        server_name = host if tls else None
        _, connection = await loop.create_connection(make, address, port, ssl=tls, server_hostname=server_name)
        return connection

    loop = asyncio.get_running_loop()
    try:
        addresses = await _resolve(loop, host, port)
        if len(addresses) == 1:
            return await connect(addresses[0])
        return await _race(connect, addresses)
    except (OSError, UnicodeError) as error:
        raise UpstreamUnavailable(f"{host}:{port}: {_reason(error)}") from error


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
