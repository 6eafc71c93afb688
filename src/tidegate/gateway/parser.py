"""
Bytes to requests: llhttp, and all that llhttp leaves to its user.

llhttp is strict by default and refuses the smuggling forms (CL with TE, two lengths, bare LF, folded headers, odd chunk
sizes). This file adds sizes, counts, Host, codings, versions, targets and offers to upgrade. No I/O and no time.
"""

from __future__ import annotations

from collections import deque
from typing import NoReturn

import httptools
import msgspec

_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
# fmt: off
_COMMON = (
    "host", "user-agent", "accept", "accept-encoding", "accept-language", "authorization", "connection", "content-type",
    "content-length", "transfer-encoding", "traceparent", "tracestate", "x-request-id", "x-stainless-lang",
    "x-stainless-package-version", "x-stainless-os", "x-stainless-arch", "x-stainless-runtime", "x-stainless-async",
    "x-stainless-runtime-version", "x-stainless-retry-count", "x-stainless-read-timeout",
)
# fmt: on
_NAMES = {spelling.encode(): name for name in _COMMON for spelling in (name, name.title())}
SLICE_BYTES = 8 << 10
"""What `feed` may be given at once: a parser can not be stopped inside a read, and a read may hold 10,000 requests."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One whole request. `path` and `query` (without `?`) are as sent, not percent-decoded."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in lower case; repeated ones joined by `, ` (cookies by `; `). Values are Latin-1."""
    body: bytes
    peer: str
    """The client's IP address."""
    keep_alive: bool = True
    """Its client wants to send more after the answer."""
    old: bool = False
    """HTTP/1.0."""


class Limits(msgspec.Struct, frozen=True):
    """What a client may take: bytes, counts and seconds."""

    head_bytes: int = 64 << 10
    headers: int = 200
    target_bytes: int = 8 << 10
    write_buffer_bytes: int = 256 << 10
    """`send` waits while more than this is on its way to a slow reader."""
    connections: int = 10_000
    bodies_bytes: int = 512 << 20
    """Of bodies that are still on their way in, all connections together: nobody has said yet who sends them."""
    header_s: float = 10.0
    """From a request's first byte to the end of its headers."""
    body_s: float = 30.0
    """From there to the end of its body."""
    idle_s: float = 75.0
    """A kept-alive connection between requests."""
    stall_s: float = 60.0
    """A reader that takes not one byte of a full write buffer for this long is cut off."""


