"""
How many repeats are under way at once: as many as the provider takes.

Additive increase, multiplicative decrease (Chiu & Jain 1989, as in TCP): it begins with the suite's `concurrency`. A
call that is refused as one too many halves it, once for all that were under way, and is made again when the provider
says, or after a pause that doubles. Each window of good answers adds one, up to four times the beginning and 256 at
most, as long as answers do not take twice as long as they did at best: a provider that queues says no in this way.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable

from tidegate.core.errors import Saturated, TidegateError, UpstreamRejected
from tidegate.ports import Caller, Clock, PromptAnswer, PromptCall

GROWS_TO = 4
"""Times the suite's concurrency."""
MOST = 256
WINDOW = 8
"""Good answers, at least, before one more is tried."""
SLOWER = 2.0
"""Times the best window's mean latency: beyond it, more at once is not faster."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
PATIENCE_S = 600.0
"""How long one call is made again and again for being one too many; then that is its error."""
NO_MONEY = frozenset({"insufficient_quota", "budget_exhausted", "billing_hard_limit_reached"})
"""Refusals that no waiting mends, although OpenAI gives them the status 429."""


class Pace:
    """Slots. Whoever makes a call holds one. Belongs to one event loop."""

    def __init__(self, start: int, clock: Clock, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.most = min(GROWS_TO * start, MOST)
        self.under_way = 0
        self.epoch = 0
        """Counts refusals that changed something: calls of an earlier one are refused for the same reason."""
        self.answered_at = -math.inf
        """Monotonic seconds of the last good answer."""
        self.stuck = False
        """A call's patience ended, and in all that time nothing was answered."""
        self._start = start
        self._limit = float(start)
        self._clock = clock
        self._sleep = sleep
        self._closed_until = -math.inf
        self._pause_s = FIRST_PAUSE_S
        self._latencies: list[float] = []
        self._best_s = math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """How many may be under way now, at least 1."""
        return int(self._limit)

    async def enter(self) -> None:
        """Returns with a slot, once there is one and no pause lasts."""
        while True:
            if (pause := self._closed_until - self._clock.monotonic()) > 0:
                await self._sleep(pause)
            elif self.under_way < self.limit:
                self.under_way += 1
                return
            else:
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn

    def leave(self) -> None:
        """Gives a slot back."""
        self.under_way -= 1
        self._wake()

    async def step_aside(self) -> None:
        """Gives the slot back and waits for another; when that is cancelled, it still counts as held."""
        self.leave()
        try:
            await self.enter()
        except BaseException:
            self.under_way += 1
            raise

    def answered(self, latency_s: float) -> None:
        """A good answer came after so many seconds."""
        self.answered_at = self._clock.monotonic()
        self._pause_s = FIRST_PAUSE_S
        self._latencies.append(latency_s)
        if len(self._latencies) < max(WINDOW, self.limit):
            return
        mean = sum(self._latencies) / len(self._latencies)
        self._latencies.clear()
        self._best_s = min(self._best_s, mean)
        if mean <= SLOWER * self._best_s:
            self._limit = min(self._limit + 1, self.most)
        elif self._limit > self._start:
            self._limit -= 1
        self._wake()

    def refused(self, epoch: int, asked_s: float | None) -> float:
        """
        A call that began in `epoch` was one too many; returns how many seconds nobody calls.

        `asked_s`: what the provider asked for.
        """
        if epoch == self.epoch:
            self.epoch += 1
            self._limit = max(1.0, self._limit / 2)
            self._latencies.clear()
            pause, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        else:
            pause = 0.0
        pause = min(max(pause, asked_s or 0.0), PATIENCE_S)
        self._closed_until = max(self._closed_until, self._clock.monotonic() + pause)
        return pause

    def _wake(self) -> None:
        for _ in range(min(self.limit - self.under_way, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)


class PacedCaller:
    """Implements ports.Caller: a call that was one too many is made again. Whoever calls holds a slot of `pace`."""

    def __init__(self, caller: Caller, pace: Pace, clock: Clock) -> None:
        self._caller = caller
        self._pace = pace
        self._clock = clock

    async def call(self, call: PromptCall) -> PromptAnswer:
        """An answer; one with an error where there is none. Raises nothing of our own tree."""
        pace, first = self._pace, None
        while True:
            epoch, began = pace.epoch, self._clock.monotonic()
            answer = await answer_of(self._caller, call)
            now = self._clock.monotonic()
            if not too_many(answer):
                if answer.error is None:
                    pace.answered(now - began)
                return answer
            first = began if first is None else first
            pause = pace.refused(epoch, answer.retry_after_s)
            if max(pause, answer.retry_after_s or 0.0) + now - first > PATIENCE_S:
                pace.stuck = pace.stuck or pace.answered_at < first
                return answer
            await pace.step_aside()


async def answer_of(caller: Caller, call: PromptCall) -> PromptAnswer:
    """One answer; an error of our own tree is an answer too."""
    try:
        return await caller.call(call)
    except TidegateError as error:
        asked = error.retry_after_s if isinstance(error, Saturated | UpstreamRejected) else None
        return PromptAnswer("", error=str(error), code=error.code, status=error.http_status, retry_after_s=asked)


def too_many(answer: PromptAnswer) -> bool:
    """Whether the call was refused only because of how many there were: 429, Anthropic's 529, or a 503 with a time."""
    if answer.error is None or answer.code in NO_MONEY:
        return False
    return answer.status in (429, 529) or (answer.status == 503 and answer.retry_after_s is not None)
