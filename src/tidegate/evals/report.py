"""
A run or a verdict as a person reads it in a terminal, 80 columns wide or more.

Everything that a model or a file said is shown as plain text: control characters are made visible, so an answer can not
move the cursor, colour the verdict or hide itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tidegate.core.evaluation import (
    CaseVerdict,
    GateReport,
    MetricVerdict,
    PerCall,
    Run,
    SliceVerdict,
    ToolUse,
    Verdict,
)
from tidegate.evals.checks import clip
from tidegate.evals.judges.tally import Tally, tallies
from tidegate.evals.reports.figures import asked, change, figure, interval
from tidegate.evals.reports.judged import measured, outcome
from tidegate.evals.reports.plain import one_line
from tidegate.evals.said import AGAIN, because, by_case, kinds, label, passing, per_call, usable, way
from tidegate.evals.watcher import Planned

COLOURS: Mapping[Verdict, str] = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "UNUSABLE": "magenta"}
CHANGES = {"fixed": "green", "broken": "bold red", "flaky": "yellow", "same": "dim", "new": "cyan"}
SHOWN_CASES = 40
SHOWN_SLICES = 5
SHOWN_ANSWERS = 2
SHOWN_ANSWER_LINES = 10
SHOWN_STEPS = 12
SIDE_BY_SIDE = 100
"""Columns from which two answers stand beside one another."""
SHOWN_DIFF_LINES = 60
SHOWN_REASON = 100
"""In the table; the whole of it stands below the answer."""
LINE_LIMIT = 400


def plan_line(planned: Planned) -> Text:
    """What is about to happen and how small a drop it can see; printed before the run."""
    calls = f"{planned.cases} {_plural('case', planned.cases)} × {planned.repeats} = {planned.calls} "
    calls += "calls" if planned.steps is None else f"loops of up to {planned.steps} {_plural('call', planned.steps)}"
    if planned.baseline is not None and planned.baseline_stored:
        calls += f" ({planned.baseline.name} is on file)"
    line = Text.assemble((planned.candidate.prompt, "bold"), "  ", (calls, "dim"))
    if planned.mde is not None:
        line.append(f"  ·  sees a drop of {100 * planned.mde:.0f} points or more", "dim")
    if planned.max_cost_nano_usd is not None:
        line.append(f"  ·  at most ${planned.max_cost_nano_usd / 1e9:g}", "dim")
    return line


def gate_report(report: GateReport) -> RenderableType:
    """The whole verdict: versions, cases, failing answers, diff, metrics, and the box that sums it up."""
    cases = _cases(report.cases, report.baseline, report.candidate)
    notes = [Text(f"  {visible(note)}", "yellow") for note in report.notes]
    parts: list[RenderableType] = ["", _versions(report), *notes, "", _inset(cases)]
    failing = [case for case in report.cases if case.candidate_passed < case.repeats or not case.repeats]
    failing.sort(key=lambda case: case.change != "broken")
    for case in failing[:SHOWN_ANSWERS]:
        parts += ["", _Answers(case, report.baseline, report.candidate)]
    if len(failing) > SHOWN_ANSWERS:
        parts.append(Text(f"  … and {len(failing) - SHOWN_ANSWERS} more; --json has them all", "dim"))
    if report.diff:
        parts += ["", *_diff(report)]
    if report.metrics:
        parts += ["", _inset(_metrics(report.metrics))]
    parts += [_slice(one) for one in report.slices if one.worse][:SHOWN_SLICES]
    parts += ["", _box(report)]
    return Group(*parts)


def run_report(run: Run) -> RenderableType:
    """One run without a baseline: every case, and why it did not pass."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("case", overflow="fold")
    table.add_column(label(run), justify="right")
    table.add_column("why", ratio=1, overflow="fold")
    for case_id, results in by_case(run.results).items():
        passed = sum(result.passed for result in results)
        failing = next((result for result in results if not result.passed), None)
        good = passed == len(results)
        open_ = good and not any(result.decided for result in results)
        table.add_row(
            Text.assemble(("– ", "dim"), visible(case_id)) if open_ else _mark(good, case_id),
            Text("–", "dim") if open_ else Text(f"{passed}/{len(results)}", "green" if good else "red"),
            Text("" if failing is None else visible(clip(because(failing), SHOWN_REASON))),
        )
    head = Text.assemble(("  " + label(run), "bold"), f"  {passing(run)}")
    judges = tallies(run)
    paid = sum(result.cost_nano_usd or 0 for result in run.results) + sum(one.cost_nano_usd or 0 for one in judges)
    foot = _spent(per_call(run), paid / 1e9)
    parts: list[RenderableType] = [
        "",
        head,
        "",
        _inset(table),
        "",
        *(part for case in _lost(run) for part in (_Answers(case, None, label(run)), "")),
        *([_inset(_judges(judges)), ""] if judges else []),
        *(
            Text(f"  {visible(one.name)} – {visible(clip(one.unscored_because, SHOWN_REASON))}", "magenta")
            for one in judges
            if one.unscored
        ),
        Text(f"  {foot}", "dim"),
        Text(f"  run {run.id}", "dim"),
    ]
    if not usable(run):
        errors = sum(result.error is not None for result in run.results)
        said = f"{errors} of {len(run.results)} calls ended in errors ({kinds(run) or 'unknown'})"
        parts.insert(2, Text(f"  unusable: {visible(said)}; {AGAIN}", "magenta"))
    return Group(*parts)


