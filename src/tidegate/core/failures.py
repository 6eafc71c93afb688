"""
How often one may try a key that is none: a bound on what guessing costs everybody else.

Counted per address and what the tried key begins with. A valid key is never counted and never held up, so nobody can
lock others out; that the 429 comes instead of the 401 says nothing about any key.
"""

from __future__ import annotations

from collections import OrderedDict

from tidegate.core.errors import Saturated

ALLOWED = 20
WINDOW_S = 60.0
MAX_SEEN = 4_096
"""Addresses remembered; the longest quiet is forgotten first."""
_SHOWN = 11
"""Of a key: its prefix."""


class Failures:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def count(self, address: str, token: str | None, now: float) -> None:
        """Notes a failed try at the monotonic second `now`. Raises Saturated after 20 within a minute."""
        who = (address, (token or "")[:_SHOWN])
        began, tries = self._seen.pop(who, (now, 0))
        if now - began >= WINDOW_S:
            began, tries = now, 0
        self._seen[who] = began, tries + 1
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        if tries >= ALLOWED:
            raise Saturated("too many calls without a valid API key; wait.", retry_after_s=began + WINDOW_S - now)
