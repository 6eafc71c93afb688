"""What a run hands in, notes, and asks for again; over a provider that is a few lists."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from tidegate.core.errors import NotFound, Unusable, UpstreamRejected, UpstreamUnavailable
from tidegate.evals.batch import SILENT_AFTER, BatchFiller, BatchProgress, under_way
from tidegate.evals.budget import Budget
from tidegate.evals.journal import Journal, Journals, RunKey, identity
from tidegate.fakes import FixedClock
from tidegate.ports import BatchItem, BatchState, PromptAnswer, PromptCall

KEY = RunKey("support/answer", "d", "s", "g")


def call(number: int) -> PromptCall:
    tags = {"run": "r", "case": f"c{number}", "repeat": "0"}
    return PromptCall("support/answer", "d", {"q": number}, "eval", tags)


CALLS = {identity(one): one for one in map(call, range(10))}
NAMES = list(CALLS)


class Provider:
    """Implements ports.BatchCaller: takes `most` a batch, and ends each after `polls` questions."""

    def __init__(self, *, most: int = 100, polls: int = 2) -> None:
        self.most = most
        self.polls = polls
        self.handed: dict[str, Sequence[str]] = {}
        self.marks: dict[str, str] = {}
        self.asked: dict[str, int] = {}
        self.impossible: set[str] = set()
        self.unanswered: set[str] = set()
        self.fails: list[Exception] = []

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)

    async def prepare(self, calls: Mapping[str, PromptCall]) -> Sequence[BatchItem]:
        return [BatchItem(name, b"{}") for name in calls if name not in self.impossible][: self.most]

    async def submit(self, call: PromptCall, items: Sequence[BatchItem], *, mark: str) -> str:
        self._fail()
        ticket = f"p/m b{len(self.handed)}"
        self.handed[ticket] = [item.id for item in items]
        self.marks[mark] = ticket
        return ticket

    async def find(self, call: PromptCall, mark: str, *, since: str, total: int) -> str | None:
        return self.marks.get(mark)

    async def state(self, ticket: str) -> BatchState:
        self._fail()
        if ticket not in self.handed:
            raise NotFound("no such batch")
        self.asked[ticket] = self.asked.get(ticket, 0) + 1
        total = len(self.handed[ticket])
        return BatchState(self.asked[ticket] > self.polls, 0, 0, total)

    async def answers(self, ticket: str, calls: Mapping[str, PromptCall]) -> AsyncIterator[tuple[str, PromptAnswer]]:
        for name in self.handed[ticket]:
            if name in calls and name not in self.unanswered:
                yield name, PromptAnswer("{}", cost_nano_usd=5)
            elif name in calls:
                yield name, PromptAnswer("", error="expired")


class Alone:
    """Implements ports.Caller: every call costs 10."""

    def __init__(self) -> None:
        self.calls: list[PromptCall] = []

    async def call(self, call: PromptCall) -> PromptAnswer:
        self.calls.append(call)
        return PromptAnswer("{}", cost_nano_usd=10)


class World:
    """One journal and one provider, which several processes, one after the other, share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FixedClock()
        self.provider = Provider()
        self.alone = Alone()
        self.budget = Budget()
        self.seen: list[BatchProgress] = []
        self.slept: list[float] = []
        self.marks = iter(range(1_000))
        self.journals = Journals(folder, self.clock)
        self.start()

    def start(self, limit: int | None = None) -> Journal:
        """A new process."""
        self.journals.close()
        self.journals = Journals(self.folder, self.clock)
        self.budget = Budget(limit)
        self.journal = self.journals.open(KEY, run_id="r", budget=self.budget)
        return self.journal

    async def fill(self, calls: Mapping[str, PromptCall] = CALLS) -> None:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.clock.move(seconds)

        def mark() -> str:
            return f"mark-{next(self.marks)}"

        filler = BatchFiller(
            self.provider, self.alone, self.journal, self.budget, self.clock, mark, self.seen.append, sleep
        )
        await filler.fill(calls)

    @property
    def there(self) -> list[int]:
        return [number for number, name in enumerate(NAMES) if self.journal.holds(name)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "runs")


async def test_what_is_too_much_for_one_batch_goes_into_several_that_wait_together(world: World) -> None:
    world.provider.most = 4
    await world.fill()
    assert [len(names) for names in world.provider.handed.values()] == [4, 4, 2]
    assert (world.there, world.budget.spent_nano_usd) == (list(range(10)), 50)
    assert world.slept == [5.0, 7.5]
    assert [(one.total, one.news) for one in world.seen] == [(10, True), (10, False), (10, True)]
    assert not under_way(world.journal)


