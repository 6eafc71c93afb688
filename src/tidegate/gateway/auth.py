"""Who calls, and as what. No keys configured = open, and then the gateway listens on loopback only (compose.py)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from ipaddress import ip_address

from tidegate.core.errors import BadInput, InvalidRequest
from tidegate.gateway.call import ORIGINS, Call
from tidegate.gateway.record import Record
from tidegate.telemetry.record import Origin


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys a gateway knows. `internal` is made anew at each start and lies in a 0600 file beside the lock."""

    internal: str | None = field(default=None, repr=False)


def authenticate(call: Call, record: Record, keys: Keys, project: str) -> None:
    """Writes project and origin into the record. Raises InvalidRequest for an origin it may not claim."""
    origin: Origin = "live"
    if call.origin is not None and call.origin != "live":
        claimed = next((known for known in ORIGINS if known == call.origin), None)
        if claimed is None or not is_internal(call.key, keys):
            raise InvalidRequest(
                f"x-tidegate-origin {call.origin!r} needs the internal key.", param="x-tidegate-origin"
            )
        origin = claimed
    record.describe(call, project=project, origin=origin)


def is_internal(key: str | None, keys: Keys) -> bool:
    """Whether tidegate itself is calling; in constant time."""
    return keys.internal is not None and key is not None and hmac.compare_digest(key.encode(), keys.internal.encode())


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or an address of the loopback range; any other name may point anywhere."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_open_bind(host: str, section: str) -> None:
    """Without keys only loopback may listen. Raises BadInput."""
    if not is_loopback(host):
        raise BadInput(
            f"{section}.host is {host}: without keys tidegate listens on loopback only. Use 127.0.0.1 and put a proxy "
            "that authenticates in front."
        )
