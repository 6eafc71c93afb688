"""
`agent-2026-03-01`, the scripted agent: it calls tools as its system message tells it to, so that agents run offline.

A line of a system or developer message that begins with `Call NAME` (a list's mark may stand before it), where NAME is
one of its tools, is an instruction. Texts in double quotes in that line are conditions: each has to occur, whatever the
case of letters, in the user's last message or in a tool's result. The agent takes the first instruction whose
conditions hold and whose calls it has not made yet. When none is left it answers "What I found: " and every result, a
JSON object as `key is value, key is value`; without results "I can not help with that.".

- Arguments come from the tool's parameters, in their order: with a `pattern`, what matches it in the user's last
  message, else in the results (`^` and `$` at its ends do not count); with an `enum`, the first of its values that
  occurs there; any other, when it is required, is the user's message as a whole. When a required one is not found,
  the agent asks for it: "Which NAME?".
- Several things that match a `pattern` in the user's message make as many calls, in one answer.
- A call whose result is a JSON object with the member `error` is made once more. When it fails again, the agent gives
  up: "I could not do that: " and the error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import re2

AGENT = "agent-2026-03-01"
NOTHING = "I can not help with that."

_CALL = re.compile(r"^\s*(?:[-*]|\d+[.)])?\s*call\s+`?([\w-]+)`?", re.IGNORECASE)
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Made:
    """One call of the conversation, and what came back."""

    name: str
    arguments: str
    result: str

    @property
    def error(self) -> str | None:
        value = _json(self.result)
        return str(value["error"]) if isinstance(value, dict) and "error" in value else None


def act(
    system: Sequence[str], user: str, made: Sequence[Made], tools: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]] | str:
    """
    What the agent does next: calls (name, JSON of the arguments) or an answer.

    Args:
        made: the calls of the conversation, in order.
        tools: name → parameters.
    """
    for name, conditions in _instructions(system, tools):
        seen = [user, *(one.result for one in made)]
        if not all(any(wanted in text.lower() for text in seen) for wanted in conditions):
            continue
        wanted = _arguments(tools[name], user, seen)
        if isinstance(wanted, str):
            return wanted
        calls = []
        for arguments in wanted:
            tries = [one for one in made if one.name == name and _json(one.arguments) == arguments]
            if not tries or (tries[-1].error is not None and len(tries) < 2):
                calls.append((name, json.dumps(arguments, ensure_ascii=False)))
            elif tries[-1].error is not None:
                return f"I could not do that: {tries[-1].error}"
        if calls:
            return calls
    found = [_told(one.result) for one in made if one.error is None]
    return f"What I found: {'; '.join(found)}." if found else NOTHING


def _instructions(system: Sequence[str], tools: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """(tool, conditions in lower case)"""
    for line in "\n".join(system).splitlines():
        found = _CALL.match(line)
        if found is not None and found[1] in tools:
            yield found[1], [text.lower() for text in _QUOTED.findall(line)]


def _arguments(parameters: Mapping[str, Any], user: str, seen: Sequence[str]) -> list[dict[str, Any]] | str:
    """Of every call; or the question for what is missing."""
    required = parameters.get("required", [])
    several: list[dict[str, Any]] = [{}]
    for name, schema in parameters.get("properties", {}).items():
        values = _values(schema, user, seen)
        if not values and name in required:
            if "pattern" in schema or "enum" in schema:
                return f"Which {name}?"
            values = [user]
        if values:
            several = [{**one, name: value} for one in several for value in values]
    return several


def _values(schema: Mapping[str, Any], user: str, seen: Sequence[str]) -> list[Any]:
    if "pattern" in schema:
        pattern = re2.compile(str(schema["pattern"]).removeprefix("^").removesuffix("$"))
        of_user = dict.fromkeys(found.group() for found in pattern.finditer(user))
        return list(of_user) or [found.group() for text in seen for found in pattern.finditer(text)][:1]
    return [value for value in schema.get("enum", []) if any(str(value).lower() in text.lower() for text in seen)][:1]


def _told(result: str) -> str:
    value = _json(result)
    if not isinstance(value, dict):
        return result
    return ", ".join(f"{key} is {one if isinstance(one, str) else json.dumps(one)}" for key, one in value.items())


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
