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

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tidegate.core.errors import InvalidFile, Problem, nearest

MAX_DEPTH = 64
MAX_NODES = 200_000

Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("map", "seq", "str", "null", "bool", "int", "float", "timestamp", "merge", "value")
)
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCT_HEX = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_EXPECTED = {
    "missing": "is missing",
    "model_type": "must be a mapping of `key: value`",
    "dict_type": "must be a mapping of `key: value`",
    "list_type": "must be a list",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
}
"""pydantic's words for what was expected, in ours."""
_NON_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


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
        if isinstance(data, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    hint = nearest(str(key), known)
                    raise PydanticCustomError(
                        "unknown_key", "unknown key {key}.{hint}", {"key": repr(key), "at": key, "hint": hint}
                    )
        return data


def dotted(path: Path) -> str:
    """`routes.support.targets[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def parse_yaml(text: str, file: str, *, first_line: int = 1) -> Document:
    """
    Parses one YAML document (JSON is YAML).

    Args:
        file: the name problems are reported under.
        first_line: the line of the file on which `text` begins.
    Raises: InvalidFile, with the line of the first thing that can not be read.
    """
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + first_line if mark else first_line
        raise InvalidFile([Problem(file, line, "", f"not valid YAML: {error.problem or error.context}.")]) from error
    except yaml.YAMLError as error:
        raise InvalidFile([Problem(file, first_line, "", f"not valid YAML: {error}.")]) from error
    if node is None:
        return Document(file, None, {})
    lines: dict[Path, int] = {}
    return Document(file, _Builder(file, first_line, lines).build(node, (), 0), lines)


def parse_json(text: str, file: str, *, first_line: int = 1) -> Document:
    """Parses JSON strictly (no duplicate keys, no NaN). Lines are known for the whole only. Raises InvalidFile."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(pairs)
        if len(seen) != len(pairs):
            names = [key for key, _ in pairs]
            twice = next(key for key in names if names.count(key) > 1)
            raise InvalidFile([Problem(file, first_line, str(twice), "this key stands twice in one object.")])
        return seen

    def no_constant(name: str) -> NoReturn:
        raise InvalidFile([Problem(file, first_line, "", f"{name} is not JSON.")])

    try:
        data = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise InvalidFile(
            [Problem(file, first_line + error.lineno - 1, "", f"not valid JSON: {error.msg} (column {error.colno}).")]
        ) from error
    except RecursionError as error:
        raise InvalidFile([Problem(file, first_line, "", "nested too deeply.")]) from error
    return Document(file, data, {(): first_line})


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
        message = _sentence(_EXPECTED.get(item["type"], str(item["msg"]).removeprefix("Value error, ")))
        if isinstance(item["input"], str | int | float | bool) and item["type"] != "missing" and message[-1] == ".":
            message = f"{message[:-1]} (it is {item['input']!r})."
        problem = document.problem(path, message)
        if problem not in found:
            found.append(problem)
    return found


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else text + "."


class _Builder:
    """Turns yaml nodes into plain values. One object per document, so that the node count holds over aliases."""

    def __init__(self, file: str, first_line: int, lines: dict[Path, int]) -> None:
        self.file = file
        self.first_line = first_line
        self.lines = lines
        self.nodes = 0

    def fail(self, node: yaml.Node, path: Path, message: str) -> NoReturn:
        raise InvalidFile([Problem(self.file, node.start_mark.line + self.first_line, dotted(path), message)])

    def build(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.fail(node, (), f"more than {MAX_NODES:,} values (aliases count each time).")
        if depth > MAX_DEPTH:
            self.fail(node, path, f"nested more than {MAX_DEPTH} levels deep.")
        self.lines.setdefault(path, node.start_mark.line + self.first_line)
        if node.tag not in _TAGS:
            self.fail(node, path, f"the tag {node.tag!r} is not allowed.")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self.fail(node, path, "not a mapping, a list or a scalar.")

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fail(key_node, path, "a key must be a plain string.")
            key = str(key_node.value)
            if key in result:
                self.fail(key_node, (*path, key), "this key stands twice.")
            self.lines[(*path, key)] = key_node.start_mark.line + self.first_line
            result[key] = self.build(value_node, (*path, key), depth + 1)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if node.style:  # quoted, or a block; libyaml gives a plain scalar the style ''
            return text
        if _NON_FINITE.match(text):
            self.fail(node, path, f"{text} is not a finite number.")
        if _NULL.match(text):
            return None
        if _BOOL.match(text):
            return text[0] in "tT"
        if _INT.match(text):
            return self._int(node, path, text)
        if _OCT_HEX.match(text):
            return int(text, 0)
        if _FLOAT.match(text):
            value = float(text)
            if not math.isfinite(value):
                self.fail(node, path, f"{text} is not a finite number.")
            return value
        return text

    def _int(self, node: yaml.ScalarNode, path: Path, text: str) -> int:
        if len(text) > 20:
            self.fail(node, path, "a whole number of more than 20 digits.")
        return int(text)
