"""`tidegate lint`: what it finds, where it says it stands, and how it is printed."""

# ruff: noqa: E501 – the tables read best with one case a line

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evals import EXAMPLE
from tidegate import compose
from tidegate.cli import lint as command
from tidegate.cli.github import annotation
from tidegate.cli.lint import lint, lint_
from tidegate.config import load
from tidegate.core.artifact import Artifact
from tidegate.core.document import parse_yaml
from tidegate.core.errors import BadInput, InvalidFile, NotFound
from tidegate.core.keys import Wanted
from tidegate.core.notice import Notice
from tidegate.upstream.lint import require_models
from tidegate.upstream.model_ids import pinned

ANSWER = "prompts/support/answer"
KEY = "sk-" + "proj-" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"
CONFIG = "providers: {openai: {}, local: {base_url: 'http://127.0.0.1:1/v1'}}\nroutes: {main: {targets: [openai/a-2026-03-01]}}\n"
PROMPT = """\
---
description: Answers.
model: openai/gpt-4.1-2025-04-14
inputs: {question: string}
---
{{ question }}
"""
SUITE = "checks: [is-json]\ngate: {must_pass: [is-json]}\n"
GOLDEN = '{"id": "a", "inputs": {"question": "Why?"}}\n'
TOOL = '{"name": "find",\n "description": "Finds.",\n "parameters": {"type": "object", "properties": {\n  "a": {"type": "string", "description": "What."}}}}'
CLEAN = {
    f"{ANSWER}/prompt.md": PROMPT,
    f"{ANSWER}/eval.yaml": SUITE,
    f"{ANSWER}/golden.jsonl": GOLDEN,
    "tidegate.yaml": CONFIG,
}


