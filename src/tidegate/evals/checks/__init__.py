"""
Deterministic checks of one answer, in promptfoo's names and with its meaning.

One file per concept, one `Kind` per type; this one puts them together. Nothing here reads a file or runs user code;
patterns are RE2 (linear time), schemas never fetch anything, XML expands no entities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.core.errors import nearest
from tidegate.evals.checks import amounts, json_values, markup, refusal, similarity, sql, text, tools, trajectory
from tidegate.evals.checks.check import (
    MAX_REASON,
    NOT,
    Answer,
    Check,
    Finding,
    Kind,
    as_number,
    as_share,
    clip,
)

__all__ = [
    "ABSENT",
    "KINDS",
    "MAX_REASON",
    "NOT",
    "SET",
    "Check",
    "Kind",
    "build",
    "clip",
    "combined",
    "known",
    "weight",
]

SET = "assert-set"

KINDS: Mapping[str, Kind] = {
    **text.KINDS,
    **json_values.KINDS,
    **markup.KINDS,
    **sql.KINDS,
    **amounts.KINDS,
    **similarity.KINDS,
    **refusal.KINDS,
    **tools.KINDS,
    **trajectory.KINDS,
}

_CODE = "it runs code, or calls an address, to judge an answer; that is done nowhere here"
_SPANS = "it looks at spans of a trace, which are not recorded here"
_JUDGED = "a model judges it: write a judge, and name it under `judges:`"
_COMPARES = "it compares the answers of several prompts, or asks a person; a check sees one answer"
ABSENT: Mapping[str, str] = {
    **dict.fromkeys(("javascript", "python", "ruby", "webhook"), _CODE),
    **dict.fromkeys(("skill-used", "trace-span-count", "trace-span-duration", "trace-error-spans"), _SPANS),
    **dict.fromkeys(("similar", "similar:cosine", "similar:dot", "similar:euclidean", "classifier"), _JUDGED),
    **dict.fromkeys(("moderation", "llm-rubric", "search-rubric", "agent-rubric", "g-eval", "factuality"), _JUDGED),
    **dict.fromkeys(("model-graded-factuality", "model-graded-closedqa", "answer-relevance"), _JUDGED),
    **dict.fromkeys(("context-faithfulness", "context-recall", "context-relevance"), _JUDGED),
    **dict.fromkeys(("conversation-relevance", "trajectory:goal-success", "pi"), _JUDGED),
    **dict.fromkeys(("select-best", "max-score", "human"), _COMPARES),
}
"""promptfoo's types that are no checks here → why not."""


def build(name: str, type: str, value: Any, options: Mapping[str, Any] | None = None) -> Check:  # noqa: A002 – the users' word
    """The check `type` with its `value` and what stands beside it. Raises ValueError with one sentence."""
    kind = KINDS[type.removeprefix(NOT)]
    beside = dict(options or {})
    heavy = weight(beside.pop("weight", 1.0))
    for option in beside:
        if option not in kind.options:
            may = [*kind.options, "weight"]
            raise ValueError(f"beside {type!r} may stand {' and '.join(may)}, not {option!r}.{nearest(option, may)}")
    return Check(name, type, kind.make(value, **beside), heavy, kind.needs_logprobs)


def combined(name: str, checks: Sequence[Check], options: Mapping[str, Any]) -> Check:
    """
    Several checks as one. With a `threshold` their weighted mean has to reach it; without, each has to pass.

    Raises ValueError with one sentence.
    """
    for option in options:
        if option not in ("threshold", "weight"):
            raise ValueError(f"beside {SET!r} may stand threshold and weight, not {option!r}")
    threshold = as_share(options["threshold"]) if "threshold" in options else None

    def probe(answer: Answer) -> Finding:
        results = [check.judge(answer.said, answer.artifact) for check in checks]
        total = sum(result.weight for result in results)
        mean = sum(result.weight * result.graded for result in results) / total if total else 0.0
        failed = [result for result in results if not result.passed and result.weight > 0]
        holds = not failed if threshold is None else mean >= threshold - 1e-9
        least = "" if threshold is None else f", under {threshold:g}"
        why = "; ".join(f"{result.name} {result.reason}" for result in failed)
        return Finding(holds, f"{len(failed)} of {len(results)} fail, mean {mean:.2f}{least}: {why}", mean)

    heavy = weight(options.get("weight", 1.0))
    return Check(name, SET, probe, heavy, any(check.needs_logprobs for check in checks))


def weight(value: Any) -> float:
    """Raises ValueError."""
    if isinstance(value, str):
        raise ValueError(f"weight is a number, not {value!r}")
    return as_number(value, "weight")


def known(type: str) -> str | None:  # noqa: A002
    """None when `type` names a check; else what is wrong with it, with the nearest name."""
    base = type.removeprefix(NOT)
    if base in KINDS or type == SET:
        return None
    if base in ABSENT:
        return f"{type!r} is no check: {ABSENT[base]}."
    if base == SET:
        return f"{SET!r} has no `not-` form; put `not-` before the checks in it."
    return f"no check is called {type!r}.{nearest(type, [*KINDS, SET, *(NOT + kind for kind in KINDS)])}"
