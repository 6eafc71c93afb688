"""
An artifact and variables become messages.

Each message is rendered on its own and its role comes from the artifact, so no value can open a new message. Values are
checked against the declared inputs first; what they hold is never read as template text. Compiled templates are
remembered by their source, so a gateway that serves the same versions compiles nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from minijinja import Environment, TemplateError

from tidegate.core.artifact import Artifact, Input, Message
from tidegate.core.errors import InvalidRequest, nearest
from tidegate.core.yaml_values import MAX_DEPTH
from tidegate.prompts import template

MAX_OUTPUT_CHARS = 1 << 20
"""Of all messages together."""
_MAX_WHOLE = 1 << 63
_SURROGATE = re.compile("[\ud800-\udfff]")
"""The engine would put three replacement characters in its place."""


def render(artifact: Artifact, variables: Mapping[str, Any]) -> list[dict[str, str]]:
    """
    The messages a call sends: `[{"role", "content"}]`, in the artifact's order. Safe for concurrent calls.

    Raises: InvalidRequest, with `param` = `variables.NAME` when one variable is at fault, else `variables`.
    """
    _check_names(artifact.inputs, variables)
    for name, declared in artifact.inputs.items():
        _check(name, declared, variables[name])
    env = _compiled(artifact.messages)
    rendered: list[dict[str, str]] = []
    left = MAX_OUTPUT_CHARS
    for index, message in enumerate(artifact.messages):
        text = _render_one(env, str(index), message, variables)
        left -= len(text)
        if left < 0:
            raise InvalidRequest(
                f"the rendered messages are longer than {MAX_OUTPUT_CHARS:,} characters.", param="variables"
            )
        rendered.append({"role": message.role, "content": text})
    return rendered


@lru_cache(maxsize=256)
def _compiled(messages: tuple[Message, ...]) -> Environment:
    env = template.environment()
    for index, message in enumerate(messages):
        try:
            env.add_template(str(index), message.content)
        except TemplateError as error:
            raise InvalidRequest(
                f"the prompt's {message.role} message can not be compiled: {template.reason(error)}."
            ) from error
    return env


def _render_one(env: Environment, name: str, message: Message, variables: Mapping[str, Any]) -> str:
    # A template can call methods that change a list or a mapping: it gets copies, of this message alone.
    values = {key: _copy(value) if isinstance(value, list | dict) else value for key, value in variables.items()}
    try:
        return env.render_template(name, **values)
    except TemplateError as error:
        line = f", line {error.line}" if error.line else ""
        raise InvalidRequest(
            f"the {message.role} message{line} can not be rendered: {template.reason(error)}.", param="variables"
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"the {message.role} message can not be rendered with these values: {error}.", param="variables"
        ) from error


def _check_names(inputs: Mapping[str, Input], variables: Mapping[str, Any]) -> None:
    for name in variables:
        if name not in inputs:
            hint = nearest(name, inputs) if inputs else " It takes no variables."
            raise _invalid(name, f"the prompt declares no such input.{hint}")
    for name in inputs:
        if name not in variables:
            raise _invalid(name, "is missing; the prompt needs it.")


def _check(name: str, declared: Input, value: Any) -> None:
    complaint = _complaint(declared, value)
    if complaint:
        raise _invalid(name, complaint)


def _invalid(name: str, complaint: str) -> InvalidRequest:
    field = f"variables.{name[:60]}"
    return InvalidRequest(f"{field}: {complaint}", param=field)


def _complaint(declared: Input, value: Any) -> str | None:
    """What is wrong with a value, as a sentence."""
    match declared.type:
        case "string":
            return _string(declared, value)
        case "enum":
            return None if isinstance(value, str) and value in declared.values else _not_one_of(declared, value)
        case "number":
            return _number(value)
        case "boolean":
            return None if isinstance(value, bool) else f"must be true or false, not {_kind(value)}."
        case "list" | "object":
            return _nested(declared, value)


def _string(declared: Input, value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be a string, not {_kind(value)}."
    if not value.isascii() and _SURROGATE.search(value):
        return "holds half of a surrogate pair."
    if declared.max_chars is not None and len(value) > declared.max_chars:
        return f"is {len(value):,} characters long; at most {declared.max_chars:,} are allowed."
    return None


def _not_one_of(declared: Input, value: Any) -> str:
    given = repr(value) if isinstance(value, str) and len(value) <= 60 else _kind(value)
    return f"must be one of {', '.join(declared.values)}, not {given}."


def _number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a number, not {_kind(value)}."
    if abs(value) >= _MAX_WHOLE if isinstance(value, int) else not math.isfinite(value):
        return "must be a finite number of at most 64 bits."
    return None


def _nested(declared: Input, value: Any) -> str | None:
    if not isinstance(value, list if declared.type == "list" else dict):
        return f"must be {'a list' if declared.type == 'list' else 'an object'}, not {_kind(value)}."
    return f"is nested more than {MAX_DEPTH} levels deep." if _deep(value, MAX_DEPTH) else None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _deep(value: Any, levels: int) -> bool:
    if not isinstance(value, list | dict):
        return False
    if levels == 0:
        return True
    return any(_deep(item, levels - 1) for item in (value.values() if isinstance(value, dict) else value))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
