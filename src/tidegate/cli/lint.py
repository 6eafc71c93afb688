"""`tidegate lint`: every problem of the project's files at once, each with its file and line."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.progress import track
from rich.text import Text

from tidegate import compose
from tidegate import config as configuration
from tidegate.cli.github import annotation, from_workspace, sentence
from tidegate.cli.output import err, out, print_json, visible
from tidegate.config import Config
from tidegate.core.errors import BadInput, InvalidFile, NotFound, nearest
from tidegate.core.notice import Notice, from_problem

MANY = 300
"""Prompts; more are worth several processes, and a bar that shows how far they are."""
CHUNK = 50
MOST_PROCESSES = 8

Work = Callable[[str, list[str]], tuple[bool, list[Notice]]]


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found, by file and line, in a project at `root`."""

    root: Path
    prompts: int
    suites: int
    notices: tuple[Notice, ...]

    def count(self, level: str) -> int:
        return sum(notice.level == level for notice in self.notices)


def lint_(
    *names: str,
    strict: bool = False,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
    github: bool = False,
) -> None:
    """
    Check prompts, evals and tidegate.yaml: every problem with its file and line.

    An error keeps tidegate from using a file, a warning is worth a look. Exit codes: 0 no errors, 4 errors; with
    --strict warnings alone exit with 1.

    Example: `tidegate lint --github`

    Parameters
    ----------
    names
        The prompts; by default all of them, and how they are laid out. tidegate.yaml is always checked.
    strict
        Exit with 1 when there is nothing but warnings.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print `[{level, file, line, field, rule, message}]`; line 0 is the file as a whole.
    github
        Print GitHub's annotations instead, for a workflow: they show in the pull request, on their lines.
    """
    if json and github:
        raise BadInput("--json and --github are two ways to print the same: choose one.")
    report = lint(configuration.locate(Path.cwd(), config), names, quiet=json or github)
    if json:
        print_json(report.notices)
    elif github:
        for notice in report.notices:
            sys.stdout.write(annotation(notice, from_workspace(report.root)) + "\n")
    else:
        _print(report)
    if report.count("error"):
        sys.exit(BadInput.exit_code)
    sys.exit(1 if strict and report.notices else 0)


def lint(file: Path, names: Sequence[str] = (), *, quiet: bool = True) -> Report:
    """Checks the project of a tidegate.yaml. Raises BadInput when there is none, NotFound for an unknown prompt."""
    from tidegate.prompts.files import JUDGES
    from tidegate.prompts.lint import survey

    root = file.resolve().parent
    known, notices = lint_config(file)
    prompts, layout = survey(root / "prompts")
    judges, judges_layout = survey(root / JUDGES)
    prompts = {**prompts, **{f"{JUDGES}/{name}": files for name, files in judges.items()}}
    layout += judges_layout
    if known is not None:
        notices += _unknown_prompts(file, known, prompts)
        notices += _unknown_keys(file, known)
    for name in names:
        if name not in prompts:
            raise NotFound(f"no prompt named {name!r} under {root / 'prompts'}.{nearest(name, prompts)}")
    if not names:
        notices += layout
    chosen = {name: prompts[name] for name in sorted(set(names) or prompts)}
    suites = 0
    for has_suite, found in _each(partial(_lint_one, root / "prompts", known), chosen, quiet=quiet):
        suites += has_suite
        notices += found
    # What is wrong with a judge is found by itself, and again in every suite that has it.
    placed = [_placed(notice, root) for notice in notices]
    once = {(notice.file, notice.line, notice.field, notice.message): notice for notice in placed}
    ordered = sorted(once.values(), key=lambda notice: (notice.file, notice.line, notice.level, notice.field))
    return Report(root, len(chosen), suites, tuple(ordered))


def _lint_one(prompts: Path, known: Config | None, name: str, files: list[str]) -> tuple[bool, list[Notice]]:
    """Whether a prompt has a suite, and all that is to be said about both."""
    from tidegate.evals.lint import lint_suite
    from tidegate.evals.suite import FILE
    from tidegate.prompts.files import shelf
    from tidegate.prompts.lint import lint_prompt
    from tidegate.prompts.render import render

    prompt, notices = lint_prompt(prompts, name, files, known)
    top, inside = shelf(prompts, name)
    folder = top / inside
    has_suite = os.path.lexists(folder / FILE)
    return has_suite, notices + (lint_suite(folder, prompt, render) if has_suite else [])


