"""
How much one request may ask for, where a number or the length of a list multiplies what the call costs.

The bounds lie at or above what any provider takes (2026-03), so that who is refused here would be refused there too;
they exist because a provider of your own may take anything.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidegate.core.errors import InvalidRequest
from tidegate.dialects.dialect import Fields
from tidegate.dialects.fields import value

MAX_ANSWERS = 128
"""`n`: OpenAI's own; each answer is paid for."""
MAX_LOGPROBS = 128
"""Per token of the answer. Providers take 20."""
MAX_STOPS = 256
"""Providers take 4 to 16."""
MAX_TOOLS = 1_024
"""Providers take 128 to 512."""
_Any = str | float | list[msgspec.Raw] | dict[str, msgspec.Raw] | bool | None


def check(fields: Fields, bounds: Mapping[str, int], place: str = "") -> None:
    """
    Raises InvalidRequest where a number is, or a list is longer than, its bound; wrong types are somebody else's.

    `place` (`generationConfig.`) stands before a key in the error.
    """
    for key in fields:
        if key not in bounds:
            continue
        most = bounds[key]
        given = value(fields, key, _Any, "JSON")
        size = len(given) if isinstance(given, list) else given if isinstance(given, int | float) else 0
        if size > most:
            what = "has more than" if isinstance(given, list) else "is more than"
            raise InvalidRequest(f"{place}{key} {what} {most:,}.", param=f"{place}{key}")