def write(root: Path, **files: str | bytes) -> Path:
    """A clean project, and `files` on top of it: path → content."""
    for name, content in {**CLEAN, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root / "tidegate.yaml"


def found(file: Path, *names: str) -> list[str]:
    return [
        f"{notice.level} {notice.file}:{notice.line} [{notice.rule}] {notice.field}: {notice.message}"
        for notice in lint(file, names).notices
    ]


def prompt(old: str = "", new: str = "", **files: str) -> dict[str, str]:
    assert old in PROMPT
    return {
        f"{ANSWER}/prompt.md": PROMPT.replace(old, new),
        **{f"{ANSWER}/{name}": text for name, text in files.items()},
    }


def test_the_example_is_clean() -> None:
    report = lint(EXAMPLE / "tidegate.yaml")
    assert (report.prompts, report.suites, report.notices) == (1, 1, ())


def test_a_clean_project_has_nothing_to_report(tmp_path: Path) -> None:
    assert found(write(tmp_path)) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (prompt("description: Answers.\n"), [f"warning {ANSWER}/prompt.md:2 [no-description] description: is missing"]),
        (prompt("-2025-04-14"), [f"warning {ANSWER}/prompt.md:3 [undated-model] model: 'openai/gpt-4.1' is not a dated pin"]),
        (prompt("model: openai", "fallbacks:\n- openai/b-2026-03-01\n- local/c\nmodel: openai"), [f"warning {ANSWER}/prompt.md:5 [undated-model] fallbacks[1]: 'local/c' is not"]),
        (prompt("openai/gpt-4.1-2025-04-14", "main"), []),
        ({"tidegate.yaml": CONFIG + "budgets:\n  prompts: {support/answr: {day: 1}, support/answer: {day: 1}}\n"}, ["warning tidegate.yaml:4 [unknown-prompt] budgets.prompts.support/answr: no prompt named 'support/answr'. Did you mean 'support/answer'?"]),
        (prompt("openai/gpt", "opnai/gpt"), [f"error {ANSWER}/prompt.md:3 [unknown-model] model: no route and no provider of tidegate.yaml serves 'opnai/gpt-4.1-2025-04-14'. Did you mean 'openai/gpt-4.1-2025-04-14'?"]),
        (prompt("openai/gpt", "anthropic/gpt"), [f"error {ANSWER}/prompt.md:3 [unknown-model] model: no route and no provider of tidegate.yaml serves 'anthropic/gpt-4.1-2025-04-14'. Known: local/MODEL, main, openai/MODEL. Under `providers:` write `anthropic: {{dialect: anthropic, api_key: \"${{env:ANTHROPIC_API_KEY}}\"}}`."]),
        (prompt("openai/gpt-4.1-2025-04-14", "mian"), [f"error {ANSWER}/prompt.md:3 [unknown-model] model: no route"]),
        (prompt("question: string", "question: string, tone: {default: dry}"), [f"warning {ANSWER}/golden.jsonl:0 [input-without-case] inputs.tone: no case sets this input", f"warning {ANSWER}/prompt.md:4 [unused-input] inputs.tone: no message uses this input."]),
        (prompt("question: string}", "question: string}\ntools: [t.json]", **{"t.json": TOOL}), []),
        (prompt("question: string}", "question: string}\ntools: [t.json]", **{"t.json": TOOL.replace('"Finds."', '" "')}), [f"warning {ANSWER}/t.json:2 [tool-without-description] description: is missing: the model chooses 'find' by it."]),
        (prompt("question: string}", "question: string}\ntools: [t.json]", **{"t.json": TOOL.replace(', "description": "What."', "")}), [f"warning {ANSWER}/t.json:4 [parameter-without-description] parameters.properties.a: has no description"]),
        (prompt("question: string}", "question: string}\noutput: {schema: s.json, constrain: true}", **{"s.json": '{"type": "object", "properties": {"a": {}}}'}), [f"warning {ANSWER}/prompt.md:5 [loose-schema] output.constrain: providers that constrain need"]),
        (prompt("{{ question }}", "{{ question }}\n" + "word " * 7_000), [f"warning {ANSWER}/prompt.md:0 [oversize] : is 34 KiB, some 8,777 tokens (estimated)"]),
        (prompt("{{ question }}", f"{{{{ question }}}}\nUse {KEY}."), [f"warning {ANSWER}/prompt.md:7 [secret] : holds what looks like an OpenAI-style API key."]),
        (prompt("{{ question }}", "{{ qestion }}"), [f"error {ANSWER}/prompt.md:6 [invalid-prompt] : the variable 'qestion' is not declared in `inputs`. Did you mean 'question'?"]),
        ({f"{ANSWER}/eval.yaml": "checks: [is-json]\n"}, [f"warning {ANSWER}/eval.yaml:1 [no-must-pass] gate.must_pass: is missing"]),
        ({f"{ANSWER}/eval.yaml": SUITE.replace("}", ", metrics: {is-json: {margin: 0}}}")}, [f"warning {ANSWER}/eval.yaml:2 [margin-of-zero] gate.metrics.is-json.margin: no number of cases"]),
        ({f"{ANSWER}/eval.yaml": "checks: [is-json]\ngate: {}\n"}, [f"warning {ANSWER}/eval.yaml:2 [no-must-pass] gate.must_pass: is missing"]),
        ({f"{ANSWER}/eval.yaml": SUITE + "repaets: 3\n", f"{ANSWER}/golden.jsonl": '{"id": 1}\n'}, [f"error {ANSWER}/eval.yaml:3 [invalid-suite] repaets: unknown key", f"error {ANSWER}/golden.jsonl:1 [invalid-golden] id: must be a string"]),
        ({f"{ANSWER}/eval.yaml": SUITE.replace("is-json]\ng", "is-json, {contains: '{{ expected.x }}'}]\ng")}, [f"error {ANSWER}/eval.yaml:1 [invalid-suite] checks[1].contains: 'expected' is undefined in case 'a'."]),
        ({f"{ANSWER}/eval.yaml": "checks:\n- is-json\n- output-valid\n- not-is-valid-function-call\ngate: {must_pass: [is-json]}\n"}, [f"warning {ANSWER}/eval.yaml:3 [check-of-nothing] checks[1]: decides nothing", f"warning {ANSWER}/eval.yaml:4 [check-of-nothing] checks[2]: finds no call"]),
        ({f"{ANSWER}/eval.yaml": SUITE + "golden: g.csv\n", f"{ANSWER}/g.csv": "id,inputs.question\na,Why?\nb,\n"}, [f"error {ANSWER}/g.csv:3 [invalid-golden] inputs.question: is missing in case 'b'"]),
        ({f"{ANSWER}/golden.jsonl": '{"id": "a", "inputs": {}}\n'}, [f"error {ANSWER}/golden.jsonl:1 [invalid-golden] inputs.question: is missing in case 'a'"]),
        ({f"{ANSWER}/golden.jsonl": '{"id": "a", "inputs": {"question": 5}}\n'}, [f"error {ANSWER}/golden.jsonl:1 [invalid-golden] inputs.question: must be a string, not a number. (in case 'a')"]),
        ({f"{ANSWER}/golden.jsonl": GOLDEN.replace("Why?", KEY)}, [f"warning {ANSWER}/golden.jsonl:1 [secret] : holds what looks like an OpenAI-style API key."]),
        (prompt("model: openai", f"{KEY}: 1\nmodel: openai"), [f"error {ANSWER}/prompt.md:3 [invalid-prompt] [redacted]: unknown key '[redacted]'.", f"warning {ANSWER}/prompt.md:3 [secret]"]),
        ({f"{ANSWER}/notes/old.txt": f"\n{KEY}"}, [f"warning {ANSWER}/notes/old.txt:2 [secret]"]),
        ({"tidegate.yaml": CONFIG.replace("openai: {}", f"openai: {{api_key: {KEY}}}")}, ["warning tidegate.yaml:1 [literal-api-key] providers.openai.api_key: holds the secret itself. Write a reference, such as ${env:OPENAI_API_KEY}"]),
        ({"tidegate.yaml": CONFIG.replace("openai: {}", "openai: {dialect: bedrock, region: eu-west-1, access_key_id: AKIAX, secret_access_key: abc}")}, ["warning tidegate.yaml:1 [literal-api-key] providers.openai.secret_access_key: holds the secret itself. Write a reference, such as ${env:OPENAI_SECRET_ACCESS_KEY}"]),
        ({"tidegate.yaml": CONFIG + "control: {url: 'postgresql://me:pw@db/x'}\n"}, ["warning tidegate.yaml:3 [literal-api-key] control.url: holds"]),
        ({"tidegate.yaml": CONFIG.replace("a-2026-03-01", "a-latest")}, ["warning tidegate.yaml:2 [undated-model] routes.main.targets[0]: 'openai/a-latest' is not a dated pin"]),
        ({"tidegate.yaml": "proviers: {}\n", f"{ANSWER}/prompt.md": "x"}, [f"error {ANSWER}/prompt.md:1 [invalid-prompt] : a prompt begins with", "error tidegate.yaml:1 [invalid-config] proviers: unknown key"]),
        ({"prompts/support-answer/prompt.md": PROMPT, "prompts/support_answer/prompt.md": PROMPT}, ["warning prompts/support_answer/prompt.md:0 [name-collision] : the name is easily taken for 'support-answer'"]),
        ({"prompts/Support/Answer/prompt.md": PROMPT}, ["error prompts/Support/Answer/prompt.md:0 [bad-name] : a prompt's folder is named", "error prompts/Support/Answer/prompt.md:0 [name-collision] : the name is 'support/answer' in other letters"]),
        ({"prompts/support/ａnswer/prompt.md": PROMPT}, ["error prompts/support/ａnswer/prompt.md:0 [bad-name]", "error prompts/support/ａnswer/prompt.md:0 [name-collision] : the name is 'support/answer' in other letters"]),
        ({"prompts/prompt.md": PROMPT}, ["error prompts/prompt.md:0 [bad-name] : a prompt stands in a folder of its own"]),
        ({"prompts/.hidden/prompt.md": "x"}, []),
        (prompt("{{ question }}", "system:\nBe brief.\n\nUser:\n{{ question }}"), [f"warning {ANSWER}/prompt.md:9 [role-line] : 'User:' opens no message, and is text of the one above. Write `user:`"]),
        (prompt("{{ question }}", "{{ question }}\nUser:\nHi"), []),
        ({"prompts/lost/propmt.md": PROMPT, "prompts/lost/eval.yaml": SUITE}, ["error prompts/lost/eval.yaml:0 [no-prompt] : there is no prompt.md beside it, so nothing is evaluated. Did you mean 'propmt.md'?"]),
    ],
)  # fmt: skip
def test_every_notice_has_its_place(tmp_path: Path, files: dict[str, str | bytes], expected: list[str]) -> None:
    notices = found(write(tmp_path, **files))
    assert len(notices) == len(expected), notices
    for notice, beginning in zip(notices, expected, strict=True):
        assert notice.startswith(beginning), notices
        assert KEY not in notice


