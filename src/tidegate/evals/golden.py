"""
golden.jsonl → the golden set: the cases every version of a prompt is measured on.

Which formats there are is told in golden_rows.py. All malformed cases are reported at once, each with its line. The
digest is over the cases' content, sorted by id: format, layout and order do not change it, anything a case says does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import rfc8785
from pydantic import Field

from tidegate.core.document import Document, Strict, validate
from tidegate.core.errors import InvalidFile, Problem, nearest
from tidegate.evals.golden_rows import rows
from tidegate.evals.script import NOTHING, Script, Steps, Stop, Tools
from tidegate.evals.spec import CheckSpec, read_checks

Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


Threshold = Annotated[float, Field(ge=0, le=1)]


class CaseLine(Strict):
    """One case as its author writes it."""

    id: Id
    inputs: dict[str, Any] = {}
    expected: Any = None
    checks: list[Any] = []
    tags: list[str] = []
    cluster: Id | None = None
    critical: bool = False
    threshold: Threshold | None = None
    tools: Tools = {}
    max_steps: Steps | None = None
    stop: Stop | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One case. Cases of one `cluster` (same document, same template) count as one in the statistics."""

    id: str
    line: int
    inputs: Mapping[str, Any]
    expected: Any
    checks: tuple[CheckSpec, ...]
    tags: tuple[str, ...]
    cluster: str | None
    critical: bool
    """Every check of a critical case must pass, as if the suite's `must_pass` named it."""
    threshold: float | None = None
    """With one, the weighted mean of the checks' scores has to reach it; without, the suite's counts."""
    script: Script = NOTHING
    """Its own tools, which stand before the suite's."""

    @property
    def variables(self) -> dict[str, Any]:
        """What the templates of checks see."""
        seen: dict[str, Any] = {"inputs": dict(self.inputs)}
        return seen if self.expected is None else {**seen, "expected": self.expected}

    @property
    def item(self) -> str:
        """The name of the pair this case belongs to."""
        return f"cluster {self.cluster}" if self.cluster is not None else f"case {self.id}"


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """The cases in the file's order. `text` is their canonical form, and `digest` its sha256."""

    file: str
    cases: tuple[Case, ...]
    digest: str
    text: str

    @property
    def items(self) -> int:
        """How many pairs the statistics see: clusters, and cases without one."""
        return len({case.item for case in self.cases})

    def fit(self, inputs: Collection[str], *, optional: Collection[str] = ()) -> None:
        """Raises InvalidFile where a case's inputs are not the ones the prompt declares; `optional` may be missing."""
        problems = [problem for case in self.cases for problem in self._misfits(case, inputs, optional)]
        if problems:
            raise InvalidFile(problems)

    def _misfits(self, case: Case, inputs: Collection[str], optional: Collection[str]) -> Iterator[Problem]:
        for name, message in misfits(case.id, case.inputs, inputs, optional):
            yield Problem(self.file, case.line, f"inputs.{name}", message)


def misfits(
    case_id: str, given: Collection[str], inputs: Collection[str], optional: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Each input of a case that is missing, or that the prompt does not declare, and a sentence about it."""
    for name in inputs:
        if name not in given and name not in optional:
            yield name, f"is missing in case {case_id!r}: the prompt declares this input."
    for name in given:
        if name not in inputs:
            hint = nearest(name, inputs) or " It declares none."
            yield name, f"case {case_id!r} sets an input that the prompt does not declare.{hint}"


def load_golden(path: Path) -> GoldenSet:
    """Reads one golden set. Raises InvalidFile with every problem, each on its line."""
    file = str(path)
    reader = _Reader(path.parent)
    try:
        for line, document in rows(path, reader.problems):
            reader.read(line, document)
    except InvalidFile as error:
        reader.problems += [problem for problem in error.problems if problem not in reader.problems]
    if not reader.cases and not reader.problems:
        message = "has no cases; write one JSON object a line." if path.suffix == ".jsonl" else "has no cases."
        reader.problems.append(Problem(file, 0, "", message))
    if reader.problems:
        raise InvalidFile(reader.problems)
    text = "\n".join(reader.canonical[case_id] for case_id in sorted(reader.canonical))
    return GoldenSet(file, tuple(reader.cases), hashlib.sha256(text.encode()).hexdigest(), text)


class _Reader:
    """Collects cases and problems one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases: list[Case] = []
        self.lines: dict[str, int] = {}
        self.canonical: dict[str, str] = {}
        self.problems: list[Problem] = []

    def read(self, line: int, document: Document) -> None:
        try:
            if not isinstance(document.data, dict):
                raise InvalidFile([document.problem((), "a case is a JSON object, in braces.")])
            self._case(document, validate(document, CaseLine), line)
        except InvalidFile as error:
            self.problems += error.problems

    def _case(self, document: Document, case: CaseLine, line: int) -> None:
        if case.id in self.lines:
            message = f"the case {case.id!r} stands twice: lines {self.lines[case.id]} and {line}."
            raise InvalidFile([document.problem(("id",), message)])
        checks, problems = read_checks(
            case.checks,
            self.folder,
            lambda index, type_: document.problem(("checks", index, *([type_] if type_ else [])), ""),
            prefix="case/",
        )
        if problems:
            raise InvalidFile(problems)
        try:
            self.canonical[case.id] = canonical(case, checks)
        except rfc8785.CanonicalizationError as error:
            raise InvalidFile([document.problem((), f"can not be written as canonical JSON: {error}.")]) from error
        self.lines[case.id] = line
        self.cases.append(
            Case(
                case.id,
                line,
                case.inputs,
                case.expected,
                checks,
                tuple(case.tags),
                case.cluster,
                case.critical,
                case.threshold,
                Script(case.tools, case.max_steps, case.stop) if case.tools or case.max_steps or case.stop else NOTHING,
            )
        )


def canonical(case: CaseLine, checks: Sequence[CheckSpec] = ()) -> str:
    """A case as the digest has it. Raises rfc8785.CanonicalizationError."""
    plain = case.model_dump(exclude_defaults=True)
    if checks:
        plain["checks"] = [check.plain for check in checks]
    return rfc8785.dumps(plain).decode()
