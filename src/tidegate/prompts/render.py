"""
An artifact and variables become messages.

Each message is rendered on its own and its role comes from the artifact, so no value can open a new message. Values are
checked against the declared inputs first; what they hold is never read as template text. Compiled templates are
remembered by their source, so a gateway that serves the same versions compiles nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from minijinja import Environment, TemplateError

from tidegate.core.artifact import Artifact, Input, Message
from tidegate.core.errors import InvalidRequest, nearest
from tidegate.prompts import template
from tidegate.prompts.images import Marks
from tidegate.prompts.values import absent, complaint

MAX_OUTPUT_CHARS = 1 << 20
"""Of all messages together, images left out."""


def render(artifact: Artifact, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    The messages a call sends: `[{"role", "content"}]`, in the artifact's order. Safe for concurrent calls.

    The content is a string, or a list of OpenAI's `text` and `image_url` parts where a user message shows an image.
    An input that may be left out may also be null.

    Raises: InvalidRequest, with `param` = `variables.NAME` when one variable is at fault, else `variables`.
    """
    values, marks = _checked(artifact.inputs, variables)
    env = _compiled(artifact.messages)
    rendered: list[dict[str, Any]] = []
    left = MAX_OUTPUT_CHARS
    for index, message in enumerate(artifact.messages):
        text = _render_one(env, str(index), message, values)
        left -= len(text)
        if left < 0:
            raise InvalidRequest(
                f"the rendered messages are longer than {MAX_OUTPUT_CHARS:,} characters.", param="variables"
            )
        rendered.append({"role": message.role, "content": marks.content(message.role, text) if marks else text})
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


def _checked(inputs: Mapping[str, Input], variables: Mapping[str, Any]) -> tuple[dict[str, Any], Marks]:
    """The value of every input, once they are what the prompt declares; marks stand for images."""
    for name in variables:
        if name not in inputs:
            hint = nearest(name, inputs) if inputs else " It takes no variables."
            raise _invalid(name, f"the prompt declares no such input.{hint}")
    values: dict[str, Any] = {}
    marks = Marks()
    for name, declared in inputs.items():
        value = variables.get(name)
        if value is None and not declared.required:
            value = absent(declared)
        elif name not in variables:
            raise _invalid(name, "is missing; the prompt needs it.")
        elif wrong := complaint(declared, value):
            raise _invalid(name, wrong)
        values[name] = marks.put(value) if declared.type == "image" and value else value
    return values, marks


def _invalid(name: str, complaint: str) -> InvalidRequest:
    field = f"variables.{name[:60]}"
    return InvalidRequest(f"{field}: {complaint}", param=field)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
