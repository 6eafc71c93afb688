"""
One answer → one Score: a judge's prompts are asked, their verdicts read and brought together.

A call that fails, an answer that can not be read and a quorum that is missed leave the answer unscored with a reason.
A pairwise judge sees both orders, and what it says of them counts only when it agrees with itself: else it is a tie.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import msgspec

from tidegate.core.errors import TidegateError
from tidegate.core.evaluation import Repeat, Run, Score
from tidegate.evals.checks import clip
from tidegate.evals.judges.asking import closing, token_of, variables
from tidegate.evals.judges.evidence import storable
from tidegate.evals.judges.expectation import expected
from tidegate.evals.judges.kinds import Kind, Material, NotApplicable, Reading, chosen
from tidegate.evals.judges.memory import Judgements
from tidegate.evals.judges.spec import JudgeSpec, Juror
from tidegate.evals.judges.verdict import Unreadable, last_verdict
from tidegate.ports import Caller, PromptAnswer, PromptCall

TOP_LOGPROBS = 5
"""As many as there are scores of a rubric, and no more than every provider that has them gives."""


@dataclass(slots=True)
class _Said:
    """What one call said: a reading, or why there is none."""

    reading: Reading | None
    reason: str
    applicable: bool = True


@dataclass(slots=True)
class _Sitting:
    """One judgement: who judges, and what its calls cost."""

    judge: JudgeSpec
    tags: dict[str, str]
    cost_nano_usd: int | None = 0
    call_ids: list[str] = field(default_factory=list)

    def add(self, answer: PromptAnswer) -> None:
        if answer.call_id is not None:
            self.call_ids.append(answer.call_id)
        if answer.error is None:
            known = self.cost_nano_usd is not None and answer.cost_nano_usd is not None
            self.cost_nano_usd = (self.cost_nano_usd or 0) + (answer.cost_nano_usd or 0) if known else None


class Bench:
    """The judges of one run. Remembers which of their models have no log-probabilities to give."""

    def __init__(self, judges: Sequence[JudgeSpec], caller: Caller, memory: Judgements | None = None) -> None:
        """
        Args:
            memory: judgements that were made before and need not be made again; None: every one is made.
        """
        self.judges = judges
        self._caller = caller
        self._memory = memory
        self._without_logprobs: set[str] = set()

    async def scores(
        self, values: Mapping[str, Any], *, key: Sequence[Any], tags: Mapping[str, str]
    ) -> tuple[Score, ...]:
        """
        What every judge says of one answer.

        Args:
            values: `{inputs, expected, output, rival}` of the answer; no rival: nothing to compare with.
            key: what the answer is an answer to (artifact digest, case, repeat); judgements are remembered under it.
            tags: of the judges' calls.
        """
        return tuple([await self.score(judge, values, key=key, tags=tags) for judge in self.judges])

    async def score(
        self, judge: JudgeSpec, values: Mapping[str, Any], *, key: Sequence[Any], tags: Mapping[str, str]
    ) -> Score:
        """What one judge says of one answer."""
        try:
            material = judge.material(values)
        except NotApplicable as error:
            return Score(judge.name, None, None, f"not applicable: {error}", cost_nano_usd=0, applicable=False)
        token = token_of(judge.digest, list(key), material)
        known = self._memory.get(token) if self._memory else None
        if known is not None:
            return held(judge, msgspec.structs.replace(known, name=judge.name, cost_nano_usd=0))
        made = await self._judge(judge, material, token, {**tags, "judge": judge.name})
        if self._memory and (made.value is not None or not made.applicable):
            self._memory.put(token, made)
        return held(judge, made)

    async def _judge(self, judge: JudgeSpec, material: Material, token: str, tags: dict[str, str]) -> Score:
        if judge.relative and material["answer_a"] == material["answer_b"]:
            return Score(judge.name, 0.5, None, "both answers are the same", cost_nano_usd=0)
        sitting = _Sitting(judge, tags)
        said: list[_Said] = []
        parts: list[float | None] = []
        for juror in judge.jurors:
            for vote in range(judge.votes):
                one, values = await self._vote(sitting, juror, material, token_of(token, juror.digest, vote))
                said.append(one)
                parts += values
        value, reason, applicable = _together(judge, said)
        return Score(
            name=judge.name,
            value=value,
            passed=None,
            reason=storable(reason),
            cost_nano_usd=sitting.cost_nano_usd,
            call_ids=tuple(sitting.call_ids),
            applicable=applicable,
            parts=tuple(parts) if len(parts) > 1 else (),
        )

    async def _vote(
        self, sitting: _Sitting, juror: Juror, material: Material, token: str
    ) -> tuple[_Said, list[float | None]]:
        """One vote, and the values of its calls: two of a pairwise judge, from the side of the candidate's answer."""
        first = await self._ask(sitting, juror, material, token)
        if not sitting.judge.relative:
            return first, [first.reading.value if first.reading else None]
        turned = {**material, "answer_a": material["answer_b"], "answer_b": material["answer_a"]}
        second = await self._ask(sitting, juror, turned, token_of(token, "turned"))
        if first.reading is None or second.reading is None:
            missing = first if first.reading is None else second
            return missing, [one.reading.value if one.reading else None for one in (first, second)]
        values = (first.reading.value, 1 - second.reading.value)
        if values[0] != values[1]:
            reason = "a tie: in the other order of the two answers the judge decides otherwise"
            return _Said(Reading(0.5, reason), reason), [*values]
        return first, [*values]

    async def _ask(self, sitting: _Sitting, juror: Juror, material: Material, token: str) -> _Said:
        kind = sitting.judge.kind
        shown = {name: text for name, text in variables(kind, material, token).items() if name in juror.artifact.inputs}
        call = PromptCall(
            prompt=juror.name,
            digest=juror.digest,
            variables=dict(shown),
            origin="judge",
            tags=sitting.tags,
            messages=(dict(closing(kind, list(shown), token)),),
            top_logprobs=TOP_LOGPROBS if self._weighs(sitting.judge, juror) else 0,
        )
        answer = await self._call(call)
        if call.top_logprobs and "logprob" in (answer.error or "").lower():
            self._without_logprobs.add(juror.digest)
            answer = await self._call(msgspec.structs.replace(call, top_logprobs=0))
        sitting.add(answer)
        if answer.error is not None:
            return _Said(None, f"the judge could not be asked: {clip(answer.error, 200)}")
        try:
            return _Said(_read(kind, answer, token, material), "")
        except Unreadable as error:
            cut = "cut off at its output bound: " if answer.finish_reason == "length" else ""
            return _Said(None, f"{cut}{error}")
        except NotApplicable as error:
            return _Said(None, f"not applicable: {error}", applicable=False)

    def _weighs(self, judge: JudgeSpec, juror: Juror) -> bool:
        one_word = judge.kind.menu is not None and not judge.relative
        return judge.logprobs and one_word and juror.digest not in self._without_logprobs

    async def _call(self, call: PromptCall) -> PromptAnswer:
        try:
            return await self._caller.call(call)
        except TidegateError as error:
            return PromptAnswer("", error=str(error))


