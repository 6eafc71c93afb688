"""
Sessions of browsers: a cookie that says which key signed in, and until when, under a seal that only this process makes.

Nothing is kept: a session is as good as its key is at every request, so revoking the key ends it. It ends with the
process, too.
"""

from __future__ import annotations

import hmac
import secrets

COOKIE = "tidegate_session"
LASTS_S = 12 * 3_600


class Sessions:
    """Issues and reads cookies."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def issue(self, prefix: str, now_ns: int) -> str:
        """The cookie's value for the key of this prefix."""
        said = f"{prefix}.{now_ns // 1_000_000_000 + LASTS_S}"
        return f"{said}.{self._seal(said)}"

    def read(self, value: str, now_ns: int) -> str | None:
        """The prefix that a cookie names; None for one that is over, or was not issued here."""
        said, _, seal = value.rpartition(".")
        if not hmac.compare_digest(seal.encode("utf-8", "replace"), self._seal(said).encode()):
            return None
        prefix, _, ends = said.partition(".")
        return prefix if now_ns < int(ends) * 1_000_000_000 else None

    def _seal(self, said: str) -> str:
        return hmac.digest(self._secret, said.encode("utf-8", "replace"), "sha256").hex()


def cookie(value: str, *, secure: bool, lasts_s: int = LASTS_S) -> str:
    """A Set-Cookie header: no script reads it, no other site sends it."""
    return f"{COOKIE}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")


def value_of(header: str) -> str | None:
    """Our cookie in a Cookie header, the first one; None when there is none."""
    for part in header.split(";"):
        name, equals, value = part.strip().partition("=")
        if equals and name == COOKIE:
            return value
    return None
