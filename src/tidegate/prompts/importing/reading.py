"""
The user's files, read safely: the one that is imported, and those it names beside itself.

A named file must stand in the same folder or below it, links followed; what is larger than 8 MiB, not UTF-8 or holds
what no prompt can hold (NUL, half of a surrogate pair, whole numbers beyond 2^53) is an error with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tidegate.core.document import Document, parse_json, parse_yaml
from tidegate.core.errors import BadInput, InvalidFile, Problem
from tidegate.core.place import Path as FieldPath
from tidegate.prompts.front_matter import MAX_WHOLE

MAX_BYTES = 8 << 20
MAX_FILES = 1_000
"""That one pattern such as `prompts/*.txt` may name."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_PATTERN = re.compile(r"[*?\[]")


class Outside(ValueError):
    """The name of a file leads out of the folder that an import may read."""


class Given:
    """The file an import is given, and the folder that everything it names must stay in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.parent

    def text(self) -> str:
        """Its text, line ends as `\\n`. Raises BadInput when it is no file, InvalidFile when it can not be read."""
        if not self.path.exists():
            raise BadInput(f"{self.path}: no such file.")
        if not self.path.is_file():
            raise BadInput(f"{self.path}: is not a regular file.")
        return _text(self.path)

    def beside(self, reference: str) -> list[Path]:
        """The file, or for a pattern the files, that `reference` names. Raises ValueError, such as Outside."""
        name = reference.replace("\\", "/")
        if "\0" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise Outside(f"{reference!r} leads out of the folder of {self.path.name}: copy it there and name it so.")
        if _PATTERN.search(name) and not (self.folder / name).exists():
            found = sorted(path for path in self.folder.glob(name) if path.is_file())
            if not found or len(found) > MAX_FILES:
                raise ValueError(f"{reference!r} names {len(found) or 'no'} files.")
        else:
            found = [self.folder / name]
        for path in found:
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise Outside(f"{reference!r} is a link that leads out of the folder of {self.path.name}.")
            if not path.is_file():
                raise ValueError(f"there is no file {reference!r} beside {self.path.name}.")
        return found

    def read(self, path: Path) -> str:
        """The text of a file that `beside` gave. Raises InvalidFile."""
        return _text(path)


def parse(text: str, path: Path, *, first_line: int = 1) -> Document:
    """
    YAML, or strict JSON where the file's name says so. YAML's merge keys (`<<`) are carried out.

    Raises: InvalidFile, with the line of what can not be read or can not be carried by any prompt.
    """
    is_json = path.suffix.lower() in (".json", ".jsonl")
    document = (parse_json if is_json else parse_yaml)(text, str(path), first_line=first_line)
    merged = document if is_json else Document(document.file, _merged(document, document.data, ()), document.lines)
    problems = [merged.problem(at, complaint) for at, complaint in _unportable(merged.data, ())]
    if problems:
        raise InvalidFile(problems)
    return merged


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidFile([Problem(str(path), 0, "", f"can not be read: {error.strerror}.")]) from error
    if len(body) > MAX_BYTES:
        raise InvalidFile([Problem(str(path), 0, "", f"larger than {MAX_BYTES >> 20} MiB.")])
    nul = body.find(b"\0")
    if nul >= 0:
        raise InvalidFile([Problem(str(path), body.count(b"\n", 0, nul) + 1, "", "holds a NUL byte.")])
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidFile([Problem(str(path), line, "", "not valid UTF-8.")]) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _merged(document: Document, value: Any, path: FieldPath) -> Any:
    if isinstance(value, list):
        return [_merged(document, item, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    own = {key: _merged(document, item, (*path, key)) for key, item in value.items() if key != "<<"}
    if "<<" not in value:
        return own
    sources = value["<<"] if isinstance(value["<<"], list) else [value["<<"]]
    if not all(isinstance(source, dict) for source in sources):
        raise InvalidFile([document.problem((*path, "<<"), "a merge key takes a mapping, or a list of them.")])
    inherited: dict[str, Any] = {}
    for source in reversed(sources):
        inherited |= _merged(document, source, (*path, "<<"))
    return inherited | own


def _unportable(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _unportable(key, path)
            yield from _unportable(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unportable(item, (*path, index))
    elif isinstance(value, str):
        if "\0" in value:
            yield path, "holds a NUL character."
        if not value.isascii() and _SURROGATE.search(value):
            yield path, "holds half of a surrogate pair."
    elif isinstance(value, int) and abs(value) > MAX_WHOLE:
        yield path, f"{value} is beyond ±(2^53 − 1): write it as a string."
