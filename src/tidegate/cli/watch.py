"""Eval sessions as the command line runs them: one line before a run, and a bar while it lasts on a terminal."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from tidegate.cli.output import err, out
from tidegate.config import Project
from tidegate.evals.judges.memory import JudgementFile
from tidegate.evals.report import plan_line
from tidegate.evals.runner import Progress
from tidegate.evals.session import Planned, Session, Watcher
from tidegate.evals.suite import Suite
from tidegate.ports import Caller, PromptRegistry
from tidegate.prompts.git import git_state
from tidegate.prompts.render import render
from tidegate.system import SystemClock, SystemRandom
from tidegate.upstream.lint import Serving, require_models

SHOWN_AFTER_S = 1.0


class TerminalWatcher(Watcher):
    """Shows a session's progress; `quiet` (for --json) shows only the bar. Use it as a context manager."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.bar = Bar(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[passed]} passed · ${task.fields[cost]:.6f}"),
            TimeElapsedColumn(),
            console=err,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.bar.live.is_started:
            self.bar.stop()
        if kind is asyncio.CancelledError:
            err.print("tidegate: interrupted; the run under way was not stored.")

    def planned(self, planned: Planned) -> None:
        """Prints the plan, and shows the bar when the run lasts."""
        if not self.quiet:
            out.print(plan_line(planned))
        rival = planned.baseline if planned.baseline and not planned.baseline_stored else planned.candidate
        for version in dict.fromkeys((rival.name, planned.candidate.name)):
            total = planned.cases * planned.repeats
            self.tasks[version] = self.bar.add_task(version, total=total, passed=0, cost=0.0)
        if err.is_terminal and self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(SHOWN_AFTER_S, self.bar.start)

    def progressed(self, progress: Progress) -> None:
        """Moves the bar of this run."""
        self.bar.update(
            self.tasks[progress.version.name],
            total=progress.total,
            completed=progress.done,
            passed=progress.passed,
            cost=progress.cost_nano_usd / 1e9,
        )

    def more_repeats(self, repeats: int) -> None:
        """Says why it goes on."""
        if not self.quiet:
            out.print(f"  [dim]not clear yet: buying repeats, up to {repeats} a case[/dim]")


def session(project: Project, registry: PromptRegistry, caller: Caller, watcher: Watcher) -> Session:
    """A session of `project` that notes the commit it ran at."""
    state = git_state(project.root)
    return Session(
        registry,
        caller,
        render,
        SystemClock(),
        SystemRandom(),
        watcher,
        git_commit=state.commit if state else None,
        git_dirty=state.dirty if state else None,
        judgements=JudgementFile(project.state / "judgements.jsonl"),
    )


def require_judges(suite: Suite, serving: Serving) -> None:
    """Raises InvalidFile, with file:line, when nobody in `serving` has the model of one of a suite's judges."""
    for juror in (juror for judge in suite.judges for juror in judge.jurors):
        require_models(juror.file.front, juror.artifact, serving)
