"""
YAML and JSON text that knows the line of every value, and its validation against a model.

Scalars follow the YAML 1.2 core schema (`no` is a string, `1_000` is a string). Duplicate keys, non-string keys,
aliases that multiply (bombs), excessive depth and non-finite numbers are errors with a line. Parsing is libyaml's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tidegate.core.errors import InvalidFile, Problem, nearest
from tidegate.core.json_lines import JsonLines, line_of, second_key
from tidegate.core.place import Path, dotted
from tidegate.core.yaml_values import read_yaml

Model = TypeVar("Model", bound=BaseModel)

_SECRET = re.compile(r"(key|secret|token|account|password)'|://[^/]*@")
"""The name of a field, or an address: what stands there is not said again."""
_EXPECTED = {
    "missing": "is missing",
    "model_type": "must be a mapping of `key: value`",
    "dict_type": "must be a mapping of `key: value`",
    "list_type": "must be a list",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "float_parsing": "must be a number",
    "decimal_parsing": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must hold {min_length} or more",
    "too_long": "must hold at most {max_length}",
    "literal_error": "must be {expected}",
}
"""pydantic's words for what was expected, in ours."""


@dataclass(frozen=True, slots=True)
class Document:
    """Plain values (dict, list, str, int, float, bool, None) and the 1-based line each of them stands on."""

    file: str
    data: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of `path`, or of its nearest ancestor that is written down."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, message: str) -> Problem:
        """A problem with the value at `path`."""
        return Problem(self.file, self.line(path), dotted(path), message)


class Strict(BaseModel):
    """Base of every model that a user writes: frozen, and an unknown key is an error that names the nearest one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.keys() <= cls.model_fields.keys():
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    hint = nearest(str(key), known)
                    raise PydanticCustomError(
                        "unknown_key", "unknown key {key}.{hint}", {"key": repr(key), "at": key, "hint": hint}
                    )
        return data


def parse_yaml(text: str, file: str, *, first_line: int = 1) -> Document:
    """
    Parses one YAML document (JSON is YAML).

    Args:
        file: the name problems are reported under.
        first_line: the line of the file on which `text` begins.
    Raises: InvalidFile, with the line of the first thing that can not be read.
    """
    return Document(file, *read_yaml(text, file, first_line))


def parse_json(text: str, file: str, *, first_line: int = 1) -> Document:
    """Parses JSON strictly: no duplicate keys, no number that is not finite. Raises InvalidFile."""

    def bad(scalar: str, message: str) -> NoReturn:
        raise InvalidFile([Problem(file, line_of(text, first_line, scalar), "", message)])

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            path, line = second_key(text, first_line)
            raise InvalidFile([Problem(file, line, dotted(path), "this key stands twice in one object.")])
        return made

    def no_constant(name: str) -> NoReturn:
        bad(name, f"{name} is not JSON.")

    def whole(digits: str) -> int:
        return int(digits) if len(digits) <= 20 else bad(digits, "a whole number of more than 20 digits.")

    def finite(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else bad(digits, f"{digits[:40]} is not a finite number.")

    try:
        data = json.loads(
            text, object_pairs_hook=unique, parse_constant=no_constant, parse_int=whole, parse_float=finite
        )
    except json.JSONDecodeError as error:
        raise InvalidFile(
            [Problem(file, first_line + error.lineno - 1, "", f"not valid JSON: {error.msg} (column {error.colno}).")]
        ) from error
    except RecursionError as error:
        raise InvalidFile([Problem(file, first_line, "", "nested too deeply.")]) from error
    return Document(file, data, JsonLines(text, first_line))


def validate(document: Document, model: type[Model]) -> Model:
    """The document as a `model`. Raises InvalidFile with every problem that was found, each on its line."""
    try:
        return model.model_validate({} if document.data is None else document.data)
    except ValidationError as error:
        raise InvalidFile(_problems(document, error)) from error


def _problems(document: Document, error: ValidationError) -> list[Problem]:
    found: list[Problem] = []
    for item in error.errors(include_url=False):
        path: Path = tuple(item["loc"])
        if item["type"] == "unknown_key":
            path = (*path, item["ctx"]["at"])
        # Unions put the tried branch into the location; only what stands in the file means something to its author.
        while path and path not in document.lines and path[:-1] not in document.lines:
            path = path[:-1]
        expected = _EXPECTED.get(item["type"])
        said = (
            str(item["msg"]).removeprefix("Value error, ")
            if expected is None
            else expected.format(**item.get("ctx", {}))
        )
        message = _sentence(said)
        given = item["input"]
        showable = isinstance(given, str | int | float | bool) and not _SECRET.search(f"{path[-1:]}{given}")
        if showable and item["type"] != "missing" and message[-1] == ".":
            message = f"{message[:-1]} (it is {given!r})."
        problem = document.problem(path, message)
        if problem not in found:
            found.append(problem)
    return found


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else text + "."
