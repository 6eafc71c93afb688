"""Why a provider refused, in its own words: where each dialect's error body keeps them."""

from __future__ import annotations

import msgspec

MAX_CHARS = 500


class _Error(msgspec.Struct):
    message: str = ""


class _Body(msgspec.Struct):
    """`error.message` in every dialect; compatible servers also say `error`, `message` or `detail` as text."""

    error: _Error | str | None = None
    message: str | None = None
    detail: str | None = None


_decode = msgspec.json.Decoder(_Body).decode


def well_put(body: bytes) -> bool:
    """Whether it is an error as every dialect has it, an object with a message: what a client's SDK understands."""
    try:
        error = _decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(error, _Error) and error.message != ""


def reason(body: bytes) -> str:
    """One line of at most 500 characters; empty when the body says none that we understand."""
    try:
        read = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    error = read.error.message if isinstance(read.error, _Error) else read.error
    return " ".join((error or read.message or read.detail or "").split())[:MAX_CHARS]
