"""
Text as evidence: how a context falls into passages, a reference into sentences, and whether a quote is in a text.

All of it is deterministic, so that a judge can not change what it is measured by.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])|\n+")
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"
"""Scripts without spaces between words: each sign counts as one."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")


def passages(context: Any) -> list[str]:
    """A list of texts as it is, less the empty ones; one text by its blank lines. Everything else has none."""
    parts = context if isinstance(context, list) else _BLANK_LINE.split(context) if isinstance(context, str) else []
    return [part.strip() for part in parts if isinstance(part, str) and part.strip()]


def sentences(text: Any) -> list[str]:
    """A list of texts as it is, less the empty ones; one text cut after `.`, `!`, `?` and at line ends."""
    parts = text if isinstance(text, list) else _SENTENCE_END.split(text) if isinstance(text, str) else []
    return [part.strip() for part in parts if isinstance(part, str) and _WORD.search(part)]


def occurs(quote: str, texts: Sequence[str]) -> bool:
    """
    Whether the words of `quote` stand in one of `texts`, in one piece and in its order.

    Case, punctuation, layout and invisible characters do not count. One word is no evidence, unless it is all there is.
    """
    wanted = _words(quote)
    if not wanted.strip():
        return False
    one = wanted.count(" ") == 2
    return any(wanted == words if one else wanted in words for words in _indexed(tuple(texts)))


def without_invisible(text: str) -> str:
    """The text less the characters that nobody sees: zero-width ones, and those that turn the direction of writing."""
    return _INVISIBLE.sub("", text)


def storable(text: str) -> str:
    """Lone surrogates, which JSON escapes can spell and no store can hold, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@lru_cache(maxsize=8)
def _indexed(texts: tuple[str, ...]) -> list[str]:
    """The words of each text: a context is looked at again for every quote from it."""
    return [_words(text) for text in texts]


def _words(text: str) -> str:
    """The words of a text, a space before and after each."""
    return f" {' '.join(_WORD.findall(unicodedata.normalize('NFKC', without_invisible(text)).casefold()))} "