def _each(work: Work, chosen: Mapping[str, list[str]], *, quiet: bool) -> Iterator[tuple[bool, list[Notice]]]:
    """The work on each prompt, in order: in this process, or on all processors when there are many prompts."""
    processors = min(os.cpu_count() or 1, MOST_PROCESSES)
    if len(chosen) < MANY or processors == 1:
        yield from map(work, chosen, chosen.values())
        return
    with ProcessPoolExecutor(processors, get_context("fork")) as pool:
        done = pool.map(work, chosen, chosen.values(), chunksize=CHUNK)
        hidden = quiet or not err.is_terminal
        yield from track(done, "  linting", len(chosen), console=err, transient=True, disable=hidden)


def lint_config(file: Path) -> tuple[Config | None, list[Notice]]:
    """The configuration, when it is valid, and all that is to be said about it."""
    from tidegate.prompts.lint import lint_secrets
    from tidegate.upstream import lint

    known = None
    try:
        document = configuration.read(file)
        known = configuration.check(document)
    except InvalidFile as error:
        notices = [from_problem(problem, "invalid-config") for problem in error.problems]
    else:
        notices = list(lint.lint_config(document, known))
    literal = {notice.line for notice in notices if notice.rule == "literal-api-key"}
    return known, notices + [notice for notice in lint_secrets({str(file): str(file)}) if notice.line not in literal]


def _unknown_prompts(file: Path, known: Config, prompts: Mapping[str, object]) -> Iterator[Notice]:
    """Limits and budgets of prompts that nobody finds here: perhaps elsewhere, perhaps a slip that caps nothing."""
    document = configuration.read(file)
    for section, scopes in (("limits", known.limits), ("budgets", known.budgets)):
        for name in scopes.prompts.keys() - prompts.keys():
            problem = document.problem((section, "prompts", name), f"no prompt named {name!r}.{nearest(name, prompts)}")
            yield from_problem(problem, "unknown-prompt", "warning")


def _unknown_keys(file: Path, known: Config) -> Iterator[Notice]:
    """Limits and budgets of keys that nobody has, where this folder keeps the keys; in a fresh clone none are known."""
    project = configuration.Project(file.resolve().parent, known, file)
    if not (known.limits.keys or known.budgets.keys) or not project.control.exists() or known.control.url is not None:
        return
    document = configuration.read(file)
    with closing(compose.own_registry(project)) as registry:
        for path, message in compose.nobodys(known, registry.keys.ring()):
            yield from_problem(document.problem(path, message), "unknown-key", "warning")


def _placed(notice: Notice, root: Path) -> Notice:
    """A notice whose file is named as seen from the project."""
    path = Path(notice.file)
    if not path.is_absolute():
        path = root / path if (root / path).exists() else Path.cwd() / path
    file = path.relative_to(root).as_posix() if path.is_relative_to(root) else notice.file
    return msgspec.structs.replace(notice, file=file)


def _print(report: Report) -> None:
    checked = f"{_counted(report.prompts, 'prompt')}, {_counted(report.suites, 'suite')} and {configuration.FILE}"
    if not report.notices:
        out.print(Text(f"✓ {checked}: nothing to report.", "green"))
        return
    for file, notices in groupby(report.notices, key=lambda notice: notice.file):
        out.print(Text(visible(file), "bold"))
        for line in _lines(list(notices)):
            out.print(line)
        out.print()
    levels = Counter(notice.level for notice in report.notices)
    files = len({notice.file for notice in report.notices})
    words = ", ".join(_counted(levels[level], level) for level in ("error", "warning") if levels[level])
    style = "red" if levels["error"] else "yellow"
    out.print(Text(f"{words} in {_counted(files, 'file')}; checked {checked}.", style))


def _lines(notices: list[Notice]) -> Iterator[Text]:
    width = max(len(str(notice.line)) for notice in notices)
    for notice in notices:
        place = str(notice.line) if notice.line else "–"
        style = "red" if notice.level == "error" else "yellow"
        said = visible(sentence(notice))
        yield Text.assemble(
            (f"  {place:>{width}}  ", "dim"), (f"{notice.level:<7}", style), f"  {said}  ", (notice.rule, "dim")
        )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
