"""Which line of a JSON text each of its values stands on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property

from tidegate.core.place import Path

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[{}\[\],:]|[^\s{}\[\],:"]+')


class JsonLines(Mapping[Path, int]):
    """Path → line of valid JSON text, found out when it is first asked for: most files have nothing to report."""

    def __init__(self, text: str, first_line: int) -> None:
        self._text = text
        self._first_line = first_line

    def __getitem__(self, path: Path) -> int:
        return self._lines[path]

    def __iter__(self) -> Iterator[Path]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    @cached_property
    def _lines(self) -> dict[Path, int]:
        lines: dict[Path, int] = {}
        for path, line, _ in _walk(self._text, self._first_line):
            lines.setdefault(path, line)
        return lines


def line_of(text: str, first_line: int, scalar: str) -> int:
    """The line of a number or a name such as NaN, as it is written."""
    return next((line for _, line, sign in _walk(text, first_line) if sign == scalar), first_line)


def second_key(text: str, first_line: int) -> tuple[Path, int]:
    """The first key that stands twice in one object, and the line on which it does so again."""
    seen: set[Path] = set()
    for path, line, sign in _walk(text, first_line):
        if sign == ":":
            if path in seen:
                return path, line
            seen.add(path)
    return (), first_line


def _walk(text: str, first_line: int) -> Iterator[tuple[Path, int, str]]:
    """
    (path, line, what stands there) of every value and, with a `:`, of every key.

    What stands there is a scalar as it is written, `{` or `[`. The text must be valid as far as it is walked.
    """
    path: list[str | int] = []
    line, at = first_line, 0
    key = False  # the next string is a key
    for found in _TOKEN.finditer(text):
        sign = found[0]
        line, at = line + text.count("\n", at, found.start()), found.start()
        if sign in ("{", "["):
            yield tuple(path), line, sign
            key = sign == "{"
            path.append("" if key else 0)
        elif sign in ("}", "]"):
            path.pop()
            key = False
        elif sign == ",":
            last = path[-1]
            key = isinstance(last, str)
            if isinstance(last, int):
                path[-1] = last + 1
        elif sign == ":":
            key = False
        elif key:
            path[-1] = json.loads(sign)
            yield tuple(path), line, ":"
        else:
            yield tuple(path), line, sign
