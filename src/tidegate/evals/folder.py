"""
What stands in a prompt's folder to measure it by: its suite and golden set, held against the prompt and each other.

Everything that can be wrong with the files is found here, before the registry or a provider is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tidegate.core.artifact import Artifact
from tidegate.core.errors import InvalidFile, NotFound, Problem, RequestError
from tidegate.core.ledger import Deployment, Measure, changed
from tidegate.evals.golden import Case, GoldenSet, load_golden
from tidegate.evals.suite import Suite, load_suite, misplayed, plan

Render = Callable[[Artifact, Mapping[str, Any]], object]
"""An artifact and a case's inputs → the messages (prompts/render.py). Raises RequestError."""


class Prompt(Protocol):
    """A prompt as it stands in the working tree (prompts/files.py)."""

    @property
    def name(self) -> str: ...
    @property
    def artifact(self) -> Artifact: ...
    @property
    def description(self) -> str: ...
    @property
    def file_sha256(self) -> str: ...
    @property
    def folder(self) -> Path: ...


def read(prompt: Prompt, render: Render) -> tuple[Suite, GoldenSet]:
    """
    Suite and golden set of a prompt, checked against each other and against the prompt: every case is rendered once.

    Raises: InvalidFile with every problem, NotFound when the prompt has no suite.
    """
    suite = load_suite(prompt.folder)
    golden = load_golden(suite.golden)
    golden.fit(prompt.artifact.inputs, optional=optional_inputs(prompt.artifact))
    plan(suite, golden)
    problems = [*misplayed(suite, golden, prompt.artifact.tools)]
    problems += [problem for case in golden.cases for problem in unrenderable(prompt, golden, case, render)]
    if problems:
        raise InvalidFile(problems)
    return suite, golden


def optional_inputs(artifact: Artifact) -> list[str]:
    """The inputs that a case may leave out."""
    return [name for name, declared in artifact.inputs.items() if not declared.required]


def unrenderable(prompt: Prompt, golden: GoldenSet, case: Case, render: Render) -> Iterator[Problem]:
    """Why the prompt can not be rendered with a case's inputs, if it can not."""
    try:
        render(prompt.artifact, case.inputs)
    except RequestError as error:
        field = (error.param or "variables").replace("variables", "inputs", 1)
        message = str(error).removeprefix(f"{error.param}: ")
        yield Problem(golden.file, case.line, field, f"{message} (in case {case.id!r})")


def measure(folder: Path, *, strict: bool = True) -> Measure | None:
    """
    What the suite in a prompt's folder measures by; where it has none, an empty one, under which nothing is approved.

    None without a folder and, unless `strict`, where it can not be read: then no deploy waits for it.

    Raises: InvalidFile.
    """
    try:
        suite = load_suite(folder)
        return Measure(suite.digest, load_golden(suite.golden).digest)
    except NotFound:
        return Measure("", "") if folder.is_dir() else None
    except InvalidFile:
        if strict:
            raise
        return None


def measured_otherwise(live: Deployment, now: Measure) -> str | None:
    """One sentence when a deployment was approved under another suite or golden set than `now`; else None."""
    before = live.measure
    what = before and changed(before, now)
    return f"the {what} changed since v{live.to_version} was approved for {live.environment}." if what else None
