"""Checks of the tools that an answer calls, against those the prompt declares or the case expects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tidegate.core.artifact import Tool
from tidegate.core.evaluation import ToolUse
from tidegate.evals.checks.check import Answer, Finding, Kind, Probe, as_share, graded, listed, quoted, unknowable
from tidegate.evals.checks.json_values import first_error, validator
from tidegate.evals.checks.text import several

CALLS = ("is-valid-function-call", "is-valid-openai-function-call", "is-valid-openai-tools-call")
"""Names of the check that calls are of declared tools."""


def _valid_call(value: Any) -> Probe:
    if value is not None:
        raise ValueError("takes no value: calls are held against the tools that the prompt declares")

    def probe(answer: Answer) -> Finding:
        if answer.artifact is None:
            return unknowable("which tools the prompt declares is not known here")
        calls = answer.said.tool_calls
        if not calls:
            return Finding(False, f"calls no tool: {quoted(answer.text)}")
        declared = {tool.name: tool for tool in answer.artifact.tools}
        wrong = next(filter(None, (_wrong(call, declared) for call in calls)), None)
        if wrong:
            return Finding(False, wrong)
        return Finding(True, f"calls {listed([call.name for call in calls])} as declared")

    return probe


def _tool_call_f1(value: Any, *, threshold: Any = 1.0) -> Probe:
    wanted, least = set(tool_names(value)), as_share(threshold)

    def probe(answer: Answer) -> Finding:
        called = {call.name for call in answer.said.tool_calls}
        score = 2 * len(called & wanted) / (len(called) + len(wanted))
        found = graded("tool-call F1", score, least)
        return Finding(
            found.holds, f"{found.fact}: expected {listed(sorted(wanted))}, called {listed(sorted(called))}", score
        )

    return probe


def tool_names(value: Any) -> list[str]:
    """Names of tools: a list, or a text with commas between them. Raises ValueError."""
    names = [name.strip() for name in several(value) if name.strip()]
    if not names:
        raise ValueError("needs at least one name of a tool")
    return names


def _wrong(call: ToolUse, declared: Mapping[str, Tool]) -> str | None:
    tool = declared.get(call.name)
    if tool is None:
        return f"calls {call.name!r}, which the prompt does not declare (it declares {listed(sorted(declared))})"
    if isinstance(call.arguments, str):
        return f"calls {call.name!r} with arguments that are not JSON: {quoted(call.arguments)}"
    try:
        broken = first_error(_parameters(json.dumps(tool.parameters)), call.arguments)
    except ValueError as error:
        return f"the parameters that the prompt declares for {call.name!r} are {error}"
    return f"calls {call.name!r}, but in its arguments {broken}" if broken else None


@lru_cache(maxsize=256)
def _parameters(schema: str) -> Any:
    return validator(json.loads(schema))


_DECLARED = Kind(
    _valid_call,
    "The answer calls a tool, and every call is of a declared tool with arguments that fit its schema.",
    "is-valid-function-call",
)
_SAME = "The same check under another of promptfoo's names."

KINDS: Mapping[str, Kind] = {
    CALLS[0]: _DECLARED,
    **{name: Kind(_valid_call, _SAME, name) for name in CALLS[1:]},
    "tool-call-f1": Kind(
        _tool_call_f1,
        "F1 of the names of tools called against those expected, in any order; at least 1.",
        {"tool-call-f1": ["lookup_order", "refund"], "threshold": 0.8},
        ("threshold",),
    ),
}