def held(judge: JudgeSpec, score: Score) -> Score:
    """A score under what the suite asks of it now; a judge that may not gate is shown, and decides nothing."""
    passed = None
    if judge.passing is not None and judge.gates is None and score.value is not None:
        passed = score.value >= judge.passing - 1e-9
    return msgspec.structs.replace(score, passed=passed)


def settled(run: Run, judges: Sequence[JudgeSpec]) -> Run:
    """A run under what its suite asks of its judges now, so that two runs are always held against the same."""
    by_name = {judge.name: judge for judge in judges}

    def again(result: Repeat) -> Repeat:
        scores = tuple(held(by_name[one.name], one) if one.name in by_name else one for one in result.scores)
        return msgspec.structs.replace(result, scores=scores)

    return msgspec.structs.replace(run, results=tuple(map(again, run.results))) if judges else run


def at_par(run: Run, judges: Sequence[JudgeSpec]) -> Run:
    """A baseline as a comparing judge sees it: against itself, which is a tie, whatever it was compared with before."""
    relative = {judge.name for judge in judges if judge.relative}

    def even(score: Score) -> Score:
        if score.name not in relative:
            return score
        return Score(score.name, 0.5, None, "the baseline against itself", cost_nano_usd=0)

    def again(result: Repeat) -> Repeat:
        return msgspec.structs.replace(result, scores=tuple(map(even, result.scores)))

    return msgspec.structs.replace(run, results=tuple(map(again, run.results))) if relative else run


def _read(kind: Kind, answer: PromptAnswer, token: str, material: Material) -> Reading:
    verdict, written = last_verdict(answer.output, token)
    reading = kind.read(verdict, material)
    if kind.menu is None or not answer.logprobs:
        return reading
    said = chosen(kind.menu, kind.key, verdict)
    weighed = expected(answer.output, written, kind.key, said, menu=kind.menu, chances=answer.logprobs)
    return reading if weighed is None else Reading(weighed, reading.reason)


def _together(judge: JudgeSpec, said: Sequence[_Said]) -> tuple[float | None, str, bool]:
    """Value, reason and whether the judge applies: from more than half of the votes, or not at all."""
    readings = [one.reading for one in said if one.reading is not None]
    if 2 * sum(not one.applicable for one in said) > len(said):
        return None, next(one.reason for one in said if not one.applicable), False
    if 2 * len(readings) <= len(said):
        missing = next(one.reason for one in said if one.reading is None)
        few = "" if len(said) == 1 else f"{len(readings)} of {len(said)} votes can be read: "
        return None, f"unscored: {few}{missing}", True
    values = [reading.value for reading in readings]
    value = fmean(values) if judge.reduce == "mean" else _majority(judge, values)
    nearest = min(readings, key=lambda reading: abs(reading.value - value))
    return value, nearest.reason, True


def _majority(judge: JudgeSpec, values: Sequence[float]) -> float:
    """The value that most votes gave, each taken as the nearest that was offered; the mean of several."""
    menu = sorted(judge.kind.menu.values()) if judge.kind.menu else None
    given = [min(menu, key=lambda offered: abs(offered - value)) for value in values] if menu else values
    counts = Counter(given)
    most = max(counts.values())
    return fmean(value for value, count in counts.items() if count == most)


async def judged_at_once(
    bench: Bench, answers: Sequence[tuple[Mapping[str, Any], Sequence[Any]]], judge: JudgeSpec, *, concurrency: int
) -> list[Score]:
    """The scores of many answers, in their order, at most `concurrency` judgements at a time."""
    slots = asyncio.Semaphore(concurrency)

    async def one(values: Mapping[str, Any], key: Sequence[Any]) -> Score:
        async with slots:
            return await bench.score(judge, values, key=key, tags={"purpose": "calibration"})

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(values, key)) for values, key in answers]
    return [task.result() for task in tasks]
