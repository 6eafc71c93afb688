"""
Untrusted text as everybody can see it: what would move a cursor, turn the direction or hide itself is spelt out.

Letters, marks and emoji of every script stay as they are. Escaping for a format (HTML, XML, Markdown) comes after this.
"""

from __future__ import annotations

import unicodedata

KEPT = frozenset("\n\t\u200d")
"""The zero-width joiner is part of emoji."""
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(text: str) -> str:
    """`text` with control and format characters written as `\\x1b` or `\\u202e`; line breaks and tabs stay."""
    return text.translate(_SPELLING)


def one_line(text: str, limit: int | None = None) -> str:
    """As `plain`, with line breaks spelt out too; cut to `limit` characters of the text, and then ending in `…`."""
    cut = text if limit is None or len(text) <= limit else text[:limit]
    shown = plain(cut).replace("\t", "    ").replace("\n", "\\x0a")
    return shown if cut is text else shown + "…"


def cut(text: str, limit: int) -> tuple[str, int]:
    """`plain` of the first `limit` characters, and how many are left out."""
    return plain(text[:limit]), max(0, len(text) - limit)


class _Spelling(dict[int, str]):
    """For `str.translate`: filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character not in KEPT and (unicodedata.category(character) in HIDDEN or code & 0xFFFE == 0xFFFE):
            character = f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
        self[code] = character
        return character


_SPELLING = _Spelling()
