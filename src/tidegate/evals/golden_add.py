"""
A recorded call → one more case at the end of a golden set, in the set's own format.

The file is only ever appended to: every line that stood there stands there still, so that a review shows one case. What
would not be read back as exactly that case is refused, and nothing is written.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tidegate.core.document import Document, parse_yaml, validate
from tidegate.core.errors import BadInput, InvalidFile
from tidegate.evals.golden import CaseLine, load_golden, misfits


def case_of(call: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """
    What a call (a row of `calls` with its `content`) says of a case: an id and the inputs.

    Raises: BadInput when the call was not of this prompt, or its inputs were not kept.
    """
    shown = f"the call {call['id']}"
    if call["prompt"] is None:
        raise BadInput(f"{shown} named no prompt: only calls of a prompt have inputs that make a case.")
    if call["prompt"] != prompt:
        raise BadInput(f"{shown} was of {call['prompt']}, not of {prompt}.")
    variables = (call["content"] or {}).get("variables")
    if not isinstance(variables, dict):
        raise BadInput(f"the content of {shown} was not kept, so its inputs are not known.")
    return {"id": f"call-{str(call['id'])[-12:]}", "inputs": variables}


def add(path: Path, case: Mapping[str, Any], inputs: Mapping[str, bool]) -> int:
    """
    Appends a case to the golden set at `path`, which may not be there yet. Returns its line.

    Args:
        inputs: the prompt's inputs, and whether a case may leave each out.
    Raises: InvalidFile when the set itself is broken; BadInput when the case is there already, does not fit the prompt,
        or can not be written in the set's format. Nothing is written then.
    """
    known = load_golden(path) if path.exists() and path.stat().st_size else None
    try:
        new = validate(Document(str(path), dict(case), {(key,): 0 for key in case}), CaseLine)
    except InvalidFile as error:
        first = error.problems[0]
        raise BadInput(f"this call makes no case: {first.field}: {first.message}") from error
    for name, message in misfits(new.id, new.inputs, inputs, [name for name, optional in inputs.items() if optional]):
        raise BadInput(f"this call makes no case: inputs.{name}: {message}")
    for other in known.cases if known else ():
        if other.id == new.id:
            raise BadInput(f"{path}:{other.line}: a case {new.id!r} is there already; choose another with --id.")
        if dict(other.inputs) == new.inputs:
            raise BadInput(f"{path}:{other.line}: the case {other.id!r} has the same inputs.")
    text = path.read_bytes().decode("utf-8-sig") if known else ""
    gap = "" if not text or text.endswith("\n") else "\n"
    addition = gap + _written(path, text, dict(case))
    if "\r\n" in text[:10_000]:
        addition = addition.replace("\n", "\r\n")
    with path.open("ab") as file:
        file.write(addition.encode())
    header = not text and path.suffix.lower() == ".csv"
    return text.count("\n") + len(gap) + header + 1


def _written(path: Path, text: str, case: dict[str, Any]) -> str:
    """Raises BadInput when the format can not hold it."""
    match path.suffix.lower():
        case ".csv":
            return _row(path, text, case)
        case ".yaml" | ".yml":
            return _item(path, text, case)
        case ".jsonl":
            return json.dumps(case, ensure_ascii=False) + "\n"
    raise BadInput(f"{path}: cases are added to JSONL, YAML and CSV.")


def _item(path: Path, text: str, case: dict[str, Any]) -> str:
    lines = [line for line in text.splitlines() if line.startswith((" ", "-"))]
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())] if lines else ""
    block = yaml.safe_dump([case], allow_unicode=True, sort_keys=False, width=10_000)
    item = "".join(f"{indent}{line}\n" for line in block.splitlines())
    gap = "" if not text or text.endswith("\n") else "\n"
    before = parse_yaml(text, str(path)).data or []
    try:
        after = parse_yaml(text + gap + item, str(path)).data
    except InvalidFile:
        after = None
    if after != [*before, case]:
        raise BadInput(f"{path}: a case can be added only to a list in block style, each case after a `- `.")
    return item


def _row(path: Path, text: str, case: dict[str, Any]) -> str:
    columns = next(csv.reader(io.StringIO(text, newline="")), None) or _columns(case)
    cells = _cells(case, spread="expected" not in [column.removesuffix(":json") for column in columns])
    row = []
    for column in columns:
        name = column.removesuffix(":json")
        value = cells.pop(name, None)
        if column.endswith(":json"):
            row.append("" if value is None else json.dumps(value, ensure_ascii=False))
        elif value is None or (isinstance(value, str) and value.strip()):
            row.append(value or "")
        else:
            raise BadInput(f"{path}: the column {column} holds texts; call it {column}:json to hold {value!r}.")
    left = next((name for name, value in cells.items() if value is not None), None)
    if left is not None:
        raise BadInput(f"{path}: has no column {left}; add it to the header first.")
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([row] if text else [columns, row])
    return written.getvalue()


def _cells(case: dict[str, Any], *, spread: bool = True) -> dict[str, Any]:
    """Column → value; tags and critical as a table spells them, a map of expected values `spread` over columns."""
    cells: dict[str, Any] = {"id": case["id"], "cluster": case.get("cluster")}
    cells["tags"] = ",".join(case.get("tags", [])) or None
    cells["critical"] = "true" if case.get("critical") else None
    cells |= {f"inputs.{name}": value for name, value in case["inputs"].items()}
    expected = case.get("expected")
    if not spread or not isinstance(expected, dict):
        return {**cells, "expected": expected}
    return cells | {f"expected.{name}": value for name, value in expected.items()}


def _columns(case: dict[str, Any]) -> list[str]:
    given = {name: value for name, value in _cells(case).items() if value is not None}
    return [name if isinstance(value, str) else f"{name}:json" for name, value in given.items()]
