"""`tidegate import`: all of it is written or nothing, and the exit code says whether anything is left to do."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.importing import put, suite_check
from tidegate.cli import build
from tidegate.cli.import_ import import_
from tidegate.core.artifact import Message
from tidegate.core.errors import BadInput, InvalidFile, Unusable
from tidegate.prompts.files import PromptFile, list_prompts, load_prompt
from tidegate.prompts.importing.folder import files_of, write
from tidegate.prompts.importing.outcome import Draft, Outcome

CLEAN = "---\nmodel: openai/gpt-4.1-2025-04-14\n---\nHello {{name}}!"
LOSSY = CLEAN.replace("---\nHello", "owner: me\n---\nHello")


def a_draft(**fields: Any) -> Draft:
    whole: dict[str, Any] = {"name": "", "model": "a/b", "messages": [Message("user", "Hi")], **fields}
    return Draft(**whole)


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "tidegate.yaml").write_text("{}")
    monkeypatch.chdir(root)
    return root


def run(text: str, **options: Any) -> int:
    """The command's exit code."""
    Path("hello.prompt").write_text(text)
    with pytest.raises(SystemExit) as ended:
        import_("dotprompt", Path("hello.prompt"), **options)
    return int(str(ended.value.code))


def test_everything_carried_over_is_0_and_something_listed_is_1(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(CLEAN) == 0
    assert capsys.readouterr().err == ""
    assert run(LOSSY, name="support/hello") == 1
    said = capsys.readouterr()
    assert "left out hello.prompt:3: owner: there is no place for this here." in said.err
    assert "1 left out: look at each" in said.err
    assert "prompts/support/hello/" in said.out
    assert list_prompts(project / "prompts") == ["hello", "support/hello"]


def test_programs_get_one_object(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(LOSSY, json=True) == 1
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == {
        "prompts": [{"name": "hello", "folder": str(project / "prompts/hello"), "files": ["prompt.md"]}],
        "items": [
            {
                "kind": "left out",
                "file": "hello.prompt",
                "line": 3,
                "field": "owner",
                "reason": "there is no place for this here.",
            }
        ],
        "written": True,
    }


def test_a_dry_run_checks_everything_and_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(project.rglob("*"))
    assert run(LOSSY, dry_run=True) == 1
    assert "would write" in capsys.readouterr().out
    Path("hello.prompt").unlink()
    assert sorted(project.rglob("*")) == before
    run(CLEAN)
    with pytest.raises(BadInput, match="is there already"):
        import_("dotprompt", Path("hello.prompt"), dry_run=True)


def test_the_command_is_found_by_its_name(project: Path) -> None:
    Path("a.prompt").write_text(CLEAN)
    app = build("import")
    with pytest.raises(SystemExit) as ended:
        app(["import", "dotprompt", "a.prompt", "--into", "elsewhere", "--model", "x/y"], exit_on_error=False)
    assert ended.value.code == 0
    assert load_prompt(project / "elsewhere", "a").artifact.model == "x/y"


def test_a_name_that_no_prompt_can_have_is_refused(project: Path) -> None:
    for name in ("../out", "/x", "A b", "a//b", ""):
        Path("---.prompt").write_text(CLEAN)
        with pytest.raises(BadInput, match=r"can not be a prompt's name|nothing in it can be a prompt's name"):
            import_("dotprompt", Path("---.prompt"), name=name)
    assert not (project / "prompts").exists()


def test_what_is_there_is_kept_unless_forced(project: Path) -> None:
    run(CLEAN)
    (project / "prompts/hello/eval.yaml").write_text("checks: [is-json]\n")
    (project / "prompts/hello/golden.jsonl").write_text('{"id": "a", "inputs": {"name": "x"}}\n')
    (project / "prompts/hello/notes").mkdir()
    (project / "prompts/hello/notes/a.md").write_text("mine")
    before = tree(project / "prompts")
    with pytest.raises(BadInput, match="--force"):
        import_("dotprompt", Path("hello.prompt"))
    assert tree(project / "prompts") == before
    assert run(CLEAN.replace("Hello", "Welcome"), force=True) == 0
    after = tree(project / "prompts")
    assert "Welcome" in after.pop("hello/prompt.md")
    assert after == {path: text for path, text in before.items() if path != "hello/prompt.md"}


def test_forcing_what_no_longer_fits_changes_nothing(project: Path) -> None:
    """The old golden set asks for an input that the new prompt does not take."""
    run(CLEAN)
    (project / "prompts/hello/eval.yaml").write_text("checks: [is-json]\n")
    (project / "prompts/hello/golden.jsonl").write_text('{"id": "a", "inputs": {"name": "x"}}\n')
    before = tree(project)
    Path("hello.prompt").write_text(CLEAN.replace("{{name}}", "{{other}}"))
    with pytest.raises(InvalidFile, match=r"\(not written\) prompts/hello/golden\.jsonl:1"):
        import_("dotprompt", Path("hello.prompt"), force=True)
    assert {**tree(project), "hello.prompt": ""} == {**before, "hello.prompt": ""}


def test_several_prompts_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    good, bad = a_draft(name="one"), a_draft(name="two", messages=[Message("user", "{{ gone }}")])
    with pytest.raises(InvalidFile, match="'gone' is not declared"):
        put(Outcome((good, bad), ()), "both", tmp_path / "prompts")
    assert list(tmp_path.iterdir()) == []
    put(Outcome((good, a_draft(name="two")), ()), "both", tmp_path / "prompts")
    assert list_prompts(tmp_path / "prompts") == ["both/one", "both/two"]
    assert [path.name for path in tmp_path.iterdir()] == ["prompts"]


def test_a_link_is_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "prompt.md").write_text("keep")
    into = tmp_path / "prompts"
    into.mkdir()
    (into / "linked").symlink_to(outside)
    for name in ("linked", "linked/deeper"):
        with pytest.raises(BadInput, match="leads out"):
            put(Outcome((a_draft(),), ()), name, into, force=True)
    (into / "real").mkdir()
    (into / "real" / "prompt.md").symlink_to(outside / "prompt.md")
    put(Outcome((a_draft(),), ()), "real", into, force=True)
    assert (outside / "prompt.md").read_text() == "keep"
    assert not (into / "real" / "prompt.md").is_symlink()


def test_a_disk_that_refuses_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last rename of two fails: the folder that was there comes back."""
    into = tmp_path / "prompts"
    put(Outcome((a_draft(),), ()), "a", into)
    before = tree(into)
    real = os.rename

    def refuses(self: Path, target: Path) -> Path:
        if ".tidegate-import" in str(self) and "before" not in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, target)
        return Path(target)

    monkeypatch.setattr(Path, "rename", refuses)
    with pytest.raises(Unusable, match="No space left"):
        put(Outcome((a_draft(messages=[Message("user", "new")]),), ()), "a", into, force=True)
    assert tree(into) == before
    assert [path.name for path in into.iterdir()] == ["a"]


def test_what_can_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    """A message inside which a raw block hides a role line: the check after writing finds it."""

    def reads(prompt: PromptFile) -> None:
        suite_check(prompt)

    for content in ("a\nuser:\nb", ""):
        with pytest.raises(InvalidFile, match=r"\(not written\)"):
            write(Outcome((a_draft(messages=[Message("user", content)]),), ()), "x", tmp_path / "prompts", check=reads)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "0o7",
        "1e3",
        "null",
        "TRUE",
        "~",
        "a: b",
        "- a",
        "#x",
        '"q" \\',
        "a\nb",
        "é\u2028😀",
        "\x7f\x9b\ufeff",
        " a ",
        "",
    ],
)
def test_any_text_survives_the_front_matter(text: str, tmp_path: Path) -> None:
    draft = a_draft(
        inputs={"a": {"type": "string", "description": text, "default": text}}, params={"stop": [text or "x"]}
    )
    draft.description = text
    put(Outcome((draft,), ()), "a", tmp_path)
    prompt = load_prompt(tmp_path, "a")
    assert (prompt.description, prompt.artifact.inputs["a"].default) == (text, text)
    assert prompt.artifact.params["stop"] == [text or "x"]


@pytest.mark.parametrize("content", ["a\n", "\na", " a ", "a\n\n\n", "\n\na\n\nb\n", "---", "a\r".strip()])
def test_any_message_survives_the_file(content: str, tmp_path: Path) -> None:
    messages = [Message("system", content), Message("user", content)]
    put(Outcome((a_draft(messages=messages),), ()), "a", tmp_path)
    assert list(load_prompt(tmp_path, "a").artifact.messages) == messages


def test_one_schema_is_one_file() -> None:
    schema = {"type": "object"}
    files = files_of(
        a_draft(output=schema, checks=[{"is-json": schema}, {"not-is-json": {"type": "array"}}], cases=[{"id": "a"}]),
        {},
    )
    assert files["eval.yaml"].endswith("  - is-json: output.schema.json\n  - not-is-json: check-1.schema.json\n")
    assert list(files) == ["prompt.md", "output.schema.json", "check-1.schema.json", "eval.yaml", "golden.jsonl"]


JUDGED = """
description: d
prompts: ["{{ a }}"]
providers: [openai:gpt-4.1-2025-04-14]
tests: [{vars: {a: x}, assert: [{type: llm-rubric, value: is polite}]}]
"""


def imported(*, name: str = "shop", **options: Any) -> int:
    """The exit code of importing JUDGED, judged by a model that is named."""
    Path("p.yaml").write_text(JUDGED)
    with pytest.raises(SystemExit) as ended:
        import_("promptfoo", Path("p.yaml"), name=name, judge_model="anthropic/claude-sonnet-4-5-20250929", **options)
    return int(str(ended.value.code))


def test_a_judge_stands_beside_the_prompts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(json=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert [Path(one["folder"]) for one in said["prompts"]] == [
        project / "prompts/shop",
        project / "judges/shop/llm-rubric",
    ]
    assert "model: anthropic/claude-sonnet-4-5-20250929" in (project / "judges/shop/llm-rubric/prompt.md").read_text()
    suite = (project / "prompts/shop/eval.yaml").read_text()
    assert "  llm-rubric: {binary: judges/shop/llm-rubric, fields: {criterion: expected.llm-rubric.criterion}}" in suite
    assert not list(project.glob(".tidegate-import*"))


def test_the_model_that_is_named_judges_everything(project: Path) -> None:
    Path("p.yaml").write_text(
        JUDGED.replace("value: is polite", "value: is polite, provider: openai:gpt-5").replace(
            "prompts:", "defaultTest: {options: {provider: {text: {id: openai:gpt-4o}}}}\nprompts:"
        )
    )
    for name, model in {"own": None, "named": "a/b"}.items():
        with pytest.raises(SystemExit):
            import_("promptfoo", Path("p.yaml"), name=name, judge_model=model)
    models = {
        path.parts[-3]: path.read_text().split("model: ")[1].split("\n")[0] for path in project.glob("judges/*/*/*")
    }
    assert models == {"own": "openai/gpt-5", "named": "a/b"}


@pytest.mark.parametrize("threshold", ["7", "-1", "high", "true"])
def test_a_judged_assertion_whose_threshold_is_none_is_left_out(
    threshold: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = f"[{{type: context-faithfulness, threshold: {threshold}}}]"
    Path("p.yaml").write_text(
        JUDGED.replace("[{type: llm-rubric, value: is polite}]", judged).replace("{a: x}", "{a: x, context: c}")
    )
    with pytest.raises(SystemExit) as ended:
        import_("promptfoo", Path("p.yaml"), name="shop", judge_model="a/b")
    assert ended.value.code == 1
    assert "its threshold is not a score from 0 to 1" in capsys.readouterr().err


def test_without_a_model_a_judged_assertion_says_how_to_name_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("p.yaml").write_text(JUDGED)
    with pytest.raises(SystemExit):
        import_("promptfoo", Path("p.yaml"), name="shop")
    assert "name one with --judge-model provider/model" in capsys.readouterr().err
    assert not (project / "judges").exists()


def test_a_judge_that_is_there_is_not_written_over(project: Path) -> None:
    assert imported() == 1
    shutil.rmtree(project / "prompts")
    mine = project / "judges/shop/llm-rubric/prompt.md"
    mine.write_text("mine")
    with pytest.raises(BadInput, match="judges/shop is there already"):
        import_("promptfoo", Path("p.yaml"), name="shop", judge_model="a/b")
    assert (mine.read_text(), (project / "prompts/shop").exists()) == ("mine", False)
    assert imported(force=True) == 1
    assert mine.read_text() != "mine"


def test_a_prompt_whose_judge_can_not_be_moved_is_not_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def refuses(self: Path, target: Path) -> Path:
        if "judges" in target.parts and "judges" in self.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, target)
        return Path(target)

    monkeypatch.setattr(Path, "rename", refuses)
    with pytest.raises(Unusable, match="No space left"):
        import_("promptfoo", Path(_judged_file()), name="shop", judge_model="a/b")
    assert not (project / "prompts/shop").exists()


def _judged_file() -> str:
    Path("p.yaml").write_text(JUDGED)
    return "p.yaml"


@pytest.mark.parametrize(
    ("format_", "options", "message"),
    [
        ("promptfoo", {"judge_model": "a b"}, "--judge-model: "),
        ("dotprompt", {"judge_model": "a/b"}, "--judge-model is for promptfoo"),
        ("promptfoo", {"judge_model": "a/b", "into": Path("elsewhere")}, "--into has to end with it"),
    ],
)
def test_a_judges_model_that_makes_no_sense(format_: Any, options: dict[str, Any], message: str, project: Path) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        import_(format_, Path(_judged_file()), name="shop", **options)
    assert not (project / "elsewhere").exists()
