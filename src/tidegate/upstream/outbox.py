"""
What is sent in one turn of the loop leaves together, at its end.

A loop under load hands over many requests and answers in one turn. Sent one by one, each finds its reader asleep, whom
the kernel has to wake; sent in a row, a reader that is awake takes several. A request alone waits for nothing but the
end of its own turn (docs/design/0014-outbox.md).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

MOST = 32
"""So many in one turn do not wait for more."""


class Sender(Protocol):
    """A connection that has something to send."""

    def send_now(self) -> None:
        """Raises nothing, also when it has nothing to send any more or nobody to send it to."""
        ...


class Outbox:
    """The connections of one loop that have something to send. One that has asked need not ask again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Sender] = []

    def add(self, sender: Sender) -> None:
        """Has it send at the end of this turn, or now."""
        waiting = self._waiting
        waiting.append(sender)
        if len(waiting) == 1:
            self._loop.call_soon(self._empty)
        elif len(waiting) == MOST:
            self._empty()

    def _empty(self) -> None:
        waiting, self._waiting = self._waiting, []
        for sender in waiting:
            sender.send_now()
