"""
An answer that is kept to be given again, and the key it is kept under.

The key says all that shapes an answer: who asks, what of, and every top-level value of the request but a few that are
known not to matter. What is not known to be harmless counts, so that a new parameter of a provider is never overlooked.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from tidegate.core.chat import Loss

NOT_SHAPING = frozenset(
    {
        "model",  # the scope says where it leads
        "stream",
        "stream_options",
        "user",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    }
)
"""Keys of a request that change who is told, how, or at what price; never what."""
_encode = msgspec.json.Encoder(order="sorted").encode


class KeptAnswer(msgspec.Struct, frozen=True, gc=False):
    """A provider's complete answer, as it came."""

    body: bytes
    streamed: bool
    kept_ns: int
    """UTC nanoseconds since 1970."""
    prompt: str | None = None
    digest: str | None = None
    """Of the prompt's version."""
    losses: tuple[Loss, ...] = ()
    """What the target could not be told."""


def keyed_hash(secret: bytes) -> blake2b:
    """What keys are made with: nobody without the `secret` (at most 64 bytes) can tell from them what was asked."""
    return blake2b(digest_size=32, key=secret)


def answer_key(keyed: blake2b, scope: Sequence[object], fields: dict[str, msgspec.Raw]) -> bytes:
    """
    32 bytes.

    Args:
        scope: what decides besides the request: project, restrictions, operation, dialects, route, target, digest.
        fields: the top level of the request. Their order does not matter, each byte of a value does.
    """
    said = fields.copy()
    for name in NOT_SHAPING.intersection(fields):
        del said[name]
    key = keyed.copy()
    key.update(_encode((scope, said)))
    return key.digest()
