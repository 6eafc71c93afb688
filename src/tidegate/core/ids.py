"""Identifiers that sort by the time they were made."""

from __future__ import annotations

_RANDOM = 0x0FFF_3FFF_FFFF_FFFF_FFFF
_VERSION = 0x7000_8000_0000_0000_0000
"""And the variant."""


def uuid7(unix_ms: int, random_bits: int) -> str:
    """
    A UUID version 7 (RFC 9562 §5.7) as 36 lower-case characters.

    Args:
        unix_ms: milliseconds since 1970 UTC, 0 ≤ unix_ms < 2**48.
        random_bits: 80, of which 74 are taken.
    """
    value = (unix_ms << 80 | _VERSION | random_bits & _RANDOM).to_bytes(16, "big")
    return f"{value[:4].hex()}-{value[4:10].hex('-', 2)}-{value[10:].hex()}"
