"""
What a job on GitHub reads from a command: annotations, a summary, and nothing that an answer could forge.

The runner obeys every line of output that begins with `::`, and every `##[…]` anywhere in one. So values in a workflow
command are escaped, and while people's text is printed commands are switched off by a token that nobody can guess.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.core.errors import BadInput, InvalidFile, TidegateError
from tidegate.core.evaluation import CaseVerdict, GateReport
from tidegate.core.notice import Notice
from tidegate.evals.reports.plain import plain

if TYPE_CHECKING:
    from tidegate.evals.reports.judged import Judged

MOST_PER_LEVEL = 10
"""GitHub shows no more errors, and no more warnings, of one step."""
MAX_MESSAGE = 2_000
SUMMARY = "GITHUB_STEP_SUMMARY"


def annotation(notice: Notice, prefix: str) -> str:
    """A notice as a workflow command of GitHub: `::error file=…,line=…,title=…::message`."""
    properties = {"file": prefix + notice.file, "line": str(notice.line), "title": notice.rule}
    if not notice.line:
        del properties["line"]
    shown = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    return f"::{notice.level} {shown}::{_escaped(sentence(notice))}"


def sentence(notice: Notice) -> str:
    """The message, led by the field it is about."""
    return f"{notice.field}: {notice.message}" if notice.field else notice.message


def _escaped(text: str, more: str = "") -> str:
    return text.translate({ord(char): f"%{ord(char):02X}" for char in f"%\r\n{more}"})


def from_workspace(root: Path) -> str:
    """The folder that annotations' paths start with: GitHub counts from the repository's top."""
    top = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    inside = root.relative_to(top).as_posix() if root.is_relative_to(top) else root.as_posix()
    return "" if inside == "." else f"{inside}/"


def verdict_annotations(judged: Sequence[Judged], root: Path) -> list[str]:
    """
    Workflow commands: an error at the prompt for every verdict that is not PASS, an error at its line in the golden set
    for every case that broke or fails, a warning for one that is flaky. The worst come first, 10 of a level at most.
    """
    from tidegate.evals.reports.judged import outcome

    prefix = from_workspace(root)
    notices = [_verdict(one, one.report) for one in judged if one.report is not None and one.report.verdict != "PASS"]
    for one in judged:
        if one.report is not None:
            blamed = one.report.verdict != "PASS"
            notices += [_case(one, case, blamed=blamed) for case in one.cases if outcome(case) != "passes"]
    shown: list[Notice] = []
    for level in ("error", "warning"):
        shown += [notice for notice in notices if notice.level == level][:MOST_PER_LEVEL]
    return [annotation(notice, prefix) for notice in shown]


def _verdict(judged: Judged, report: GateReport) -> Notice:
    file = judged.prompt_file
    return Notice("error", file, 1, "", plain(f"{report.verdict}: {report.prompt}"), plain(report.reason[:MAX_MESSAGE]))


def _case(judged: Judged, case: CaseVerdict, *, blamed: bool) -> Notice:
    place = judged.places.get(case.id)
    broken = blamed and case.change not in ("flaky", "same")
    title = f"{case.change if case.change != 'new' else 'fails'}: {case.id}"
    counts = f"{case.candidate_passed}/{case.repeats} repeats pass. "
    return Notice(
        level="error" if broken else "warning",
        file=judged.prompt_file if place is None else place.file,
        line=1 if place is None else place.line,
        field="",
        rule=plain(title),
        message=plain((counts + case.reason)[:MAX_MESSAGE]),
    )


def error_annotations(error: TidegateError, root: Path) -> list[str]:
    """Why a command gave up, at the lines of the files it is about."""
    prefix = from_workspace(root)
    if not isinstance(error, InvalidFile):
        return [annotation(Notice("error", "tidegate.yaml", 0, "", type(error).__name__, plain(str(error))), prefix)]
    notices = []
    for problem in error.problems[:MOST_PER_LEVEL]:
        file = seen_from(Path(problem.file), root)
        notices.append(Notice("error", file, problem.line, problem.field, "invalid file", plain(problem.message)))
    return [annotation(notice, prefix) for notice in notices]


def seen_from(path: Path, root: Path) -> str:
    """A file's path as seen from the project's folder; as it is, when it is not below it."""
    whole, top = path.resolve(), root.resolve()
    return whole.relative_to(top).as_posix() if whole.is_relative_to(top) else path.as_posix()


def add_to_summary(text: str) -> None:
    """Appends to the job's summary, where there is one. Raises BadInput when it can not be written."""
    file = os.environ.get(SUMMARY)
    if not file:
        return
    try:
        with Path(file).open("a", encoding="utf-8") as summary:
            summary.write(text.rstrip("\n") + "\n\n")
    except OSError as error:
        raise BadInput(f"{SUMMARY}: {file} can not be written: {error.strerror}.") from error


def harmless(text: str) -> str:
    """`text` for the standard error, with what would be a command pulled apart."""
    return re.sub(r"^(\s*):(?=:)", r"\1: ", text, flags=re.MULTILINE).replace("##[", "# #[")


@contextmanager
def no_commands() -> Iterator[None]:
    """Inside, a job on GitHub takes nothing that is printed for a workflow command; elsewhere this does nothing."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        yield
        return
    token = secrets.token_hex(16)
    _say(f"::stop-commands::{token}")
    try:
        yield
    finally:
        _say(f"::{token}::")


def say(lines: Sequence[str]) -> None:
    """Prints workflow commands."""
    for line in lines:
        _say(line)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
