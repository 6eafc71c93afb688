"""
The calls of a run through a provider's batch API: half the price, within a day.

    hand in what the journal does not hold → wait → write down the answers → what is left is called one by one

The batch fills the journal, and the run then finds its answers there. What is handed in is noted in the journal before
and after, so a second process waits for the same batch instead of handing it in again. What failed, expired or was
cancelled is left to the run itself, at the full price. Under a cost cap the first call is made alone, and only so many
go into a batch as fit, each as dear as the dearest so far. Judges, and an agent's calls after its first, depend on
answers: they are never in a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from tidegate.core.errors import BadInput, NotFound, Unusable, UpstreamError, UpstreamRejected
from tidegate.core.instant import iso_utc
from tidegate.evals.budget import Budget
from tidegate.evals.journal import Journal
from tidegate.evals.pace import answer_of
from tidegate.ports import BatchCaller, BatchState, Caller, Clock, PromptCall

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 60.0
PATIENCE_S = 30 * 3_600.0
"""Of one wait: providers end every batch after 24 hours."""
SILENT_AFTER = 20
"""Failed questions in a row."""
NOTE = "batch "
ASK_AGAIN = "It goes on at the provider, and the same command asks for it again."
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far the provider is with all batches of one run that are under way."""

    done: int
    failed: int
    total: int
    waited_s: float
    resumed: bool
    """They were handed in by an earlier process."""
    news: bool
    """It is the first time that they are asked for, or all have ended."""


class _Handed(msgspec.Struct, omit_defaults=True):
    """One batch, as the journal knows it."""

    mark: str
    since: str
    total: int
    ticket: str = ""
    """Empty: it was about to be handed in."""
    over: bool = False
    left: Sequence[str] = ()
    """Calls that were in it and got no answer."""


