"""`tidegate init`: a project that works at once, made whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gate_schema import gate_json
from tidegate.cli import init as module
from tidegate.cli.deploy import deploy_
from tidegate.cli.eval import eval_
from tidegate.cli.gate import gate_
from tidegate.cli.init import init_, make
from tidegate.cli.lint import lint_
from tidegate.cli.simulated import commands, unstarted
from tidegate.config import load
from tidegate.core.errors import BadInput, InvalidFile
from tidegate.simulate.server import Simulator

FILES = {
    ".github/workflows/tidegate.yml",
    ".gitignore",
    "README.md",
    "prompts/support/answer/eval.yaml",
    "prompts/support/answer/golden.jsonl",
    "prompts/support/answer/output.schema.json",
    "prompts/support/answer/prompt.md",
    "tidegate.yaml",
}


def all_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def exit_code(command: object, *arguments: str, **options: object) -> object:
    with pytest.raises(SystemExit) as ended:
        command(*arguments, **options)  # type: ignore[operator]
    return ended.value.code


def on_free_port(folder: Path) -> None:
    """So that a provider somebody runs on the usual port is not the one that answers."""
    config = folder / "tidegate.yaml"
    config.write_text(config.read_text().replace("127.0.0.1:4010", "127.0.0.1:1"))


def test_from_nothing_to_a_deployed_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    init_(json=True)
    said = json.loads(capsys.readouterr().out)
    assert (set(said["files"]), said["kept"], said["folder"]) == (FILES, [], str(tmp_path))
    assert all_files(tmp_path) == FILES
    on_free_port(tmp_path)
    assert exit_code(lint_, strict=True) == 0
    capsys.readouterr()
    assert exit_code(gate_, json=True) == 0
    report = gate_json(capsys.readouterr().out)
    assert (report["verdict"], report["total_cases"], len(report["cases"])) == ("PASS", 3, 3)
    deploy_("support/answer", reason="first version")
    assert "v1" in capsys.readouterr().out
    prompt = tmp_path / "prompts/support/answer/prompt.md"
    prompt.write_text(prompt.read_text().replace("Reply with", "Be warm and friendly. Reply with"))
    assert exit_code(gate_, html=Path("report/gate.html")) == 1
    assert (tmp_path / "report" / "gate.html").is_file()
    assert exit_code(eval_, "support/answer", junit=Path("report/eval.xml")) == 0


def test_what_is_printed_is_what_to_type_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init_(tmp_path / "my bot")
    said = capsys.readouterr().out
    assert "my bot/ with 8 files" in said
    assert f"cd '{tmp_path}/my bot'\n  tidegate gate\n" in said
    assert "top of a repository" not in said


def test_below_the_top_of_a_repository_the_workflow_has_to_move(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".git").mkdir()
    init_(tmp_path / "bots" / "shop")
    said = " ".join(capsys.readouterr().out.split())
    assert f"move .github/workflows/tidegate.yml to {tmp_path}." in said


def test_nothing_is_overwritten_and_then_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "prompts" / "support" / "answer").mkdir(parents=True)
    mine = tmp_path / "prompts" / "support" / "answer" / "golden.jsonl"
    mine.write_text("mine")
    with pytest.raises(BadInput, match=r"golden\.jsonl is there already; nothing was made\."):
        make(tmp_path)
    assert all_files(tmp_path) == {"prompts/support/answer/golden.jsonl"}
    assert mine.read_text() == "mine"


def test_twice_is_once(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(BadInput, match=r"workflows/tidegate\.yml is there already and 5 more"):
        make(tmp_path)


def test_a_repositorys_own_readme_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    made, kept = make(tmp_path)
    assert (set(made), kept) == (FILES - {"README.md"}, ["README.md"])
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_link_that_leads_nowhere_is_in_the_way_too(tmp_path: Path) -> None:
    (tmp_path / "tidegate.yaml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=r"tidegate\.yaml is there already"):
        make(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["prompts", ".github", "."])
def test_a_file_where_a_folder_would_be_is_in_the_way(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "bot"
    if name != ".":
        folder.mkdir()
    (folder / name if name != "." else folder).write_text("mine")
    with pytest.raises(BadInput, match=r"is there already|is not a folder"):
        make(folder)
    assert len(all_files(tmp_path)) == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_no_half_project_is_left_behind(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = module._write, [4]

    def failing(path: Path, body: bytes, made: list[Path]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error
        write(path, body, made)

    monkeypatch.setattr(module, "_write", failing)
    with pytest.raises((BadInput, KeyboardInterrupt)):
        make(tmp_path / "new" / "bot")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_made_it_says_why() -> None:
    with pytest.raises(BadInput, match=r"^/proc/bot can not be written: .*\. Nothing was made\.$"):
        make(Path("/proc/bot"))


# the simulated provider


@pytest.mark.parametrize(
    "wrong",
    [
        "{simulated: true}",
        "{simulated: true, base_url: 'https://api.openai.com/v1'}",
        "{simulated: true, base_url: 'http://127.0.0.1/v1'}",
        "{simulated: true, dialect: anthropic, base_url: 'http://127.0.0.1:4010/v1'}",
        "{simulated: true, base_url: 'http://127.0.0.1:4010@evil.test/v1'}",
    ],
)
def test_a_simulated_provider_is_on_this_machine(wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"providers:\n  fake: {wrong}\n")
    said = r"tidegate\.yaml:2: providers\.fake\.(simulated: needs dialect openai|base_url: )"
    with pytest.raises(InvalidFile, match=said):
        load(file)


async def test_a_simulated_provider_that_listens_already_is_not_started(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.yaml"
    async with Simulator() as running:
        file.write_text(
            "providers:\n"
            f"  up: {{simulated: true, base_url: '{running.url}'}}\n"
            "  down: {simulated: true, base_url: 'http://127.0.0.1:1/v1'}\n"
            "  real: {base_url: 'http://127.0.0.1:2/v1'}\n"
        )
        config = load(file).config
        assert unstarted(config) == {"down": 1}
        assert [words[-2:] for words in commands(config).values()] == [["--port", "1"]]
