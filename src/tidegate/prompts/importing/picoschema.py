"""
Picoschema, Dotprompt's short form of JSON Schema.

    name: string, a description      `name?` may be missing or null
    tags(array, a description): string
    address(object): {street: string}
    size(enum): [small, large]
    (*): number                      any other key
"""

from __future__ import annotations

from typing import Any

_SCALARS = ("string", "number", "integer", "boolean", "null", "any")


def to_json_schema(value: Any) -> dict[str, Any]:
    """
    The JSON Schema that `value` stands for; one that is a JSON Schema already is given back.

    Raises: ValueError with one sentence, also for a name that only the author's program knows.
    """
    if isinstance(value, str):
        return _scalar(value)
    if not isinstance(value, dict):
        raise ValueError("Picoschema is made of mappings and texts.")
    if isinstance(value.get("type"), str) and value["type"] in (*_SCALARS, "object", "array"):
        return value
    if isinstance(value.get("properties"), dict):
        return {**value, "type": "object"}
    return _object(value)


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return _scalar(value)
    if isinstance(value, dict):
        return _object(value)
    raise ValueError(f"Picoschema is made of mappings and texts, not of {value!r}.")


def _scalar(text: str) -> dict[str, Any]:
    kind, about = _described(text)
    if kind not in _SCALARS:
        raise ValueError(f"{kind!r} is the name of a schema that only your program knows.")
    schema: dict[str, Any] = {} if kind == "any" else {"type": kind}
    return {**schema, "description": about} if about else schema


def _described(text: str) -> tuple[str, str]:
    kind, _, about = text.partition(",")
    return kind.strip(), about.strip()


def _object(given: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    for key, value in given.items():
        if key == "(*)":
            schema["additionalProperties"] = _value(value)
            continue
        name, parenthesis, kind_and_more = key.partition("(")
        optional = name.endswith("?")
        name = name.removesuffix("?")
        if not optional:
            schema["required"].append(name)
        kind, about = _described(kind_and_more.removesuffix(")"))
        made = _typed(kind, value, optional) if parenthesis else _optional(_value(value), optional)
        schema["properties"][name] = {**made, "description": about} if about else made
    if not schema["required"]:
        del schema["required"]
    return schema


def _typed(kind: str, value: Any, optional: bool) -> dict[str, Any]:
    if kind == "array":
        return _optional({"type": "array", "items": _value(value)}, optional)
    if kind == "object":
        return _optional(_value(value), optional)
    if kind == "enum" and isinstance(value, list):
        return {"enum": [*value, None] if optional and None not in value else value}
    raise ValueError(f"`({kind})` is not array, object or enum.")


def _optional(schema: dict[str, Any], optional: bool) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]} if optional and isinstance(schema.get("type"), str) else schema
