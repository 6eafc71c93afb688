"""
The runs of one suite over one golden set: made, gone on with after an interruption, extended, stored, found again.

Nothing is stored until a run is whole; until then its journal has what was paid for. A stored run is used again for a
day: after that the provider may have changed beneath it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import msgspec

from tidegate.core.errors import BadInput
from tidegate.core.evaluation import Run
from tidegate.core.ids import uuid7
from tidegate.core.ledger import Version
from tidegate.evals.batch import BatchFiller, under_way
from tidegate.evals.budget import Budget
from tidegate.evals.golden import Case, GoldenSet
from tidegate.evals.guards import RECHECK_REPEATS
from tidegate.evals.journal import Journal, Journals, RunKey, identity
from tidegate.evals.judges.memory import Judgements
from tidegate.evals.runner import call_of, in_order, run_suite
from tidegate.evals.said import usable
from tidegate.evals.shelf import Shelf
from tidegate.evals.suite import Suite, plan
from tidegate.evals.summary import summarise
from tidegate.evals.watcher import Resumed, Watcher
from tidegate.ports import BatchCaller, Caller, Clock, Random

MAX_AGE_S = 86_400
RUNS_SEARCHED = 100
FIRST_RECHECK = 1_000
"""The number of its first repeat: a suite has 100 at most, twice."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs are made with: `caller` makes the calls, `shelf` keeps versions and runs."""

    shelf: Shelf
    caller: Caller
    clock: Clock
    random: Random
    watcher: Watcher = field(default_factory=Watcher)
    git_commit: str | None = None
    git_dirty: bool | None = None
    judgements: Judgements | None = None
    """Those that were made before and need not be made again."""
    journals: Journals | None = None
    """Of runs that were interrupted, and of those that may be; without them an interrupted run is lost."""
    batches: BatchCaller | None = None
    """Makes the calls of cases in batches, where they can wait a day; it needs `journals`."""

    def new_id(self) -> str:
        """Of a run, or of a batch."""
        return uuid7(self.clock.now_ns() // 1_000_000, self.random.bits(80))


@dataclass(frozen=True, slots=True)
class Runs:
    """All that one command makes under one budget."""

    parts: Parts
    suite: Suite
    golden: GoldenSet
    budget: Budget

    async def make(self, version: Version, repeats: range, *, baseline: Run | None = None) -> Run:
        """
        A run that is not stored yet. `baseline`: of what judges compare with.

        Raises: Unusable when it could not be finished, BadInput while a batch of it is at the provider.
        """
        parts, run_id = self.parts, self.parts.new_id()
        journal = await self._journal(version, repeats, run_id)
        if journal is not None:
            await self._fill(journal, version, repeats, run_id)
        run = await run_suite(
            self.suite,
            self.golden,
            version,
            parts.caller,
            run_id=run_id,
            clock=parts.clock,
            repeats=repeats,
            budget=self.budget,
            progress=parts.watcher.progressed,
            artifact=await asyncio.to_thread(parts.shelf.artifact, version.digest),
            judgements=parts.judgements,
            rivals=_answers(baseline),
            journal=journal,
        )
        started_at = run.started_at if journal is None else journal.started_at
        return msgspec.structs.replace(
            run, started_at=started_at, git_commit=parts.git_commit, git_dirty=parts.git_dirty
        )

    async def fill(self, versions: Sequence[Version], repeats: range) -> None:
        """Batches of all sides wait at the provider at the same time; each run then finds its answers."""
        if self.parts.batches is None:
            return

        async def one(version: Version) -> None:
            run_id = self.parts.new_id()
            journal = await self._journal(version, repeats, run_id)
            if journal is not None:
                await self._fill(journal, version, repeats, run_id)

        for ended in await asyncio.gather(*map(one, versions), return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    async def extend(self, run: Run, version: Version, repeats: int, *, baseline: Run | None = None) -> Run:
        """`run` and as many repeats again as make `repeats`, under a new id. Raises as `make`."""
        more = await self.make(version, range(run.repeats, repeats), baseline=baseline)
        return msgspec.structs.replace(
            more,
            started_at=run.started_at,
            repeats=run.repeats + more.repeats,
            results=in_order(self.golden, [*run.results, *more.results]),
        )

    async def stored(self, version: Version) -> Run | None:
        """The newest fresh and usable run of `version` on the same cases, with as many repeats at least."""
        shelf, now = self.parts.shelf, self.parts.clock.now_ns() / 1e9
        wanted = (version.digest, self.suite.digest, self.golden.digest)
        for run in await asyncio.to_thread(shelf.runs, version.prompt, RUNS_SEARCHED):
            same = (run.digest, run.suite_digest, run.golden_digest) == wanted
            age = now - datetime.fromisoformat(run.finished_at).timestamp()
            if same and run.repeats >= self.suite.repeats and age <= MAX_AGE_S:
                whole = await asyncio.to_thread(shelf.run, run.id)
                if usable(whole):
                    return whole
        return None

    async def recheck(self, cases: Sequence[Case], candidate: Version, baseline: Version) -> tuple[Run, Run]:
        """New repeats of these cases alone, of both; they are in no other run, and not stored. Raises as `make`."""
        repeats = range(FIRST_RECHECK, FIRST_RECHECK + RECHECK_REPEATS)
        at_once = replace(self.parts, batches=None)  # nobody waits a day for so few
        again = replace(self, parts=at_once, golden=replace(self.golden, cases=tuple(cases)))
        before = await again.make(baseline, repeats)
        return await again.make(candidate, repeats, baseline=before), before

    async def save(self, run: Run) -> None:
        """Stores a run. Its journal goes, unless too many calls failed: then only those need to be made again."""
        suite, golden = self.suite.text, self.golden.text
        summary = await asyncio.to_thread(summarise, run, suite, golden)
        await asyncio.to_thread(self.parts.shelf.save_run, run, suite=suite, golden=golden, summary=summary)
        if usable(run):
            await self.forget(run)

    async def forget(self, of: Version | Run) -> None:
        """What was paid for by a run that is stored, or by a recheck that is noted, is not asked for again."""
        if self.parts.journals is not None:
            await asyncio.to_thread(self.parts.journals.finished, self._key(of))

    def journal(self, version: Version) -> Journal | None:
        """Of the run of `version` that is not stored yet; None where none is kept."""
        return None if self.parts.journals is None else self.parts.journals.get(self._key(version))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Unfinished runs are left to whoever goes on with them."""
        with nullcontext() if self.parts.journals is None else self.parts.journals.kept():
            yield

    async def _journal(self, version: Version, repeats: range, run_id: str) -> Journal | None:
        """Where a run writes down what it pays for; what it finds there is told."""
        if self.parts.journals is None:
            return None
        key = self._key(version)
        journal = await asyncio.to_thread(self.parts.journals.open, key, run_id=run_id, budget=self.budget)
        if journal.resumed:
            total = len(self.golden.cases) * len(repeats)
            cost = journal.spent_nano_usd
            self.parts.watcher.resumed(Resumed(version, journal.resumed, total, cost, journal.started_at))
        return journal

    async def _fill(self, journal: Journal, version: Version, repeats: range, run_id: str) -> None:
        """Answers to the calls of a run's cases from a batch, where that is wanted. Raises BadInput, Unusable."""
        parts = self.parts
        if parts.batches is None:
            if under_way(journal):
                raise BadInput(
                    f"a batch of {version.name} is at the provider, and will be paid for. Wait for it with --batch, "
                    "or forget it with --fresh."
                )
            return
        checks = plan(self.suite, self.golden)
        calls = {
            identity(call): call
            for repeat in repeats
            for case in self.golden.cases
            for call in (call_of(self.suite, version, case, repeat, checks, run_id=run_id),)
        }
        progress = partial(parts.watcher.batched, version)
        filler = BatchFiller(parts.batches, parts.caller, journal, self.budget, parts.clock, parts.new_id, progress)
        await filler.fill(calls)

    def _key(self, of: Version | Run) -> RunKey:
        return RunKey(of.prompt, of.digest, self.suite.digest, self.golden.digest)


def _answers(run: Run | None) -> dict[tuple[str, int], str]:
    """A run's answers by case and repeat, where there are any."""
    results = () if run is None else run.results
    return {(result.case_id, result.repeat): result.output for result in results if result.error is None}
