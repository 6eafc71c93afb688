"""Where a value stands inside a document."""

from __future__ import annotations

Path = tuple[str | int, ...]
"""Keys and indexes, from the outside in."""


def dotted(path: Path) -> str:
    """`routes.support.targets[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
