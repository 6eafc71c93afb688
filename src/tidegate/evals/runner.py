"""
One run: every case of a golden set, `repeats` times, through a Caller, each answer checked.

An error is a third outcome: it is kept and counted, and is neither pass nor fail. A run either finishes and is returned
whole, or raises and leaves nothing behind; a cancelled run cancels its calls. Money is bounded before it is spent: the
first call goes alone, and from then on a call starts only when the dearest one seen so far would still fit for it and
for all that are under way.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from tidegate.core.artifact import Artifact
from tidegate.core.errors import TidegateError, Unusable
from tidegate.core.evaluation import CheckResult, Repeat, Run, Score, ToolUse
from tidegate.core.instant import iso_utc
from tidegate.core.ledger import Version
from tidegate.evals.checks import clip
from tidegate.evals.golden import Case, GoldenSet
from tidegate.evals.judges.evidence import storable
from tidegate.evals.judges.judging import Bench
from tidegate.evals.judges.memory import Judgements
from tidegate.evals.suite import Suite, plan
from tidegate.ports import Caller, Clock, PromptAnswer, PromptCall

HOPELESS_AFTER = 5
"""When the first calls all fail, or a judge that may gate scores none of their answers, the rest is not tried."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: calls done of `total`, how many of them passed, what they cost so far."""

    version: Version
    done: int
    total: int
    passed: int
    cost_nano_usd: int


@dataclass(slots=True)
class Budget:
    """What one gate or eval may spend, over all of its runs. `limit_nano_usd` None: no cap, the sum is still kept."""

    limit_nano_usd: int | None = None
    spent_nano_usd: int = 0
    dearest_nano_usd: int = 0
    under_way: int = 0

    def fits(self, calls: int) -> bool:
        """Whether `calls` more calls, each as dear as the dearest so far, stay under the limit."""
        if self.limit_nano_usd is None:
            return True
        return self.spent_nano_usd + (self.under_way + calls) * self.dearest_nano_usd <= self.limit_nano_usd

    def settle(self, cost_nano_usd: int) -> None:
        self.spent_nano_usd += cost_nano_usd
        self.dearest_nano_usd = max(self.dearest_nano_usd, cost_nano_usd)


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
) -> Run:
    """
    Runs `suite` against `version`, which the registry already knows.

    Args:
        repeats: which repeats to make; all of the suite's without it. A second range extends an earlier run.
        progress: called after every call, on the loop.
        artifact: what `version` is; without it, checks of the prompt's own promises fail and say so.
        judgements: those that were made before; without them every answer is judged.
        rivals: the baseline's answers by case and repeat, for judges that compare.
    Raises: InvalidFile before the first call, when suite and golden set do not fit together; Unusable when the cost
        cap is reached, the price is not known although there is a cap, or the first calls all fail.
    """
    work = _Work(
        suite,
        golden,
        version,
        caller,
        run_id=run_id,
        repeats=repeats or range(suite.repeats),
        budget=budget or Budget(),
        progress=progress,
        artifact=artifact,
        bench=Bench(suite.judges, caller, judgements),
        rivals=rivals or {},
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
        self.total = len(golden.cases) * len(repeats)
        # Repeat by repeat, so that the first look at the progress has seen every case.
        self.todo: Iterator[tuple[int, Case]] = iter([(repeat, case) for repeat in repeats for case in golden.cases])
        self.results: list[Repeat] = []
        self.stopped: str | None = None

    async def finish(self) -> None:
        """Makes every call. Raises Unusable with the reason when it had to stop."""
        if self.budget.limit_nano_usd is not None and self.budget.dearest_nano_usd == 0:
            await self._next()
        async with asyncio.TaskGroup() as workers:
            for _ in range(self.suite.concurrency):
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
        if self.stopped or not self.budget.fits(1):
            return False
        following = next(self.todo, None)
        if following is None:
            return False
        repeat, case = following
        self.budget.under_way += 1
        try:
            result = await self._repeat(case, repeat)
        finally:
            self.budget.under_way -= 1
        self._keep(result)
        return True

    async def _repeat(self, case: Case, repeat: int) -> Repeat:
        tags = {"run": self.run_id, "case": case.id, "repeat": str(repeat), "suite": self.suite.digest[:12]}
        planned = self.checks[case.id]
        call = PromptCall(
            self.version.prompt,
            self.version.digest,
            dict(case.inputs),
            "eval",
            tags,
            top_logprobs=int(any(check.needs_logprobs for check in planned)),
        )
        try:
            answer = await self.caller.call(call)
        except TidegateError as error:
            answer = PromptAnswer("", error=str(error))
        output = storable(answer.output)
        seen = msgspec.structs.replace(answer, output=output)
        checks = () if answer.error is not None else tuple(check.judge(seen, self.artifact) for check in planned)
        scores = () if answer.error is not None else await self._scores(case, repeat, output, checks, tags)
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
        )

    async def _scores(
        self, case: Case, repeat: int, output: str, checks: tuple[CheckResult, ...], tags: Mapping[str, str]
    ) -> tuple[Score, ...]:
        """What the judges say; they come after the checks, which are free."""
        broken = next((check.name for check in checks if check.name in self.suite.must_pass and not check.passed), None)
        if broken is not None and not self.suite.judge_failed:
            reason = f"not judged: {broken} failed"
            return tuple(Score(judge.name, None, None, reason, 0, applicable=False) for judge in self.suite.judges)
        values = {"inputs": case.inputs, "expected": case.expected, "output": output}
        rival = self.rivals.get((case.id, repeat))
        values |= {} if rival is None else {"rival": rival}
        return await self.bench.scores(values, key=(self.version.digest, case.id, repeat), tags=tags)

    def _keep(self, result: Repeat) -> None:
        self.results.append(result)
        cost = _cost(result)
        if cost is not None:
            self.budget.settle(cost)
        elif result.error is None and self.budget.limit_nano_usd is not None:
            self.stopped = self.stopped or (
                f"{self.suite.file}: gate.max_cost_usd can not be held, as nobody knows the price of this model or a "
                "judge's. Add it under `prices:` in tidegate.yaml, or take the cap out."
            )
        if len(self.results) == HOPELESS_AFTER and all(known.error is not None for known in self.results):
            self.stopped = self.stopped or (
                f"the first {HOPELESS_AFTER} calls all failed, so the run was stopped: {clip(result.error or '', 300)}"
            )
        if len(self.results) == HOPELESS_AFTER:
            self.stopped = self.stopped or next(self._speechless(), None)
        passed = sum(known.passed for known in self.results)
        total = sum(_cost(known) or 0 for known in self.results)
        self.progress(Progress(self.version, len(self.results), self.total, passed, total))

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


def _cost(result: Repeat) -> int | None:
    """What a repeat cost with its judgements; None where a price is not known, or there was no answer to pay for."""
    if result.cost_nano_usd is None or any(score.cost_nano_usd is None for score in result.scores):
        return None
    return result.cost_nano_usd + sum(score.cost_nano_usd or 0 for score in result.scores)


def _storable_use(use: ToolUse) -> ToolUse:
    """Likewise of a tool call."""
    return msgspec.json.decode(storable(json.dumps(msgspec.to_builtins(use), ensure_ascii=False)), type=ToolUse)
