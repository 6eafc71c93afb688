"""
What a web page makes a browser send here, told from what programs send.

Nothing on this machine needs a password as long as there are no keys: so a page of another site must reach neither
gateway nor console, be it with a form or a script of its own, be it under a name that it points here (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

OWN_SITE = ("same-origin", "none")
OWN_ENDS = (".localhost", ".internal")
"""Of names that nobody can register (RFC 6761; ICANN reserved `.internal` in 2024)."""


def host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None for anything that is not a plain authority."""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return None
    plain = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    if plain is None or host.lower() not in (plain, f"{plain}:{port}"):
        return None
    return parts.hostname


def foreign_name(host: str) -> bool:
    """Whether somebody outside may own the name in a Host header: an address or a name without a dot nobody does."""
    name = host_name(host)
    if name is None:
        return True
    if "." not in name or name.endswith(OWN_ENDS):
        return False
    try:
        ip_address(name)
    except ValueError:
        return True
    return False


def other_site(host: str, origins: Iterable[str], sites: Iterable[str]) -> bool:
    """
    Whether a page that was not loaded from `host` sends this. Programs send neither header.

    Args:
        origins: values of `Origin`.
        sites: values of `Sec-Fetch-Site`.
    """
    return any(site not in OWN_SITE for site in sites) or any(_authority(origin) != host.lower() for origin in origins)


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
