"""
Scripted tools: what each tool of an agent gives back in an eval, as somebody who knows the business writes it.

    tools:
      lookup_order:
        - {when: {order_id: A-1001}, returns: {status: shipped}}
        - {when: {order_id: A-1002}, in_turn: [{error: timeout}, {returns: {status: lost}}]}
        - {error: no such order}

The first line whose `when` is part of a call's arguments answers it; a line without one answers every call. Of
`in_turn` the first call that the line answers gets the first item, the next the second, and all later ones the last. A
case's lines stand before the suite's. A call that no line answers is never made up for: the repeat fails and names it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any

import re2
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tidegate.core.artifact import Tool
from tidegate.core.document import Strict
from tidegate.core.errors import nearest
from tidegate.core.evaluation import ToolUse
from tidegate.evals.checks.check import partly
from tidegate.evals.checks.json_values import first_error, validator
from tidegate.evals.judges.evidence import storable

DEFAULT_STEPS = 10
MOST_STEPS = 100
_BOUNDS_OF_A_WHOLE = frozenset({"required", "minProperties", "dependentRequired", "dependentSchemas"})
"""What a part of the arguments need not keep to."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _pattern(value: str) -> str:
    try:
        re2.compile(value)
    except re2.error as error:
        raise ValueError(f"is not a regular expression that RE2 reads: {error}") from error
    return value


Name = Annotated[str, Field(min_length=1, max_length=200)]


class Given(Strict):
    """What one call gets: a result (any JSON value; a text as it is), or an error."""

    returns: Any = None
    error: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Given:
        if len(self.model_fields_set & {"returns", "error"}) != 1:
            raise ValueError("says what a call gets: `returns` or `error`, one of them")
        return self

    @property
    def text(self) -> str:
        """As the model reads it."""
        value = {"error": self.error} if self.error is not None else self.returns
        return storable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


class ScriptLine(Strict):
    """One line of a tool's script: which calls it answers, and with what."""

    when: dict[str, Any] = {}
    returns: Any = None
    error: Annotated[str, Field(min_length=1)] | None = None
    in_turn: Annotated[list[Given], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> ScriptLine:
        if len(self.model_fields_set & {"returns", "error", "in_turn"}) != 1:
            raise ValueError("says what a call gets: `returns`, `error` or `in_turn`, one of them")
        return self

    def text(self, turn: int) -> str:
        """What the call number `turn` (from 0) that this line answers gets, as the model reads it."""
        if self.in_turn is not None:
            return self.in_turn[min(turn, len(self.in_turn) - 1)].text
        return Given.model_construct(returns=self.returns, error=self.error).text


_SomeLines = Annotated[list[ScriptLine], Field(min_length=1)]
Lines = Annotated[_SomeLines, BeforeValidator(_listed, json_schema_input_type=ScriptLine | _SomeLines)]


class Stop(Strict):
    """When a loop ends before the model is done."""

    tool: Annotated[list[Name], BeforeValidator(_listed, json_schema_input_type=Name | list[Name])] = []
    """The answer calls one of these."""
    text: Annotated[str, Field(min_length=1), AfterValidator(_pattern)] | None = None
    """The answer's text holds a match of this regular expression, whether it calls tools or not."""
    max_cost_usd: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    """Of one repeat: once it has cost so much it makes no further call, and fails."""

    @property
    def matches(self) -> Callable[[str], bool]:
        """Whether a text is one to stop at."""
        if self.text is None:
            return lambda _: False
        compiled = _compiled(self.text)
        return lambda text: compiled.search(text) is not None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern)


Tools = dict[Name, Lines]
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]


@dataclass(frozen=True, slots=True)
class Script:
    """The scripted part of a case, of a suite, or of both: its tools, and when its loop ends."""

    tools: Mapping[str, Sequence[ScriptLine]] = field(default_factory=dict)
    max_steps: int | None = None
    stop: Stop | None = None

    def over(self, suite: Script) -> Script:
        """This one, a case's, before the suite's: line by line of each tool, and where it says nothing itself."""
        tools = {
            name: (*self.tools.get(name, ()), *suite.tools.get(name, ())) for name in {**suite.tools, **self.tools}
        }
        return Script(
            tools,
            suite.max_steps if self.max_steps is None else self.max_steps,
            suite.stop if self.stop is None else self.stop,
        )

    def misfits(self, declared: Sequence[Tool]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """(where, a sentence) of what is scripted for tools or arguments that the prompt does not declare."""
        tools = {tool.name: tool for tool in declared}
        for name, lines in self.tools.items():
            if name not in tools:
                yield ("tools", name), f"the prompt declares no tool {name!r}.{_known(name, tools)}"
                continue
            for index, line in enumerate(lines):
                if problem := _misfit(line.when, tools[name]):
                    yield ("tools", name, index, "when"), problem
        for name in self.stop.tool if self.stop else ():
            if name not in tools:
                yield ("stop", "tool"), f"the prompt declares no tool {name!r}.{_known(name, tools)}"


NOTHING = Script()


@dataclass(slots=True)
class Stage:
    """The tools of one repeat: how often each line has answered."""

    script: Script
    _turns: Counter[int] = field(default_factory=Counter)

    def play(self, use: ToolUse) -> str | None:
        """What a call gets, as the model reads it; None where nothing is scripted for it."""
        for line in self.script.tools.get(use.name, ()):
            if not line.when or partly(use.arguments, line.when):
                turn = self._turns[id(line)]
                self._turns[id(line)] += 1
                return line.text(turn)
        return None


def _known(name: str, tools: Mapping[str, Tool]) -> str:
    return nearest(name, tools) or (f" It declares {', '.join(tools)}." if tools else " It declares none.")


def _misfit(when: Mapping[str, Any], tool: Tool) -> str | None:
    """Why no call that fits the tool's parameters has these arguments, if none has."""
    properties = tool.parameters.get("properties")
    if isinstance(properties, dict) and tool.parameters.get("additionalProperties") in (None, False):
        for name in when:
            if name not in properties:
                return f"{tool.name} has no argument {name!r}.{nearest(name, properties)}"
    try:
        broken = first_error(_partial(json.dumps(tool.parameters)), when) if when else None
    except ValueError:
        return None
    return f"no valid call of {tool.name} has these arguments: {broken}." if broken else None


@lru_cache(maxsize=64)
def _partial(schema: str) -> Any:
    """A validator for a part of what `schema` describes. Raises ValueError."""
    return validator(_loosened(json.loads(schema)))


def _loosened(schema: Any, *, names: bool = False) -> Any:
    """A schema without what a part need not keep to. `names`: its keys are names, not keywords."""
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value
        if key in ("enum", "const", "default", "examples") and not names
        else _loosened(value, names=not names and key in ("properties", "$defs", "definitions", "patternProperties"))
        for key, value in schema.items()
        if names or key not in _BOUNDS_OF_A_WHOLE
    }
