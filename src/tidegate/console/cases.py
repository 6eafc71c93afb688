"""A run's cases as a reader goes through them: filtered, a page at a time, each with every answer and its calls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tidegate.core.diff import Op, diff_words
from tidegate.core.errors import BadInput, nearest
from tidegate.core.evaluation import CaseVerdict, Repeat, Run
from tidegate.evals.golden import Case
from tidegate.evals.reports.page import alike
from tidegate.evals.reports.plain import cut
from tidegate.evals.said import by_case, way

PAGE = 50
MAX_TEXT = 8_000
"""Characters of an answer, of which a page shows no more; `.json` has them all."""
MAX_ANSWERS = 6
MAX_WORD_PAIRS = 60_000
OPENED = 2
"""Failing cases that are unfolded at once."""
SHOWS = {
    "": "all",
    "failing": "failing",
    "broken": "broken",
    "fixed": "fixed",
    "flaky": "flaky",
    "new": "new",
    "same": "same",
    "error": "errors",
}

Pieces = Sequence[tuple[Op, str]]


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """Which cases are looked at, as an address writes it."""

    show: str = ""
    tag: str = ""
    text: str = ""
    page: int = 1

    def __post_init__(self) -> None:
        if self.show not in SHOWS:
            raise BadInput(f"show: {self.show[:40]!r} is none.{nearest(self.show, [one for one in SHOWS if one])}")


@dataclass(frozen=True, slots=True)
class Answer:
    """Repeats of one version that say the same and are judged the same."""

    title: str
    passed: bool
    error: str | None
    text: str
    left: int
    """Characters that are not shown."""
    repeat: Repeat
    """The first of them."""
    calls: Sequence[tuple[str, str]]
    """(`call of repeat 1`, its id); of an agent each of its loop: `call 2 of repeat 1`."""
    asked_judges: Sequence[str]
    """Ids of the calls that judged it."""
    steps: Sequence[tuple[str, str, str | None]]
    """Of the way to it: (tool, its arguments, what it gave back)."""


@dataclass(frozen=True, slots=True)
class Side:
    """One version's answers to one case."""

    passed: int
    answered: int
    pips: Sequence[str]
    """`good`, `bad` or `error` for each repeat."""
    answers: Sequence[Answer]
    more: int


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One case, and what it unfolds to."""

    id: str
    change: str
    reason: str
    tags: Sequence[str]
    critical: bool
    cluster: str | None
    opened: bool
    given: Sequence[tuple[str, str]]
    """(input or `expected`, its value as text)."""
    before: Side | None
    after: Side
    words: tuple[Pieces, Pieces] | None
    """The two versions' answers with what differs between them; None where there is nothing to compare."""
    judges: Sequence[tuple[str, float | None, float | None]]
    """(judge, mean score before, after)."""


@dataclass(frozen=True, slots=True)
class CasePage:
    """What a filter leaves."""

    rows: Sequence[CaseRow]
    found: int
    total: int
    page: int
    pages: int
    counts: Mapping[str, int]
    """Of each `show`, whatever is looked at."""
    tags: Sequence[str]


