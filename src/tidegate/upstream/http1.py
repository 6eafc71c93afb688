"""
The way out: a keep-alive pool of HTTP/1.1 connections per origin.

Hides who may use which connection. A slot of an origin is held by a connection from its dial to its close; a free
connection, or a free slot, goes to whoever waits longest. Leaving an exchange before its answer is whole closes the
connection, so nothing half-read is ever used again. Redirects are not followed: a credential goes to its own host only.

A request is sent twice only when a connection kept from before broke at once, without one byte of an answer: the
provider had closed it while the request was on its way.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from tidegate.core.errors import (
    BadInput,
    InternalError,
    InvalidRequest,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tidegate.ports import UpstreamRequest
from tidegate.upstream.connection import NO_HEADERS, Connection
from tidegate.upstream.dial import Network, dial, trust
from tidegate.upstream.headers import Headers
from tidegate.upstream.outbox import Outbox
from tidegate.upstream.proxy import DIRECT, Proxies

IDLE_S = 60.0
LINE_LIMIT = 1_000
HEADS_KEPT = 256
"""Request heads that are ready to be sent again, per origin."""
NO_NETWORKS: Mapping[str, Network] = {}
OURS = frozenset(
    {
        "host",
        "proxy-authorization",
        "content-length",
        "connection",
        "keep-alive",
        "transfer-encoding",
        "te",
        "upgrade",
        "expect",
    }
)
"""Headers that belong to the connection, not to the call: those of the caller are dropped."""
_REQUEST_LINE = re.compile(r"[A-Z]+ /[!-~]* HTTP/1\.1")
_KEEP_ALIVE = re.compile(r"timeout=([0-9]{1,9})", re.IGNORECASE)


class OriginStats(msgspec.Struct, frozen=True):
    """Connections to one origin: `open` = `idle` + `leased`; `waiting` calls stand in line for one."""

    open: int
    idle: int
    leased: int
    waiting: int


class Pool:
    """
    Implements `ports.Upstream`. Belongs to the event loop it is used on; safe for concurrent calls there.

    At most `max_per_origin` connections to one origin; further calls stand in line, no longer than their `connect_s`
    and no more than 1,000 of them. `ca_file` (PEM) is trusted beside the system's authorities. `networks` says what is
    special about an origin, `proxies` which of them are behind one. Raises BadInput.
    """

    def __init__(
        self,
        *,
        max_per_origin: int = 1_000,
        ca_file: Path | None = None,
        networks: Mapping[str, Network] = NO_NETWORKS,
        proxies: Proxies = DIRECT,
    ) -> None:
        self.proxies = proxies
        self._max_per_origin = max_per_origin
        self._limits = {origin: n.max_connections for origin, n in networks.items() if n.max_connections is not None}
        self._own_tls = {
            origin: trust(n.ca_file or ca_file, n.client_cert, n.client_key)
            for origin, n in networks.items()
            if n.ca_file is not None or n.client_cert is not None
        }
        self.closed = False
        self._tls = trust(ca_file) if ca_file is not None else None
        self._origins: dict[str, _Origin] = {}

    @cached_property
    def outbox(self) -> Outbox:
        """Of the loop that its connections are on."""
        return Outbox(asyncio.get_running_loop())

    def request(self, request: UpstreamRequest) -> Exchange:
        """Raises BadInput for an origin that is none, InvalidRequest for a path or header that can not be sent."""
        origin = self._origins.get(request.origin)
        if origin is None:
            origin = self._origins[request.origin] = _Origin(self, request.origin)
        return Exchange(origin, request, origin.encode(request))

    def stats(self) -> dict[str, OriginStats]:
        """Per origin, right now."""
        return {name: origin.stats() for name, origin in self._origins.items()}

    def max_connections(self, origin: str) -> int:
        """To one origin."""
        return self._limits.get(origin, self._max_per_origin)

    async def tls(self, origin: str) -> ssl.SSLContext:
        """Whom to trust. Made on first need and off the loop: reading the system's authorities takes 25 ms."""
        if origin in self._own_tls:
            return self._own_tls[origin]
        if self._tls is None:
            self._tls = await asyncio.to_thread(trust)
        return self._tls

    async def close(self) -> None:
        """Closes every connection; calls under way and in line fail. Returns when the sockets are gone."""
        self.closed = True
        lost = [future for origin in self._origins.values() for future in origin.close()]
        if lost:
            await asyncio.wait(lost, timeout=1)


