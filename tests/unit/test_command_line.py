"""The program around its commands: what it does with arguments and terminals that do not fit."""

import io
import json
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from rich.console import Console

from tidegate.cli import COMMANDS, build, main

PROMPT = "---\nmodel: local/m-2026-03-01\n---\nGrüß den Gast – höflich.\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "prompts" / "greet").mkdir(parents=True)
    (tmp_path / "prompts" / "greet" / "prompt.md").write_text(PROMPT, "utf-8")
    (tmp_path / "tidegate.yaml").write_text('providers: {local: {base_url: "http://127.0.0.1:1/v1"}}\n')
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def on_an_ascii_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> bytes:
    shown = io.BytesIO()
    terminal = io.TextIOWrapper(shown, encoding="ascii", write_through=True)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        assert run(patched, *arguments) == 0
    return shown.getvalue()


def test_a_terminal_that_can_not_show_a_character_still_shows_the_rest(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = on_an_ascii_terminal(monkeypatch, "render", "greet", "--config", str(project))
    assert b"Gr?? den Gast ? h?flich." in shown


def test_json_loses_nothing_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_an_ascii_terminal(monkeypatch, "render", "greet", "--json", "--config", str(project))
    assert json.loads(shown)["messages"] == [{"role": "user", "content": "Grüß den Gast – höflich."}]


def help_of(name: str) -> list[str]:
    shown = io.StringIO()
    build(name).help_print([name], console=Console(file=shown, width=80))
    return [line.strip(" │") for line in shown.getvalue().splitlines()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_stays_on_its_line(name: str) -> None:
    lines = help_of(name)
    examples = [line[10:-1] for line in lines if line.startswith("Example: `") and line.endswith("`")]
    if "For example:" in lines:
        examples = list(takewhile(bool, lines[lines.index("For example:") + 1 :]))
    assert examples
    assert all(example.startswith(f"tidegate {name}") for example in examples)


def test_what_an_option_does_is_one_text_wherever_its_docstring_breaks() -> None:
    assert "prompt. With this list it calls no other model." in help_of("keys")


@pytest.mark.parametrize(("command", "missing"), [("eval", "NAME"), ("keys", "ACTION")])
def test_an_argument_that_is_missing_is_named_with_the_help_that_says_what_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, missing: str
) -> None:
    assert run(monkeypatch, command) == 4
    assert (
        capsys.readouterr().err == f"tidegate: `tidegate {command}` needs {missing}. See `tidegate {command} --help`.\n"
    )


def test_an_option_without_its_value_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "deploy", "support/answer", "--reason") == 4
    assert "--reason" in capsys.readouterr().err


def test_an_argument_too_many_is_named_with_the_help_that_says_what_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "deploy", "support/answer", "v7") == 4
    assert capsys.readouterr().err == "tidegate: 'v7' is one argument too many. See `tidegate deploy --help`.\n"


@pytest.mark.parametrize("name", ["a\x1b]0;title\x07", "a\x1b[2J", "a\x9b2J", "a\u202egnp.exe", "a\u2066b", "a\rb"])
def test_a_files_name_in_a_reason_drives_no_terminal(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Who checks out somebody's pull request reads reasons that quote its files."""
    (project / "prompts" / name).mkdir()
    (project / "prompts" / name / "prompt.md").write_text(PROMPT, "utf-8")
    assert run(monkeypatch, "gate", "--config", str(project)) == 4
    assert run(monkeypatch, "lint", "--config", str(project / name)) == 4
    assert run(monkeypatch, f"no-{name}") == 4
    shown = capsys.readouterr()
    assert "a prompt's folder is named with" in shown.err
    assert {mark for mark in shown.out + shown.err if not mark.isprintable()} <= {"\n"}


@pytest.mark.parametrize("name", ["a\n::error::forged", "a\n##[group]forged"])
def test_a_files_name_in_a_reason_is_no_command_to_a_job_on_github(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (project / "prompts" / name).mkdir()
    (project / "prompts" / name / "prompt.md").write_text(PROMPT, "utf-8")
    assert run(monkeypatch, "gate", "--config", str(project)) == 4
    assert run(monkeypatch, f"no-{name}") == 4
    shown = capsys.readouterr().err
    assert not any(line.startswith("::") or "##[" in line for line in shown.splitlines())
