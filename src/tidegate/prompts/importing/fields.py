"""
The fields that several formats share in meaning: names, sampling parameters, inputs, JSON Schemas, tools.

Each takes a foreign value and either gives ours or leaves an Item at the value's line that says why it can not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tidegate.core.artifact import Message, Role, Tool
from tidegate.core.json_schema import NotASchema, validator
from tidegate.prompts.front_matter import InputSpec, Params
from tidegate.prompts.importing.outcome import Spot
from tidegate.prompts.importing.reading import Outside

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
}
"""Other formats' role → ours."""
MAX_DESCRIPTION = 4_000
_INPUT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_TOOL = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_ROLE_LINE = re.compile(r"^((?:system|developer|user|assistant):)(?=[ \t]*$)", re.MULTILINE)
_READ = {"type", "enum", "description", "default", "title", "properties", "items", "required", "additionalProperties"}
"""Keys of a JSON Schema that `input_from_schema` has an answer to."""
_TYPES = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "list",
    "object": "object",
}


def slug(text: str) -> str:
    """`text` as a part of a prompt's name; empty when nothing of it can be one."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64].rstrip("-._")


def message(role: Role, content: str) -> Message:
    """A message whose text is not taken for role lines: `user:` alone on a line becomes an expression."""
    return Message(role, _ROLE_LINE.sub(r'{{ "\1" }}', content))


def without_blank_ends(text: str) -> str:
    """`text` without the blank lines at its beginning and the white space at its end."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", text).rstrip()


def description(spot: Spot) -> str:
    """Text for people, at most 4,000 characters of it."""
    value = spot.value
    if value is None:
        return ""
    if not isinstance(value, str):
        spot.left_out("a description is a text.")
        return ""
    if len(value) > MAX_DESCRIPTION:
        spot.changed(f"cut to {MAX_DESCRIPTION:,} characters.")
    return value.strip()[:MAX_DESCRIPTION]


def params(spot: Spot, names: Mapping[str, str], why_not: Mapping[str, str]) -> dict[str, Any]:
    """
    Sampling parameters in our names.

    Args:
        names: theirs → ours.
        why_not: names of theirs that have no place here → why, as a sentence; an empty one: it is carried elsewhere.
    """
    given = spot.value
    if given is None:
        return {}
    if not isinstance(given, dict):
        spot.left_out("parameters are a mapping.")
        return {}
    unknown(spot, {**dict.fromkeys(names, ""), **why_not}, "a prompt has no such parameter here.")
    ours: dict[str, Any] = {}
    for name, value in given.items():
        at = spot / name
        if name not in names or value is None:
            continue
        if names[name] in ours:
            at.left_out(f"`{names[name]}` is set twice; the first one holds.")
            continue
        try:
            ours |= Params.model_validate({names[name]: _plain(value)}).model_dump(exclude_none=True)
        except ValidationError as error:
            at.left_out(f"can not be `{names[name]}`: {_why(error)}")
    return ours


def _why(error: ValidationError) -> str:
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ").removesuffix(".") + "."


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) >= 2 else value


def model(name: str) -> str | None:
    """Why `name` can not be a prompt's model, as a sentence; None when it can."""
    if not name or len(name) > 200 or re.search(r"\s", name):
        return f"{name[:80]!r} is not `provider/model` or the name of a route."
    return None


def input_name(name: str) -> str | None:
    """Why `name` can not be an input's, as a sentence; None when it can."""
    return None if _INPUT.match(name) else f"an input is named with letters, digits and '_', and {name[:80]!r} is not."


def input_from_schema(spot: Spot, schema: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    """An input's declaration. What a JSON Schema asks beyond its type is not checked here, and becomes an item."""
    kind, nullable = _kind(schema)
    spec = _typed(spot, schema, kind)
    if any(schema.get(key) not in (None, {}, False) for key in ("properties", "items", "additionalProperties")):
        spot.changed(f"declared as {spec['type']}; what it holds is not checked here.")
    for key in schema:
        if key not in _READ:
            (spot / key).left_out("an input has no such rule here.")
    about = schema.get("description")
    if isinstance(about, str) and about.strip():
        spec["description"] = about.strip()[:MAX_DESCRIPTION]
    if not required or nullable:
        spec["required"] = False
    return with_default(spot, spec, schema.get("default"))


def _kind(schema: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The one type of a JSON Schema, and whether null will do too."""
    kind = schema.get("type")
    if not isinstance(kind, list):
        return kind if isinstance(kind, str) else None, False
    others = [one for one in kind if one != "null"]
    return str(others[0]) if len(others) == 1 else None, "null" in kind


def _typed(spot: Spot, schema: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
    values = schema.get("enum")
    texts = [value for value in values if value is not None] if isinstance(values, list) else []
    if texts and all(isinstance(value, str) and value for value in texts):
        return {"type": "enum", "values": list(dict.fromkeys(texts))}
    if values is not None:
        spot.left_out("the values of an enum are texts here; its type alone is checked.")
    if kind not in _TYPES:
        spot.changed("a value of any type; declared as a string, which it has to be now.")
        return {"type": "string"}
    if kind == "integer":
        spot.changed("a whole number; any number is accepted here.")
    return {"type": _TYPES[kind]}


def with_default(spot: Spot, spec: dict[str, Any], value: Any) -> dict[str, Any]:
    """`spec` with `value` as its default, where it can be."""
    if value is None:
        return spec
    try:
        InputSpec.model_validate({**spec, "required": None, "default": value})
    except ValidationError as error:
        spot.left_out(f"can not be a value of this input: {_why(error)}")
        return spec
    return {**{key: item for key, item in spec.items() if key != "required"}, "default": value}


def schema_complaint(schema: Any) -> str | None:
    """Why `schema` can not be a JSON Schema of ours, as a sentence; None when it can."""
    if not isinstance(schema, dict):
        return "a JSON Schema is a mapping here."
    try:
        validator(schema)
    except NotASchema as error:
        return f"not a valid JSON Schema: {error}."
    return None


def add_tool(spot: Spot, tool: Tool, taken: list[Tool]) -> None:
    """Adds `tool` to `taken`, or an item that says why it can not be one."""
    complaint = schema_complaint(tool.parameters)
    if not _TOOL.match(tool.name):
        spot.left_out("a tool is named with 1 to 64 letters, digits, '_' and '-'.")
    elif tool.name in [other.name for other in taken]:
        spot.left_out(f"the tool {tool.name!r} stands twice; the first one holds.")
    elif complaint:
        spot.left_out(f"the parameters of {tool.name!r}: {complaint}")
    else:
        taken.append(tool)


def type_of(value: Any) -> str:
    """The type of input that takes `value`."""
    types = {bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
    return types.get(type(value), "string")


def text(value: Any) -> str:
    """`value` where it is a text; else an empty one."""
    return value.strip() if isinstance(value, str) else ""


def not_read(spot: Spot, why: ValueError) -> None:
    """An item for a file that `reading.Given` does not give."""
    if isinstance(why, Outside):
        spot.refused(str(why))
    else:
        spot.left_out(str(why))


def unknown(spot: Spot, reasons: Mapping[str, str], otherwise: str = "there is no place for this here.") -> None:
    """An item for every key here that `reasons` explains, or nothing does; an empty reason means: it is carried."""
    for key in spot.value if isinstance(spot.value, dict) else ():
        reason = reasons.get(key, otherwise)
        if reason.startswith("runs code"):
            (spot / key).refused(reason)
        elif reason:
            (spot / key).left_out(reason)
