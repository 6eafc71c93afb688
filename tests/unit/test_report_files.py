"""Where reports may be written: found out before the first call, and at no other file's cost."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.unit.judged import judged
from tidegate.cli import reports as module
from tidegate.cli.reports import Reports
from tidegate.config import Config, Project
from tidegate.core.errors import BadInput, InvalidFile, Problem, Unusable


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, Config())


def asked(option: str, path: Path) -> Reports:
    """As for `--option path` alone."""
    wanted = {name: path if name == option else None for name in ("html", "junit", "markdown")}
    return Reports(wanted["html"], wanted["junit"], wanted["markdown"])


def test_all_that_was_asked_for_is_written(tmp_path: Path, project: Project) -> None:
    folder = tmp_path / "new" / "folder"
    files = Reports(html=folder / "a.html", junit=folder / "a.xml", markdown=folder / "a.md")
    assert sorted(path.name for path in folder.iterdir()) == []
    files.write_judged(project, [judged("broken")])
    assert sorted(path.name for path in folder.iterdir()) == ["a.html", "a.md", "a.xml"]
    assert (folder / "a.html").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("option", ["html", "junit", "markdown"])
def test_a_folder_is_no_file(option: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"^--{option}: .* is a folder; name a file in it\.$"):
        asked(option, tmp_path)


def test_what_can_not_be_written_is_said_before_anything_is_paid_for() -> None:
    with pytest.raises(BadInput, match=r"^--html: /proc/nowhere/gate\.html can not be written: "):
        Reports(html=Path("/proc/nowhere/gate.html"))
    with pytest.raises(BadInput, match=r"^--junit: /dev/null is not a plain file\.$"):
        Reports(junit=Path("/dev/null"))


def test_a_file_in_a_files_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("x")
    with pytest.raises(BadInput, match=r"can not be written: (?:Not a directory|File exists)\."):
        Reports(html=tmp_path / "report" / "gate.html")


@pytest.mark.parametrize("option", ["html", "junit", "markdown"])
def test_a_file_that_is_no_report_of_ours_is_never_replaced(option: str, tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text('{"id": "a"}\n')
    with pytest.raises(BadInput, match=r"is there already, and is not a report of this kind"):
        asked(option, file)
    assert file.read_text() == '{"id": "a"}\n'


def test_an_earlier_report_is_gone_before_the_run_and_replaced_after_it(tmp_path: Path, project: Project) -> None:
    """So that a run that was interrupted leaves no older verdict to be taken for its own."""
    html, junit, markdown = (tmp_path / name for name in ("a.html", "a.xml", "a.md"))
    Reports(html, junit, markdown).write_judged(project, [judged("broken")])
    again = Reports(html, junit, markdown)
    assert list(tmp_path.glob("a.*")) == []
    again.write_judged(project, [judged("same", verdict="PASS")])
    assert "PASS" in markdown.read_text("utf-8")


def test_a_mistake_in_one_option_costs_no_earlier_report(tmp_path: Path, project: Project) -> None:
    file = tmp_path / "a.html"
    Reports(html=file).write_judged(project, [judged("broken")])
    with pytest.raises(BadInput):
        Reports(html=file, junit=tmp_path)
    assert file.exists()


def test_an_empty_file_may_be_filled(tmp_path: Path, project: Project) -> None:
    (tmp_path / "a.xml").touch()
    Reports(junit=tmp_path / "a.xml").write_judged(project, [judged("broken")])
    assert (tmp_path / "a.xml").stat().st_size > 100


def test_two_reports_are_two_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^--html and --junit name the same file"):
        Reports(html=tmp_path / "a", junit=tmp_path / "a")


def test_what_could_not_be_judged_is_written_where_the_verdict_would_be(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    files = Reports(junit=tmp_path / "a.xml", markdown=tmp_path / "a.md", github=True)
    problem = Problem(str(tmp_path / "eval.yaml"), 2, "checks", "is empty.")
    with pytest.raises(InvalidFile), files.or_say_why_not(project):
        raise InvalidFile([problem])
    assert 'errors="1"' in (tmp_path / "a.xml").read_text()
    assert "could not judge" in (tmp_path / "a.md").read_text()
    assert (tmp_path / "summary").read_text().rstrip() == (tmp_path / "a.md").read_text().rstrip()
    assert "::error file=eval.yaml,line=2,title=invalid file::checks: is empty." in capsys.readouterr().out


def test_an_interruption_leaves_nothing(tmp_path: Path, project: Project) -> None:
    files = Reports(junit=tmp_path / "a.xml", markdown=tmp_path / "a.md")
    with pytest.raises(KeyboardInterrupt), files.or_say_why_not(project):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_there_whole_or_not_at_all(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_from: str, _to: Path) -> None:
        raise OSError(28, "No space left on device")

    files = Reports(html=tmp_path / "a.html")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(BadInput, match=r"a\.html can not be written: No space left on device\."):
        files.write_judged(project, [judged("broken")])
    assert list(tmp_path.iterdir()) == []


def test_the_command_to_do_it_again_writes_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/usr/bin/tidegate", "gate", "a b", "--html", "x.html", "--against", "main", "--junit=y", "--github"]
    monkeypatch.setattr(sys, "argv", words)
    assert module._command() == "tidegate gate 'a b' --against main"


def test_unusable_is_reported_and_raised(tmp_path: Path, project: Project) -> None:
    files = Reports(markdown=tmp_path / "a.md")
    with pytest.raises(Unusable), files.or_say_why_not(project):
        raise Unusable("the provider is gone.")
    assert "the provider is gone." in (tmp_path / "a.md").read_text()
