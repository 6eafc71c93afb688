"""
The verdict as GitHub-flavoured Markdown: a comment on a pull request, and a job's summary.

One screen: verdict, sentence, metrics, and folded below them the cases that changed or fail. The first line is a marker
that GitHub does not show: who posts the comment finds the last one by it and updates that. Nothing that a model or a
file said can become markup, a link, an image, a mention or a reference: answers stand in fences longer than any in
them, words are escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from tidegate.core.errors import TidegateError
from tidegate.core.evaluation import CaseVerdict, Verdict
from tidegate.evals.reports.figures import asked, change, figure, interval, means
from tidegate.evals.reports.judged import Judged, outcome
from tidegate.evals.reports.plain import one_line, plain
from tidegate.evals.said import way

MAX_BYTES = 65_536
"""GitHub's limit is in characters; bytes keep to it in every script."""
TAIL_BYTES = 512
"""Kept free for what says what was left out."""
SHOWN_CASES = 10
SHOWN_LINES = 12
SHOWN_SLICES = 5
SHOWN_CHARACTERS = 1_200
MAX_WORDS = 600
SIGNS: dict[Verdict, str] = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "⚠️", "UNUSABLE": "🚫"}
MARKER = "<!-- tidegate:gate"
_BREAK = "&#8203;"
"""Nothing to see, and what GitHub would link or notify is two words."""


def markdown(judged: Sequence[Judged], *, project: str, command: str) -> str:
    """
    The comment, at most 65,536 bytes of UTF-8.

    Args:
        project: part of the marker, so that two projects of one repository have a comment each.
        command: what makes the same verdict again.
    """
    text = marker(project)
    left = 0
    for one in sorted(judged, key=_worst_first):
        for part in _prompt(one, alone=len(judged) == 1):
            if len((text + part).encode()) > MAX_BYTES - TAIL_BYTES:
                left += 1
                break
            text += part
        else:
            continue
    if left:
        text += f"\n_Cut short for {left} {'prompt' if left == 1 else 'prompts'}: the HTML report has everything._\n"
    foot = f"\n<sub>{code(command)}</sub>\n"
    return text + (foot if len((text + foot).encode()) <= MAX_BYTES else "")


def unjudged(error: TidegateError, *, project: str, command: str) -> str:
    """The comment of a gate that could not judge."""
    return (
        f"{marker(project)}\n### {SIGNS['UNUSABLE']} tidegate could not judge this change\n\n"
        f"{fenced(str(error))}\n\n<sub>{code(command)}</sub>\n"
    )


def marker(project: str) -> str:
    """The first line. A project's name is letters, digits and `._-`."""
    return f"{MARKER} {project} -->\n"


def _worst_first(judged: Judged) -> int:
    order = ("FAIL", "UNUSABLE", "INCONCLUSIVE", "PASS")
    return order.index(judged.report.verdict) if judged.report is not None else len(order)


def _prompt(judged: Judged, *, alone: bool) -> Iterator[str]:
    """Parts that each leave whole Markdown behind them, the most important first."""
    report = judged.report
    if report is None:
        return
    yield f"\n### {SIGNS[report.verdict]} {report.verdict} · {code(report.prompt)}\n\n{words(report.reason)}\n"
    versions = f"{code(report.candidate)}: {report.passed_cases}/{report.total_cases} cases pass"
    if report.baseline is not None:
        before = f"{code(report.baseline)}: {report.baseline_passed_cases}/{report.total_cases}"
        versions = f"{before} → {versions}"
    yield f"\n{versions}\n"
    if report.metrics:
        yield "\n" + "\n".join(_metrics(judged)) + "\n"
    worse = [one for one in report.slices if one.worse]
    if worse:
        places = ", ".join(
            f"{code(one.tag)} ({code(one.metric)} {change(one.delta, one.scale)}, {one.cases} cases)"
            for one in worse[:SHOWN_SLICES]
        )
        yield f"\nWorse in: {places}{f' and {len(worse) - SHOWN_SLICES} more' if len(worse) > SHOWN_SLICES else ''}.\n"
    for note in report.notes:
        yield f"\n> {words(note)}\n"
    facts = [
        f"{name} {f'{before} → ' if before else ''}{after}{_relative(relative)}"
        for name, before, after, relative in means(report.baseline_per_call, report.per_call)
    ]
    yield "\n" + " · ".join([*facts, f"${report.cost_usd:.4f} spent"]) + "\n"
    shown = [case for case in judged.cases if case.change not in ("same", "new") or outcome(case) != "passes"]
    limit = SHOWN_CASES if alone else 3
    for case in shown[:limit]:
        yield _case(case, report.baseline, report.candidate)
    if len(shown) > limit:
        yield f"\n… and {len(shown) - limit} more cases that changed or do not pass.\n"
    if report.diff:
        changed = "\n".join(report.diff[:40]) + ("\n…" if len(report.diff) > 40 else "")
        yield f"\n<details><summary>What changed in the prompt</summary>\n\n{fenced(changed, 'diff')}\n\n</details>\n"
    yield f"\n<sub>run {code(report.run_id)}</sub>\n"


