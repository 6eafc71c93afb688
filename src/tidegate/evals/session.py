"""
From a prompt's folder to a stored run or a stored verdict: what `eval` and `gate` do, whoever asks for them.

    read suite and golden set → register the version → find the baseline → run what is not stored → judge
      → buy more repeats once, where they can decide it → store

Everything that can be wrong with the files is found before the registry or a provider is touched. Nothing is stored
until a run is whole. A stored baseline is used again for a day: after that the provider may have changed beneath it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tidegate.core.artifact import Artifact
from tidegate.core.diff import diff
from tidegate.core.errors import BadInput, InvalidFile, NotFound, Problem, RequestError
from tidegate.core.evaluation import GateReport, Run
from tidegate.core.ids import uuid7
from tidegate.core.ledger import Deployment, Measure, Pointer, Version, approving_move, changed
from tidegate.core.stats import ALPHA, ALPHA_OF_TWO_LOOKS
from tidegate.evals.batch import BatchFiller, BatchProgress, under_way
from tidegate.evals.budget import Budget
from tidegate.evals.gate import gate, planned_mde, undecided_by_noise
from tidegate.evals.golden import Case, GoldenSet, load_golden
from tidegate.evals.journal import Journal, Journals, RunKey, identity
from tidegate.evals.judges.calibration import barred
from tidegate.evals.judges.family import kinship
from tidegate.evals.judges.judging import at_par, settled
from tidegate.evals.judges.memory import Judgements
from tidegate.evals.judges.spec import JudgeSpec
from tidegate.evals.regate import check_comparable
from tidegate.evals.runner import Progress, call_of, in_order, run_suite
from tidegate.evals.said import AGAIN, usable
from tidegate.evals.suite import Suite, load_suite, longest, misplayed, plan
from tidegate.ports import BatchCaller, Caller, Clock, Random

BASELINE_MAX_AGE_S = 86_400
RUNS_SEARCHED = 100
SECOND_LOOK = "second look"
NO_SUITE = Measure("", "")
"""No run is measured by it, so nothing is approved under it."""

Render = Callable[[Artifact, Mapping[str, Any]], object]
"""An artifact and a case's inputs → the messages (prompts/render.py). Raises RequestError."""


class Prompt(Protocol):
    """A prompt as it stands in the working tree (prompts/files.py)."""

    @property
    def name(self) -> str: ...
    @property
    def artifact(self) -> Artifact: ...
    @property
    def description(self) -> str: ...
    @property
    def file_sha256(self) -> str: ...
    @property
    def folder(self) -> Path: ...


