"""
A golden set's file, in one of its three formats → its cases, one by one, each with the line it stands on.

    .jsonl          one JSON object a line; blank lines are allowed
    .yaml .yml      one list of mappings; `.json` likewise
    .csv            a header, then one row a case: `id`, `tags`, `cluster`, `critical`, `threshold`, `inputs.NAME`,
                    `expected` or `expected.NAME`; `:json` behind a column says that its cells are JSON, else they are
                    texts. An empty cell says nothing.

JSONL and CSV are read line by line. A case that can not be read is a problem, and the next one is read all the same.
"""

from __future__ import annotations

import csv
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tidegate.core.document import Document, parse_json, parse_yaml
from tidegate.core.errors import InvalidFile, Problem, nearest
from tidegate.core.place import Path as FieldPath

MAX_BYTES = 1 << 30
MAX_YAML_BYTES = 32 << 20
MAX_CELL = 8 << 20
SUFFIXES = (".jsonl", ".yaml", ".yml", ".json", ".csv")
_PLAIN = ("id", "tags", "cluster", "critical", "threshold")
_JSON = ":json"
_TRUTH = {"true": True, "false": False}


def rows(path: Path, problems: list[Problem]) -> Iterator[tuple[int, Document]]:
    """
    Every case of a file, as written, after its line. What can not be read is added to `problems` as it is met.

    Raises: InvalidFile when nothing of the file can be read.
    """
    file = str(path)
    if path.suffix.lower() not in SUFFIXES:
        message = (
            f"a golden set is a file of JSONL, YAML or CSV ({', '.join(SUFFIXES)}), not {path.suffix or path.name!r}."
        )
        raise InvalidFile([Problem(file, 0, "", message)])
    with _opened(path, file) as opened:
        lines = _lines(opened, file)
        match path.suffix.lower():
            case ".jsonl":
                yield from _jsonl(lines, file, problems)
            case ".csv":
                yield from _csv(lines, file, problems)
            case ".json":
                yield from _listed(parse_json("".join(lines), file))
            case _:
                yield from _listed(parse_yaml("".join(lines), file))


def _opened(path: Path, file: str) -> BinaryIO:
    """A pipe is never waited for."""
    try:
        opened = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        found = os.fstat(opened.fileno())
    except OSError as error:
        raise InvalidFile([Problem(file, 0, "", f"can not be read: {error.strerror}.")]) from error
    limit = MAX_BYTES if path.suffix.lower() in (".jsonl", ".csv") else MAX_YAML_BYTES
    wrong = None
    if not stat.S_ISREG(found.st_mode):
        wrong = "is not a regular file."
    elif found.st_size > limit:
        wrong = f"larger than {limit >> 20} MiB." + (" Write it as JSONL." if limit < MAX_BYTES else "")
    if wrong:
        opened.close()
        raise InvalidFile([Problem(file, 0, "", wrong)])
    return opened


def _lines(opened: BinaryIO, file: str) -> Iterator[str]:
    """Lines with their ends as `\\n`. Only \\n ends a line: splitlines() would cut at U+2028, which JSON allows."""
    number = 0
    try:
        for number, line in enumerate(opened, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            yield text[:-2] + "\n" if text.endswith("\r\n") else text
    except UnicodeDecodeError as error:
        raise InvalidFile([Problem(file, number, "", "not valid UTF-8.")]) from error
    except OSError as error:
        raise InvalidFile([Problem(file, number, "", f"can not be read: {error.strerror}.")]) from error


def _jsonl(lines: Iterator[str], file: str, problems: list[Problem]) -> Iterator[tuple[int, Document]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document = parse_json(line.removesuffix("\n"), file, first_line=number)
        except InvalidFile as error:
            problems += error.problems
            continue
        yield number, document


def _listed(whole: Document) -> Iterator[tuple[int, Document]]:
    if whole.data is None:
        return
    if not isinstance(whole.data, list):
        raise InvalidFile([whole.problem((), "a golden set in YAML is a list of cases, each after a `- `.")])
    lines: dict[Any, dict[FieldPath, int]] = defaultdict(dict)
    for path, line in whole.lines.items():
        if path:
            lines[path[0]][path[1:]] = line
    for index, case in enumerate(whole.data):
        yield lines[index][()], Document(whole.file, case, lines[index])


def _csv(lines: Iterator[str], file: str, problems: list[Problem]) -> Iterator[tuple[int, Document]]:
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(lines, strict=True)
    columns: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # Where a quote is never closed there is no next row to be found.
            raise InvalidFile([*problems, Problem(file, line, "", f"not a CSV table: {error}.")]) from error
        if cells is None:
            return
        if not any(cells):
            continue
        if not columns:
            columns = cells
            wrong = [Problem(file, line, column, message) for column, message in _misnamed(columns)]
            if wrong:
                raise InvalidFile(wrong)
            continue
        if len(cells) != len(columns):
            message = f"has {len(cells)} cells, and the header {len(columns)}."
            problems.append(Problem(file, line, "", message))
            continue
        try:
            yield line, Document(file, _case(dict(zip(columns, cells, strict=True)), file, line), {(): line})
        except InvalidFile as error:
            problems += error.problems


def _misnamed(columns: list[str]) -> Iterator[tuple[str, str]]:
    """(column, what is wrong with it)"""
    plain = [column.removesuffix(_JSON) for column in columns]
    for index, column in enumerate(columns):
        name = plain[index]
        of, _, key = name.partition(".")
        if name in plain[:index]:
            yield column, "this column stands twice."
        elif name.startswith("__"):
            yield column, "is a column of promptfoo's; `tidegate import promptfoo` reads such tables."
        elif not (column in _PLAIN or name == "expected" or (of in ("inputs", "expected") and key)):
            known = [*_PLAIN, "expected", "expected.NAME", "inputs.NAME"]
            hint = nearest(name, known) or f" Known: {', '.join(known)}."
            yield column, f"no column is called so.{hint}"
    if "id" not in columns:
        yield "id", "this column is missing: it names each case."
    if "expected" in plain and any(name.startswith("expected.") for name in plain):
        yield "expected", "stands beside expected.NAME: one of them, not both."


def _case(cells: dict[str, str], file: str, line: int) -> dict[str, Any]:
    case: dict[str, Any] = {}
    for column, cell in cells.items():
        if not cell.strip():
            continue
        of, _, key = column.removesuffix(_JSON).partition(".")
        value = _cell(column, cell, file, line)
        if key:
            case.setdefault(of, {})[key] = value
        else:
            case[of] = value
    return case


def _cell(column: str, cell: str, file: str, line: int) -> Any:
    if column.endswith(_JSON):
        try:
            return parse_json(cell, file).data
        except InvalidFile as error:
            raise InvalidFile([Problem(file, line, column, error.problems[0].message)]) from error
    match column:
        case "tags":
            return [tag.strip() for tag in cell.split(",") if tag.strip()]
        case "critical":
            return _TRUTH.get(cell.strip().lower(), cell)
        case "threshold":
            try:
                return float(cell)
            except ValueError:
                return cell
    return cell