def test_a_limit_of_a_key_that_nobody_has_is_found_where_the_keys_are_kept(tmp_path: Path) -> None:
    file = write(
        tmp_path, **{"tidegate.yaml": CONFIG + "limits:\n  keys: {an: {concurrent: 1}, ann: {concurrent: 1}}\n"}
    )
    assert found(file) == []
    assert not (tmp_path / ".tidegate").exists()
    with closing(compose.own_registry(load(file))) as registry:
        registry.keys.create(Wanted("ann", "caller"), who="ada")
    expected = "warning tidegate.yaml:4 [unknown-key] limits.keys.an: no key has this name. Did you mean 'ann'?"
    assert found(file) == [expected]


def test_a_broken_prompt_does_not_hide_the_others(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "prompts/a/prompt.md": "x",
        "prompts/b/prompt.md": b"---\n\xff",
        "prompts/c/prompt.md": PROMPT.replace("question: s", "question: z"),
    }
    file = write(tmp_path, **files)
    assert [notice.split()[1] for notice in found(file)] == [
        "prompts/a/prompt.md:1",
        "prompts/b/prompt.md:2",
        "prompts/c/prompt.md:4",
    ]


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b"[" * 100_000, id="brackets"),
        pytest.param(b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in b"bcdefgh"), id="bomb"),
        pytest.param(b"a: 1\na: 2\n", id="duplicate key"),
        pytest.param(b"a: .nan\n", id="not finite"),
        pytest.param(b"a: \xff\n", id="not UTF-8"),
        pytest.param(b"a: \0\n", id="NUL"),
        pytest.param(b"\xff\xfea\0", id="UTF-16"),
        pytest.param(b"x" * (10 << 20), id="10 MB"),
        pytest.param(b"", id="empty"),
        pytest.param(None, id="folder"),
        pytest.param("pipe", id="pipe"),
        pytest.param("out", id="link out"),
        pytest.param("loop", id="link in circles"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["prompt.md", "s.json", "t.json", "eval.yaml", "golden.jsonl"])