class Shelf(Protocol):
    """The part of the registry that evals need (prompts/registry.py). Blocking."""

    def register(self, prompt: str, artifact: Artifact, *, description: str = "", file_sha256: str = "") -> Version: ...
    def resolve(self, prompt: str, selector: str) -> Version: ...
    def artifact(self, digest: str) -> Artifact: ...
    def pointers(self, prompt: str | None = None) -> Sequence[Pointer]: ...
    def log(self, prompt: str | None = None) -> Sequence[Deployment]: ...
    def save_run(self, run: Run, *, suite: str, golden: str) -> None: ...
    def run(self, run_id: str) -> Run: ...
    def runs(self, prompt: str | None = None, limit: int = 100) -> Sequence[Run]: ...
    def document(self, digest: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Reference:
    """A baseline that the registry may not know yet, such as a git ref's: it is registered before it is called."""

    artifact: Artifact
    description: str
    file_sha256: str
    shown: str
    """Where it is from, for people: `origin/main at 1a2b3c4d5e`."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What is about to happen, said before any money is spent."""

    candidate: Version
    baseline: Version | None
    baseline_stored: bool
    """The baseline's run is there already."""
    cases: int
    repeats: int
    calls: int
    """Of an agent, loops."""
    mde: float | None
    """Minimum detectable drop of the pass rate; None when there is nothing to compare with."""
    max_cost_nano_usd: int | None
    steps: int | None = None
    """The most calls of a loop; None where there is none."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What an interrupted run left behind."""

    version: Version
    calls: int
    """Of its cases, that need not be made again."""
    total: int
    cost_nano_usd: int
    started_at: str


class Watcher:
    """Told what a session is about to do and how far it is. This one does not care; commands bring their own."""

    def planned(self, planned: Planned) -> None:
        """Called once, before the first call."""

    def resumed(self, resumed: Resumed) -> None:
        """Called when a run goes on from where an earlier one was interrupted."""

    def batched(self, version: Version, progress: BatchProgress) -> None:
        """Called whenever the provider was asked how far a batch is."""

    def progressed(self, progress: Progress) -> None:
        """Called after every call."""

    def more_repeats(self, repeats: int) -> None:
        """Called when the gate buys repeats up to `repeats` a case."""


@dataclass(frozen=True, slots=True)
class Session:
    """Evaluates prompts of one project: `caller` makes the calls, `shelf` keeps versions and runs."""

    shelf: Shelf
    caller: Caller
    render: Render
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

    async def evaluate(self, prompt: Prompt, *, repeats: int | None = None) -> Run:
        """
        Runs the prompt's suite once and stores the run.

        Raises: InvalidFile, NotFound before anything is done; Unusable when the run could not be finished.
        """
        suite, golden = read(prompt, self.render)
        suite = await self._seated(suite)
        version = await self._register(prompt)
        count = repeats or suite.repeats
        self.watcher.planned(_planned(suite, golden, version, None, count))
        with self._kept():
            run = await self._run(suite, golden, version, range(count), Budget(suite.max_cost_nano_usd))
            await self._save(run, suite, golden)
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
        suite, golden = read(prompt, self.render)
        suite = await self._seated(suite)
        if isinstance(against, Run):
            measured = await asyncio.to_thread(self.shelf.document, against.suite_digest)
            check_comparable(against, measured, prompt=prompt.name, suite=suite.text, golden_digest=golden.digest)
        baseline = await self._baseline(prompt.name, against, environment)
        candidate = await self._register(prompt)
        notes = [
            *_origin(baseline, against),
            *notes,
            *await self._other_measure(prompt.name, environment, suite, golden),
            *judges_notes(suite, prompt.artifact),
        ]
        rival = None if baseline is None or baseline.digest == candidate.digest else baseline
        before = None if rival is None else await self._stored(rival, suite, golden)
        if rival is not None and isinstance(against, Run):
            before = against
        smallest = None if rival is None else planned_mde(golden, suite.repeats, before)
        stored = before is not None
        planned = _planned(suite, golden, candidate, baseline, suite.repeats, stored=stored, smallest=smallest)
        self.watcher.planned(planned)

        with self._kept():
            return await self._judged(
                prompt, suite, golden, candidate, baseline, before=before, notes=notes, mde=smallest
            )

    async def _judged(
        self,
        prompt: Prompt,
        suite: Suite,
        golden: GoldenSet,
        candidate: Version,
        baseline: Version | None,
        *,
        before: Run | None,
        notes: Sequence[str],
        mde: float | None,
    ) -> GateReport:
        """Runs what is not in `before`, the baseline's stored run; judges, once more with twice the repeats; stores."""
        rival = None if baseline is None or baseline.digest == candidate.digest else baseline
        budget = Budget(suite.max_cost_nano_usd)
        repeats = range(suite.repeats)
        if rival is not None and before is None:
            await self._both_batched(suite, golden, (rival, candidate), repeats, budget)
            before = await self._run(suite, golden, rival, repeats, budget)
            await self._save(before, suite, golden)
        after = await self._run(suite, golden, candidate, repeats, budget, baseline=before)

        compare = partial(
            gate,
            suite=suite,
            golden=golden,
            mde=mde,
            diff=await self._diff(rival, prompt),
            alpha=ALPHA if suite.max_cost_nano_usd is None else ALPHA_OF_TWO_LOOKS,
            notes=notes,
        )

        def judge(after: Run, before: Run | None, *, cost_nano_usd: int) -> GateReport:
            rivalled = None if before is None else at_par(settled(before, suite.judges), suite.judges)
            return compare(settled(after, suite.judges), rivalled, cost_nano_usd=cost_nano_usd)

        if baseline is not None and rival is None:
            before = after
        report = judge(after, before, cost_nano_usd=budget.spent_nano_usd)
        journal = None if self.journals is None else self.journals.get(_key(suite, golden, candidate))
        looking = journal is not None and journal.noted(SECOND_LOOK) is not None
        if suite.max_cost_nano_usd is not None and (
            looking or (undecided_by_noise(report) and _affordable(suite, golden, budget))
        ):
            # Who goes on from a second look must not stop at the first: looks are counted, and this one was taken.
            if journal is not None and not looking:
                journal.note(SECOND_LOOK, "taken")
            self.watcher.more_repeats(2 * suite.repeats)
            if rival is not None and before is not None and before.repeats < 2 * suite.repeats:
                before = await self._extended(before, suite, golden, rival, budget)
                await self._save(before, suite, golden)
            after = await self._extended(after, suite, golden, candidate, budget, baseline=before)
            report = judge(after, before, cost_nano_usd=budget.spent_nano_usd)
        if self.journals is not None and not (usable(after) and (before is None or usable(before))):
            report = msgspec.structs.replace(report, notes=(*report.notes, f"of the calls {AGAIN}."))
        judged = msgspec.structs.replace(
            after, gate=msgspec.to_builtins(report), verdict=report.verdict, baseline_run_id=report.baseline_run_id
        )
        await self._save(judged, suite, golden)
        return report

    async def _seated(self, suite: Suite) -> Suite:
        """The suite with its judges' prompts registered, and with what is known of each: whether it may gate."""

        def seat(judge: JudgeSpec) -> JudgeSpec:
            for juror in judge.jurors:
                file = juror.file
                self.shelf.register(
                    juror.name, juror.artifact, description=file.description, file_sha256=file.file_sha256
                )
            return replace(judge, gates=barred(self.shelf, judge))

        judges = [await asyncio.to_thread(seat, judge) for judge in suite.judges]
        return replace(suite, judges=tuple(judges))

    async def _register(self, prompt: Prompt) -> Version:
        return await asyncio.to_thread(
            self.shelf.register,
            prompt.name,
            prompt.artifact,
            description=prompt.description,
            file_sha256=prompt.file_sha256,
        )

    async def _baseline(self, prompt: str, against: str | Reference | Run | None, environment: str) -> Version | None:
        if isinstance(against, Run):
            return await asyncio.to_thread(self.shelf.resolve, prompt, against.digest)
        if isinstance(against, Reference):
            return await asyncio.to_thread(
                self.shelf.register,
                prompt,
                against.artifact,
                description=against.description,
                file_sha256=against.file_sha256,
            )
        if against is not None:
            return await asyncio.to_thread(self.shelf.resolve, prompt, against)
        pointers = await asyncio.to_thread(self.shelf.pointers, prompt)
        if any(pointer.environment == environment for pointer in pointers):
            return await asyncio.to_thread(self.shelf.resolve, prompt, environment)
        return None

    async def _other_measure(self, prompt: str, environment: str, suite: Suite, golden: GoldenSet) -> Sequence[str]:
        """A line when what is live was approved under another suite or golden set than this one."""
        pointers = await asyncio.to_thread(self.shelf.pointers, prompt)
        pointer = next((pointer for pointer in pointers if pointer.environment == environment), None)
        live = pointer and approving_move(await asyncio.to_thread(self.shelf.log, prompt), pointer)
        line = live and measured_otherwise(live, Measure(suite.digest, golden.digest))
        return [line] if line else []

    async def _run(
        self,
        suite: Suite,
        golden: GoldenSet,
        version: Version,
        repeats: range,
        budget: Budget,
        *,
        baseline: Run | None = None,
    ) -> Run:
        run_id = self._id()
        await self._batched(suite, golden, version, repeats, budget)
        journal = await self._journal(suite, golden, version, repeats, budget=budget, run_id=run_id)
        run = await run_suite(
            suite,
            golden,
            version,
            self.caller,
            run_id=run_id,
            clock=self.clock,
            repeats=repeats,
            budget=budget,
            progress=self.watcher.progressed,
            artifact=await asyncio.to_thread(self.shelf.artifact, version.digest),
            judgements=self.judgements,
            rivals=_rivals(baseline),
            journal=journal,
        )
        started_at = run.started_at if journal is None else journal.started_at
        return msgspec.structs.replace(run, started_at=started_at, git_commit=self.git_commit, git_dirty=self.git_dirty)

    async def _journal(
        self, suite: Suite, golden: GoldenSet, version: Version, repeats: range, *, budget: Budget, run_id: str
    ) -> Journal | None:
        """Where the run writes down what it pays for; what it finds there is told."""
        if self.journals is None:
            return None
        key = _key(suite, golden, version)
        journal = await asyncio.to_thread(self.journals.open, key, run_id=run_id, budget=budget)
        if journal.resumed:
            total = len(golden.cases) * len(repeats)
            cost = journal.spent_nano_usd
            self.watcher.resumed(Resumed(version, journal.resumed, total, cost, journal.started_at))
        return journal

    async def _both_batched(
        self, suite: Suite, golden: GoldenSet, versions: Sequence[Version], repeats: range, budget: Budget
    ) -> None:
        """Batches of both sides wait at the provider at the same time; each run then finds its answers."""
        if self.batches is not None:
            filling = [self._batched(suite, golden, version, repeats, budget) for version in versions]
            for ended in await asyncio.gather(*filling, return_exceptions=True):
                if isinstance(ended, BaseException):
                    raise ended

    async def _batched(self, suite: Suite, golden: GoldenSet, version: Version, repeats: range, budget: Budget) -> None:
        """Answers to the calls of a run's cases from a batch, where that is wanted. Raises BadInput, Unusable."""
        run_id = self._id()
        journal = await self._journal(suite, golden, version, repeats, budget=budget, run_id=run_id)
        if journal is None:
            return
        if self.batches is None:
            if under_way(journal):
                raise BadInput(
                    f"a batch of {version.name} is at the provider, and will be paid for. Wait for it with --batch, "
                    "or forget it with --fresh."
                )
            return
        checks = plan(suite, golden)
        calls = {
            identity(call): call
            for repeat in repeats
            for case in golden.cases
            for call in (call_of(suite, version, case, repeat, checks, run_id=run_id),)
        }
        progress = partial(self.watcher.batched, version)
        filler = BatchFiller(self.batches, self.caller, journal, budget, self.clock, self._id, progress)
        await filler.fill(calls)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Unfinished runs are left to whoever goes on with them."""
        with nullcontext() if self.journals is None else self.journals.kept():
            yield

    async def _extended(
        self,
        run: Run,
        suite: Suite,
        golden: GoldenSet,
        version: Version,
        budget: Budget,
        *,
        baseline: Run | None = None,
    ) -> Run:
        """`run` and as many repeats again as make twice the suite's, under a new id."""
        more = await self._run(suite, golden, version, range(run.repeats, 2 * suite.repeats), budget, baseline=baseline)
        return msgspec.structs.replace(
            more,
            started_at=run.started_at,
            repeats=run.repeats + more.repeats,
            results=in_order(golden, [*run.results, *more.results]),
        )

    async def _stored(self, version: Version, suite: Suite, golden: GoldenSet) -> Run | None:
        """The newest fresh and usable run of `version` on the same cases, with as many repeats at least."""
        now = self.clock.now_ns() / 1e9
        for run in await asyncio.to_thread(self.shelf.runs, version.prompt, RUNS_SEARCHED):
            same = (run.digest, run.suite_digest, run.golden_digest) == (version.digest, suite.digest, golden.digest)
            age = now - datetime.fromisoformat(run.finished_at).timestamp()
            if same and run.repeats >= suite.repeats and age <= BASELINE_MAX_AGE_S:
                whole = await asyncio.to_thread(self.shelf.run, run.id)
                if usable(whole):
                    return whole
        return None

    async def _diff(self, baseline: Version | None, prompt: Prompt) -> tuple[str, ...]:
        if baseline is None:
            return ()
        before = await asyncio.to_thread(self.shelf.artifact, baseline.digest)
        return tuple(diff(before, prompt.artifact).lines())

    async def _save(self, run: Run, suite: Suite, golden: GoldenSet) -> None:
        """Stores a run. Its journal goes, unless too many calls failed: then only those need to be made again."""
        await asyncio.to_thread(self.shelf.save_run, run, suite=suite.text, golden=golden.text)
        if self.journals is not None and usable(run):
            key = RunKey(run.prompt, run.digest, run.suite_digest, run.golden_digest)
            await asyncio.to_thread(self.journals.finished, key)

    def _id(self) -> str:
        return uuid7(self.clock.now_ns() // 1_000_000, self.random.bits(80))


def _key(suite: Suite, golden: GoldenSet, version: Version) -> RunKey:
    return RunKey(version.prompt, version.digest, suite.digest, golden.digest)


def measure(folder: Path, *, strict: bool = True) -> Measure | None:
    """
    What the suite in a prompt's folder measures by: nothing, `NO_SUITE`, when it has none. None without a folder.

    Unless `strict`, also None when it can not be read: then no deploy waits for it. Raises InvalidFile.
    """
    try:
        suite = load_suite(folder)
        return Measure(suite.digest, load_golden(suite.golden).digest)
    except NotFound:
        return NO_SUITE if folder.is_dir() else None
    except InvalidFile:
        if strict:
            raise
        return None


def measured_otherwise(live: Deployment, now: Measure) -> str | None:
    """One sentence when a deployment was approved under another suite or golden set than `now`; else None."""
    before = live.measure
    what = before and changed(before, now)
    return f"the {what} changed since v{live.to_version} was approved for {live.environment}." if what else None


def judges_notes(suite: Suite, judged: Artifact) -> list[str]:
    """What a reader must know of a suite's judges: those that are kin to the model they judge."""
    return [sentence for judge in suite.judges if (sentence := kinship(judge, judged))]


def _rivals(baseline: Run | None) -> dict[tuple[str, int], str]:
    """The baseline's answers by case and repeat, where there are any."""
    results = () if baseline is None else baseline.results
    return {(result.case_id, result.repeat): result.output for result in results if result.error is None}


def _origin(baseline: Version | None, against: str | Reference | Run | None) -> list[str]:
    if baseline and isinstance(against, Run):
        return [f"the baseline {baseline.name} is the stored run {against.id} of {against.finished_at[:10]}."]
    return [f"the baseline {baseline.name} is {against.shown}."] if baseline and isinstance(against, Reference) else []


def read(prompt: Prompt, render: Render) -> tuple[Suite, GoldenSet]:
    """
    Suite and golden set of a prompt, checked against each other and against the prompt: every case is rendered once.

    Raises: InvalidFile with every problem, NotFound when the prompt has no suite.
    """
    suite = load_suite(prompt.folder)
    golden = load_golden(suite.golden)
    golden.fit(prompt.artifact.inputs, optional=optional_inputs(prompt.artifact))
    plan(suite, golden)
    problems = [*misplayed(suite, golden, prompt.artifact.tools)]
    problems += [problem for case in golden.cases for problem in unrenderable(prompt, golden, case, render)]
    if problems:
        raise InvalidFile(problems)
    return suite, golden


def optional_inputs(artifact: Artifact) -> list[str]:
    """The inputs that a case may leave out."""
    return [name for name, declared in artifact.inputs.items() if not declared.required]


def unrenderable(prompt: Prompt, golden: GoldenSet, case: Case, render: Render) -> Iterator[Problem]:
    """Why the prompt can not be rendered with a case's inputs, if it can not."""
    try:
        render(prompt.artifact, case.inputs)
    except RequestError as error:
        field = (error.param or "variables").replace("variables", "inputs", 1)
        message = str(error).removeprefix(f"{error.param}: ")
        yield Problem(golden.file, case.line, field, f"{message} (in case {case.id!r})")


def known_judges(shelf: Shelf, folder: Path) -> Sequence[JudgeSpec]:
    """The judges of the suite in a prompt's folder, with what is known of each; none where there is no such suite."""
    try:
        return [replace(judge, gates=barred(shelf, judge)) for judge in load_suite(folder).judges]
    except (InvalidFile, NotFound):
        return []


def _planned(
    suite: Suite,
    golden: GoldenSet,
    candidate: Version,
    baseline: Version | None,
    repeats: int,
    *,
    stored: bool = False,
    smallest: float | None = None,
) -> Planned:
    rival = None if baseline is None or baseline.digest == candidate.digest else baseline
    sides = 1 if rival is None or stored else 2
    return Planned(
        candidate=candidate,
        baseline=baseline,
        baseline_stored=stored,
        cases=len(golden.cases),
        repeats=repeats,
        calls=sides * repeats * len(golden.cases),
        mde=smallest,
        max_cost_nano_usd=suite.max_cost_nano_usd,
        steps=longest(suite, golden),
    )


def _affordable(suite: Suite, golden: GoldenSet, budget: Budget) -> bool:
    """Whether a second look, at most as many calls again on both sides, fits the budget."""
    return budget.fits(2 * suite.repeats * len(golden.cases))
