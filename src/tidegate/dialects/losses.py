"""What could not be said, each reason once: a long conversation loses the same thing a thousand times."""

from __future__ import annotations

from tidegate.core.chat import Loss


class Losses:
    """Collects losses; of each reason the first place is kept."""

    def __init__(self) -> None:
        self._by_reason: dict[str, Loss] = {}

    def add(self, field: str, why: str, *, essential: bool = False) -> None:
        """Notes that `field` is lost because of `why`."""
        self._by_reason.setdefault(why, Loss(field, why, essential))

    def all(self) -> list[Loss]:
        """In the order they came."""
        return list(self._by_reason.values())
