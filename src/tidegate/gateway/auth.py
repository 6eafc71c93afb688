"""
Who calls, and as what.

Without keys everybody may call, and then only programs of this machine reach the gateway: it listens on loopback
(compose.py), and refuses what a web page makes a browser send. Once a key was made every call needs one; who has none,
an unknown, a revoked or an expired one is told the same. Tidegate's own calls come with an internal key, made anew at
each start.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from tidegate.core.address import is_loopback
from tidegate.core.browser import foreign_name, other_site
from tidegate.core.errors import BadInput, Forbidden, InvalidRequest, Unauthenticated
from tidegate.core.failures import Failures
from tidegate.core.keys import OPEN, Access, KeyRing
from tidegate.gateway.call import ORIGINS, Call
from tidegate.gateway.record import Record
from tidegate.ports import Clock
from tidegate.telemetry.record import CallRow, Origin

NO_KEY = "no valid API key. Send one as `Authorization: Bearer KEY`, `x-api-key: KEY` or `x-goog-api-key: KEY`."
WEB_PAGE = (
    "without keys this gateway answers programs on this machine only, by its address or as localhost, and no web page."
    " Make a key and send it: `tidegate keys create NAME --role caller`."
)
_NO_KEYS = KeyRing()


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys a gateway knows."""

    internal: str | None = field(default=None, repr=False)
    """Lies in a 0600 file beside the lock."""
    ring: Callable[[], KeyRing] = lambda: _NO_KEYS
    """Those of clients, as they are now."""
    loopback: bool = True
    """Only this machine reaches the gateway: then it is open as long as there are no keys."""
    failures: Failures = field(default_factory=Failures)


def authenticate(call: Call, record: Record, keys: Keys, clock: Clock) -> Access:
    """
    What the caller may do; writes origin and key into the record.

    Raises: as `identify` does, Forbidden without the right to call, InvalidRequest for an origin it may not claim.
    """
    access = identify(call.key, keys, call.headers, peer=call.peer, clock=clock, row=record.row)
    record.row.origin = _origin(call, keys, access)
    return access


def identify(
    token: str | None,
    keys: Keys,
    headers: Mapping[str, str],
    *,
    peer: str,
    clock: Clock,
    row: CallRow | None = None,
) -> Access:
    """
    What the holder of a credential may do. `row` learns whose it is, also when it is not valid any more.

    Raises: Unauthenticated, Saturated after too many tries, Forbidden for a web page where nobody needs a key.
    """
    ring = keys.ring()
    if keys.loopback and ring.empty:
        if _by_web_page(headers.get("host"), headers.get("origin"), headers.get("sec-fetch-site")):
            raise Forbidden(WEB_PAGE)
        return OPEN
    if is_internal(token, keys):
        return OPEN
    owner = ring.owner(token) if token else None
    if owner is not None:
        if row is not None:
            row.key, row.key_prefix = owner.name, owner.prefix
        access = ring.access(owner.prefix, clock.now_ns())
        if access is not None:
            return access
    keys.failures.count(peer, token, clock.monotonic())
    raise Unauthenticated(NO_KEY)


@lru_cache(64)
def _by_web_page(host: str | None, origin: str | None, site: str | None) -> bool:
    if host is None:  # no browser leaves it out
        return False
    origins, sites = (() if value is None else (value,) for value in (origin, site))
    return foreign_name(host) or other_site(host, origins, sites)


def is_internal(token: str | None, keys: Keys) -> bool:
    """Whether tidegate itself is calling; in constant time."""
    if token is None or keys.internal is None:
        return False
    return hmac.compare_digest(token.encode("utf-8", "replace"), keys.internal.encode())


def _origin(call: Call, keys: Keys, access: Access) -> Origin:
    """An eval and its judges may come from elsewhere, with a key that may evaluate; other origins are our own."""
    if call.origin is None or call.origin == "live":
        access.require("call")
        return "live"
    claimed = next((known for known in ORIGINS if known == call.origin), None)
    if claimed in ("eval", "judge"):
        access.require("evaluate")
    elif claimed is None or not is_internal(call.key, keys):
        said = call.origin[:80]
        raise InvalidRequest(f"x-tidegate-origin {said!r} needs the internal key.", param="x-tidegate-origin")
    return claimed


def check_bind(host: str, section: str, ring: KeyRing) -> None:
    """As long as there are no keys only loopback may listen. Raises BadInput."""
    if ring.empty and not is_loopback(host):
        raise BadInput(
            f"{section}.host is {host}: without keys tidegate listens on loopback only. Use 127.0.0.1, or make a key:"
            " `tidegate keys create NAME --role admin`."
        )
