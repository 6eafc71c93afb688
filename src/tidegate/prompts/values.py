"""What a declared input accepts, and what stands for one that is not given."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tidegate.core.artifact import Input
from tidegate.core.usage import estimate_tokens
from tidegate.core.yaml_values import MAX_DEPTH
from tidegate.prompts.images import image_complaint

_MAX_WHOLE = 1 << 63
_SURROGATE = re.compile("[\ud800-\udfff]")
"""The engine would put three replacement characters in its place."""


def complaint(declared: Input, value: Any) -> str | None:
    """What is wrong with a value, as a sentence without its subject; None when nothing is."""
    match declared.type:
        case "string":
            return _string(declared, value)
        case "enum":
            return None if isinstance(value, str) and value in declared.values else _not_one_of(declared, value)
        case "number":
            return _number(value)
        case "boolean":
            return None if isinstance(value, bool) else f"must be true or false, not {_kind(value)}."
        case "image":
            return image_complaint(value) if isinstance(value, str) else f"must be a string, not {_kind(value)}."
        case "list" | "object":
            return _nested(declared, value)


def absent(declared: Input) -> Any:
    """What an input that may be left out is then: its default, else something empty, false in an `if`."""
    if declared.default is not None:
        return declared.default
    return {"list": [], "object": {}}.get(declared.type, "")


def _string(declared: Input, value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be a string, not {_kind(value)}."
    if not value.isascii() and _SURROGATE.search(value):
        return "holds half of a surrogate pair."
    return _too_long(declared, value)


def _too_long(declared: Input, text: str) -> str | None:
    if declared.max_chars is not None and len(text) > declared.max_chars:
        return f"is {len(text):,} characters long; at most {declared.max_chars:,} are allowed."
    if declared.max_tokens is not None and (tokens := estimate_tokens(len(text))) > declared.max_tokens:
        return f"is some {tokens:,} tokens long (estimated); at most {declared.max_tokens:,} are allowed."
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
    if _deep(value, MAX_DEPTH):
        return f"is nested more than {MAX_DEPTH} levels deep."
    if declared.max_chars is None and declared.max_tokens is None:
        return None
    return _too_long(declared, json.dumps(value, ensure_ascii=False))


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
