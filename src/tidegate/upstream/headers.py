"""
The headers of an answer, decoded when they are asked for: of twenty that a provider sends, a call reads two.

A provider names them alike from one answer to the next, so what its names mean is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache


class Headers(Mapping[str, str]):
    """Names in lower case; of one that comes twice the last value counts."""

    __slots__ = ("_sent", "_values")

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self._values = values
        self._sent = _sent(tuple(values))

    def __getitem__(self, name: str) -> str:
        return self._values[self._sent[name]].strip().decode("latin-1")

    def __contains__(self, name: object) -> bool:
        return name in self._sent

    def __iter__(self) -> Iterator[str]:
        return iter(self._sent)

    def __len__(self) -> int:
        return len(self._sent)


@lru_cache(64)
def _sent(names: tuple[bytes, ...]) -> Mapping[str, bytes]:
    """Each name as it was sent."""
    return {name.decode("latin-1").lower(): name for name in names}