def case_page(
    verdicts: Sequence[CaseVerdict], before: Run | None, after: Run, cases: Sequence[Case], wanted: CaseFilter
) -> CasePage:
    """
    Those that broke first, then those that fail, then those that changed; else in the golden set's order.

    Args:
        verdicts: of all cases, in the golden set's order.
        before: what is shown beside it; None: nothing.
    """
    known = {case.id: case for case in cases}
    mine, theirs = by_case(after.results), {} if before is None else by_case(before.results)
    kinds = {one.id: _kinds(one, mine.get(one.id, []), compared=before is not None) for one in verdicts}
    counts = Counter(kind for found in kinds.values() for kind in found)
    asked = wanted.text.strip().casefold()
    found = [
        one
        for one in verdicts
        if (not wanted.show or wanted.show in kinds[one.id])
        and (not wanted.tag or (one.id in known and wanted.tag in known[one.id].tags))
        and (not asked or asked in _searched(one, known.get(one.id)))
    ]
    found.sort(key=lambda one: _calm(kinds[one.id]))
    pages = max(1, -(-len(found) // PAGE))
    page = min(max(1, wanted.page), pages)
    shown = found[(page - 1) * PAGE : page * PAGE]
    failing = [one.id for one in shown if "failing" in kinds[one.id]][:OPENED]
    return CasePage(
        rows=[
            _row(one, theirs.get(one.id), mine.get(one.id, []), known.get(one.id), opened=one.id in failing)
            for one in shown
        ],
        found=len(found),
        total=len(verdicts),
        page=page,
        pages=pages,
        counts={"": len(verdicts), **counts},
        tags=sorted({tag for case in cases for tag in case.tags}),
    )


def _kinds(one: CaseVerdict, mine: Sequence[Repeat], *, compared: bool) -> set[str]:
    found: set[str] = {one.change} if compared else set()
    if not one.repeats or one.candidate_passed < one.repeats:
        found.add("failing")
    if any(result.error is not None for result in mine):
        found.add("error")
    return found


def _calm(kinds: set[str]) -> int:
    if "broken" in kinds:
        return 0
    return 1 if "failing" in kinds else 2 if kinds & {"flaky", "fixed"} else 3


def _searched(one: CaseVerdict, case: Case | None) -> str:
    given = "" if case is None else json.dumps([case.inputs, case.expected], ensure_ascii=False, default=str)
    return "\n".join((one.id, one.reason, one.output, one.baseline_output or "", given)).casefold()


def _row(
    one: CaseVerdict, theirs: Sequence[Repeat] | None, mine: Sequence[Repeat], case: Case | None, *, opened: bool
) -> CaseRow:
    before = None if theirs is None else _side(theirs)
    after = _side(mine)
    given = [] if case is None else [(name, _text(value)) for name, value in case.inputs.items()]
    if case is not None and case.expected is not None:
        given.append(("expected", _text(case.expected)))
    return CaseRow(
        id=one.id,
        change=one.change if theirs is not None else "",
        reason=one.reason[:MAX_TEXT],
        tags=() if case is None else case.tags,
        critical=case is not None and case.critical,
        cluster=None if case is None else case.cluster,
        opened=opened,
        given=given,
        before=before,
        after=after,
        words=None if before is None else _words(before, after),
        judges=_judges(theirs or (), mine),
    )


def _side(results: Sequence[Repeat]) -> Side:
    same: dict[tuple[object, ...], list[Repeat]] = {}
    for result in results:
        same.setdefault(_kept(result), []).append(result)
    answers = sorted(map(_answer, same.values()), key=lambda answer: answer.passed)
    return Side(
        passed=sum(result.passed for result in results),
        answered=sum(result.error is None for result in results),
        pips=["error" if result.error is not None else "good" if result.passed else "bad" for result in results],
        answers=answers[:MAX_ANSWERS],
        more=max(0, len(answers) - MAX_ANSWERS),
    )


def _kept(result: Repeat) -> tuple[object, ...]:
    """What repeats have in common that are shown as one."""
    return (result.output, result.error, result.unfinished, result.checks, _said(result), way(result.tool_calls))


def _said(result: Repeat) -> tuple[object, ...]:
    """What its judges said, whatever it cost and whichever calls they were."""
    return tuple((score.name, score.value, score.passed, score.reason) for score in result.scores)


def _answer(found: Sequence[Repeat]) -> Answer:
    first = found[0]
    numbers = ", ".join(str(result.repeat + 1) for result in found)
    text, left = cut(alike([first.output])[0], MAX_TEXT)
    return Answer(
        title=f"Repeat{'s' if len(found) > 1 else ''} {numbers}",
        passed=first.passed,
        error=first.error,
        text=text,
        left=left,
        repeat=first,
        calls=[call for result in found for call in _calls(result)],
        asked_judges=[call for result in found for score in result.scores for call in score.call_ids],
        steps=[(use.name, _text(use.arguments), use.result) for use in first.tool_calls],
    )


def _calls(result: Repeat) -> list[tuple[str, str]]:
    of = f"of repeat {result.repeat + 1}"
    if len(result.call_ids) > 1:
        return [(f"call {number} {of}", call) for number, call in enumerate(result.call_ids, start=1)]
    return [(f"call {of}", result.call_id)] if result.call_id else []


def _words(before: Side, after: Side) -> tuple[Pieces, Pieces] | None:
    if not before.answers or not after.answers:
        return None
    # The failing answer of each, if there is one: it is what a reader came for.
    texts = alike([before.answers[0].repeat.output, after.answers[0].repeat.output])
    old, new = (cut(text, MAX_TEXT)[0] for text in texts)
    if old == new:
        return None
    pieces = diff_words(old, new, most_pairs=MAX_WORD_PAIRS)
    return [one for one in pieces if one[0] != "add"], [one for one in pieces if one[0] != "del"]


def _judges(before: Sequence[Repeat], after: Sequence[Repeat]) -> list[tuple[str, float | None, float | None]]:
    names = dict.fromkeys(score.name for result in (*after, *before) for score in result.scores)
    return [(name, _mean(before, name), _mean(after, name)) for name in names]


def _mean(results: Sequence[Repeat], judge: str) -> float | None:
    values = [score.value for result in results for score in result.scores if score.name == judge]
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return cut(value, MAX_TEXT)[0]
    return cut(json.dumps(value, ensure_ascii=False, indent=2, default=str), MAX_TEXT)[0]
