"""
Which version of a split environment serves a call: one pure function, so that every gateway gives the same answer.

Whoever says who is calling stays with one version for the life of the split: a hash of the split and the caller is a
point in [0, 1), and the newer version has the points below its weight. A weight that grows therefore only ever moves
callers to the newer version, and one that shrinks only back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from tidegate.core.errors import BadInput
from tidegate.core.ledger import Deployment, Pointer, Served

_BITS = 53
"""A float holds this many exactly; one more could round up to 1."""


def choose(live: Served, environment: str, caller: str | None, draw: Callable[[], float]) -> Served:
    """
    The version that serves a call: `live`, or the one its split sends a share to.

    Args:
        caller: the user's or the session's id; None when the call names neither: then each call draws.
        draw: a number from 0 to 1; with 1 it is never the share.
    """
    share = live.split
    if share is None:
        return live
    point = draw() if caller is None else point_of(live.prompt, environment, share.id, caller)
    return share.served if point < share.weight else live


def point_of(prompt: str, environment: str, split_id: str, caller: str) -> float:
    """Where in [0, 1) a caller stands in a split."""
    said = "\0".join((prompt, environment, split_id, caller)).encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.sha256(said).digest()[:8], "big") >> (64 - _BITS)) / (1 << _BITS)


def check_weight(weight: float) -> None:
    """Raises BadInput for what is no share of an environment's calls: it lies between 0 and 1, without either."""
    if not 0 < weight < 1:
        raise BadInput(
            f"a weight is a share of an environment's calls, above 0 % and below 100 %, not {percent(weight)}."
            " For all calls deploy without a weight; for none roll back."
        )


def parse_weight(text: str) -> float:
    """`10%` or `2.5 %` → a share. Raises BadInput."""
    number, sign, rest = text.strip().partition("%")
    try:
        weight = round(float(number) / 100, 6)
    except ValueError:
        weight = -1.0
    if not sign or rest or weight < 0:
        raise BadInput(f"{text[:40]!r} is no share of an environment's calls: write it as 10%.")
    check_weight(weight)
    return weight


def shown(pointer: Pointer) -> str:
    """What an environment serves, for people: `v7`, or `v6 90 % / v7 10 %`."""
    shares = pointer.shares
    if len(shares) == 1:
        return f"v{pointer.version}"
    return " / ".join(f"v{version} {percent(share)}" for version, share in shares.items())


def sides(move: Deployment) -> tuple[str, str]:
    """A move for people, in two halves: `v6 → ` and `v7`, or `v6 90 % / ` and `v7 10 %`; the first may be empty."""
    if move.weight is not None:
        return f"v{move.from_version} {percent(1 - move.weight)} / ", f"v{move.to_version} {percent(move.weight)}"
    return f"v{move.from_version} → " if move.from_version else "", f"v{move.to_version}"


def percent(share: float) -> str:
    """`10 %`, `2.5 %`."""
    return f"{share * 100:.4f}".rstrip("0").rstrip(".") + " %"