def test_hostile_files_are_errors_that_name_them(tmp_path: Path, name: str, hostile: bytes | str | None) -> None:
    """Every kind of file against every kind of damage: an error about that file, nothing lost, nobody waits."""
    text = PROMPT.replace("question: string}", "question: string}\noutput: {schema: s.json}\ntools: [t.json]")
    file = write(tmp_path, **{f"{ANSWER}/prompt.md": text, f"{ANSWER}/s.json": "{}", f"{ANSWER}/t.json": TOOL})
    assert found(file) == []
    path = tmp_path / ANSWER / name
    path.unlink()
    match hostile:
        case None:
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "out":
            (tmp_path / "outside").write_text('{"name": "x", "description": "y"}')
            path.symlink_to(tmp_path / "outside")
        case "loop":
            path.symlink_to(path)
        case bytes():
            front = b"---\n" if name == "prompt.md" and hostile and hostile[0] != 255 else b""
            path.write_bytes(front + hostile + (b"\n---\nHi\n" if front else b""))
    before = path.read_bytes() if isinstance(hostile, bytes) else b""
    errors = [notice for notice in lint(file).notices if notice.level == "error"]
    assert errors, "nothing was found"
    folder = f"{ANSWER}/"
    assert all(notice.file.startswith(folder) for notice in errors)
    assert any(notice.file == folder + name or name in notice.message for notice in errors), errors
    assert all(len(notice.message) < 300 and "Traceback" not in notice.message for notice in errors)
    if isinstance(hostile, bytes):
        assert path.read_bytes() == before
    if hostile == "out":
        assert any("leads out" in notice.message or "leaves the folder" in notice.message for notice in errors), errors


