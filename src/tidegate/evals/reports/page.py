"""
The verdict as one HTML file that opens from disk: no network, no script, dark and light, phone, desktop and paper.

Nothing in it runs: filters are radio buttons and CSS, charts are SVG, and a Content-Security-Policy forbids the rest,
should an answer ever find a way past the escaping of the template (`page.html`, where everything is escaped).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tidegate.core.diff import Op, diff_words
from tidegate.core.evaluation import CaseVerdict, GateReport, MetricVerdict, Repeat, Run, SliceVerdict
from tidegate.evals.reports import figures
from tidegate.evals.reports.judged import Judged, Outcome, outcome
from tidegate.evals.reports.plain import cut, one_line, plain
from tidegate.evals.said import label, passed_cases, passing, per_call, undecided_cases, usable, way

MAX_TEXT = 20_000
ALL_TEXT = 6_000_000
"""Characters of answers on a page; many cases share them, so that a browser still opens it."""
LEAST_TEXT = 400
MOST_WORD_PAIRS = 250_000
MAX_ANSWERS = 5
MAX_SLICES = 60
MAX_DIFF_LINES = 2_000
CHANGES = ("broken", "fixed", "flaky", "same", "new")
TONES = {"PASS": "good", "FAIL": "bad", "INCONCLUSIVE": "warn", "UNUSABLE": "warn"}

Pieces = Sequence[tuple[Op, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Repeats of one version that say the same and are judged the same."""

    title: str
    passed: bool
    repeat: Repeat
    text: str
    left: int

    @property
    def steps(self) -> Sequence[tuple[str, str, str | None]]:
        """(tool, its arguments, what it gave back) on the way to it."""
        return way(self.repeat.tool_calls)


@dataclass(frozen=True, slots=True)
class CaseView:
    """One row of the case table, and what it unfolds to."""

    case: CaseVerdict
    id: str
    reason: str
    outcome: Outcome
    place: str
    before: Pieces | None
    after: Pieces
    left: tuple[int, int]
    """Characters of the two answers that are not shown."""
    answers: Sequence[Answer]
    more_answers: int
    judges: Sequence[tuple[str, float | None, float | None]]
    """(judge, mean score of the baseline, of the candidate)."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A metric drawn: places along its axis, in percent of the width."""

    point: float
    low: float | None = None
    high: float | None = None
    zero: float | None = None
    margin: float | None = None
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class MetricView:
    """One metric: its numbers as text, and its drawing."""

    metric: MetricVerdict
    baseline: str
    candidate: str
    delta: str
    interval: str
    asked: str
    scale: Scale


@dataclass(frozen=True, slots=True)
class SliceView:
    """One tag by one metric."""

    slice: SliceVerdict
    baseline: str
    candidate: str
    delta: str
    interval: str


@dataclass(frozen=True, slots=True)
class PromptView:
    """One prompt's part of the page."""

    key: str
    report: GateReport | None
    run: Run
    candidate: str
    baseline: str | None
    verdict: str
    tone: str
    reason: str
    passed: int
    total: int
    metrics: Sequence[MetricView]
    means: Sequence[tuple[str, str, str, float | None]]
    cost: str
    cases: Sequence[CaseView]
    counts: Mapping[str, int]
    slices: Sequence[SliceView]
    more_slices: int
    diff: Sequence[tuple[str, str]]
    notes: Sequence[str]
    finished: str


