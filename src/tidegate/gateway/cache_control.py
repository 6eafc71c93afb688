"""What a client says of the cache, call by call: `cache-control`, or `x-tidegate-cache` in the same words."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from tidegate.core.errors import InvalidRequest

HEADER = "x-tidegate-cache"
KNOWN = "bypass, no-cache, no-store and max-age=SECONDS"
_AGE = re.compile(r"max-age=([0-9]{1,9})")


class CacheControl(msgspec.Struct, frozen=True):
    """What may be done for one call."""

    read: bool = True
    """A kept answer may be given."""
    write: bool = True
    """The answer may be kept."""
    max_age_s: int | None = None
    """Answers that were kept longer ago are none."""


EVERYTHING = CacheControl()
_WORDS = {
    "no-cache": CacheControl(read=False),
    "no-store": CacheControl(write=False),
    "bypass": CacheControl(read=False, write=False),
}


def cache_control(headers: Mapping[str, str]) -> CacheControl:
    """
    What the headers allow; `x-tidegate-cache` is heard instead of `cache-control`.

    Raises InvalidRequest for a word of ours that is none. Others' words in `cache-control` are for others.
    """
    own = headers.get(HEADER)
    said = headers.get("cache-control") if own is None else own
    if said is None:
        return EVERYTHING
    wish = EVERYTHING
    for word in said.lower().split(","):
        directive = word.strip()
        if (known := _WORDS.get(directive)) is not None:
            wish = msgspec.structs.replace(wish, read=wish.read and known.read, write=wish.write and known.write)
        elif age := _AGE.fullmatch(directive):
            wish = msgspec.structs.replace(wish, max_age_s=int(age[1]))
        elif own is not None:
            raise InvalidRequest(f"{HEADER} takes {KNOWN}; {directive[:80]!r} is none of them.", param=HEADER)
    return wish
