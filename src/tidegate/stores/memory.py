"""Answers kept in memory: the least recently used leave first, and no more bytes stay than were allowed."""

from __future__ import annotations

from collections import OrderedDict

from tidegate.core.kept import KeptAnswer
from tidegate.ports import Clock

ENTRY_BYTES = 512
"""What one entry costs beside its body: the key, the objects, the table."""
LARGEST_SHARE = 8
"""No answer takes more than this part of the room."""


class MemoryAnswers:
    """Implements ports.AnswerCache for one process. Belongs to the loop it is used on."""

    def __init__(self, *, max_bytes: int, clock: Clock) -> None:
        self.largest = max_bytes // LARGEST_SHARE
        self.bytes = 0
        """What is held now."""
        self._max_bytes = max_bytes
        self._clock = clock
        self._held: OrderedDict[bytes, tuple[KeptAnswer, float]] = OrderedDict()  # a dict is slow to find its first
        """Key → answer and the monotonic second it expires; the last used at the end."""

    def __len__(self) -> int:
        return len(self._held)

    async def get(self, key: bytes) -> KeptAnswer | None:
        """What is kept under `key` and has not expired."""
        held = self._held.get(key)
        if held is None:
            return None
        if held[1] <= self._clock.monotonic():
            self._drop(key)
            return None
        self._held.move_to_end(key)
        return held[0]

    async def put(self, key: bytes, answer: KeptAnswer, ttl_s: float) -> None:
        """Keeps an answer instead of what was there; one that is too large leaves nothing there."""
        if key in self._held:
            self._drop(key)
        size = _size(answer)
        if size > self.largest:
            return
        self._held[key] = (answer, self._clock.monotonic() + ttl_s)
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (oldest, _) = self._held.popitem(last=False)
            self.bytes -= _size(oldest)

    async def purge(self, prompt: str | None = None, digest: str | None = None) -> int:
        """Forgets all answers, or those of a prompt, or of one version of it; returns how many."""
        keys = [
            key
            for key, (answer, _) in self._held.items()
            if (prompt is None or answer.prompt == prompt) and (digest is None or answer.digest == digest)
        ]
        for key in keys:
            self._drop(key)
        return len(keys)

    def _drop(self, key: bytes) -> None:
        answer, _ = self._held.pop(key)
        self.bytes -= _size(answer)


def _size(answer: KeptAnswer) -> int:
    return len(answer.body) + ENTRY_BYTES