def page(judged: Sequence[Judged], *, command: str, version: str, now: datetime) -> bytes:
    """
    The whole file.

    Args:
        command: what makes the same verdict again.
        version: of tidegate.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plain=plain, line=one_line)
    share = max(LEAST_TEXT, min(MAX_TEXT, ALL_TEXT // max(1, sum(len(one.cases) for one in judged) * 4)))
    html = environment.get_template("page.html").render(
        prompts=[_prompt(number, one, share) for number, one in enumerate(judged)],
        command=plain(command),
        version=version,
        made=f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        changes=CHANGES,
        tones=TONES,
    )
    # A lone surrogate can not be written as UTF-8; all text is plain() by here but for what a file is called.
    return html.encode("utf-8", "replace")


def _prompt(number: int, judged: Judged, share: int) -> PromptView:
    run, report = judged.run, judged.report
    mine, theirs = _by_case(run), {} if judged.baseline is None else _by_case(judged.baseline)
    cases = [_case(case, theirs.get(case.id, []), mine.get(case.id, []), judged, share) for case in judged.cases]
    compared = report is not None and report.baseline is not None
    counts: Counter[str] = Counter(view.case.change for view in cases if compared)
    errors = sum(result.error is not None for result in run.results)
    failing = sum(view.outcome != "passes" for view in cases)
    verdict: str
    if report is not None:
        verdict, reason = report.verdict, report.reason
        passed, total = report.passed_cases, report.total_cases
    else:
        verdict = "MEASURED" if usable(run) else "UNUSABLE"
        passed, total = passed_cases(run) - undecided_cases(run), len(cases)
        reason = passing(run)
        if not usable(run):
            reason = f"{errors} of {len(run.results)} calls ended in errors: nothing can be said of this run."
    spent = sum(result.cost_nano_usd or 0 for result in run.results) / 1e9 if report is None else report.cost_usd
    return PromptView(
        key=f"p{number}",
        report=report,
        run=run,
        candidate=label(run),
        baseline=None if report is None else report.baseline,
        verdict=verdict,
        tone=TONES.get(verdict, "plain"),
        reason=plain(reason),
        passed=passed,
        total=total,
        metrics=[] if report is None else [metric_view(metric) for metric in report.metrics],
        means=figures.means(
            None if report is None else report.baseline_per_call, per_call(run) if report is None else report.per_call
        ),
        cost=f"${spent:.4f}",
        cases=cases,
        counts={**counts, "failing": failing},
        slices=[] if report is None else [slice_view(one) for one in report.slices[:MAX_SLICES]],
        more_slices=0 if report is None else max(0, len(report.slices) - MAX_SLICES),
        diff=[] if report is None else [_diff_line(line) for line in report.diff[:MAX_DIFF_LINES]],
        notes=[] if report is None else [plain(note) for note in report.notes],
        finished=f"{run.finished_at[:10]} {run.finished_at[11:16]} UTC",
    )


def _diff_line(line: str) -> tuple[str, str]:
    kind = {"+": "add", "-": "del", "@": "hunk"}.get(line[:1], "")
    return kind, plain(line[1:] if kind != "hunk" else line.strip("@ "))


def _by_case(run: Run) -> dict[str, list[Repeat]]:
    found: dict[str, list[Repeat]] = {}
    for result in run.results:
        found.setdefault(result.case_id, []).append(result)
    return found


def _case(case: CaseVerdict, theirs: Sequence[Repeat], mine: Sequence[Repeat], judged: Judged, share: int) -> CaseView:
    texts = alike([case.output] if case.baseline_output is None else [case.output, case.baseline_output])
    after, more_after = cut(texts[0], share)
    before, more_before = cut(texts[1], share) if len(texts) > 1 else (None, 0)
    pieces: Pieces = [("same", after)]
    if before is not None and before != after:
        pieces = diff_words(before, after, most_pairs=MOST_WORD_PAIRS)
    place = judged.places.get(case.id)
    answers = _answers(mine, share)
    return CaseView(
        case=case,
        id=one_line(case.id),
        reason=plain(case.reason[:MAX_TEXT]),
        outcome=outcome(case),
        place="" if place is None else f"{place.file}:{place.line}",
        before=None if before is None else [piece for piece in pieces if piece[0] != "add"] if pieces else [],
        after=[piece for piece in pieces if piece[0] != "del"],
        left=(more_before, more_after),
        answers=answers[:MAX_ANSWERS],
        more_answers=max(0, len(answers) - MAX_ANSWERS),
        judges=_judges(theirs, mine),
    )


def _answers(results: Sequence[Repeat], share: int) -> list[Answer]:
    same: dict[tuple[object, ...], list[Repeat]] = {}
    for result in results:
        said = (result.output, result.error, result.unfinished, result.checks, result.scores, way(result.tool_calls))
        same.setdefault(said, []).append(result)
    answers = []
    for found in same.values():
        first = found[0]
        numbers = ", ".join(str(result.repeat + 1) for result in found)
        text, left = cut(first.error if first.error is not None else alike([first.output])[0], share)
        answers.append(Answer(f"Repeat{'s' if len(found) > 1 else ''} {numbers}", first.passed, first, text, left))
    return sorted(answers, key=lambda answer: answer.passed)


def _judges(before: Sequence[Repeat], after: Sequence[Repeat]) -> list[tuple[str, float | None, float | None]]:
    names = dict.fromkeys(score.name for result in (*after, *before) for score in result.scores)
    return [(name, _mean(before, name), _mean(after, name)) for name in names]


def _mean(results: Sequence[Repeat], judge: str) -> float | None:
    values = [
        score.value for result in results for score in result.scores if score.name == judge and score.value is not None
    ]
    return fmean(values) if values else None


def alike(texts: Sequence[str]) -> Sequence[str]:
    """JSON objects and lists on lines of their own, when all of them are; else all as they are, to be compared."""
    try:
        if all(text.lstrip()[:1] in ("{", "[") for text in texts):
            return [json.dumps(json.loads(text), ensure_ascii=False, indent=2) for text in texts]
    except (ValueError, RecursionError):
        pass
    return texts


def metric_view(metric: MetricVerdict) -> MetricView:
    """One metric as it is drawn."""
    return MetricView(
        metric=metric,
        baseline=figures.figure(metric.baseline, metric.scale),
        candidate=figures.figure(metric.candidate, metric.scale),
        delta=figures.change(metric.delta, metric.scale, unit=True),
        interval=figures.interval(metric.interval, metric.scale),
        asked=figures.asked(metric),
        scale=_scale(metric),
    )


def slice_view(one: SliceVerdict) -> SliceView:
    """One slice, with its numbers as text."""
    return SliceView(
        slice=one,
        baseline=figures.figure(one.baseline, one.scale),
        candidate=figures.figure(one.candidate, one.scale),
        delta=figures.change(one.delta, one.scale),
        interval=figures.interval(one.interval, one.scale),
    )


def _scale(metric: MetricVerdict) -> Scale:
    """The change and its interval against the margin; where none is asked for, the value itself against its floor."""
    floor_alone = metric.margin is None and metric.floor is not None
    if metric.interval is None or metric.delta is None or floor_alone:
        bottom, top = metric.scale

        def along(value: float) -> float:
            return round(2 + 96 * (value - bottom) / (top - bottom), 2)

        floor = None if metric.floor is None else along(metric.floor)
        ends = metric.candidate_interval
        if ends is None:
            return Scale(along(metric.candidate), floor=floor)
        return Scale(along(metric.candidate), along(ends[0]), along(ends[1]), floor=floor)
    low, high = metric.interval
    margin = None if metric.margin is None else -metric.margin
    seen = [low, high, 0.0, *([margin] if margin is not None else [])]
    left, right = min(seen), max(seen)
    pad = ((right - left) or 0.02) * 0.1
    left, right = left - pad, right + pad

    def at(value: float) -> float:
        return round(100 * (value - left) / (right - left), 2)

    return Scale(at(metric.delta), at(low), at(high), at(0), None if margin is None else at(margin))