async def test_waits_grow_to_a_minute_and_end(world: World) -> None:
    world.provider.polls = 10**9
    with pytest.raises(Unusable, match=r"has not ended in 30 hours.*asks for it again"):
        await world.fill()
    assert world.slept[:3] == [5.0, 7.5, 11.25]
    assert max(world.slept) == 60.0
    world.start()
    assert under_way(world.journal)
    world.provider.polls = 0
    await world.fill()
    assert (len(world.provider.handed), len(world.there)) == (1, 10)


async def test_a_call_that_can_be_in_no_batch_is_left_to_the_run(world: World) -> None:
    world.provider.impossible = {NAMES[0], NAMES[3], NAMES[9]}
    world.provider.most = 3
    await world.fill()
    assert world.there == [1, 2, 4, 5, 6, 7, 8]
    assert [len(names) for names in world.provider.handed.values()] == [3, 3, 1]


async def test_what_expired_is_not_handed_in_again_by_a_later_process_either(world: World) -> None:
    world.provider.unanswered = set(NAMES[6:])
    await world.fill()
    world.start()
    await world.fill()
    assert (world.there, len(world.provider.handed)) == (list(range(6)), 1)


async def test_nothing_is_asked_when_everything_is_there(world: World) -> None:
    await world.fill()
    world.start()
    handed, asked = len(world.provider.handed), sum(world.provider.asked.values())
    await world.fill()
    assert (len(world.provider.handed), sum(world.provider.asked.values())) == (handed, asked)


async def test_a_process_that_died_before_it_heard_of_its_batch_finds_it(world: World) -> None:
    """The connection breaks after the provider took it: nobody knows, so it is looked for by its mark."""

    class Deaf(Provider):
        async def submit(self, call: PromptCall, items: Sequence[BatchItem], *, mark: str) -> str:
            await super().submit(call, items, mark=mark)
            raise UpstreamUnavailable("the connection broke")

    world.provider = Deaf()
    with pytest.raises(Unusable, match="nobody knows whether the batch was handed in"):
        await world.fill()
    world.start()
    assert under_way(world.journal)
    await world.fill()
    assert (len(world.provider.handed), len(world.there)) == (1, 10)


async def test_one_that_never_arrived_is_handed_in(world: World) -> None:
    world.provider.fails = [UpstreamUnavailable("no connection")]
    with pytest.raises(Unusable):
        await world.fill()
    world.start()
    await world.fill()
    assert (len(world.provider.handed), len(world.there)) == (1, 10)


async def test_a_refusal_is_said_and_leaves_nothing_to_wait_for(world: World) -> None:
    world.provider.fails = [UpstreamRejected("p answered 400: too many batches", status=400, body=b"")]
    with pytest.raises(Unusable, match="could not be handed in: p answered 400: too many batches"):
        await world.fill()
    assert not under_way(world.journal)


async def test_a_provider_that_is_away_for_a_while_is_asked_again(world: World) -> None:
    await world.fill({})
    world.provider.polls = 0
    original = world.provider.submit

    async def then_away(call: PromptCall, items: Sequence[BatchItem], *, mark: str) -> str:
        ticket = await original(call, items, mark=mark)
        world.provider.fails = [UpstreamUnavailable("away") for _ in range(SILENT_AFTER - 1)]
        return ticket

    world.provider.submit = then_away  # type: ignore[method-assign]
    await world.fill()
    assert len(world.there) == 10


async def test_a_cap_lets_only_so_many_in_and_reserves_them(world: World) -> None:
    """One alone at 10, then four at most 10 each; they cost 5, so there is room for two more; then for none."""
    world.start(limit=50)
    await world.fill()
    assert len(world.alone.calls) == 1
    assert [len(names) for names in world.provider.handed.values()] == [4, 2, 1]
    assert world.budget.spent_nano_usd == 10 + 7 * 5
    assert world.budget.fits(0)
    assert not world.budget.fits(1)


async def test_without_a_price_a_cap_lets_nothing_in(world: World) -> None:
    class Unpriced(Alone):
        async def call(self, call: PromptCall) -> PromptAnswer:
            return PromptAnswer("{}")

    world.start(limit=50)
    world.alone = Unpriced()
    await world.fill()
    assert (world.there, world.provider.handed) == ([0], {}), "the run finds that answer, and says why it stops"