def _relative(change: float | None) -> str:
    return f" ({change:+.0%})".replace("-", "−") if change else ""


def _metrics(judged: Judged) -> Iterator[str]:
    report = judged.report
    if report is None:
        return
    yield "| metric | before | after | change | interval | asked | |"
    yield "|---|--:|--:|--:|--:|---|---|"
    for metric in report.metrics:
        cells = (
            code(metric.name).replace("|", "\\|"),
            figure(metric.baseline, metric.scale),
            figure(metric.candidate, metric.scale),
            change(metric.delta, metric.scale),
            interval(metric.interval, metric.scale),
            asked(metric),
            f"{SIGNS[metric.verdict]} {metric.verdict}",
        )
        yield f"| {' | '.join(cells)} |"


def _case(case: CaseVerdict, baseline: str | None, candidate: str) -> str:
    counts = f"{case.candidate_passed}/{case.repeats}"
    if case.baseline_passed is not None:
        counts = f"{case.baseline_passed}/{case.baseline_repeats} → {counts}"
    kind = case.change if baseline is not None else outcome(case)
    title = f"{html.escape(one_line(case.id, 120))}: {kind}, {counts} repeats pass"
    parts = [f"\n<details><summary>{_unlinked(title)}</summary>\n"]
    if case.reason:
        parts.append(f"\n{words(case.reason)}\n")
    if case.baseline_output is not None and case.baseline_output != case.output:
        parts.append(f"\n{code(baseline or '')} answered\n\n{fenced(case.baseline_output)}\n")
    if case.steps:
        parts.append(f"\n{code(candidate)} called\n\n{fenced(_called(case))}\n")
    parts.append(f"\n{code(candidate)} answered\n\n{fenced(case.output)}\n\n</details>\n")
    return "".join(parts)


def _called(case: CaseVerdict) -> str:
    """A line for every tool call."""
    lines = []
    for tool, arguments, result in way(case.steps):
        gave = "" if result is None else f" → {result}"
        lines.append(one_line(f"{tool} {arguments}{gave}", MAX_WORDS))
    return "\n".join(lines)


def fenced(text: str, language: str = "") -> str:
    """An answer as a code block that it can not end; long ones are cut."""
    lines = plain(text[:SHOWN_CHARACTERS]).split("\n")
    left = len(text) > SHOWN_CHARACTERS or len(lines) > SHOWN_LINES * 4
    body = "\n".join([*lines[: SHOWN_LINES * 4], *(["…"] if left else [])]) or "(empty)"
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", body)), default=0))
    return f"{fence}{language}\n{body}\n{fence}"


def code(text: str) -> str:
    """A short text as a code span."""
    shown = one_line(text, MAX_WORDS) or " "
    ticks = "`" * (1 + max(map(len, re.findall(r"`+", shown)), default=0))
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def words(text: str) -> str:
    """A sentence as plain words: no markup, link, mention or reference comes of it."""
    escaped = html.escape(one_line(text, MAX_WORDS), quote=False)
    return _unlinked(re.sub(r"([\\`*_{}\[\]()#+\-.!|~$^=:])", r"\\\1", escaped))


def _unlinked(escaped: str) -> str:
    """Breaks what GitHub makes links and notifications of, in text that is escaped already."""
    broken = re.sub(r"(@|(?<!&)#|(?i:www|GH|https?|ftp|mailto|xmpp))(?=\S)", rf"\1{_BREAK}", escaped)
    return broken.replace("://", f":{_BREAK}//")
