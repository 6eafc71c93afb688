"""
The total deadline of calls: one timer for all of them, because one for each costs more than its call's bookkeeping.

A call that is over its time is at most 50 ms late to hear of it. The timer runs only while calls do.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

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
        return Deadline(self, seconds)

    def add(self, deadline: Deadline) -> None:
        """It is watched from now on."""
        self._running.add(deadline)
        if self._timer is None:
            self._timer = self.loop.call_later(TICK_S, self._tick)

    def remove(self, deadline: Deadline) -> None:
        """Its block is over."""
        self._running.discard(deadline)

    def _tick(self) -> None:
        now = self.loop.time()
        for deadline in [deadline for deadline in self._running if deadline.end <= now]:
            self._running.remove(deadline)
            deadline.expire()
        self._timer = self.loop.call_later(TICK_S, self._tick) if self._running else None


class Deadline:
    """The time of one call: as asyncio.timeout, by the shared timer."""

    __slots__ = ("_cancelled_before", "_deadlines", "_expired", "_seconds", "_task", "end")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._expired = False
        self._task: asyncio.Task[object]
        self.end = 0.0
        """On the loop's clock."""

    def __enter__(self) -> Deadline:
        loop = self._deadlines.loop
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline is of a task")
        self._task = task
        self._cancelled_before = task.cancelling()
        self.end = loop.time() + self._seconds
        self._deadlines.add(self)
        return self

    def expire(self) -> None:
        """Cancels the block."""
        self._expired = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._expired:
            self._deadlines.remove(self)
        elif self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
            # Nobody else cancelled the call meanwhile: this is the deadline's doing alone.
            raise UpstreamTimeout(OVERDUE, phase="total") from error
