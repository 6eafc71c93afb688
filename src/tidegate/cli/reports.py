"""
The report files of `gate` and `eval`: asked for on the command line, checked before the first call, written at the end.

A path that can not be written costs a message, not a run that was paid for. Only an earlier report of the same kind is
replaced, so a slip of the keyboard does not cost a file; it is taken away before the run, so that what an interrupted
run leaves behind is no older verdict. A report is there whole or not at all.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.core.errors import BadInput, TidegateError

if TYPE_CHECKING:
    from tidegate.config import Project
    from tidegate.core.evaluation import GateReport, Run
    from tidegate.evals.reports.judged import Judged, Place
    from tidegate.ports import PromptRegistry

BEGINNINGS = {
    "--html": b"<!doctype html>\n<!-- tidegate report -->",
    "--junit": b"<?xml version='1.0' encoding='utf-8'?>\n<testsuites name=\"tidegate\"",
    "--markdown": b"<!-- tidegate:gate",
}
"""How our own files begin, by the option that asks for them."""


@dataclass(frozen=True, slots=True)
class Reports:
    """What was asked for. Make it first: it raises BadInput for a path that can not be written."""

    html: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    github: bool = False

    def __post_init__(self) -> None:
        wanted = {option: path for option, path in self._files() if path is not None}
        for option, path in wanted.items():
            _check(option, path)
            same = [other for other, its in wanted.items() if its.absolute() == path.absolute()]
            if len(same) > 1:
                raise BadInput(f"{same[0]} and {same[1]} name the same file, {path}.")
        for path in wanted.values():
            path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[str, Path | None]]:
        yield from (("--html", self.html), ("--junit", self.junit), ("--markdown", self.markdown))

    @property
    def any(self) -> bool:
        return self.github or any(path is not None for _, path in self._files())

    @contextmanager
    def or_say_why_not(self, project: Project) -> Iterator[None]:
        """An error inside is reported where a verdict would have been: nobody takes silence for a pass."""
        try:
            yield
        except TidegateError as error:
            from tidegate.cli import github
            from tidegate.evals.reports import junit, markdown

            text = markdown.unjudged(error, project=project.config.project, command=_command())
            if self.junit is not None:
                _write(self.junit, junit.unjudged(error))
            if self.markdown is not None:
                _write(self.markdown, text.encode())
            if self.github:
                github.say(github.error_annotations(error, project.root))
                github.add_to_summary(text)
            raise

    def write(self, project: Project, registry: PromptRegistry, reports: Sequence[GateReport]) -> None:
        """Writes what was asked for. Raises BadInput when a file can not be written after all."""
        if self.any:
            self.write_judged(project, [_judged(project, registry, report) for report in reports])

    def write_run(self, project: Project, run: Run) -> None:
        """Writes what was asked for of a run that nothing judged."""
        from tidegate.evals.reports.judged import Judged

        if self.any:
            self.write_judged(project, [Judged(run, places=_places(project, run.prompt))])

    def write_judged(self, project: Project, judged: Sequence[Judged]) -> None:
        """Writes what was asked for."""
        from tidegate.cli import github

        if self.html is not None:
            from tidegate.evals.reports.page import page

            now = datetime.now(UTC)
            _write(self.html, page(judged, command=_command(), version=version("tidegate"), now=now))
        if self.junit is not None:
            from tidegate.evals.reports.junit import junit

            _write(self.junit, junit(judged))
        if self.markdown is not None or self.github:
            from tidegate.evals.reports.markdown import markdown

            text = markdown(judged, project=project.config.project, command=_command())
            if self.markdown is not None:
                _write(self.markdown, text.encode())
            if self.github:
                github.say(github.verdict_annotations(judged, project.root))
                github.add_to_summary(text)


def _judged(project: Project, registry: PromptRegistry, report: GateReport) -> Judged:
    from tidegate.cli.github import seen_from
    from tidegate.evals.reports.judged import Judged

    other = report.baseline_run_id not in (None, report.run_id)
    return Judged(
        run=registry.run(report.run_id),
        report=report,
        baseline=registry.run(report.baseline_run_id or "") if other else None,
        prompt_file=seen_from(project.prompts / report.prompt / "prompt.md", project.root),
        places=_places(project, report.prompt),
    )


def _places(project: Project, prompt: str) -> dict[str, Place]:
    """Where the cases stand now; nothing, when the files are gone or other ones since."""
    from tidegate.cli.github import seen_from
    from tidegate.evals.golden import load_golden
    from tidegate.evals.reports.judged import Place
    from tidegate.evals.suite import load_suite

    try:
        golden = load_golden(load_suite(project.prompts / prompt).golden)
    except TidegateError:
        return {}
    file = seen_from(Path(golden.file), project.root)
    return {case.id: Place(file, case.line) for case in golden.cases}


def _command() -> str:
    """What was typed, without the report files: it makes the same verdict again."""
    kept: list[str] = []
    skip = False
    for word in sys.argv[1:]:
        if skip:
            skip = False
        elif word in BEGINNINGS:
            skip = True
        elif word != "--github" and word.partition("=")[0] not in BEGINNINGS:
            kept.append(word)
    return shlex.join(["tidegate", *kept])


def _check(option: str, path: Path) -> None:
    """Raises BadInput unless a report can be written there without costing another file."""
    refuse: Callable[[str], BadInput] = lambda why: BadInput(f"{option}: {path} {why}")  # noqa: E731
    if path.is_dir():
        raise refuse("is a folder; name a file in it.")
    try:
        if path.exists():
            if not path.is_file():
                raise refuse("is not a plain file.")
            with path.open("rb") as file:
                start = file.read(len(BEGINNINGS[option]))
            if start and start != BEGINNINGS[option]:
                raise refuse("is there already, and is not a report of this kind: name another file, or move it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tidegate-"):
            pass
    except OSError as error:
        raise refuse(f"can not be written: {error.strerror}.") from error


def _write(path: Path, body: bytes) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tidegate-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            os.chmod(name, 0o644)  # noqa: PTH101 - a report is there to be read, by a web server too
            os.replace(name, path)  # noqa: PTH105
        except BaseException:
            os.unlink(name)  # noqa: PTH108
            raise
    except OSError as error:
        raise BadInput(f"{path} can not be written: {error.strerror}.") from error
