"""
The way to another machine's console, for commands: one blocking HTTP request at a time, each failure one sentence.

Hides TLS, a proxy of the environment, deadlines, and what answers mean. Redirects are not followed: the key goes to the
server that was named and to nobody else. A key is not sent unencrypted to another machine unless that was asked for.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from tidegate.core.address import KEY, URL, Address
from tidegate.core.errors import BadInput, Forbidden, NotFound, Refused, TidegateError, Unauthenticated, Unusable
from tidegate.upstream.proxy import Proxies

API_HEADER = "x-tidegate-api"
API_VERSION = "1"
"""Of the paths below /api/v1 and what they mean; another one is another API."""
CONNECT_S = 10.0
ANSWER_S = 60.0
MAX_ANSWER_BYTES = 256 << 20
_PIECE = 1 << 20
T = TypeVar("T")
_KINDS: Mapping[str, type[TidegateError]] = {
    "not_found": NotFound,
    "refused": Refused,
    "unusable": Unusable,
    "bad_input": BadInput,
    "invalid_file": BadInput,
    "invalid_request_error": BadInput,
    "request_too_large": BadInput,
}


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Server:
    """
    Blocking; safe to share between threads.

    Every method raises: Unauthenticated for a key that the server does not accept, Forbidden for what the key may not
    do, NotFound, Refused and BadInput with the server's own words, Unusable when it can not be reached.
    """

    def __init__(self, address: Address) -> None:
        self.address = address

    def read(self, kind: type[T], path: str, **query: object) -> T:
        """What stands at a path of the API; parameters that are None are left out."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return _decode(self._ask("GET", path + (f"?{urlencode(given, errors='replace')}" if given else ""), None), kind)

    def write(self, kind: type[T], path: str, body: bytes) -> T:
        """The answer to JSON. Never sent twice: when no answer comes, what happened is not known."""
        return _decode(self._ask("POST", path, body), kind)

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """One request on a connection of its own. Raises Unusable; tests replace it."""
        origin, end = self.address.origin, time.monotonic() + ANSWER_S
        try:
            connection = _connect(origin)
            try:
                connection.connect()
                connection.sock.settimeout(ANSWER_S)
                connection.request(method, target, body, dict(headers))
                answer = connection.getresponse()
                read = _read(answer, end, origin)
                return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, read)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise Unusable(f"{origin}: {_reason(error)}.{_unknown(method)}") from error

    def _ask(self, method: str, target: str, body: bytes | None) -> bytes:
        headers = {"accept": "application/json", "user-agent": "tidegate"}
        if self.address.key is not None:
            headers["authorization"] = f"Bearer {self.address.key}"
        if body is not None:
            headers["content-type"] = "application/json"
        answer = self.exchange(method, f"{self.address.path}/api/v1{target}", headers, body)
        self._check(answer)
        return answer.body

    def _check(self, answer: Answer) -> None:
        """Raises what an answer says went wrong."""
        origin = self.address.origin
        if 300 <= answer.status < 400:
            where = answer.headers.get("location", "elsewhere")[:200]
            raise BadInput(f"{origin} answers with a redirect to {where!r}: set {URL} to where the console is.")
        speaks = answer.headers.get(API_HEADER)
        if speaks is None:
            raise BadInput(
                f"{origin} is not a tidegate console (HTTP {answer.status}). {URL} is the console's address, not the"
                " gateway's; or it runs a tidegate that is too old for this."
            )
        if speaks != API_VERSION:
            raise BadInput(
                f"{origin} speaks version {speaks[:20]} of the API, and this tidegate version {API_VERSION}: use the"
                " same tidegate on both sides."
            )
        if answer.status >= 400:
            raise self._error(answer)

    def _error(self, answer: Answer) -> TidegateError:
        origin = self.address.origin
        try:
            said = msgspec.json.decode(answer.body, type=_Said).error
        except (msgspec.DecodeError, UnicodeDecodeError):
            said = _Error("", f"HTTP {answer.status}")
        if answer.status == 401:
            if self.address.key is None:
                return Unauthenticated(f"{origin} asks for a key: set {KEY}.")
            return Unauthenticated(f"{origin} does not accept the key in {KEY}: it is unknown, expired or revoked.")
        if said.code == "forbidden":
            return Forbidden(f"{origin}: {said.message}")
        kind = _KINDS.get(said.code)
        if kind is None:
            return Unusable(f"{origin}: {said.message}")
        return kind(said.message)


class _Error(msgspec.Struct):
    code: str
    message: str


class _Said(msgspec.Struct):
    error: _Error


def _connect(origin: str) -> http.client.HTTPConnection:
    parts = urlsplit(origin)
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port or 80, timeout=CONNECT_S)
    port, context = parts.port or 443, ssl.create_default_context()
    proxy = Proxies.read(os.environ).before(host, port, secure=True)
    if proxy is None:
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
    through = http.client.HTTPSConnection(proxy.host, proxy.port, timeout=CONNECT_S, context=context)
    through.set_tunnel(host, port, {"proxy-authorization": proxy.authorization} if proxy.authorization else {})
    return through


def _read(answer: http.client.HTTPResponse, end: float, origin: str) -> bytes:
    pieces, size = [], 0
    while piece := answer.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise Unusable(f"{origin}: the answer is longer than {MAX_ANSWER_BYTES >> 20} MiB.")
        if time.monotonic() > end:
            raise Unusable(f"{origin}: the answer took longer than {ANSWER_S:.0f} s.")
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(pieces)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection: {error.reason or 'the handshake failed'}"
    if isinstance(error, socket.gaierror):
        return f"the name can not be resolved: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead | ConnectionResetError):
        return "the connection broke before the answer was whole"
    if isinstance(error, OSError):
        return f"it can not be reached: {(error.strerror or str(error)).lower()}"
    return "what answers there is not an HTTP server"


def _unknown(method: str) -> str:
    return "" if method == "GET" else " Whether anything was changed is not known: look with `tidegate log`."


def quoted(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="", errors="replace")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return msgspec.convert(json.loads(body), kind)  # it alone takes half an emoji, which models do say
    except ValueError as error:
        raise BadInput(f"the server's answer is of another tidegate: {error}. Use the same on both sides.") from error