@dataclass(slots=True)
class _Running:
    """One batch, as this process knows it."""

    name: str
    """Of its note in the journal."""
    batch: _Handed
    calls: Sequence[str] = ()
    """What is in it; empty when another process handed it in."""
    failed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class BatchFiller:
    """Fills one run's journal."""

    batches: BatchCaller
    caller: Caller
    """For the one call that tells a price."""
    journal: Journal
    budget: Budget
    clock: Clock
    mark: Callable[[], str]
    """A new text of letters, digits and `-` that nobody else has."""
    progress: Callable[[BatchProgress], None] = lambda _: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def fill(self, calls: Mapping[str, PromptCall]) -> None:
        """
        Answers to as many of `calls`, all of one version and by their identities, as a batch gives and the budget has.

        Raises: BadInput where the provider has no batch API; Unusable when it refuses the batch or can not be asked:
            what was handed in goes on, and the next process finds it.
        """
        if all(self.journal.holds(name) for name in calls):
            return
        name, some = next(iter(calls.items()))
        await self.batches.prepare({name: some})  # says at once that there is no batch API
        handed = [_Running(name, one) for name, one in _handed(self.journal).items()]
        waiting = [one for one in handed if not one.batch.over]
        await self._collect([one for one in waiting if await self._arrived(one, some)], calls, resumed=True)
        tried = {call for one in handed for call in one.batch.left}
        while True:
            left = {name: call for name, call in calls.items() if name not in tried and not self.journal.holds(name)}
            taken = await self._affordable(left)
            if not taken:
                return
            tried |= taken.keys()
            await self._collect(await self._hand_in(taken), calls, resumed=False)

    async def _affordable(self, left: Mapping[str, PromptCall]) -> dict[str, PromptCall]:
        """Those of `left` that the budget has room for; where it is not known, one is made to find out."""
        budget = self.budget
        if budget.limit_nano_usd is None or not left:
            return dict(left)
        rest = dict(left)
        if budget.dearest_nano_usd == 0:
            name, call = next(iter(left.items()))
            answer = await answer_of(self.caller, call)
            if answer.error is not None:
                return {}
            budget.spend(answer.cost_nano_usd or 0)
            self.journal.keep(name, answer)
            if not answer.cost_nano_usd:
                return {}  # the run says why it can not go on
            budget.learn(answer.cost_nano_usd)
            del rest[name]
        low, high = 0, len(rest)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if budget.fits(middle) else (low, middle - 1)
        return dict(list(rest.items())[:low])

    async def _hand_in(self, calls: Mapping[str, PromptCall]) -> list[_Running]:
        """All of `calls` that can be in a batch, in one or several."""
        sent: list[_Running] = []
        rest = dict(calls)
        while items := await self.batches.prepare(rest):
            mark = self.mark()
            since = iso_utc(self.clock.now_ns())
            one = _Running(f"{NOTE}{mark}", _Handed(mark, since, len(items)), [item.id for item in items])
            self._note(one)
            try:
                one.batch.ticket = await self.batches.submit(rest[items[0].id], items, mark=mark)
            except UpstreamRejected as error:  # it said no: nothing was handed in
                self._forget(one)
                raise Unusable(f"the batch could not be handed in: {error}") from error
            except UpstreamError as error:
                raise Unusable(f"nobody knows whether the batch was handed in: {error}. {ASK_AGAIN}") from error
            except BadInput:
                self._forget(one)
                raise
            self._note(one)
            sent.append(one)
            names = list(rest)
            rest = {name: rest[name] for name in names[names.index(items[-1].id) + 1 :]}
        return sent

    async def _arrived(self, one: _Running, some: PromptCall) -> bool:
        """Whether a batch is at the provider; of one that was only about to be handed in, it is asked."""
        batch = one.batch
        if not batch.ticket:
            ticket = await self._asked(
                lambda: self.batches.find(some, batch.mark, since=batch.since, total=batch.total)
            )
            batch.ticket, batch.over = ticket or "", ticket is None
            self._note(one)
        return not batch.over

    async def _collect(self, waiting: Sequence[_Running], calls: Mapping[str, PromptCall], *, resumed: bool) -> None:
        """Waits for all of them, and writes down what each brings as it ends."""
        began, wait_s = self.clock.monotonic(), FIRST_WAIT_S
        total = sum(one.batch.total for one in waiting)
        states: dict[str, BatchState] = {}
        asked = 0
        running = list(waiting)
        tabs = [self.budget.open() for _ in range(total if self.budget.limit_nano_usd is not None else 0)]
        try:
            while running:
                for one in list(running):
                    state = states[one.name] = await self._state(one)
                    if state.refused is not None:
                        self._forget(one)
                        raise Unusable(f"the provider refuses the batch: {state.refused}")
                    if state.ended:
                        await self._take(one, calls)
                        running.remove(one)
                waited = self.clock.monotonic() - began
                done, failed = (sum(getattr(state, name) for state in states.values()) for name in ("done", "failed"))
                news = asked == 0 or not running
                asked += 1
                self.progress(BatchProgress(done, failed, total, waited, resumed, news))
                if running:
                    if waited > PATIENCE_S:
                        raise Unusable(f"the batch has not ended in 30 hours. {ASK_AGAIN}")
                    await self.sleep(wait_s)
                    wait_s = min(1.5 * wait_s, LONGEST_WAIT_S)
        finally:
            for tab in tabs:
                self.budget.close(tab)

    async def _state(self, one: _Running) -> BatchState:
        try:
            return await self._asked(lambda: self.batches.state(one.batch.ticket))
        except NotFound:
            return BatchState(True, 0, one.batch.total, one.batch.total)

    async def _take(self, one: _Running, calls: Mapping[str, PromptCall]) -> None:
        """Writes down the answers of a batch that has ended."""
        wanted = {name: call for name, call in calls.items() if not self.journal.holds(name)}
        try:
            async for name, answer in self.batches.answers(one.batch.ticket, wanted):
                if answer.error is not None:
                    one.failed.append(name)
                    continue
                self.journal.keep(name, answer)
                self.budget.spend(answer.cost_nano_usd or 0)
                self.budget.learn(answer.cost_nano_usd or 0)
        except UpstreamError as error:
            gone = isinstance(error, UpstreamRejected) and error.http_status == 404
            if not gone:
                raise Unusable(f"the batch's answers could not be read: {error}. {ASK_AGAIN}") from error
        self._end(one)

    def _forget(self, one: _Running) -> None:
        """It never began: its calls may be in another batch."""
        one.batch.over = True
        self._note(one)

    def _end(self, one: _Running) -> None:
        """Nothing more will come of a batch; what got no answer is not handed in again."""
        one.batch.over = True
        one.batch.left = [name for name in one.calls if not self.journal.holds(name)] or one.failed
        self._note(one)

    async def _asked(self, question: Callable[[], Awaitable[T]]) -> T:
        """An answer about a batch; a provider that fails for a while is asked again."""
        failed = 0
        while True:
            try:
                return await question()
            except UpstreamError as error:
                failed += 1
                if not error.retryable or failed >= SILENT_AFTER:
                    raise Unusable(f"the batch can not be asked for: {error}. {ASK_AGAIN}") from error
                await self.sleep(min(FIRST_WAIT_S * failed, LONGEST_WAIT_S))

    def _note(self, one: _Running) -> None:
        self.journal.note(one.name, msgspec.json.encode(one.batch).decode())
        if self.journal.broken is not None:
            raise Unusable(f"{self.journal.broken}, so no batch was handed in")


def _handed(journal: Journal) -> dict[str, _Handed]:
    """All batches that a journal knows of."""
    return {name: msgspec.json.decode(text, type=_Handed) for name, text in journal.notes(NOTE)}


def under_way(journal: Journal) -> bool:
    """Whether a batch of this run may still bring answers that were paid for."""
    return any(not one.over for one in _handed(journal).values())
