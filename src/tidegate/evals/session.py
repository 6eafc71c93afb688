"""
From a prompt's folder to a stored run or a stored verdict: what `eval` and `gate` do, whoever asks for them.

    read suite and golden set → register the version → find the baseline → run what is not stored → judge
      → buy more repeats once, where they can decide it → store
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from tidegate.core.artifact import Artifact
from tidegate.core.diff import diff
from tidegate.core.evaluation import GateReport, Recheck, Run
from tidegate.core.ledger import Measure, Version, approving_move
from tidegate.core.stats import ALPHA, ALPHA_OF_TWO_LOOKS
from tidegate.evals.budget import Budget
from tidegate.evals.folder import Prompt, Render, measured_otherwise, read
from tidegate.evals.gate import gate, planned_mde, undecided_by_noise
from tidegate.evals.guards import MOST_RECHECKED, RECHECK_REPEATS, Break, breaks, rechecked
from tidegate.evals.judges.calibration import barred, register
from tidegate.evals.judges.family import kinship
from tidegate.evals.judges.judging import at_par, settled
from tidegate.evals.judges.spec import JudgeSpec
from tidegate.evals.regate import check_comparable
from tidegate.evals.runs import Parts, Runs
from tidegate.evals.said import AGAIN, usable
from tidegate.evals.suite import Suite, longest
from tidegate.evals.watcher import Planned

SECOND_LOOK = "second look"

RECHECK = "recheck"

NO_ROOM = "gate.max_cost_usd has no room to try again what must pass and failed: raise it."

Weigh = Callable[[Run, Run | None, Sequence[Recheck]], GateReport]
"""The candidate's run, the baseline's, and what was tried again → what is said of them."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A baseline that the registry may not know yet, such as a git ref's: it is registered before it is called."""

    artifact: Artifact
    description: str
    file_sha256: str
    shown: str
    """Where it is from, for people: `origin/main at 1a2b3c4d5e`."""


