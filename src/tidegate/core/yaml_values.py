"""
YAML text → plain values and their lines, bounded in depth and number whatever the text says.

Built on libyaml's events: its composer recurses as deep as its input asks for, and ends the process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from tidegate.core.errors import InvalidFile, Problem
from tidegate.core.place import Path, dotted

MAX_DEPTH = 64
MAX_NODES = 200_000

_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "null", "bool", "int", "float")) | {"!"}
_STRING_TAGS = ("!", "tag:yaml.org,2002:str")
_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
"""Plain scalars that mean something else than themselves."""
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCT_HEX = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NON_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


def read_yaml(text: str, file: str, first_line: int) -> tuple[Any, dict[Path, int]]:
    """The one document in `text` (None when there is none) and the line of each path. Raises InvalidFile."""
    lines: dict[Path, int] = {}
    loader = yaml.CSafeLoader(text)
    try:
        return _Builder(loader, file, first_line, lines).document(), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + first_line if mark else first_line
        raise InvalidFile([Problem(file, line, "", f"not valid YAML: {error.problem or error.context}.")]) from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + first_line
        raise InvalidFile([Problem(file, line, "", f"not valid YAML: {error.reason}.")]) from error
    finally:
        loader.dispose()


@dataclass(frozen=True, slots=True)
class _Anchored:
    value: Any
    nodes: int
    height: int


class _Builder:
    """
    Turns events into plain values; one object per document, so that the count of values holds over aliases.
    """

    def __init__(self, loader: yaml.CSafeLoader, file: str, first_line: int, lines: dict[Path, int]) -> None:
        self.next: Callable[[], Any] = loader.get_event
        self.file = file
        self.first_line = first_line
        self.lines = lines
        self.nodes = 0
        self.deepest = 0
        self.anchors: dict[str, _Anchored] = {}

    def document(self) -> Any:
        """The value of the one document; None when there is none."""
        self.next()
        event = self.next()
        if isinstance(event, yaml.StreamEndEvent):
            return None
        value = self.build(self.next(), (), 0)
        self.next()
        event = self.next()
        if not isinstance(event, yaml.StreamEndEvent):
            self.fail(event, (), "a second document begins here; one file holds one.")
        return value

    def fail(self, event: Any, path: Path, message: str) -> NoReturn:
        raise InvalidFile([Problem(self.file, self._line(event), dotted(path), message)])

    def _line(self, event: Any) -> int:
        return int(event.start_mark.line) + self.first_line

    def build(self, event: Any, path: Path, depth: int) -> Any:
        """The value that begins with `event`; its last event has been read then."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        self._count(event, path, 1, depth)
        if path not in self.lines:  # the line of its key is better
            self.lines[path] = self._line(event)
        if event.tag is not None and event.tag not in _TAGS:
            self.fail(event, path, f"the tag {event.tag!r} is not allowed.")
        if event.anchor is None:
            return self._value(event, path, depth)
        before, deepest, self.deepest = self.nodes, self.deepest, depth
        value = self._value(event, path, depth)
        self.anchors[event.anchor] = _Anchored(value, self.nodes - before + 1, self.deepest - depth)
        self.deepest = max(deepest, self.deepest)
        return value

    def _alias(self, event: Any, path: Path, depth: int) -> Any:
        known = self.anchors.get(event.anchor)
        if known is None:
            self.fail(event, path, f"the alias *{event.anchor} has no anchor before it.")
        self._count(event, path, known.nodes, depth + known.height)
        return known.value

    def _count(self, event: Any, path: Path, nodes: int, depth: int) -> None:
        self.nodes += nodes
        self.deepest = max(self.deepest, depth)
        if self.nodes > MAX_NODES:
            self.fail(event, (), f"more than {MAX_NODES:,} values (aliases count each time).")
        if depth > MAX_DEPTH:
            self.fail(event, path[:8], f"nested more than {MAX_DEPTH} levels deep.")

    def _value(self, event: Any, path: Path, depth: int) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        return (self._mapping if isinstance(event, yaml.MappingStartEvent) else self._sequence)(path, depth)

    def _sequence(self, path: Path, depth: int) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := self.next(), yaml.SequenceEndEvent):
            result.append(self.build(event, (*path, len(result)), depth + 1))
        return result

    def _mapping(self, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self.fail(event, path, "a key must be a plain string.")
            key, at = event.value, (*path, event.value)
            if key in result:
                self.fail(event, at, "this key stands twice.")
            self.lines[at] = self._line(event)
            result[key] = self.build(self.next(), at, depth + 1)
        return result

    def _scalar(self, event: Any, path: Path) -> Any:
        text: str = event.value
        if event.style or event.tag in _STRING_TAGS:  # quoted, or a block; libyaml gives a plain scalar the style ''
            return text
        if text[:1].isalpha() or text in _WORDS:
            return _WORDS.get(text, text)
        if _NON_FINITE.match(text):
            self.fail(event, path, f"{text} is not a finite number.")
        if _INT.match(text):
            return self._int(event, path, text)
        if _OCT_HEX.match(text):
            return int(text, 0)
        if _FLOAT.match(text):
            value = float(text)
            if not math.isfinite(value):
                self.fail(event, path, f"{text} is not a finite number.")
            return value
        return text

    def _int(self, event: Any, path: Path, text: str) -> int:
        if len(text) > 20:
            self.fail(event, path, "a whole number of more than 20 digits.")
        return int(text)
