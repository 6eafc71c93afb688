"""Values of evals: checks' results, runs, and the gate's verdict."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "UNUSABLE"]
EXIT_CODES: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2, "UNUSABLE": 3}


class CheckResult(msgspec.Struct, frozen=True):
    """What one check said of one answer."""

    name: str
    """The check's type (`is-json`), numbered when a suite holds several of one type (`contains#2`)."""
    passed: bool
    reason: str
    """Empty when it passed; else one sentence."""
    score: float | None = None
    """0 to 1, of a check that grades (`rouge-n`); None: 1 when it passed, else 0."""
    weight: float = 1.0
    """In the case's weighted mean, where the case has a threshold; 0: reported, and decides nothing."""

    @property
    def graded(self) -> float:
        return float(self.passed) if self.score is None else self.score


class Score(msgspec.Struct, frozen=True):
    """What one judge said of one answer."""

    name: str
    """The judge's name in the suite."""
    value: float | None
    """On the judge's own scale (1 to 5, 0 to 1); None when it is unscored: that is never a bad score."""
    passed: bool | None
    """None where the judge has no `pass_at`, or gave no verdict."""
    reason: str
    """The judge's reason, or why there is no verdict."""
    cost_nano_usd: int | None = None
    call_ids: tuple[str, ...] = ()
    applicable: bool = True
    """False where there is nothing to judge (no claims, no context): unscored, counted, and nobody's error."""
    parts: tuple[float | None, ...] = ()
    """What each call said: juror by juror, vote by vote; of a pairwise judge both orders, one after the other."""


class ToolUse(msgspec.Struct, frozen=True):
    """One tool call of an answer, and what the case's script gave back."""

    name: str
    arguments: Any
    """As parsed; the text itself when it is not JSON."""
    id: str = ""
    result: str | None = None
    """What the model read of it; None where it was not called again."""


class Repeat(msgspec.Struct, frozen=True):
    """One call for one case: its answer and what the checks said, or the error that kept it from being scored."""

    case_id: str
    repeat: int
    output: str
    checks: tuple[CheckResult, ...] = ()
    error: str | None = None
    """Set when there was no answer to score: a third outcome, neither pass nor fail."""
    call_id: str | None = None
    cost_nano_usd: int | None = None
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    threshold: float | None = None
    """With one, the weighted mean of the checks' scores has to reach it; without, every check has to pass."""
    scores: tuple[Score, ...] = ()
    tool_calls: tuple[ToolUse, ...] = ()
    """Of the whole loop, in order."""
    error_kind: str | None = None
    """Of an error: `rate_limit_exceeded`, `upstream_timeout` …, as in core/errors.py or as the provider calls it."""
    call_ids: tuple[str, ...] = ()
    """Of an agent's loop: every call's, in order; `call_id` is the last of them. Empty of a single call."""
    unfinished: str | None = None
    """Why an agent's loop was ended before it was done: the repeat fails, whatever its checks say, and is no error."""

    @property
    def passed(self) -> bool:
        done = self.error is None and self.unfinished is None
        return done and self._checked() and all(score.passed is not False for score in self.scores)

    @property
    def decided(self) -> bool:
        """Whether anything says if it passes; where nothing does, `passed` only says that nothing is against it."""
        said = any(check.weight > 0 for check in self.checks) or any(score.passed is not None for score in self.scores)
        return said or not self.passed

    def _checked(self) -> bool:
        counted = [check for check in self.checks if check.weight > 0]
        if self.threshold is None:
            return all(check.passed for check in counted)
        total = sum(check.weight for check in counted)
        mean = sum(check.weight * check.graded for check in counted) / total if total else 0.0
        return mean >= self.threshold - 1e-9


class Run(msgspec.Struct, frozen=True):
    """One stored run of a suite against one version."""

    id: str
    prompt: str
    version: int | None
    digest: str
    suite_digest: str
    golden_digest: str
    started_at: str
    finished_at: str
    repeats: int
    results: tuple[Repeat, ...]
    gate: dict[str, Any] | None = None
    """The gate report this run was judged by (`GateReport` as plain values), or None for a mere eval."""
    verdict: Verdict | None = None
    baseline_run_id: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None


