"""
One run: every case of a golden set, `repeats` times, through a Caller, each answer checked.

An error is a third outcome: it is kept and counted, and is neither pass nor fail. A run either finishes and is returned
whole, or raises, and what it paid for stays in its journal; a cancelled run cancels its calls. Money is bounded before
it is spent: the first call goes alone, and from then on a call starts only when the dearest one seen so far would still
fit for it and for all that are under way.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product

import msgspec

from tidegate.core.artifact import Artifact
from tidegate.core.errors import Unusable
from tidegate.core.evaluation import CheckResult, Repeat, Run, Score, ToolUse
from tidegate.core.instant import iso_utc
from tidegate.core.ledger import Version
from tidegate.evals.agent import Ended, converse, told
from tidegate.evals.budget import Budget, Tab
from tidegate.evals.checks import Check, clip
from tidegate.evals.golden import Case, GoldenSet
from tidegate.evals.journal import Journal, identity
from tidegate.evals.judges.evidence import storable
from tidegate.evals.judges.judging import Bench
from tidegate.evals.judges.memory import Judgements
from tidegate.evals.pace import PATIENCE_S, Pace, PacedCaller
from tidegate.evals.paid import PaidCaller
from tidegate.evals.suite import Suite, plan
from tidegate.ports import Caller, Clock, PromptCall

HOPELESS_AFTER = 5
"""When the first calls all fail, or a judge that may gate scores none of their answers, the rest is not tried."""
OUTAGE_AFTER = 20
"""When so many calls in a row get no answer from the provider, the rest is left for later."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: calls done of `total`, how many of them passed, what they cost so far."""

    version: Version
    done: int
    total: int
    passed: int
    cost_nano_usd: int
    errors: int = 0
    concurrency: int = 0
    """How many the provider takes at once, as far as is known."""


async def run_suite(
    suite: Suite,
    golden: GoldenSet,
    version: Version,
    caller: Caller,
    *,
    run_id: str,
    clock: Clock,
    repeats: range | None = None,
    budget: Budget | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    artifact: Artifact | None = None,
    judgements: Judgements | None = None,
    rivals: Mapping[tuple[str, int], str] | None = None,
    journal: Journal | None = None,
    pace: Pace | None = None,
) -> Run:
    """
    Runs `suite` against `version`, which the registry already knows.

    Args:
        repeats: which repeats to make; all of the suite's without it. A second range extends an earlier run.
        progress: called after every call, on the loop.
        artifact: what `version` is; without it, checks of the prompt's own promises fail and say so.
        judgements: those that were made before; without them every answer is judged.
        rivals: the baseline's answers by case and repeat, for judges that compare.
        journal: what was paid for before is taken from it, and everything else is written down; `budget` knows of the
            former already.
        pace: of the calls; the suite's concurrency is its beginning without it.
    Raises: InvalidFile before the first call, when suite and golden set do not fit together; Unusable when the cost
        cap is reached, the price is not known although there is a cap, the first calls all fail or many in a row, or
        the journal can not be written.
    """
    budget = budget or Budget()
    pace = pace or Pace(suite.concurrency, clock)
    paid = PaidCaller(PacedCaller(caller, pace, clock), budget, journal)
    work = _Work(
        suite,
        golden,
        version,
        paid,
        run_id=run_id,
        repeats=repeats or range(suite.repeats),
        budget=budget,
        progress=progress,
        artifact=artifact,
        bench=Bench(suite.judges, paid, judgements),
        rivals=rivals or {},
        journal=journal,
        pace=pace,
    )
    started_at = iso_utc(clock.now_ns())
    await work.finish()
    return Run(
        id=run_id,
        prompt=version.prompt,
        version=version.number,
        digest=version.digest,
        suite_digest=suite.digest,
        golden_digest=golden.digest,
        started_at=started_at,
        finished_at=iso_utc(clock.now_ns()),
        repeats=len(work.repeats),
        results=in_order(golden, work.results),
    )


def call_of(
    suite: Suite, version: Version, case: Case, repeat: int, checks: Mapping[str, Sequence[Check]], *, run_id: str
) -> PromptCall:
    """The call that asks a version for one repeat of a case; `checks` are those of every case (suite.plan)."""
    return PromptCall(
        version.prompt,
        version.digest,
        dict(case.inputs),
        "eval",
        {"run": run_id, "case": case.id, "repeat": str(repeat), "suite": suite.digest[:12]},
        top_logprobs=int(any(check.needs_logprobs for check in checks[case.id])),
    )


def in_order(golden: GoldenSet, results: list[Repeat]) -> tuple[Repeat, ...]:
    """Results in the golden set's order, then by repeat."""
    order = {case.id: index for index, case in enumerate(golden.cases)}
    return tuple(sorted(results, key=lambda result: (order[result.case_id], result.repeat)))