class Refusal(Exception):
    """The error answer that ends a connection. Raised in a callback of llhttp's, it stops that."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.path = ""
        """Of the refused request, as far as it was read: it says what its client understands."""


class RequestParser:
    """
    Feed it slices of at most SLICE_BYTES; whole requests come out of `ready`, and at the end of it perhaps a Refusal,
    after which nothing more is parsed.
    """

    def __init__(self, limits: Limits, max_body_bytes: int, peer: str) -> None:
        self._limits = limits
        self._max_body_bytes = max_body_bytes
        self._peer = peer
        self._parser = httptools.HttpRequestParser(self)
        self.ready: deque[Request | Refusal] = deque()
        self.partial = False
        """A request has begun and is not whole."""
        self._refused: Refusal | None = None
        self._dry_bytes = 0
        """Bytes since the message began or its body last grew: bounds headers, trailers and chunk framing."""
        self._last_url = b""
        self._path = self._query = ""
        """Of `_last_url`."""
        self._forget_message()

    def _forget_message(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._repeats = 0
        self.head_done = False
        """Of the partial request."""
        self._body: bytes | bytearray = b""
        self.body_bytes = 0
        """What has come of the body."""
        self._old = False
        self.continue_due = False
        """Its client waits for 100 Continue before it sends the body."""

    def feed(self, data: bytes | memoryview) -> None:
        if self._refused is not None:
            return
        self._dry_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._dry_bytes > self._limits.head_bytes + SLICE_BYTES:
                self._fail_large_head()
        except httptools.HttpParserUpgrade as offer:
            self._replay()
            self.feed(memoryview(data)[offer.args[0] :])
        except Refusal as refusal:
            self._stop(refusal)
        except httptools.HttpParserError as error:
            self._stop(self._refused or Refusal(400, f"The request is not valid HTTP/1.1: {error}."))

    def _replay(self) -> None:
        """
        llhttp reads no body behind an offer to upgrade, which we ignore as RFC 9110 §7.8 allows (Java's client offers
        h2c on every first request): a parser that never saw the offer reads it.
        """
        headers = self._headers
        framing = "transfer-encoding" if "transfer-encoding" in headers else "content-length"
        persistence = "close" if "close" in headers.get("connection", "").lower() else "keep-alive"
        method = self._method()
        self._parser = httptools.HttpRequestParser(self)
        head = f"{method} / HTTP/1.1\r\nConnection: {persistence}\r\n{framing}: {headers.get(framing, '0')}\r\n\r\n"
        self.feed(head.encode("latin-1"))

    def _stop(self, refusal: Refusal) -> None:
        """Nothing after this is parsed. What was complete before it is still answered."""
        self._refused = refusal
        refusal.path = self.path
        self.ready.append(refusal)

    def discard(self) -> None:
        """Lets go of what has come of a request that will not be served."""
        self._body = b""
        self.body_bytes = 0

    @property
    def path(self) -> str:
        """Of the request that is coming in, as far as it was read."""
        return self._url.decode("latin-1").partition("?")[0]

    def _fail(self, status: int, message: str) -> NoReturn:
        """Stops the parser from inside one of its callbacks."""
        self._refused = Refusal(status, message)
        raise self._refused

    def _fail_large_head(self) -> NoReturn:
        self._fail(431, f"The request's headers or trailers are larger than {self._limits.head_bytes} bytes.")

    def _fail_many_headers(self) -> NoReturn:
        self._fail(431, f"The request has more than {self._limits.headers} headers.")

    # --- llhttp's callbacks -------------------------------------------------------------------------------------

    def on_url(self, part: bytes) -> None:
        if self.head_done:  # of what is replayed
            return
        self.partial = True
        self._url += part
        if len(self._url) > self._limits.target_bytes:
            self._fail(414, f"The request's target is longer than {self._limits.target_bytes} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:  # trailers are dropped
            return
        key = _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.rstrip().decode("latin-1")
        if key not in self._headers:
            self._headers[key] = text
        else:
            self._repeat(key, text)

    def _repeat(self, key: str, text: str) -> None:
        if key == "host":
            self._fail(400, "The request has more than one Host header.")
        self._repeats += 1
        if self._repeats > self._limits.headers:
            self._fail_many_headers()
        self._headers[key] += ("; " if key == "cookie" else ", ") + text

    def on_headers_complete(self) -> None:
        if self.head_done:
            return
        self.head_done = True
        headers, limits = self._headers, self._limits
        self._check_version()
        if len(headers) + self._repeats > limits.headers:
            self._fail_many_headers()
        if self._dry_bytes > limits.head_bytes:
            self._check_head_size()
        if "content-length" in headers:
            if int(headers["content-length"]) > self._max_body_bytes:
                self._fail_large_body()
        elif "transfer-encoding" in headers and (self._old or headers["transfer-encoding"].lower() != "chunked"):
            self._fail(400, "The only transfer coding accepted is chunked, with HTTP/1.1.")
        if "content-encoding" in headers and headers["content-encoding"].lower() != "identity":
            self._fail(415, "Compressed request bodies are not accepted. Send the body without Content-Encoding.")
        if "expect" in headers:
            self._expect(headers["expect"])
        if self._parser.should_upgrade() and self._parser.get_method() == b"CONNECT":
            self._fail(501, "This server is not a proxy.")

    def _check_version(self) -> None:
        # HTTP/1.1 alone is kept alive unasked: to have the number spelled would take longer than all other checks.
        if "connection" in self._headers or not self._parser.should_keep_alive():
            version = self._parser.get_http_version()
            if version not in ("1.0", "1.1"):
                self._fail(505, "This server speaks HTTP/1.1 and HTTP/1.0.")
            self._old = version == "1.0"
        if not self._old and "host" not in self._headers:
            self._fail(400, "The request has no Host header.")

    def _check_head_size(self) -> None:
        size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers.items())
        if size > self._limits.head_bytes:
            self._fail_large_head()

    def _expect(self, what: str) -> None:
        if what.lower() != "100-continue":
            self._fail(417, "The only expectation that can be met is 100-continue.")
        self.continue_due = not self._old

    def on_body(self, part: bytes) -> None:
        self._dry_bytes = 0
        self.continue_due = False
        self.body_bytes += len(part)
        if self.body_bytes > self._max_body_bytes:
            self._fail_large_body()
        if not self._body:
            self._body = part
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += part  # no list: pieces may be of two bytes, and each would take fifty

    def _fail_large_body(self) -> NoReturn:
        self._fail(413, f"The request's body is larger than {self._max_body_bytes:,} bytes (gateway.max_body_bytes).")

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return  # not complete at all, see _replay
        if self._url != self._last_url:  # on one connection it is mostly the same again
            self._path, self._query = self._target()
            self._last_url = self._url
        body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        keep_alive = self._parser.should_keep_alive()
        self.ready.append(
            Request(self._method(), self._path, self._query, self._headers, body, self._peer, keep_alive, self._old)
        )
        self.partial = False
        self._dry_bytes = 0
        self._forget_message()

    def _method(self) -> str:
        method: bytes = self._parser.get_method()
        return _METHODS.get(method) or method.decode("latin-1")

    def _target(self) -> tuple[str, str]:
        """Path and query of the origin form, or of an absolute form, whose authority is never looked at."""
        target = self._url.decode("latin-1")
        if target[0] != "/" and target != "*":
            rest = target.partition("://")[2]
            if not rest:
                self._fail(400, "The request's target is neither a path nor a URL.")
            target = rest[min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest)) :]
            target = target if target.startswith("/") else f"/{target}"
        path, _, query = target.partition("#")[0].partition("?")
        return path, query
