"""What a run says by itself: which version it is of, how many cases pass, what a call costs, why an answer failed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from tidegate.core.evaluation import PerCall, Repeat, Run, ToolUse

MAX_ERROR_SHARE = 0.02
UNDECIDED = "Nothing decides whether an answer passes: no check has a weight, and no judge a verdict."
AGAIN = "the same command makes only the failed ones again"
SHARE = (0.0, 1.0)
"""The scale of what is said in percent, and its changes in points: pass rates, and judges that give a share."""


def usable(run: Run) -> bool:
    """False when more than 2 % of the calls ended in errors."""
    errors = sum(result.error is not None for result in run.results)
    return bool(run.results) and errors <= MAX_ERROR_SHARE * len(run.results)


def kinds(run: Run) -> str:
    """Of a run's errors, the commonest first: `2 rate_limit_exceeded, 1 upstream_timeout`; empty where nobody said."""
    counts = Counter(result.error_kind for result in run.results if result.error_kind is not None)
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def label(run: Run) -> str:
    """`v2`, or the digest's beginning where the registry has given no number."""
    return run.digest[:12] if run.version is None else f"v{run.version}"


def by_case(results: Iterable[Repeat], *, answered: bool = False) -> dict[str, list[Repeat]]:
    """Case id → its repeats; with `answered` only those without an error, and the cases that have one."""
    found: dict[str, list[Repeat]] = defaultdict(list)
    for result in results:
        if result.error is None or not answered:
            found[result.case_id].append(result)
    return found


def passed_cases(run: Run) -> int:
    """Cases that passed in every answered repeat."""
    return sum(all(result.passed for result in results) for results in by_case(run.results, answered=True).values())


def undecided_cases(run: Run) -> int:
    """Cases with answers of which nothing says whether they pass; `passed_cases` has them too."""
    answered = by_case(run.results, answered=True).values()
    return sum(not any(result.decided for result in results) for results in answered)


def passing(run: Run) -> str:
    """How many cases of a run pass, as a sentence."""
    total, undecided = len(by_case(run.results)), undecided_cases(run)
    if undecided == total > 0:
        return UNDECIDED
    said = f"{passed_cases(run) - undecided} of {total - undecided} cases pass in every repeat"
    return f"{said}, and nothing decides about {undecided}." if undecided else f"{said}."


def per_call(run: Run) -> PerCall:
    """Means over the run's answered calls."""
    answered = [result for result in run.results if result.error is None]
    cost = _mean([result.cost_nano_usd for result in answered])
    return PerCall(
        cost_usd=None if cost is None else cost / 1e9,
        input_tokens=_mean([result.input_tokens for result in answered]),
        output_tokens=_mean([result.output_tokens for result in answered]),
        latency_s=_mean([result.latency_s for result in answered]),
        steps=_mean([len(result.call_ids) or None for result in answered]),
    )


def because(result: Repeat) -> str:
    """Why a repeat did not pass, in one sentence; empty when it passed."""
    if result.error is not None:
        return f"error: {result.error}"
    failed = [("agent", result.unfinished)] if result.unfinished is not None else []
    failed += [(check.name, check.reason) for check in result.checks if not check.passed and check.weight > 0]
    failed += [(score.name, score.reason) for score in result.scores if score.passed is False]
    return "" if result.passed else "; ".join(f"{name}: {reason}" for name, reason in failed)


def way(calls: Iterable[ToolUse]) -> tuple[tuple[str, str, str | None], ...]:
    """(tool, its arguments as text, what it gave back) of every tool call."""
    return tuple((use.name, _written(use.arguments), use.result) for use in calls)


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def percent(share: float) -> str:
    """`100%`, `66.7%`."""
    return f"{share:.1%}".replace(".0%", "%")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
