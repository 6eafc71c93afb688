"""What a job on GitHub reads: annotations that nobody can forge, and the job's summary."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.unit.judged import HOSTILE, judged
from tidegate.cli import github, log, main
from tidegate.cli.github import add_to_summary, error_annotations, harmless, no_commands, verdict_annotations
from tidegate.cli.output import print_json
from tidegate.core.errors import BadInput, InvalidFile, Problem

KINDS = ("broken", "fixed", "flaky", "same", "error")


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


def test_the_verdict_stands_at_the_prompt_and_cases_at_their_lines(tmp_path: Path) -> None:
    golden = "bots/shop/prompts/support/answer/golden.jsonl"
    assert verdict_annotations([judged(*KINDS)], tmp_path / "bots" / "shop") == [
        (
            "::error file=bots/shop/prompts/support/answer/prompt.md,line=1,title=FAIL%3A support/answer::"
            "is-json must pass, and it fails in all 3 repeats of 'case-0'."
        ),
        f"::error file={golden},line=1,title=broken%3A case-0::0/3 repeats pass. is-json: is not JSON",
        f"::error file={golden},line=5,title=broken%3A case-4::0/0 repeats pass. is-json: is not JSON",
        f"::warning file={golden},line=3,title=flaky%3A case-2::1/3 repeats pass. is-json: is not JSON",
    ]


def test_a_pass_has_no_error_and_names_what_it_allows(tmp_path: Path) -> None:
    lines = verdict_annotations([judged("broken", "flaky", "same", verdict="PASS")], tmp_path)
    assert [line.split(" ")[0] for line in lines] == ["::warning", "::warning"]


def test_hostile_text_is_one_command_a_line(tmp_path: Path) -> None:
    lines = verdict_annotations([judged(*KINDS, hostile=True, ids=tuple(HOSTILE + str(i) for i in range(5)))], tmp_path)
    assert len(lines) == 4
    for line in lines:
        assert re.fullmatch(r"::(?:error|warning) file=[^:,]+,line=\d+,title=[^:,]+::[^\r\n]*", line)
        assert not re.search("[\x00-\x1f\u202e]", line)


def test_github_shows_ten_of_a_level_and_gets_no_more(tmp_path: Path) -> None:
    lines = verdict_annotations([judged(*["broken", "flaky"] * 30)], tmp_path)
    assert [sum(line.startswith(f"::{level}") for line in lines) for level in ("error", "warning")] == [10, 10]
    assert "title=FAIL" in lines[0]


def test_a_malformed_file_is_annotated_on_its_line(tmp_path: Path) -> None:
    problem = Problem(str(tmp_path / "prompts" / "a" / "eval.yaml"), 3, "gate.must_pass", "no check is called that.")
    assert error_annotations(InvalidFile([problem]), tmp_path) == [
        "::error file=prompts/a/eval.yaml,line=3,title=invalid file::gate.must_pass: no check is called that."
    ]
    assert error_annotations(BadInput("no\n::error::x"), tmp_path) == [
        "::error file=tidegate.yaml,title=BadInput::no%0A::error::x"
    ]


def print_and_fail(line: str) -> None:
    github.say([line])
    raise ZeroDivisionError


def test_while_people_read_nothing_is_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The token can not be known before, so no answer holds the line that ends the silence."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    tokens = set()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), no_commands():
            print_and_fail("##[error]forged")
        first, inside, last = capsys.readouterr().out.splitlines()
        token = first.removeprefix("::stop-commands::")
        assert re.fullmatch(r"[0-9a-f]{32}", token)
        assert (inside, last) == ("##[error]forged", f"::{token}::")
        tokens.add(token)
    assert len(tokens) == 2


def test_elsewhere_nothing_is_switched_off(capsys: pytest.CaptureFixture[str]) -> None:
    with no_commands():
        pass
    assert capsys.readouterr().out == ""


def test_a_summary_is_added_to_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "summary.md"
    file.write_text("before\n\n", "utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    add_to_summary("## é")
    assert file.read_text("utf-8") == "before\n\n## é\n\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(BadInput, match=r"^GITHUB_STEP_SUMMARY: .* can not be written: Is a directory\.$"):
        add_to_summary("x")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    add_to_summary("nowhere")


def obeyed(text: str) -> list[str]:
    """The lines that GitHub's runner takes for commands: `::` first, or `##[` anywhere."""
    lines = re.split(r"\r\n|\r|\n", text)
    return [line for line in lines if line.lstrip().startswith("::") or "##[" in line]


def test_json_says_the_same_and_commands_nothing(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_json({"output": HOSTILE.replace("\ud800", ""), "more": "####[x"})
    said = capfdbinary.readouterr().out
    assert obeyed(said.decode()) == []
    assert json.loads(said) == {"output": HOSTILE.replace("\ud800", ""), "more": "####[x"}


def test_why_a_command_gave_up_commands_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise BadInput("the provider said:\n  ::error::forged\nx ##[error]forged")

    monkeypatch.setattr(log, "log_", refuse)
    monkeypatch.setattr("sys.argv", ["tidegate", "log"])
    for actions, found in (("false", 2), ("true", 0)):
        monkeypatch.setenv("GITHUB_ACTIONS", actions)
        with pytest.raises(SystemExit):
            main()
        assert len(obeyed(capsys.readouterr().err)) == found
    assert harmless("a::b\nplain: text") == "a::b\nplain: text"