@pytest.mark.parametrize("name", ["prompt.md", "s.json", "t.json", "eval.yaml", "golden.jsonl"])
def test_a_byte_order_mark_is_no_damage(tmp_path: Path, name: str) -> None:
    text = PROMPT.replace("question: string}", "question: string}\noutput: {schema: s.json}\ntools: [t.json]")
    file = write(tmp_path, **{f"{ANSWER}/prompt.md": text, f"{ANSWER}/s.json": "{}", f"{ANSWER}/t.json": TOOL})
    for path in (tmp_path / ANSWER / name, file):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert found(file) == []


def test_links_to_folders_are_reported_and_not_followed(tmp_path: Path) -> None:
    file = write(tmp_path / "project")
    root = tmp_path / "project" / "prompts"
    shutil.copytree(root / "support", tmp_path / "elsewhere")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "alias").symlink_to(root / "support")
    (root / "loop").symlink_to(root)
    assert [notice.split(":")[0] for notice in found(file)] == [
        "warning prompts/alias",
        "warning prompts/loop",
        "error prompts/out",
    ]


def test_prompts_that_is_a_link_out_of_the_project_is_not_read(tmp_path: Path) -> None:
    file = write(tmp_path / "project")
    shutil.move(tmp_path / "project" / "prompts", tmp_path / "elsewhere")
    (tmp_path / "project" / "prompts").symlink_to(tmp_path / "elsewhere")
    assert found(file) == ["error prompts:0 [link] : is a link that leads out of the project."]


def test_a_very_deep_tree_is_walked(tmp_path: Path) -> None:
    """Deeper than Python's recursion limit; so pytest could not clear it away either."""
    file = write(tmp_path)
    folders = [Path(f"{tmp_path}/prompts" + "/d" * depth) for depth in range(1, 1_200)]
    for folder in folders:
        folder.mkdir()
    notices = found(file)
    for folder in reversed(folders):
        folder.rmdir()
    assert notices == []


def test_named_prompts_alone_are_linted(tmp_path: Path) -> None:
    file = write(tmp_path, **{"prompts/bad/prompt.md": "x", "prompts/Bad/prompt.md": "x"})
    assert found(file, "support/answer") == []
    assert len(found(file, "bad", "bad")) == 1
    with pytest.raises(NotFound, match="Did you mean 'support/answer'"):
        lint(file, ["suport/answer"])


def test_many_prompts_are_shared_among_processes_and_stay_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        tmp_path, **{f"prompts/p{number}/prompt.md": PROMPT.replace("-2025-04-14", "") for number in range(30)}
    )
    alone = lint(file)
    monkeypatch.setattr(command, "MANY", 10)
    monkeypatch.setattr(command, "CHUNK", 4)
    assert lint(file) == alone
    assert len(alone.notices) == 30


@pytest.mark.parametrize(
    ("files", "options", "code"),
    [
        ({}, {}, 0),
        (prompt("-2025-04-14"), {}, 0),
        (prompt("-2025-04-14"), {"strict": True}, 1),
        ({"prompts/a/prompt.md": "x"}, {}, 4),
        ({"prompts/a/prompt.md": "x"}, {"strict": True}, 4),
        ({"tidegate.yaml": "x: 1"}, {"json": True}, 4),
    ],
)
def test_the_exit_code_tells_errors_from_warnings(
    tmp_path: Path, files: dict[str, str], options: dict[str, Any], code: int
) -> None:
    file = write(tmp_path, **files)
    with pytest.raises(SystemExit) as caught:
        lint_(config=file, **options)
    assert caught.value.code == code


def test_json_is_a_list_of_notices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lint_(config=write(tmp_path, **prompt("description: Answers.\n")), json=True)
    assert json.loads(capsys.readouterr().out) == [
        {
            "level": "warning",
            "file": f"{ANSWER}/prompt.md",
            "line": 2,
            "field": "description",
            "rule": "no-description",
            "message": "is missing: say in one line what the prompt is for.",
        }
    ]


