"""What could not be said, each reason once: a long conversation loses the same thing a thousand times."""

from __future__ import annotations

from tidegate.core.chat import File, Loss
from tidegate.core.errors import InvalidRequest

KEPT_ELSEWHERE = ("file_", "https://generativelanguage.googleapis.com/")
"""How the ids of files begin that Anthropic and Google keep. OpenAI's begin with `file-`, look-alikes' as they like."""


class Losses:
    """Collects losses; of each reason the first place is kept."""

    def __init__(self) -> None:
        self._by_reason: dict[str, Loss] = {}

    def add(self, field: str, why: str, *, essential: bool = False) -> None:
        """Notes that `field` is lost because of `why`."""
        self._by_reason.setdefault(why, Loss(field, why, essential))

    def not_openais(self, file: File, place: str) -> bool:
        """Whether only another provider than OpenAI, and who speaks like it, has this file; noted then."""
        if file.data is not None or not (file.id or "").startswith(KEPT_ELSEWHERE):
            return False
        self.add(place, "another provider's files can not be had by their id", essential=True)
        return True

    def nothing_said(self) -> InvalidRequest:
        """Why nothing is left of a conversation."""
        for loss in self._by_reason.values():
            if loss.essential:
                return InvalidRequest(f"nothing is left to say without {loss.field}: {loss.why}.", param=loss.field)
        return InvalidRequest("messages must have at least one message that says something.", param="messages")

    def all(self) -> list[Loss]:
        """In the order they came."""
        return list(self._by_reason.values())
