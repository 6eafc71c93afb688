"""What a list of runs shows of each: one line, without the answers. Values only; evals/summary.py makes summaries."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidegate.core.evaluation import Verdict

RunKind = Literal["gate", "eval", "calibration"]
SUMMARY_FORMAT = 1
"""Of a stored summary; one of another format is made anew from the run."""


class Figure(msgspec.Struct, frozen=True):
    """One metric of one run, by itself."""

    name: str
    """`pass-rate`, a judge's name, or `kappa` of a calibration."""
    value: float | None
    low: float | None
    high: float | None
    """Ends of the two-sided 95 % interval; None where the data can not say."""
    n: int
    """What the interval counts: cases, clusters of cases as one; of a calibration labels."""
    missing: int = 0
    """Answers of which the metric knows nothing: errors, and judges without a verdict."""
    scale: tuple[float, float] = (0.0, 1.0)


class RunSummary(msgspec.Struct, frozen=True):
    """A run in figures. It follows from the run, which never changes, and from nothing else."""

    kind: RunKind
    cases: int
    passed: int
    """Cases that passed in every answered repeat."""
    answers: int
    errors: int
    figures: tuple[Figure, ...]
    """The pass rate first, then the judges in the suite's order; of a calibration `kappa` alone."""
    reason: str
    """The gate's sentence; empty where no gate judged it."""
    baseline: str | None
    """`v1`, as the gate's report calls it."""
    cost_nano_usd: int | None
    """Of its own answers and judgements; None when something has no known price."""

    def figure(self, name: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.name == name), None)


class RunLine(msgspec.Struct, frozen=True):
    """A stored run without its answers and without its report."""

    id: str
    prompt: str
    version: int | None
    digest: str
    suite_digest: str
    golden_digest: str
    started_at: str
    finished_at: str
    repeats: int
    verdict: Verdict | None
    baseline_run_id: str | None
    git_commit: str | None
    git_dirty: bool | None
    summary: RunSummary | None = None
    """None until somebody has made it."""


class RunFilter(msgspec.Struct, frozen=True):
    """Which runs are looked for; None means any."""

    prompt: str | None = None
    version: int | None = None
    verdict: Verdict | None = None
    kind: RunKind | None = None
    """Runs without a verdict are calibrations where their prompt is a judge's, and else evals."""
    since: str | None = None
    """UTC, as runs write it: those that began then or later."""
    suite_digest: str | None = None
    """Of calibrations the judge's digest."""