class Exchange(msgspec.Struct, eq=False):
    """One request and its answer: `ports.UpstreamExchange` and, inside its block, `ports.UpstreamAnswer`."""

    _origin: _Origin
    _request: UpstreamRequest
    _payload: bytes
    _connection: Connection | None = None
    status: int = 0
    headers: Headers = NO_HEADERS

    async def __aenter__(self) -> Exchange:
        origin, request = self._origin, self._request
        head_only = request.method == "HEAD"
        connection = origin.take() or await origin.lease(request.connect_s)
        try:
            await connection.ask(self._payload, request.first_byte_s, head_only=head_only)
        except UpstreamUnavailable:
            if not connection.stale:
                raise
            connection = await origin.lease(request.connect_s, fresh=True)
            await connection.ask(self._payload, request.first_byte_s, head_only=head_only)
        if "content-encoding" in connection.headers and connection.status < 300:
            self._check_coding(connection)
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers
        return self

    async def __aexit__(self, *exc: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._origin.give_back(connection)

    def chunks(self) -> Exchange:
        """The rest of the body, piece by piece: an iterator, and no generator that could be left unclosed."""
        return self

    def __aiter__(self) -> Exchange:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._leased().body(self._request.idle_s)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def pump(self, sink: Callable[[bytes], bool]) -> bool:
        """Hands on the rest of the body, each piece in the moment it comes."""
        return await self._leased().pump(sink, self._request.idle_s)

    async def read(self, limit: int) -> bytes:
        """The rest of the body. Raises UpstreamProtocol above `limit` bytes."""
        connection = self._leased()
        if connection.complete and connection.unread <= limit:  # what is small comes with its head
            return connection.take()
        pieces: list[bytes] = []
        size = 0
        while piece := await connection.body(self._request.idle_s):
            size += len(piece)
            if size > limit:
                raise UpstreamProtocol(f"{self._origin.place}: the body of the answer is over {limit} bytes.")
            pieces.append(piece)
        return b"".join(pieces)

    def _check_coding(self, connection: Connection) -> None:
        """We ask for plain bytes. Refusing what comes compressed all the same leaves no bomb to defuse."""
        asked = any(name.lower() == "accept-encoding" for name, _ in self._request.headers)
        if not asked and connection.headers["content-encoding"].lower() not in ("", "identity"):
            connection.close()
            raise UpstreamProtocol(f"{self._origin.place}: the answer is compressed, which was not asked for.")

    def _leased(self) -> Connection:
        if self._connection is None:
            raise InternalError("an answer was read outside of its block.")
        return self._connection


class _Origin:
    """
    The connections to one `scheme://host:port` and the line of those who wait.

    A slot is counted from before a dial until its connection closes. Nobody stands in line while a connection is idle
    or a slot is free.
    """

    def __init__(self, pool: Pool, origin: str) -> None:
        self._secure, self._host, self._port, authority = _parse(origin)
        self.place = f"{self._host}:{self._port}"
        self._pool = pool
        self._name = origin
        self._most = pool.max_connections(origin)
        self._proxy = pool.proxies.before(self._host, self._port, secure=self._secure)
        self._prefix, self._proxy_lines = "", list[str]()
        """A proxy for http is asked for the whole URL, and by every request for leave."""
        if self._proxy is not None and not self._secure:
            self._prefix = f"http://{authority}"
            self._proxy_lines += [self._proxy.line.rstrip()] if self._proxy.line else []
        self._host_line = f"host: {authority}"
        self._heads: dict[tuple[str, str, tuple[tuple[str, str], ...]], bytes] = {}
        self._slots = 0
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        """The last used at the end."""
        self._line: deque[asyncio.Future[Connection | None]] = deque()
        """Each is given a connection, or None: a slot to dial in."""

    def encode(self, request: UpstreamRequest) -> bytes:
        """Head and body in one piece."""
        key = (request.method, request.path, request.headers)
        head = self._heads.get(key)
        if head is None:
            head = self._head(request)
            if len(self._heads) >= HEADS_KEPT:
                self._heads.clear()
            self._heads[key] = head
        if request.passed:
            head += self._lines(request)
        if request.body or request.method not in ("GET", "HEAD"):
            return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(request.body), request.body)
        return head + b"\r\n"

    def _lines(self, request: UpstreamRequest) -> bytes:
        lines = [f"{name}: {value}" for name, value in request.passed if name.lower() not in OURS]
        said = "".join(lines)
        if "\n" in said or "\r" in said or "\0" in said:
            raise _unsendable(request)
        try:
            return "\r\n".join((*lines, "")).encode("latin-1")
        except UnicodeEncodeError:
            raise _unsendable(request) from None

    def _head(self, request: UpstreamRequest) -> bytes:
        """All of it but the length of the body: to one target it is the same from call to call."""
        line = f"{request.method} {request.path} HTTP/1.1"
        first = f"{request.method} {self._prefix}{request.path} HTTP/1.1" if self._prefix else line
        lines = [first, self._host_line, *self._proxy_lines]
        encoding = "accept-encoding: identity"
        for name, value in request.headers:
            lower = name.lower()
            if lower == "accept-encoding":
                encoding = f"{name}: {value}"
            elif lower not in OURS:
                lines.append(f"{name}: {value}")
        lines += (encoding, "")
        head = "\r\n".join(lines)
        ends = len(lines) - 1
        if head.count("\r") != ends or head.count("\n") != ends or "\0" in head or not _REQUEST_LINE.fullmatch(line):
            raise _unsendable(request)
        try:
            return head.encode("latin-1")
        except UnicodeEncodeError:
            raise _unsendable(request) from None

    def take(self) -> Connection | None:
        """An idle connection, if there is one."""
        return self._idle.popitem()[0] if self._idle else None

    async def lease(self, connect_s: float, *, fresh: bool = False) -> Connection:
        """
        A connection, dialled or waited for; `fresh`: never one that was idle.

        Raises UpstreamUnavailable, UpstreamTimeout(phase=connect).
        """
        problem = f"no connection within {connect_s:g} s."
        if self._pool.closed:
            raise UpstreamUnavailable(f"{self.place}: the pool is closed.")
        if fresh and self._idle and self._slots == self._most:
            next(iter(self._idle)).close()
        try:
            async with asyncio.timeout(connect_s):
                while self._slots >= self._most:
                    problem = f"all {self._slots} connections were busy for {connect_s:g} s."
                    connection = await self._turn()
                    if connection is None:
                        return await self._dial()
                    if not connection.closed:
                        return connection
                self._slots += 1
                return await self._dial()
        except TimeoutError:
            raise UpstreamTimeout(f"{self.place}: {problem}", phase="connect") from None

    def give_back(self, connection: Connection) -> None:
        """Ends a lease: to the next in line, to rest, or closed when its answer is not whole."""
        rest_s = _rest_s(connection.headers)
        if not connection.reusable or rest_s <= 0:
            connection.close()
        elif not self._serve_line(connection):
            self._idle[connection] = None
            connection.rest(rest_s)

    def stats(self) -> OriginStats:
        idle, count = len(self._idle), len(self._connections)
        return OriginStats(open=count, idle=idle, leased=count - idle, waiting=len(self._line))

    def close(self) -> list[asyncio.Future[None]]:
        """Futures of the sockets it closed."""
        error = UpstreamUnavailable(f"{self.place}: the pool is closed.")
        for turn in self._line:
            if not turn.done():
                turn.set_exception(error)
        self._line.clear()
        connections = list(self._connections)
        for connection in connections:
            connection.fail(error)
        return [connection.lost for connection in connections]

    async def _turn(self) -> Connection | None:
        if len(self._line) >= LINE_LIMIT:
            raise UpstreamUnavailable(f"{self.place}: all connections are busy and {LINE_LIMIT} calls wait already.")
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn in self._line:
                self._line.remove(turn)
            elif not turn.cancelled() and turn.exception() is None:  # it came in the same moment: the next one's then
                connection = turn.result()
                if connection is None:
                    self._free_slot()
                elif not connection.closed:
                    self.give_back(connection)
            raise

    async def _dial(self) -> Connection:
        """Fills a slot that is counted already, or frees it."""
        try:
            loop = asyncio.get_running_loop()
            tls = await self._pool.tls(self._name) if self._secure else None
            outbox = self._pool.outbox
            connection = await dial(
                self._host, self._port, tls, lambda: Connection(loop, outbox, self.place, self._gone), self._proxy
            )
            if connection.closed:
                raise UpstreamUnavailable(f"{self.place}: the connection broke before an answer.")
            if self._pool.closed:
                connection.close()
                raise UpstreamUnavailable(f"{self.place}: the pool is closed.")
        except BaseException:
            self._free_slot()
            raise
        self._connections.add(connection)
        return connection

    def _gone(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        if connection in self._connections:
            self._connections.remove(connection)
            self._free_slot()

    def _free_slot(self) -> None:
        if not self._serve_line(None):
            self._slots -= 1

    def _serve_line(self, what: Connection | None) -> bool:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(what)
                return True
        return False


def _parse(origin: str) -> tuple[bool, str, int, str]:
    """(TLS?, host, port, Host header)."""
    try:
        url = urlsplit(origin)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    host = url.hostname
    if url.scheme not in ("http", "https") or not host or url.path or url.query or url.fragment or "@" in url.netloc:
        raise BadInput("an upstream's origin is http:// or https://, a host, and perhaps a port; nothing else.")
    secure = url.scheme == "https"
    authority = f"[{host}]" if ":" in host else host
    if not _REQUEST_LINE.fullmatch(f"GET /{authority} HTTP/1.1"):
        raise BadInput("an upstream's host is in ASCII: write an international name in its xn-- form.")
    return secure, host, port or (443 if secure else 80), authority if port is None else f"{authority}:{port}"


def _rest_s(headers: Mapping[str, str]) -> float:
    """How long an idle connection is good for: a second less than the server says, so that it never closes first."""
    said = _KEEP_ALIVE.search(headers["keep-alive"]) if "keep-alive" in headers else None
    return min(IDLE_S, int(said[1]) - 1) if said else IDLE_S


def _unsendable(request: UpstreamRequest) -> InvalidRequest:
    for name, value in (*request.headers, *request.passed):
        if any(mark in name + value for mark in "\r\n\0") or any(ord(mark) > 255 for mark in name + value):
            safe = name if name.isascii() and name.isprintable() else "?"
            return InvalidRequest(f"the value of header {safe} can not be sent: line breaks and NUL.", param=safe)
    return InvalidRequest("the path of an upstream request is / and visible ASCII without spaces.")
