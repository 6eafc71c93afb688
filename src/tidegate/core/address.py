"""Where commands find a server instead of this folder: TIDEGATE_URL and TIDEGATE_API_KEY."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from tidegate.core.errors import BadInput

URL, KEY, ALLOW_HTTP = "TIDEGATE_URL", "TIDEGATE_API_KEY", "TIDEGATE_ALLOW_HTTP"


@dataclass(frozen=True, slots=True)
class Address:
    """A server's console, and the key for it."""

    origin: str
    """`https://host[:port]`."""
    path: str = ""
    """What stands before the console's own paths, where a proxy puts it below one."""
    key: str | None = field(default=None, repr=False)
    plain: bool = False
    """http:// was allowed for another machine."""


def from_environment(environment: Mapping[str, str]) -> Address | None:
    """The server that the environment names; None when TIDEGATE_URL is not set. Raises BadInput."""
    url = environment.get(URL, "").strip()
    if not url:
        return None
    key = environment.get(KEY, "").strip() or None
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise BadInput(f"{KEY}: holds characters that no key has.")
    plain = environment.get(ALLOW_HTTP, "").strip() == "1"
    origin, path = split_url(url, URL, plain=plain)
    return Address(origin, path, key, plain)


def split_url(url: str, name: str, *, plain: bool) -> tuple[str, str]:
    """
    An address as origin and path, without a `/` at its end.

    Raises: BadInput, saying `name`, for what is no address, or would send a key unencrypted to another machine without
        that being allowed by `plain`.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
        parts = urlsplit("")
    odd = parts.username is not None or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not host or odd or not url.isprintable() or " " in url:
        raise BadInput(f"{name}: is not an address such as https://tidegate.example.com.")
    if parts.scheme == "http" and not plain and not is_loopback(host):
        raise BadInput(
            f"{name}: http://{host} would send the key unencrypted. Use https://, or set {ALLOW_HTTP}=1 in a network"
            " that you trust."
        )
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or an address of the loopback range; any other name may point anywhere."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