class MetricVerdict(msgspec.Struct, frozen=True):
    """One gating metric: candidate against baseline, on the same cases."""

    name: str
    baseline: float | None
    candidate: float
    delta: float | None
    interval: tuple[float, float] | None
    """Two-sided (1 − 2α) confidence interval of `delta`; None without a baseline of another version."""
    margin: float | None
    floor: float | None
    verdict: Verdict
    reason: str
    scale: tuple[float, float] = (0.0, 1.0)
    """Where its values lie: 0 to 1 for shares; a judge's own scale, in which margin and floor are written too."""
    cases: int = 0
    """With a value from both versions; from the candidate alone where there is no baseline."""
    missing: int = 0
    """Answers, of both versions, of which the metric knows nothing: errors, and judges without a verdict."""
    candidate_interval: tuple[float, float] | None = None
    """Two-sided (1 − 2α) confidence interval of `candidate`, for questions like these; floors do not ask for it."""


class SliceVerdict(msgspec.Struct, frozen=True):
    """One tag's cases by one metric. It points to where a change hurts, and decides nothing."""

    tag: str
    metric: str
    cases: int
    baseline: float
    candidate: float
    delta: float
    interval: tuple[float, float]
    p_worse: float
    """Mid-p of "nothing changed" against "worse", adjusted for all slices (Benjamini–Hochberg)."""
    worse: bool
    """`p_worse` is at most α."""
    scale: tuple[float, float] = (0.0, 1.0)


class CaseVerdict(msgspec.Struct, frozen=True):
    """One case under both versions. `change`: fixed, broken, flaky, same, new."""

    id: str
    baseline_passed: int | None
    candidate_passed: int
    repeats: int
    change: Literal["fixed", "broken", "flaky", "same", "new"]
    reason: str
    output: str
    """The candidate's answer of the first failing repeat, else of the first."""
    baseline_output: str | None = None
    baseline_repeats: int | None = None
    """Repeats with an answer; `repeats` is the candidate's count of them."""
    steps: tuple[ToolUse, ...] = ()
    """The tool calls on the way to `output`, and what they gave back."""
    baseline_steps: tuple[ToolUse, ...] = ()
    """Likewise to `baseline_output`."""


class Recheck(msgspec.Struct, frozen=True):
    """A check that must pass, and broke in one case, tried again on both sides; these repeats are in no other count."""

    case_id: str
    check: str
    candidate_passed: int
    repeats: int
    """With an answer, of the candidate."""
    baseline_passed: int
    baseline_repeats: int


class PerCall(msgspec.Struct, frozen=True):
    """Means over the calls of one run, of an agent over its whole loops; None where no call said."""

    cost_usd: float | None
    input_tokens: float | None
    output_tokens: float | None
    latency_s: float | None
    steps: float | None = None
    """Calls of an agent's loop; None where there is no loop."""


class GateReport(msgspec.Struct, frozen=True):
    """The verdict and everything needed to understand it; `gate --json` prints this."""

    prompt: str
    verdict: Verdict
    exit_code: int
    reason: str
    """One sentence a tired person understands."""
    baseline: str | None
    """`v1`, or None when only floors apply."""
    candidate: str
    candidate_digest: str
    metrics: tuple[MetricVerdict, ...]
    cases: tuple[CaseVerdict, ...]
    mde: float | None
    """Minimum detectable drop of the pass rate with these cases and repeats (α = 0.05, power 0.8)."""
    cost_usd: float
    run_id: str
    baseline_run_id: str | None = None
    passed_cases: int = 0
    total_cases: int = 0
    baseline_passed_cases: int | None = None
    diff: tuple[str, ...] = ()
    """The prompt's diff, as lines of a unified diff."""
    per_call: PerCall | None = None
    baseline_per_call: PerCall | None = None
    slices: tuple[SliceVerdict, ...] = ()
    """Each gating metric by each tag of two cases or more; empty without another version to compare with."""
    alpha: float = 0.05
    """One-sided error of the verdict at this look; intervals are two-sided at 1 − 2α."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the verdict, a sentence each: where the baseline is from, a suite that changed."""
    rechecks: tuple[Recheck, ...] = ()


class GateReports(msgspec.Struct, frozen=True):
    """What `gate --json` prints of several prompts."""

    verdict: Verdict
    """The worst of them."""
    exit_code: int
    reports: tuple[GateReport, ...]