def _lost(run: Run) -> Sequence[CaseVerdict]:
    """The first cases that fail and called tools: without the way to it, an agent's answer says little."""
    return [case for case in measured(run) if outcome(case) == "fails" and case.steps][:SHOWN_ANSWERS]


def _judges(judges: Sequence[Tally]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for title in ("judge", "mean", "scored", "unscored", "not applicable", "passed", "agree"):
        table.add_column(title, justify="left" if title == "judge" else "right")
    for one in judges:
        passed = "–" if one.passed is None else f"{one.passed}/{one.scored}"
        agree = "–" if one.alike is None else f"{one.alike:.0%}"
        agree += "" if one.alpha is None else f", α {one.alpha:.2f}"
        mean = "–" if one.mean is None else f"{one.mean:.2f}"
        style = "magenta" if one.unscored else ""
        counts = (str(one.scored), Text(str(one.unscored), style), str(one.not_applicable))
        table.add_row(visible(one.name), mean, *counts, passed, agree)
    return table


def visible(text: str) -> str:
    """`text` on one line, with control and format characters (escapes, overrides of direction) spelt out."""
    return one_line(text, LINE_LIMIT)


def _versions(report: GateReport) -> Text:
    line = Text("  ")
    if report.baseline is not None:
        line.append(f"{report.baseline} {report.baseline_passed_cases}/{report.total_cases}", "bold")
        line.append("  →  ", "dim")
    good = report.passed_cases == report.total_cases
    line.append(f"{report.candidate} {report.passed_cases}/{report.total_cases}", "bold green" if good else "bold red")
    line.append("  cases pass", "dim")
    return line


def _cases(cases: Sequence[CaseVerdict], baseline: str | None, candidate: str) -> Table:
    """The cases that changed or fail come first; the rest keeps its order, and a long tail is counted."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("case", overflow="fold", min_width=12)
    if baseline is not None:
        table.add_column(baseline, justify="right", no_wrap=True)
    table.add_column(candidate, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("why", ratio=1, overflow="fold")
    ordered = sorted(cases, key=_calm)
    for case in ordered[:SHOWN_CASES]:
        good = case.candidate_passed == case.repeats > 0
        row: list[RenderableType] = [_mark(good, case.id)]
        if baseline is not None:
            row.append(Text(f"{case.baseline_passed}/{case.baseline_repeats}", "dim"))
        row.append(Text(f"{case.candidate_passed}/{case.repeats}", "green" if good else "red"))
        row.append(Text(case.change if baseline is not None else "", CHANGES[case.change]))
        row.append(Text(visible(clip(case.reason, SHOWN_REASON))))
        table.add_row(*row)
    if len(ordered) > SHOWN_CASES:
        table.add_row(Text(f"… {len(ordered) - SHOWN_CASES} more", "dim"))
    return table


def _calm(case: CaseVerdict) -> int:
    good = case.candidate_passed == case.repeats > 0
    return 2 if good and case.change in ("same", "new") else 1 if good else 0


def _inset(table: Table) -> RenderableType:
    return Padding(table, (0, 1))


def _mark(good: bool, name: str) -> Text:
    return Text.assemble(("✓ ", "green") if good else ("✗ ", "red"), visible(name))


class _Answers:
    """A case's answers, the baseline's beside the candidate's where the terminal is wide enough, else above it."""

    def __init__(self, case: CaseVerdict, baseline: str | None, candidate: str) -> None:
        reason = Text(f"\n\n{visible(case.reason)}", "red")
        self.panels = [_answer(case, candidate, _said(case.output, case.steps, case.repeats), "red", reason)]
        if baseline is not None and case.baseline_output is not None:
            said = _said(case.baseline_output, case.baseline_steps, case.repeats)
            self.panels.insert(0, _answer(case, baseline, said, "dim", Text()))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if len(self.panels) > 1 and options.max_width >= SIDE_BY_SIDE:
            beside = Table.grid(expand=True, padding=(0, 1))
            for _ in self.panels:
                beside.add_column(ratio=1)
            beside.add_row(*self.panels)
            yield Padding(beside, (0, 1, 0, 2))
        else:
            yield from (Padding(panel, (0, 2)) for panel in self.panels)


def _answer(case: CaseVerdict, version: str, said: Text, style: str, reason: Text) -> Panel:
    title = Text.assemble((f"{version} answered ", "dim"), (visible(case.id), "bold"))
    body = said.append(reason)
    return Panel(
        body, title=title, title_align="left", box=box.ROUNDED, border_style=style, padding=(0, 1), expand=True
    )


def _said(output: str, steps: Sequence[ToolUse], answers: int) -> Text:
    """The way to an answer, and the answer."""
    lines = output.split("\n")
    body = Text("\n").join(Text(visible(line)) for line in lines[:SHOWN_ANSWER_LINES])
    if not output:
        body = Text("(an empty answer)" if answers else "(no answer)", "dim")
    if len(lines) > SHOWN_ANSWER_LINES:
        body.append(f"\n… {len(lines) - SHOWN_ANSWER_LINES} more lines", "dim")
    return Text.assemble(_steps(steps), body)


def _steps(steps: Sequence[ToolUse]) -> Text:
    """The tools that were called, a line each, and an empty one."""
    text = Text()
    for tool, arguments, result in way(steps[:SHOWN_STEPS]):
        text.append(f"{visible(tool)} {visible(clip(arguments, SHOWN_REASON))}", "cyan")
        text.append("" if result is None else f" → {visible(clip(result, SHOWN_REASON))}", "dim")
        text.append("\n")
    if len(steps) > SHOWN_STEPS:
        text.append(f"… {len(steps) - SHOWN_STEPS} more tool calls\n", "dim")
    return text.append("\n") if steps else text


def _diff(report: GateReport) -> Iterator[RenderableType]:
    title = f"[dim]{report.baseline} → {report.candidate}[/dim]"
    yield Padding(Rule(title, align="left", style="dim"), (0, 2))
    for line in report.diff[:SHOWN_DIFF_LINES]:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
        yield Padding(Text(visible(line), style), (0, 2))
    if len(report.diff) > SHOWN_DIFF_LINES:
        yield Text(f"  … {len(report.diff) - SHOWN_DIFF_LINES} more lines", "dim")


def _metrics(metrics: Sequence[MetricVerdict]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for name in ("metric", "before", "after", "change", "interval", "asked", ""):
        table.add_column(name, justify="left" if name in ("metric", "asked", "") else "right", no_wrap=True)
    for metric in metrics:
        table.add_row(
            visible(metric.name),
            figure(metric.baseline, metric.scale),
            figure(metric.candidate, metric.scale),
            change(metric.delta, metric.scale),
            interval(metric.candidate_interval if metric.baseline is None else metric.interval, metric.scale),
            asked(metric),
            Text(metric.verdict, COLOURS[metric.verdict]),
        )
    return table


def _slice(one: SliceVerdict) -> Text:
    moved = f"{figure(one.baseline, one.scale)} → {figure(one.candidate, one.scale)}"
    cases = f"{one.cases} {_plural('case', one.cases)}"
    return Text(f"  worse in {visible(one.tag)} ({cases}): {visible(one.metric)} {moved}", "yellow")


def _box(report: GateReport) -> RenderableType:
    colour = COLOURS[report.verdict]
    facts = [f"exit {report.exit_code}", _cost(report.cost_usd, report.per_call)]
    facts += _per_call(report.baseline_per_call, report.per_call)
    body = Group(Text(visible(report.reason)), Text(" · ".join(facts), "dim"), Text(f"run {report.run_id}", "dim"))
    title = Text(f" {report.verdict} ", f"bold {colour} reverse")
    return Padding(Panel(body, title=title, title_align="left", border_style=colour, padding=(0, 1)), (0, 2))


def _per_call(before: PerCall | None, after: PerCall | None) -> list[str]:
    """The change of cost and input tokens per call, as far as both are known."""
    if after is None:
        return []
    if before is None:
        return [text] if (text := _spent(after, None)) else []
    facts = []
    if before.cost_usd is not None and after.cost_usd is not None:
        facts.append(f"${before.cost_usd:.6f} → ${after.cost_usd:.6f} a {_unit(after)}")
    if before.input_tokens is not None and after.input_tokens is not None:
        facts.append(f"{before.input_tokens:.0f} → {after.input_tokens:.0f} input tokens")
    if before.steps is not None and after.steps is not None:
        facts.append(f"{before.steps:.1f} → {after.steps:.1f} calls a loop")
    return facts


def _unit(means: PerCall) -> str:
    return "call" if means.steps is None else "loop"


def _cost(total_usd: float, means: PerCall | None) -> str:
    """Nothing spent, and nobody knows, are two things."""
    unpriced = means is not None and means.cost_usd is None and means.output_tokens is not None
    return "the model has no known price" if unpriced else f"${total_usd:.6f} spent"


def _spent(means: PerCall, total_usd: float | None) -> str:
    facts = [] if total_usd is None else [_cost(total_usd, means)]
    if means.cost_usd is not None:
        facts.append(f"${means.cost_usd:.6f} a {_unit(means)}")
    if means.input_tokens is not None and means.output_tokens is not None:
        facts.append(f"{means.input_tokens:.0f} tokens in, {means.output_tokens:.0f} out")
    if means.latency_s is not None:
        facts.append(f"{means.latency_s:.2f} s")
    if means.steps is not None:
        facts.append(f"{means.steps:.1f} calls a loop")
    return " · ".join(facts)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
