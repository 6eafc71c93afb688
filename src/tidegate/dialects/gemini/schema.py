"""Gemini's schemas, a dialect of OpenAPI 3.0's, as JSON Schema. JSON Schema itself comes through as it is."""

from __future__ import annotations

import re
from typing import Any

_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_NAMES = {"defs": "$defs", "ref": "$ref"}
_UNDERSCORE = re.compile(r"(?<=[a-z])_([a-z])")


def camel(name: str) -> str:
    """Google's APIs take `min_items` for `minItems`."""
    return _UNDERSCORE.sub(lambda found: found[1].upper(), name)


def json_schema(schema: Any) -> Any:
    """`schema` in JSON Schema's words; what is no object is returned as it is."""
    if not isinstance(schema, dict):
        return schema
    given = {camel(key): value for key, value in schema.items()}
    order = given.pop("propertyOrdering", None)
    nullable = given.pop("nullable", None) is True
    if "example" in given:
        given["examples"] = [given.pop("example")]
    made = {_NAMES.get(key, key): _value(key, value) for key, value in given.items()}
    if made.get("type") == "type_unspecified":
        del made["type"]
    if isinstance(order, list) and isinstance(made.get("properties"), dict):
        made["properties"] = _ordered(made["properties"], order)
    return _or_null(made) if nullable else made


def _value(key: str, value: Any) -> Any:
    if key == "type" and isinstance(value, str):
        return value.lower()
    if key in _COUNTS and isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    if key in ("properties", "defs", "$defs") and isinstance(value, dict):
        return {name: json_schema(inner) for name, inner in value.items()}
    if key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
        return [json_schema(inner) for inner in value]
    if key in ("items", "additionalProperties"):
        return json_schema(value)
    return value


def _ordered(properties: dict[str, Any], order: list[Any]) -> dict[str, Any]:
    first = [name for name in order if isinstance(name, str) and name in properties]
    return {name: properties[name] for name in [*first, *properties]}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    if isinstance(kind, str):
        return {**schema, "type": [kind, "null"]}
    if isinstance(schema.get("anyOf"), list):
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return schema
