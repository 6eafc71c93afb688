"""What `tidegate lint` finds in a prompt's suite and golden set: each on its own, and against one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tidegate.core.document import parse_yaml
from tidegate.core.errors import InvalidFile, Problem
from tidegate.core.notice import Notice, from_problem
from tidegate.evals.checks import NOT
from tidegate.evals.checks.tools import CALLS
from tidegate.evals.folder import Prompt, Render, optional_inputs, unrenderable
from tidegate.evals.golden import GoldenSet, load_golden
from tidegate.evals.judges.family import kinship
from tidegate.evals.spec import read_text
from tidegate.evals.suite import FILE, Suite, SuiteFile, load_suite, misplayed, plan


def lint_suite(folder: Path, prompt: Prompt | None, render: Render) -> list[Notice]:
    """
    Everything about `folder`/eval.yaml and its golden set.

    Args:
        prompt: the prompt they are for; None when it can not be read, and then nothing is held against it.
    """
    suite, notices = _suite(folder)
    path = suite.golden if suite else folder / SuiteFile.model_fields["golden"].default
    if suite is None and not path.is_file():
        return notices
    try:
        golden = load_golden(path)
    except InvalidFile as error:
        return notices + _errors(error.problems, "invalid-golden")
    if suite is not None:
        try:
            plan(suite, golden)
        except InvalidFile as error:
            notices += _errors(error.problems, "invalid-suite")
    if prompt is not None:
        notices += _fit(golden, prompt, render)
        notices += _errors(misplayed(suite, golden, prompt.artifact.tools), "invalid-script") if suite else []
        notices += [*_judged_by_kin(suite, prompt), *_never_promised(suite, prompt)] if suite else []
    return notices


def _never_promised(suite: Suite, prompt: Prompt) -> Iterator[Notice]:
    """Checks of what the prompt promises, where it promises nothing."""
    for check in suite.checks:
        base = check.type.removeprefix(NOT)
        if base == "output-valid" and prompt.artifact.output.format == "text":
            message = "decides nothing: the prompt declares no `output` but text, and any answer is a text."
        elif base in CALLS and not prompt.artifact.tools:
            message = "finds no call that is valid: the prompt declares no tools."
        else:
            continue
        yield Notice("warning", check.file, check.line, check.field, "check-of-nothing", message)


def _judged_by_kin(suite: Suite, prompt: Prompt) -> Iterator[Notice]:
    document = parse_yaml(read_text(Path(suite.file)), FILE)
    for judge in suite.judges:
        if sentence := kinship(judge, prompt.artifact):
            at = ("judges", judge.name)
            yield Notice("warning", suite.file, document.line(at), ".".join(at), "judge-of-the-family", sentence)


def _suite(folder: Path) -> tuple[Suite | None, list[Notice]]:
    try:
        suite = load_suite(folder)
    except InvalidFile as error:
        return None, _errors(error.problems, "invalid-suite")
    document, notices = parse_yaml(read_text(folder / FILE), FILE), []
    if not suite.must_pass:
        line = document.line(("gate", "must_pass"))
        message = "is missing: name the checks that no version may break, such as [is-json]."
        notices.append(Notice("warning", suite.file, line, "gate.must_pass", "no-must-pass", message))
    for name, metric in suite.metrics.items():
        if metric.margin == 0:
            line = document.line(("gate", "metrics", name, "margin"))
            message = "no number of cases shows a drop of nothing at all; give it a floor, or a margin above 0."
            notices.append(
                Notice("warning", suite.file, line, f"gate.metrics.{name}.margin", "margin-of-zero", message)
            )
    return suite, notices


def _fit(golden: GoldenSet, prompt: Prompt, render: Render) -> Iterator[Notice]:
    """The golden set against the prompt: misfits, else cases that can not be rendered; and inputs that no case sets."""
    inputs = prompt.artifact.inputs
    try:
        golden.fit(inputs, optional=optional_inputs(prompt.artifact))
    except InvalidFile as error:
        yield from _errors(error.problems, "invalid-golden")
        return
    for case in golden.cases:
        yield from _errors(unrenderable(prompt, golden, case, render), "invalid-golden")
    for name in inputs:
        if all(case.inputs.get(name) is None for case in golden.cases):
            message = "no case sets this input: nothing is known about answers that depend on it."
            yield Notice("warning", golden.file, 0, f"inputs.{name}", "input-without-case", message)


def _errors(problems: Iterable[Problem], rule: str) -> list[Notice]:
    return [from_problem(problem, rule) for problem in problems]