class _Work:
    """The calls of one run, taken one by one by a bounded number of workers."""

    def __init__(
        self,
        suite: Suite,
        golden: GoldenSet,
        version: Version,
        caller: Caller,
        *,
        run_id: str,
        repeats: range,
        budget: Budget,
        progress: Callable[[Progress], None],
        artifact: Artifact | None,
        bench: Bench,
        rivals: Mapping[tuple[str, int], str],
        journal: Journal | None,
        pace: Pace,
    ) -> None:
        self.checks = plan(suite, golden)
        self.suite = suite
        self.version = version
        self.caller = caller
        self.run_id = run_id
        self.repeats = repeats
        self.budget = budget
        self.progress = progress
        self.artifact = artifact
        self.bench = bench
        self.rivals = rivals
        self.journal = journal
        self.pace = pace
        self.total = len(golden.cases) * len(repeats)
        # Repeat by repeat, so that the first look at the progress has seen every case.
        todo = product(repeats, golden.cases)
        whole = [one for one in product(repeats, golden.cases) if self._is_whole(*one)] if self._resumes else []
        done = {(repeat, case.id) for repeat, case in whole}
        rest = ((repeat, case) for repeat, case in todo if (repeat, case.id) not in done)
        self.todo: Iterator[tuple[int, Case]] = chain(whole, rest)
        self.prepaid = len(whole)
        """Of the next, so many cost nothing any more."""
        self.results: list[Repeat] = []
        self.passed = self.errors = self.unanswered = self.cost_nano_usd = 0
        self.stopped: str | None = None

    async def finish(self) -> None:
        """Makes every call. Raises Unusable with the reason when it had to stop."""
        if self.budget.limit_nano_usd is not None and self.budget.dearest_nano_usd == 0:
            await self._next()
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self.pace.most, self.total)):
                workers.create_task(self._worker())
        if self.stopped:
            raise Unusable(self.stopped)
        if len(self.results) < self.total:
            raise Unusable(self._too_dear())

    async def _worker(self) -> None:
        while await self._next():
            pass

    async def _next(self) -> bool:
        """
        Makes the next call; False when there is none, the run has stopped, or the budget has no room for one more.

        A worker without room retires. The others look again when their calls have shown what they really cost.
        """
        await self.pace.enter()
        try:
            if self.stopped or not (self.prepaid or self.budget.fits(1)):
                return False
            following = next(self.todo, None)
            if following is None:
                return False
            repeat, case = following
            self.prepaid = max(0, self.prepaid - 1)
            tab = self.budget.open()
            try:
                ended = await self._ended(case, repeat, tab)
                result = None if ended is None else await self._repeat(case, repeat, ended)
            finally:
                self.budget.close(tab)
        finally:
            self.pace.leave()
        if ended is None or result is None:
            self.stopped = self.stopped or self._too_dear()
            return False
        self._keep(result, ended.answer.status)
        return True

    async def _ended(self, case: Case, repeat: int, tab: Tab) -> Ended | None:
        """The answer to one case, an agent's with its whole loop; None when there was no money for the end of one."""
        call, script = self._call(case, repeat), case.script.over(self.suite.script)
        if not script.tools:
            ended = Ended(await self.caller.call(call))
            tab.pay(ended.answer.cost_nano_usd or 0)
            return ended

        def affords(following: PromptCall, spent_nano_usd: int, next_nano_usd: int) -> bool:
            tab.pay(spent_nano_usd)
            paid = self.journal is not None and self.journal.holds(identity(following))
            return paid or self.budget.affords(tab, next_nano_usd)

        looped = await converse(self.caller, call, script, affords=affords)
        if looped is not None:
            tab.pay(looped.answer.cost_nano_usd or 0)
        return looped

    async def _repeat(self, case: Case, repeat: int, ended: Ended) -> Repeat:
        """What the checks and judges say of an answer."""
        planned, tags, answer = self.checks[case.id], self._call(case, repeat).tags, ended.answer
        output = storable(answer.output)
        seen = msgspec.structs.replace(answer, output=output)
        checks = () if answer.error is not None else tuple(check.judge(seen, self.artifact) for check in planned)
        scores = () if answer.error is not None else await self._scores(case, repeat, ended, checks, tags)
        return Repeat(
            case_id=case.id,
            repeat=repeat,
            output=output,
            checks=checks,
            scores=scores,
            error=answer.error,
            call_id=answer.call_id,
            cost_nano_usd=answer.cost_nano_usd,
            latency_s=answer.latency_s,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            threshold=self.suite.threshold if case.threshold is None else case.threshold,
            tool_calls=tuple(map(_storable_use, answer.tool_calls)),
            error_kind=None if answer.error is None else answer.code or "unknown",
            call_ids=ended.call_ids,
            unfinished=None if ended.unfinished is None else storable(ended.unfinished),
        )

    def _call(self, case: Case, repeat: int) -> PromptCall:
        return call_of(self.suite, self.version, case, repeat, self.checks, run_id=self.run_id)

    @property
    def _resumes(self) -> bool:
        return self.journal is not None and self.journal.waiting > 0

    def _is_whole(self, repeat: int, case: Case) -> bool:
        """Whether a repeat is paid for; of an agent's, its first call: it asks for money before each of the others."""
        if self.journal is None or not self.journal.holds(identity(self._call(case, repeat))):
            return False
        return not self.suite.judges or self.journal.noted(_judged(case.id, repeat)) is not None

    async def _scores(
        self, case: Case, repeat: int, ended: Ended, checks: tuple[CheckResult, ...], tags: Mapping[str, str]
    ) -> tuple[Score, ...]:
        """What the judges say; they come after the checks, which are free."""
        broken = next((check.name for check in checks if check.name in self.suite.must_pass and not check.passed), None)
        failed = f"{broken} failed" if broken is not None and not self.suite.judge_failed else None
        reason = "the agent was not done" if ended.unfinished is not None else failed
        if reason is not None:
            reason = f"not judged: {reason}"
            return tuple(Score(judge.name, None, None, reason, 0, applicable=False) for judge in self.suite.judges)
        values = {"inputs": case.inputs, "expected": case.expected, "output": storable(ended.answer.output)}
        values |= {"trajectory": trajectory} if (trajectory := told(ended.answer.tool_calls)) else {}
        rival = self.rivals.get((case.id, repeat))
        values |= {} if rival is None else {"rival": rival}
        scores = await self.bench.scores(values, key=(self.version.digest, case.id, repeat), tags=tags)
        if self.journal is not None and all(score.value is not None or not score.applicable for score in scores):
            self.journal.note(_judged(case.id, repeat), "by all")
        return scores

    def _keep(self, result: Repeat, status: int | None) -> None:
        self.results.append(result)
        cost = _cost(result)
        self.passed += result.passed
        self.errors += result.error is not None
        self.cost_nano_usd += cost or 0
        nobody = result.error is not None and (status is None or status == 429 or status >= 500)
        self.unanswered = self.unanswered + 1 if nobody else 0
        if cost is not None:
            self.budget.learn(cost)
        self.stopped = self.stopped or next(self._reasons_to_stop(result, cost), None)
        self.progress(
            Progress(
                self.version,
                len(self.results),
                self.total,
                self.passed,
                self.cost_nano_usd,
                self.errors,
                self.pace.limit,
            )
        )

    def _reasons_to_stop(self, result: Repeat, cost: int | None) -> Iterator[str]:
        if self.journal is not None and self.journal.broken is not None:
            yield f"{self.journal.broken}, so the run was stopped"
        if cost is None and result.error is None and self.budget.limit_nano_usd is not None:
            yield (
                f"{self.suite.file}: gate.max_cost_usd can not be held, as nobody knows the price of this model or a "
                "judge's. Add it under `prices:` in tidegate.yaml, or take the cap out."
            )
        error = clip(result.error or "", 300)
        if self.pace.stuck:
            yield f"for {PATIENCE_S / 60:g} minutes every call was one too many, so the run was stopped: {error}"
        if len(self.results) == HOPELESS_AFTER:
            if self.errors == HOPELESS_AFTER:
                yield f"the first {HOPELESS_AFTER} calls all failed, so the run was stopped: {error}"
            yield from self._speechless()
        if self.unanswered >= OUTAGE_AFTER:
            yield f"{OUTAGE_AFTER} calls in a row failed, so the run was stopped: {error}"

    def _speechless(self) -> Iterator[str]:
        """Why a run is of no use in which a judge that may gate gives no verdict on anything."""
        for judge in self.suite.judges:
            said = [score for known in self.results for score in known.scores if score.name == judge.name]
            if judge.gates is None and said and all(score.value is None and score.applicable for score in said):
                reason = clip(said[-1].reason, 300)
                yield f"the judge {judge.name!r} scored none of the first answers, so the run was stopped: {reason}"

    def _too_dear(self) -> str:
        limit = (self.budget.limit_nano_usd or 0) / 1e9
        return (
            f"stopped after {len(self.results)} of {self.total} calls and ${self.budget.spent_nano_usd / 1e9:.6f}: the "
            f"next call may pass gate.max_cost_usd, ${limit:g}. Raise it in {self.suite.file}, or run fewer cases."
        )


def _judged(case_id: str, repeat: int) -> str:
    return f"judged {repeat} {case_id}"


def _cost(result: Repeat) -> int | None:
    """What a repeat cost with its judgements; None where a price is not known, or there was no answer to pay for."""
    if result.cost_nano_usd is None or any(score.cost_nano_usd is None for score in result.scores):
        return None
    return result.cost_nano_usd + sum(score.cost_nano_usd or 0 for score in result.scores)


def _storable_use(use: ToolUse) -> ToolUse:
    """Likewise of a tool call."""
    return msgspec.json.decode(storable(json.dumps(msgspec.to_builtins(use), ensure_ascii=False)), type=ToolUse)
