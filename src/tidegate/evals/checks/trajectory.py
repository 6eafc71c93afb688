"""
Checks of the way to an answer: which tools were called, with what, in which order, in how many steps.

A trajectory is the tool calls of the whole loop, then the answer itself. Names are matched as promptfoo does: whole,
whatever the case of letters, with `*` and `?`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import re2

from tidegate.core.evaluation import ToolUse
from tidegate.evals.checks.amounts import bounds
from tidegate.evals.checks.check import Answer, Finding, Kind, Probe, as_map, listed, partly, quoted, same

STEPS = ("tool", "message")
SPANS = ("command", "reasoning", "search", "span")
MODES = ("in_order", "exact")
_NAME = ("name", "pattern")


@dataclass(frozen=True, slots=True)
class Matcher:
    """A name, or a pattern of names."""

    shown: str
    matches: Callable[[str], bool]


def _tool_used(value: Any) -> Probe:
    if isinstance(value, dict):
        return _used_times(value)
    matchers = [_matcher(name) for name in ([value] if isinstance(value, str) else value or [])]
    if not matchers:
        raise ValueError("takes the name of a tool, a list of names, or {name: …, min: N, max: N}")

    def probe(answer: Answer) -> Finding:
        names = _names(answer)
        used = [one.shown for one in matchers if any(map(one.matches, names))]
        missing = [one.shown for one in matchers if one.shown not in used]
        never = f", but never {listed(missing)}" if missing else ""
        # The opposite of "all of them" is "none of them" here.
        return Finding(not missing, f"called {listed(names)}{never}", opposite=not used)

    return probe


def _used_times(value: Mapping[str, Any]) -> Probe:
    given = as_map(value, "a name", (*_NAME, "type", "min", "max"))
    matcher = _tool(given)
    least, most = bounds({"min": 0 if given.get("max") == 0 else 1, **_limits(given)})

    def probe(answer: Answer) -> Finding:
        names = _names(answer)
        times = sum(map(matcher.matches, names))
        holds = times >= least and (most is None or times <= most)
        return Finding(holds, f"called {matcher.shown} {_times(times)}, {_range(least, most)}; in all: {listed(names)}")

    return probe


def _tool_sequence(value: Any) -> Probe:
    if isinstance(value, dict):
        given = as_map(value, "a list of tools", ("mode", "steps"))
        mode, steps = given.get("mode", "in_order"), given.get("steps")
    else:
        mode, steps = "in_order", value
    if mode not in MODES:
        raise ValueError(f"mode is {' or '.join(MODES)}, not {mode!r}")
    if not isinstance(steps, list) or not steps:
        raise ValueError("takes a list of tools, or {mode: exact, steps: [tool, …]}")
    matchers = [_tool(step) if isinstance(step, dict) else _matcher(step) for step in steps]
    wanted = [one.shown for one in matchers]

    def probe(answer: Answer) -> Finding:
        names = _names(answer)
        called = f"called {listed(names)}"
        if mode == "exact":
            holds = len(names) == len(matchers) and all(
                one.matches(name) for one, name in zip(matchers, names, strict=True)
            )
            return Finding(holds, f"{called}, {'as' if holds else 'not exactly'} {listed(wanted)}")
        at = 0
        for name in names:
            at += at < len(matchers) and matchers[at].matches(name)
        if at == len(matchers):
            return Finding(True, f"{called}, with {listed(wanted)} in this order")
        return Finding(False, f"{called}: {wanted[at]} did not come in its turn, number {at + 1} of {listed(wanted)}")

    return probe


def _tool_args_match(value: Any) -> Probe:
    given = as_map(value, "{name: …, args: …}", (*_NAME, "type", "args", "arguments", "mode", "defaults", "ignore"))
    matcher = _tool(given)
    if "args" not in given and "arguments" not in given:
        raise ValueError("needs args: what the tool is to be called with")
    wanted = given["args"] if "args" in given else given["arguments"]
    mode, defaults = given.get("mode", "partial"), given.get("defaults", {})
    if mode not in ("partial", "exact"):
        raise ValueError(f"mode is partial or exact, not {mode!r}")
    if not isinstance(defaults, dict):
        raise ValueError("defaults is a map of arguments and the values that may be left unsaid")
    ignored = _ignored(given.get("ignore", []))
    fits = same if mode == "exact" else partly
    wanted = _without(wanted, ignored)

    def probe(answer: Answer) -> Finding:
        calls = [call for call in answer.said.tool_calls if matcher.matches(call.name)]
        if not calls:
            return Finding(False, f"never called {matcher.shown}; it called {listed(_names(answer))}")
        for call in calls:
            said = _without(call.arguments, ignored)
            if isinstance(said, dict):
                said = {key: one for key, one in said.items() if key not in defaults or not same(one, defaults[key])}
            if fits(said, wanted):
                return Finding(True, f"called {call.name} with {_shown(call)}")
        return Finding(False, f"called {matcher.shown} with {_shown(calls[0])}{_more(calls)}, not with {_json(wanted)}")

    return probe


def _step_count(value: Any) -> Probe:
    given = as_map(value, "{max: N}, {min: N} or both", (*_NAME, "type", "min", "max"))
    least, most = bounds(_limits(given))
    named = given.get("pattern") or given.get("name")
    matcher = _matcher(named) if named is not None else None
    types = _types(given.get("type", list(STEPS)))

    def probe(answer: Answer) -> Finding:
        steps = _names(answer) if "tool" in types else []
        if "message" in types and answer.text:
            steps = [*steps, "message"]
        count = sum(map(matcher.matches, steps)) if matcher else len(steps)
        holds = count >= least and (most is None or count <= most)
        return Finding(
            holds, f"took {count} {'step' if count == 1 else 'steps'}, {_range(least, most)}: {listed(steps)}"
        )

    return probe


def _names(answer: Answer) -> list[str]:
    return [call.name for call in answer.said.tool_calls]


def _limits(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: given[key] for key in ("min", "max") if key in given}


def _tool(given: Mapping[str, Any]) -> Matcher:
    if given.get("type", "tool") not in ("tool", ["tool"]):
        raise ValueError(f"looks at tools alone, not at steps of the type {given['type']!r}")
    name = given.get("pattern") or given.get("name")
    if name is None:
        raise ValueError("needs the name of a tool: {name: lookup_order}")
    return _matcher(name)


def _matcher(name: Any) -> Matcher:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"the name of a tool is a text, not {name!r}")
    return Matcher(name, _glob(name))


def _glob(pattern: str) -> Callable[[str], bool]:
    parts = {"*": ".*", "?": "."}
    compiled = re2.compile("(?is)" + "".join(parts.get(char) or re2.escape(char) for char in pattern))
    return lambda name: compiled.fullmatch(name) is not None


def _types(value: Any) -> list[str]:
    types = value if isinstance(value, list) else [value]
    for one in types:
        if one in SPANS:
            raise ValueError(
                f"steps of the type {one!r} come from traces, which are not recorded here; count tool and message"
            )
        if one not in STEPS:
            raise ValueError(f"a step is of the type tool or message, not {one!r}")
    return types


def _ignored(value: Any) -> Callable[[str], bool]:
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError("ignore is the name of an argument, or a list of names")
    globs = [_glob(name) for name in names if "*" in name or "?" in name]
    return lambda key: key in names or any(glob(key) for glob in globs)


def _without(value: Any, ignored: Callable[[str], bool]) -> Any:
    return {key: one for key, one in value.items() if not ignored(key)} if isinstance(value, dict) else value


def _shown(call: ToolUse) -> str:
    return _json(call.arguments)


def _json(value: Any) -> str:
    return quoted(json.dumps(value, ensure_ascii=False), 80)


def _more(calls: list[ToolUse]) -> str:
    return f" (and {len(calls) - 1} more times)" if len(calls) > 1 else ""


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _range(least: int, most: int | None) -> str:
    if most is None:
        return f"{least} or more wanted"
    return f"{least} wanted" if least == most else f"{least} to {most} wanted"


KINDS: Mapping[str, Kind] = {
    "trajectory:tool-used": Kind(
        _tool_used,
        "These tools were called; `{name: …, min: N, max: N}` counts. `not-`: none of them was.",
        {"trajectory:tool-used": ["lookup_order", "refund"]},
    ),
    "trajectory:tool-args-match": Kind(
        _tool_args_match,
        "A tool was called with these arguments. `mode: partial` (or `exact`); an argument that equals its value under "
        "`defaults` counts as unsaid; those named by `ignore` do not count.",
        {
            "trajectory:tool-args-match": {
                "name": "lookup_order",
                "args": {"id": "{{ expected.order }}"},
                "mode": "exact",
                "defaults": {"limit": 10},
                "ignore": ["trace_*"],
            }
        },
    ),
    "trajectory:tool-sequence": Kind(
        _tool_sequence,
        "These tools were called in this order, others between them; with `mode: exact` these and no others.",
        {"trajectory:tool-sequence": {"mode": "exact", "steps": ["lookup_order", "refund"]}},
    ),
    "trajectory:step-count": Kind(
        _step_count,
        "So many steps were taken: tool calls, and the answer as a `message`; `type`, `name` or `pattern` narrow it.",
        {"trajectory:step-count": {"max": 5, "type": "tool"}},
    ),
}
