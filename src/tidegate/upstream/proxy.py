"""
Which proxy stands before a provider, by the environment's usual words, and how to be let through it.

`https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, in either case, the small letters first. The way to an https
provider is a tunnel (CONNECT); an http one is asked through absolute targets, which is the pool's part. Loopback is
never reached through a proxy. A proxy's password is sent to the proxy and shown nowhere.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tidegate.core.errors import BadInput, UpstreamUnavailable

HEAD_LIMIT = 16 << 10
LOOPBACK = ("localhost", "127.0.0.0/8", "::1")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)
    """The value of `proxy-authorization`."""

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def line(self) -> str:
        """Its header line, or nothing."""
        return f"proxy-authorization: {self.authorization}\r\n" if self.authorization else ""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of one environment, and who is reached without."""

    https: Proxy | None = None
    http: Proxy | None = None
    direct: tuple[str, ...] = ()
    """`host`, which means its subdomains too, `host:port`, an address, a network such as 10.0.0.0/8, or `*`."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Proxies:
        """Raises BadInput for a variable that names no http:// proxy; it does not repeat the value."""

        def variable(name: str) -> str:
            return (environment.get(name) or environment.get(name.upper()) or "").strip()

        def proxy(name: str) -> Proxy | None:
            used = name if variable(name) else "all_proxy"
            return _parse(used, variable(used)) if variable(used) else None

        direct = (item.strip().lower() for item in variable("no_proxy").split(","))
        return cls(proxy("https_proxy"), proxy("http_proxy"), (*LOOPBACK, *(item for item in direct if item)))

    def before(self, host: str, port: int, *, secure: bool) -> Proxy | None:
        """The proxy to take to a provider, if any."""
        proxy = self.https if secure else self.http
        if proxy is None or any(_covers(rule, host.lower().rstrip("."), port) for rule in self.direct):
            return None
        return proxy


DIRECT = Proxies()


async def tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Turns a socket that is connected to the proxy into one to `host:port`. Raises UpstreamUnavailable, OSError."""
    loop = asyncio.get_running_loop()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    await loop.sock_sendall(sock, f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{proxy.line}\r\n".encode("latin-1"))
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_LIMIT:
        part = await loop.sock_recv(sock, 4_096)
        if not part:
            break
        head += part
    said = head.partition(b"\r\n")[0].split(b" ", 2)
    status = int(said[1]) if len(said) > 1 and said[0].startswith(b"HTTP/1.") and said[1].isdigit() else 0
    if not 200 <= status < 300 or not head.endswith(b"\r\n\r\n"):
        what = f"answered {status}" if status else "did not answer in HTTP"
        hint = "; its user and password belong into the proxy's URL" if status == 407 else ""
        raise UpstreamUnavailable(f"{host}:{port}: the proxy {proxy.place} {what}{hint}.")


def _parse(name: str, text: str) -> Proxy:
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        host, port = url.hostname, url.port or 80
    except ValueError:
        url, host, port = urlsplit(""), None, 0
    if not host or url.scheme != "http" or not host.isascii():
        raise BadInput(
            f"{name} in the environment is not http://[user:password@]host:port, the one kind that can be used."
        ) from None
    if not url.username:
        return Proxy(host, port)
    plain = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return Proxy(host, port, f"Basic {base64.b64encode(plain.encode()).decode()}")


def _covers(rule: str, host: str, port: int) -> bool:
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule.strip("[]"), strict=False)
    except ValueError:
        pass  # one of them is a name
    name, colon, number = rule.rpartition(":")
    if colon and number.isdigit():
        if int(number) != port:
            return False
        rule = name.strip("[]")
    rule = rule.removeprefix("*").lstrip(".").rstrip(".")
    return host == rule or host.endswith(f".{rule}")
