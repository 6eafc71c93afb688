"""Identifiers that sort by the time they were made."""

from __future__ import annotations


def uuid7(unix_ms: int, random_bits: int) -> str:
    """
    A UUID version 7 (RFC 9562 §5.7) as 36 lower-case characters.

    Args:
        unix_ms: milliseconds since 1970 UTC, 0 ≤ unix_ms < 2**48.
        random_bits: at least 74 random bits; higher ones are ignored.
    """
    rand_a = (random_bits >> 62) & 0xFFF
    rand_b = random_bits & 0x3FFF_FFFF_FFFF_FFFF
    value = unix_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    digits = value.to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
