"""Verdicts to write reports of: calm ones, and one in which every text is an attack."""

from __future__ import annotations

from tidegate.core.evaluation import (
    EXIT_CODES,
    CaseVerdict,
    CheckResult,
    GateReport,
    MetricVerdict,
    PerCall,
    Repeat,
    Run,
    Score,
    SliceVerdict,
    Verdict,
)
from tidegate.evals.reports.judged import Judged, Place

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> ![x](http://evil.test/x.png) [l](javascript:alert(1)) "
    "\u202eexe.gnp \x00\x1b[31m ]]> &amp; ``` ````` @admin #12 GH-7 owner/repo#3 www.evil.test https://evil.test | a | "
    "{{ 7*7 }} {% raw %} \ud800 \uffff\n::error file=a.py,line=1::forged\n##[error]forged\r\n"
    "::stop-commands::x\n</pre></details></textarea>--><!-- tidegate:gate other -->\n# heading\n\n- item\n</testcase>"
)
GOOD = '{"answer": "within 30 days", "needs_human": false}'
BAD = f"Hi there!\n\n{GOOD}"
CHANGES = {"broken": (3, 0), "fixed": (0, 3), "flaky": (3, 1), "same": (3, 3)}
RATE = MetricVerdict("pass-rate", 1.0, 0.9, -0.1, (-0.19, -0.01), 0.02, 0.8, "FAIL", "The pass rate fell.")
SCORE = MetricVerdict(
    "grounded", 4.2, 4.1, -0.1, (-0.22, 0.03), 0.15, 4.0, "INCONCLUSIVE", "It may have fallen.", (1.0, 5.0)
)


def run(number: int, results: list[Repeat]) -> Run:
    return Run(
        id=f"run-{number}",
        prompt="support/answer",
        version=number,
        digest=f"{number:064x}",
        suite_digest="c" * 64,
        golden_digest="d" * 64,
        started_at="2026-03-01T12:00:00.000000Z",
        finished_at="2026-03-01T12:00:09.000000Z",
        repeats=3,
        results=tuple(results),
        git_commit="1a2b3c4d",
        git_dirty=True,
    )


def judged(
    *kinds: str,
    verdict: Verdict = "FAIL",
    metrics: tuple[MetricVerdict, ...] = (RATE, SCORE),
    hostile: bool = False,
    ids: tuple[str, ...] = (),
    long: int = 1,
) -> Judged:
    """One prompt whose cases are of these kinds: a change, or `error` for a case without an answer."""
    text = HOSTILE if hostile else ""
    good, bad = (text, text + "!") if hostile else (GOOD, BAD * long)
    cases: list[CaseVerdict] = []
    after: list[Repeat] = []
    before: list[Repeat] = []
    for index, kind in enumerate(kinds):
        case_id = ids[index] if ids else f"case-{index}"
        was, now = CHANGES.get(kind, (3, 0))
        repeats = 0 if kind == "error" else 3
        reason = text or ("" if now == 3 else "is-json: is not JSON")
        cases.append(
            CaseVerdict(
                id=case_id,
                baseline_passed=was,
                candidate_passed=now,
                repeats=repeats,
                change="broken" if kind == "error" else kind,  # type: ignore[arg-type]
                reason=reason,
                output=good if now == 3 else bad,
                baseline_output=good if was == 3 else bad,
                baseline_repeats=3,
            )
        )
        for runs, passing in ((before, was), (after, now)):
            failed = kind == "error" and runs is after
            for repeat in range(3):
                good_one = repeat < passing
                check = CheckResult(text or "is-json", good_one, "" if good_one else text or "is not JSON")
                judge = Score(text or "grounded", 4.0 - repeat, None, text or "It repeats the context.")
                output = "" if failed else good if good_one else bad
                error = (text or "the provider is down") if failed else None
                scores = () if failed else (judge,)
                checks = () if failed else (check,)
                runs.append(
                    Repeat(case_id, repeat, output, checks, error, f"call-{repeat}", 5, 0.5, 9, 9, None, scores)
                )
    passed = sum(case.candidate_passed == case.repeats > 0 for case in cases)
    report = GateReport(
        prompt="support/answer",
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        reason=text or "is-json must pass, and it fails in all 3 repeats of 'case-0'.",
        baseline="v1",
        candidate="v2",
        candidate_digest=f"{2:064x}",
        metrics=metrics,
        cases=tuple(cases),
        mde=0.12,
        cost_usd=0.0032,
        run_id="run-2",
        baseline_run_id="run-1",
        passed_cases=passed,
        total_cases=len(cases),
        baseline_passed_cases=len(cases),
        diff=(f"@@ {text} @@", f"-{text}", f"+{text}") if hostile else ("@@ system message @@", "-brief", "+friendly"),
        per_call=PerCall(0.000141, 169.0, 48.0, 0.6),
        baseline_per_call=PerCall(0.000112, 150.0, 32.0, 0.5),
        slices=(
            SliceVerdict(text or "long", "pass-rate", 7, 0.9, 0.5, -0.4, (-0.6, -0.2), 0.01, worse=True),
            SliceVerdict("short", "grounded", 9, 4.1, 4.2, 0.1, (-0.2, 0.3), 0.8, worse=False, scale=(1.0, 5.0)),
        ),
        notes=(text or "the baseline v1 is main at 1a2b3c4d5e.",),
    )
    places = {case.id: Place("prompts/support/answer/golden.jsonl", line) for line, case in enumerate(cases, start=1)}
    return Judged(run(2, after), report, run(1, before), "prompts/support/answer/prompt.md", places)