def test_github_gets_annotations_with_paths_from_the_repositorys_top(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    with pytest.raises(SystemExit):
        lint_(config=write(tmp_path / "bot", **prompt("-2025-04-14")), github=True)
    line = capsys.readouterr().out
    assert line.startswith(
        f"::warning file=bot/{ANSWER}/prompt.md,line=3,title=undated-model::model: 'openai/gpt-4.1' is"
    )
    with pytest.raises(BadInput):
        lint_(json=True, github=True)


def test_annotations_are_escaped_as_github_asks() -> None:
    notice = Notice("error", "a,b:c%.md", 0, "x:y", "rule", "100 %: a,\r\nb")
    assert annotation(notice, "d:/") == "::error file=d%3A/a%2Cb%3Ac%25.md,title=rule::x:y: 100 %25: a,%0D%0Ab"


def test_a_terminal_gets_notices_by_file_and_a_closing_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lint_(config=write(tmp_path, **{"prompts/a/prompt.md": "x\x1b[2J", **prompt("-2025-04-14")}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prompts/a/prompt.md"
    assert lines[1].startswith("  1  error    a prompt begins with a line")
    assert lines[3] == f"{ANSWER}/prompt.md"
    assert lines[4].startswith("  3  warning  model: 'openai/gpt-4.1' is not a dated pin")
    assert lines[-1] == "1 error, 1 warning in 2 files; checked 2 prompts, 1 suite and tidegate.yaml."


def test_a_clean_project_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lint_(config=write(tmp_path))
    assert capsys.readouterr().out == "✓ 1 prompt, 1 suite and tidegate.yaml: nothing to report.\n"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-4.1-2025-04-14", True),
        ("openai/gpt-4-0613", True),
        ("openai/gpt-4-1106-preview", True),
        ("openai/ft:gpt-4o-2024-08-06:acme::abc", True),
        ("anthropic/claude-sonnet-4-5-20250929", True),
        ("vertex/claude-sonnet-4-5@20250929", True),
        ("bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("bedrock/eu.amazon.nova-pro-v1:0", True),
        ("bedrock/anthropic.claude-opus-5", False),
        ("gemini/gemini-2.0-flash-001", True),
        ("gemini/gemini-2.5-pro-preview-05-06", True),
        ("mistral/mistral-large-2411", True),
        ("cohere/command-r-08-2024", True),
        ("ollama/llama3@sha256:" + "ab" * 32, True),
        ("simulated/support-2026-03-01", True),
        ("openai/gpt-4.1", False),
        ("openai/gpt-4.1-mini", False),
        ("anthropic/claude-sonnet-4-5", False),
        ("anthropic/claude-3-5-sonnet-latest", False),
        ("ollama/llama3.1:405b", False),
        ("openai/gpt-4-32k", False),
        ("openai/model-2026-13-01", False),
        ("provider-2026-03-01/gpt-4.1", False),
    ],
)
def test_pins_are_known_by_their_providers_habits(model: str, expected: bool) -> None:
    assert pinned(model) is expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("model: simulated/", "model: simulatd/", "3: model: no route and no provider of tidegate.yaml serves"),
        ("inputs:", "fallbacks: [support, gpt]\ninputs:", "5: fallbacks[0]: no route and no provider"),
    ],
)
def test_a_gate_names_a_model_that_nobody_serves_before_the_first_call(old: str, new: str, expected: str) -> None:
    file = EXAMPLE / "prompts" / "support" / "answer" / "prompt.md"
    text = file.read_text("utf-8").replace(old, new, 1)
    front = parse_yaml(text.split("---\n")[1], "prompt.md", first_line=2)
    artifact = Artifact(messages=(), model=front.data["model"], fallbacks=tuple(front.data.get("fallbacks", ())))
    with pytest.raises(InvalidFile) as caught:
        require_models(front, artifact, load(EXAMPLE / "tidegate.yaml").config)
    assert str(caught.value).startswith(f"prompt.md:{expected}")