@dataclass(frozen=True, slots=True)
class Session:
    """Evaluates prompts of one project."""

    parts: Parts
    render: Render

    async def evaluate(self, prompt: Prompt, *, repeats: int | None = None) -> Run:
        """
        Runs the prompt's suite once and stores the run.

        Raises: InvalidFile, NotFound before anything is done; Unusable when the run could not be finished.
        """
        runs = await self._runs(prompt)
        version = await self._register(prompt.name, prompt)
        count = repeats or runs.suite.repeats
        self.parts.watcher.planned(_planned(runs, version, count))
        with runs.kept():
            run = await runs.make(version, range(count))
            await runs.save(run)
        return run

    async def gate(
        self,
        prompt: Prompt,
        *,
        against: str | Reference | Run | None = None,
        environment: str = "production",
        notes: Sequence[str] = (),
    ) -> GateReport:
        """
        Judges the prompt by its folder's suite and stores the verdict with its run.

        Args:
            against: `vN`, a digest prefix, an environment, a prompt from elsewhere, or a stored run, which is not run
                again; without it the baseline is what `environment` serves, and without that only floors apply.
            notes: to be shown with the report.
        Raises: InvalidFile, NotFound, BadInput before any call; Unusable when a run could not be finished.
        """
        runs = await self._runs(prompt)
        suite, golden = runs.suite, runs.golden
        if isinstance(against, Run):
            measured = await asyncio.to_thread(self.parts.shelf.document, against.suite_digest)
            check_comparable(against, measured, prompt=prompt.name, suite=suite.text, golden_digest=golden.digest)
        baseline = await self._baseline(prompt.name, against, environment)
        candidate = await self._register(prompt.name, prompt)
        unchanged = baseline is not None and baseline.digest == candidate.digest
        rival = None if unchanged else baseline
        stored = None
        if rival is not None:
            stored = against if isinstance(against, Run) else await runs.stored(rival)
        mde = None if rival is None else planned_mde(golden, suite.repeats, stored)
        said = [*_origin(baseline, against), *notes, *await self._of_live(prompt.name, environment, runs)]
        said += [sentence for judge in suite.judges if (sentence := kinship(judge, prompt.artifact))]
        changes = await self._diff(rival, prompt)

        def weigh(after: Run, before: Run | None, rechecks: Sequence[Recheck]) -> GateReport:
            before = after if unchanged else before
            whole = runs.parts.journals is None or (usable(after) and (before is None or usable(before)))
            return gate(
                settled(after, suite.judges),
                None if before is None else _at_par(before, suite),
                suite,
                golden,
                mde=mde,
                diff=changes,
                cost_nano_usd=runs.budget.spent_nano_usd,
                alpha=ALPHA if suite.max_cost_nano_usd is None else ALPHA_OF_TWO_LOOKS,
                notes=said if whole else [*said, f"of the calls {AGAIN}."],
                rechecks=rechecks,
            )

        self.parts.watcher.planned(_planned(runs, candidate, suite.repeats, baseline=baseline, stored=stored, mde=mde))
        with runs.kept():
            after, report = await self._looks(runs, candidate, rival, stored, weigh)
            judged = msgspec.structs.replace(
                after, gate=msgspec.to_builtins(report), verdict=report.verdict, baseline_run_id=report.baseline_run_id
            )
            await runs.save(judged)
        return report

    async def _looks(
        self, runs: Runs, candidate: Version, rival: Version | None, before: Run | None, weigh: Weigh
    ) -> tuple[Run, GateReport]:
        """The candidate's run and what is said of it, after a second look where the first could not tell."""
        suite, repeats = runs.suite, runs.suite.repeats
        if rival is not None and before is None:
            await runs.fill((rival, candidate), range(repeats))
            before = await runs.make(rival, range(repeats))
            await runs.save(before)
        after = await runs.make(candidate, range(repeats), baseline=before)
        report = weigh(after, before, ())
        rechecks: Sequence[Recheck] = ()
        if rival is not None and before is not None:
            pair = settled(after, suite.judges), _at_par(before, suite)
            found = breaks(*pair, suite.must_pass, runs.golden.cases) if report.verdict == "INCONCLUSIVE" else []
            rechecks = await self._rechecks(runs, candidate, rival, [one for one in found if one.recheck])
            report = weigh(after, before, rechecks) if rechecks else report
            if any(one.recheck for one in found) and not rechecks:
                report = msgspec.structs.replace(report, notes=(*report.notes, NO_ROOM))
        journal = runs.journal(candidate)
        begun = journal is not None and journal.noted(SECOND_LOOK) is not None
        affordable = runs.budget.fits(2 * repeats * len(runs.golden.cases))
        if suite.max_cost_nano_usd is None or not (begun or (undecided_by_noise(report) and affordable)):
            return after, report
        # Who goes on from a second look must not stop at the first: looks are counted, and this one was taken.
        if journal is not None and not begun:
            journal.note(SECOND_LOOK, "taken")
        self.parts.watcher.more_repeats(2 * repeats)
        if rival is not None and before is not None and before.repeats < 2 * repeats:
            before = await runs.extend(before, rival, 2 * repeats)
            await runs.save(before)
        after = await runs.extend(after, candidate, 2 * repeats, baseline=before)
        return after, weigh(after, before, rechecks)

    async def _rechecks(
        self, runs: Runs, candidate: Version, rival: Version, suspected: Sequence[Break]
    ) -> Sequence[Recheck]:
        """What comes of trying again as many cases as the budget has room for; done once, whoever was killed since."""
        journal = runs.journal(candidate)
        if journal is not None and (noted := journal.noted(RECHECK)) is not None:
            return msgspec.json.decode(noted, type=tuple[Recheck, ...])
        cases = list({one.case.id: one.case for one in suspected}.values())[:MOST_RECHECKED]
        while cases and not runs.budget.fits(2 * RECHECK_REPEATS * len(cases)):
            cases.pop()
        if not cases:
            return ()
        self.parts.watcher.rechecking(len(cases), RECHECK_REPEATS)
        after, before = await runs.recheck(cases, candidate, rival)
        tried = [one for one in suspected if one.case in cases]
        made = rechecked(tried, settled(after, runs.suite.judges), _at_par(before, runs.suite))
        if journal is not None:
            journal.note(RECHECK, msgspec.json.encode(made).decode())
        await runs.forget(rival)
        return made

    async def _runs(self, prompt: Prompt) -> Runs:
        """What a prompt's folder asks for, with its judges' prompts registered, and known whether they may gate."""
        suite, golden = read(prompt, self.render)

        def seat(judge: JudgeSpec) -> JudgeSpec:
            register(self.parts.shelf, judge)
            return replace(judge, gates=barred(self.parts.shelf, judge))

        judges = [await asyncio.to_thread(seat, judge) for judge in suite.judges]
        return Runs(self.parts, replace(suite, judges=tuple(judges)), golden, Budget(suite.max_cost_nano_usd))

    async def _register(self, name: str, prompt: Prompt | Reference) -> Version:
        return await asyncio.to_thread(
            self.parts.shelf.register,
            name,
            prompt.artifact,
            description=prompt.description,
            file_sha256=prompt.file_sha256,
        )

    async def _baseline(self, prompt: str, against: str | Reference | Run | None, environment: str) -> Version | None:
        if isinstance(against, Reference):
            return await self._register(prompt, against)
        if against is None:
            pointers = await asyncio.to_thread(self.parts.shelf.pointers, prompt)
            if all(pointer.environment != environment for pointer in pointers):
                return None
        selector = against.digest if isinstance(against, Run) else against or environment
        return await asyncio.to_thread(self.parts.shelf.resolve, prompt, selector)

    async def _of_live(self, prompt: str, environment: str, runs: Runs) -> Sequence[str]:
        """A line when what is live was approved under another suite or golden set than this one."""
        pointers = await asyncio.to_thread(self.parts.shelf.pointers, prompt)
        pointer = next((pointer for pointer in pointers if pointer.environment == environment), None)
        live = pointer and approving_move(await asyncio.to_thread(self.parts.shelf.log, prompt), pointer)
        line = live and measured_otherwise(live, Measure(runs.suite.digest, runs.golden.digest))
        return [line] if line else []

    async def _diff(self, baseline: Version | None, prompt: Prompt) -> tuple[str, ...]:
        if baseline is None:
            return ()
        before = await asyncio.to_thread(self.parts.shelf.artifact, baseline.digest)
        return tuple(diff(before, prompt.artifact).lines())


def _at_par(baseline: Run, suite: Suite) -> Run:
    """A baseline's run as the suite's judges see it now."""
    return at_par(settled(baseline, suite.judges), suite.judges)


def _origin(baseline: Version | None, against: str | Reference | Run | None) -> list[str]:
    if baseline and isinstance(against, Run):
        return [f"the baseline {baseline.name} is the stored run {against.id} of {against.finished_at[:10]}."]
    return [f"the baseline {baseline.name} is {against.shown}."] if baseline and isinstance(against, Reference) else []


def _planned(
    runs: Runs,
    candidate: Version,
    repeats: int,
    *,
    baseline: Version | None = None,
    stored: Run | None = None,
    mde: float | None = None,
) -> Planned:
    other = baseline is not None and baseline.digest != candidate.digest
    cases = len(runs.golden.cases)
    return Planned(
        candidate=candidate,
        baseline=baseline,
        baseline_stored=stored is not None,
        cases=cases,
        repeats=repeats,
        calls=(2 if other and stored is None else 1) * repeats * cases,
        mde=mde,
        max_cost_nano_usd=runs.suite.max_cost_nano_usd,
        steps=longest(runs.suite, runs.golden),
    )
