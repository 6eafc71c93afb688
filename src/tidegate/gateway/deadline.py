"""
The total deadline of calls: one timer for all of them, because one for each costs more than its call's bookkeeping.

A call that is over its time is at most 50 ms late to hear of it. The timer runs only while calls do.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

import msgspec

from tidegate.core.errors import UpstreamTimeout

TICK_S = 0.05
OVERDUE = "the call took longer than its total_s"


class Deadlines:
    """The running calls of one event loop, each with its end."""

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The one that all these calls run on; Python 3.11 asks the system for it, so it is kept."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def __len__(self) -> int:
        return len(self._running)

    def within(self, seconds: float) -> Deadline:
        """`with` it: raises UpstreamTimeout(phase=total) when the block is not over in time."""
        loop = self.loop
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline is of a task")
        if self._timer is None:
            self._timer = loop.call_later(TICK_S, self._tick)
        return Deadline(self._running, task, task.cancelling(), loop.time() + seconds)

    def _tick(self) -> None:
        now = self.loop.time()
        for deadline in [deadline for deadline in self._running if deadline.end <= now]:
            self._running.remove(deadline)
            deadline.expire()
        self._timer = self.loop.call_later(TICK_S, self._tick) if self._running else None


class Deadline(msgspec.Struct, eq=False):
    """The time of one call: as asyncio.timeout, by the shared timer."""

    running: set[Deadline]
    """It is among these while its block runs."""
    task: asyncio.Task[object]
    cancelled_before: int
    end: float
    """On the loop's clock."""
    expired: bool = False

    def __enter__(self) -> None:
        self.running.add(self)

    def expire(self) -> None:
        """Cancels the block."""
        self.expired = True
        self.task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self.expired:
            self.running.discard(self)
        elif self.task.uncancel() <= self.cancelled_before and kind is asyncio.CancelledError:
            # Nobody else cancelled the call meanwhile: this is the deadline's doing alone.
            raise UpstreamTimeout(OVERDUE, phase="total") from error
