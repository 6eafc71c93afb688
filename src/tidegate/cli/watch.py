"""
Eval sessions as the command line runs them: one line before a run; while it lasts a bar on a terminal, and elsewhere a
line now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tidegate import compose
from tidegate.cli import simulated
from tidegate.cli.output import err, out
from tidegate.config import Project
from tidegate.core.errors import Unusable
from tidegate.core.ledger import Version
from tidegate.evals.batch import BatchProgress
from tidegate.evals.journal import Journals
from tidegate.evals.judges.memory import JudgementFile
from tidegate.evals.report import plan_line
from tidegate.evals.runner import Progress
from tidegate.evals.runs import Parts
from tidegate.evals.said import percent
from tidegate.evals.session import Session
from tidegate.evals.suite import Suite
from tidegate.evals.watcher import Planned, Resumed, Watcher
from tidegate.ports import BatchCaller, Caller, PromptRegistry
from tidegate.prompts.git import git_state
from tidegate.prompts.registry import Registry
from tidegate.prompts.remote import RemoteRegistry
from tidegate.prompts.render import render
from tidegate.system import SystemClock, SystemRandom
from tidegate.upstream.lint import Serving, require_models

T = TypeVar("T")
Calling = tuple[Caller, BatchCaller | None]
SHOWN_AFTER_S = 1.0
FIRST_LINE_S = 15.0
LONGEST_LINE_S = 300.0


class TerminalWatcher(Watcher):
    """Shows a session's progress; `quiet` (for --json) shows only the bar. Use it as a context manager."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.bar = Bar(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(compact=True),
            console=err,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.said_at = time.monotonic()
        self.line_s = FIRST_LINE_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.bar.live.is_started:
            self.bar.stop()

    def planned(self, planned: Planned) -> None:
        """Prints the plan, and shows the bar when the run lasts."""
        if not self.quiet:
            out.print(plan_line(planned))
        rival = planned.baseline if planned.baseline and not planned.baseline_stored else planned.candidate
        for version in dict.fromkeys((rival.name, planned.candidate.name)):
            total = planned.cases * planned.repeats
            self.tasks[version] = self.bar.add_task(version, total=total, said="")
        if err.is_terminal and self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(SHOWN_AFTER_S, self.bar.start)

    def resumed(self, resumed: Resumed) -> None:
        """Says what need not be paid for again."""
        if not self.quiet:
            when = resumed.started_at[:16].replace("T", " ")
            there = f"{resumed.calls:,} of {resumed.total:,} calls of {resumed.version.name} were there"
            out.print(f"  [dim]resumed: {there}, ${resumed.cost_nano_usd / 1e9:.6f}, begun {when} UTC[/dim]")

    def progressed(self, progress: Progress) -> None:
        """Moves the bar of this run; without a terminal a line says the same, every 15 s and twice as seldom later."""
        now = time.monotonic()
        if err.is_terminal:
            task = self.tasks[progress.version.name]
            self.bar.update(task, total=progress.total, completed=progress.done, said=_so_far(progress))
        elif not self.quiet and now - self.said_at >= self.line_s:
            self.said_at, self.line_s = now, min(2 * self.line_s, LONGEST_LINE_S)
            err.print(f"  {progress.version.name}  {progress.done:,}/{progress.total:,}  {_so_far(progress)}")

    def batched(self, version: Version, progress: BatchProgress) -> None:
        """Says how far the provider is with a batch: on a terminal in the bar, elsewhere in lines."""
        counts = f"{progress.done:,} answered" + (f", {progress.failed:,} failed" if progress.failed else "")
        again = "again " if progress.resumed else ""
        said = f"batch {again}· {counts} · {_clock(progress.waited_s)}"
        now = time.monotonic()
        if err.is_terminal:
            self.bar.update(self.tasks[version.name], said=said)
        elif not self.quiet and (progress.news or now - self.said_at >= self.line_s):
            self.said_at, self.line_s = now, min(2 * self.line_s, LONGEST_LINE_S)
            err.print(f"  {version.name}  {said}, of {progress.total:,}")

    def rechecking(self, cases: int, repeats: int) -> None:
        """Says what is tried again."""
        if not self.quiet:
            what = f"{cases} {'case' if cases == 1 else 'cases'} that must pass"
            out.print(f"  [dim]trying {what} again, {repeats} times on both sides: a slip or a break?[/dim]")

    def more_repeats(self, repeats: int) -> None:
        """Says why it goes on."""
        if not self.quiet:
            out.print(f"  [dim]not clear yet: buying repeats, up to {repeats} a case[/dim]")


def _clock(seconds: float) -> str:
    """`1:05:09`, `5:09`."""
    hours, rest = divmod(int(seconds), 3_600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _so_far(progress: Progress) -> str:
    """`98.3% pass · 2 errors · $0.012345 · 8 at once`."""
    answered = progress.done - progress.errors
    parts = [f"{percent(progress.passed / answered)} pass"] if answered else []
    if progress.errors:
        parts.append(f"{progress.errors:,} error{'' if progress.errors == 1 else 's'}")
    return " · ".join([*parts, f"${progress.cost_nano_usd / 1e9:.6f}", f"{progress.concurrency} at once"])


def session(
    project: Project,
    registry: PromptRegistry,
    caller: Caller,
    watcher: Watcher,
    *,
    fresh: bool = False,
    batches: BatchCaller | None = None,
) -> Session:
    """
    A session of `project` that notes the commit it ran at.

    `fresh`: nothing of an interrupted run is used. `batches`: cases are called through them.
    """
    state = git_state(project.root)
    clock = SystemClock()
    parts = Parts(
        registry,
        caller,
        clock,
        SystemRandom(),
        watcher,
        git_commit=state.commit if state else None,
        git_dirty=state.dirty if state else None,
        judgements=JudgementFile(project.state / "judgements.jsonl"),
        journals=Journals(project.state / "runs", clock, fresh=fresh),
        batches=batches,
    )
    return Session(parts, render)


@asynccontextmanager
async def calling(project: Project, registry: Registry | RemoteRegistry, *, batch: bool) -> AsyncIterator[Calling]:
    """What makes calls, and what makes them in batches where that is asked for. Raises BadInput, Unusable."""
    async with simulated.started(project) as there, compose.caller(there, registry) as caller:
        if not batch:
            yield caller, None
            return
        async with compose.batches(there, registry) as batches:
            yield caller, batches


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end. Raises Unusable when it is interrupted: no verdict, and nothing paid for is lost."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise Unusable(
            "interrupted, so there is no verdict. What was answered is kept for 3 days: the same command goes on from "
            "there, and with --fresh it starts anew."
        ) from None


def require_judges(suite: Suite, serving: Serving) -> None:
    """Raises InvalidFile, with file:line, when nobody in `serving` has the model of one of a suite's judges."""
    for juror in (juror for judge in suite.judges for juror in judge.jurors):
        require_models(juror.file.front, juror.artifact, serving)
