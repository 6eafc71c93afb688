"""
An answer that is kept to be given again, and the key it is kept under.

The key says all that shapes an answer: who asks, what of, and every top-level value of the request but a few that are
known not to matter. What is not known to be harmless counts, so that a new parameter of a provider is never overlooked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

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


def answer_key(secret: bytes, scope: Sequence[object], fields: Mapping[str, msgspec.Raw]) -> bytes:
    """
    32 bytes: a keyed hash, so that nobody without the `secret` (at most 64 bytes) can tell what was asked.

    Args:
        scope: what decides besides the request: project, restrictions, operation, dialects, route, target, digest.
        fields: the top level of the request. Their order does not matter, each byte of a value does.
    """
    said = {name: value for name, value in fields.items() if name not in NOT_SHAPING}
    return hashlib.blake2b(_encode((scope, said)), digest_size=32, key=secret).digest()
