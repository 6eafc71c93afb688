"""The documentation says what is so: links lead somewhere, commands exist, examples parse, the reference is fresh."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from cyclopts import App, CycloptsError, MissingArgumentError

from tests.repo.pages import Block, Page, parse, read
from tests.repo.tree import ROOT, markdown, named
from tidegate.cli import build
from tidegate.config import Config
from tidegate.core import errors
from tidegate.core.document import parse_yaml, validate
from tidegate.core.errors import TidegateError
from tidegate.evals.suite import SuiteFile
from tidegate.prompts.files import load_prompt

DOCS = ROOT / "docs"
PAGES = markdown()
NOTE_PARTS = ("context", "decision", "rejected", "how we would notice it is wrong")


@cache
def generated() -> dict[str, str]:
    pages: dict[str, str] = runpy.run_path(str(DOCS / "generate.py"))["pages"]()
    return pages


def broken_links(page: Page, at: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    broken = []
    for link in page.links:
        target, _, fragment = link.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path = (at.parent / target).resolve() if target else at
        if not path.exists() or (fragment and path.suffix == ".md" and fragment not in read(path).anchors):
            broken.append(link)
    return broken


def commands(page: Page) -> Iterator[str]:
    """Every whole `tidegate …` a reader may type: those in shell blocks and in indented ones."""
    for block in page.blocks:
        if block.language in ("sh", "bash", "console", "indented"):
            joined = re.sub(r"\\\n|(?<=\S)\n(?= )", " ", block.text)
            yield from (match[1] for match in re.finditer(r"(?:^|[$|&;] *|uv run )(tidegate [^|&;\n]*)", joined, re.M))


def mentions(page: Page) -> Iterator[str]:
    """Every `tidegate …` in running text; its arguments may be left out."""
    yield from (code for code in page.code if code.startswith("tidegate "))


def impossible(command: str, app: App, *, whole: bool) -> str | None:
    """Why a command line can not work, or None. Unless `whole`, what it needs may be missing."""
    words = shlex.split(command.replace("…", ""), comments=True)[1:]
    if not words or words[0].isupper() or words in (["--version"], ["--help"]):
        return None
    try:
        app.parse_args(words, print_error=False, exit_on_error=False)
    except MissingArgumentError as error:
        return str(error) if whole else None
    except CycloptsError as error:
        return str(error)
    return None


def wrong_example(block: Block, folder: Path) -> str | None:
    """Why an example is not what it claims to be, or None. `folder` is empty."""
    try:
        match block.language, block.text.partition("\n")[0]:
            case "python", _:
                compile(block.text, "example", "exec")
            case "json", _:
                json.loads(block.text)
            case "yaml", "# tidegate.yaml":
                validate(parse_yaml(block.text, "tidegate.yaml"), Config)
            case "yaml", "# eval.yaml":
                validate(parse_yaml(block.text, "eval.yaml"), SuiteFile)
            case "markdown", "---":
                (folder / "example").mkdir()
                (folder / "example" / "prompt.md").write_text(block.text, "utf-8")
                load_prompt(folder, "example")
    except (SyntaxError, ValueError, TidegateError) as error:
        return str(error)
    return None


def unreachable(start: Path, pages: list[Path]) -> list[str]:
    """The pages that no chain of links leads to."""
    seen, todo = {start.resolve()}, [start]
    while todo:
        at = todo.pop()
        for link in read(at).links:
            path = (at.parent / link.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_file() and path not in seen:
                seen.add(path)
                todo.append(path)
    return [named(page) for page in pages if page.resolve() not in seen]


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_link_leads_somewhere(path: Path) -> None:
    assert broken_links(read(path), path) == []


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_command_exists(path: Path) -> None:
    app, page = build(), read(path)
    problems = [(line, why) for line in commands(page) if (why := impossible(line, app, whole=True))]
    problems += [(line, why) for line in mentions(page) if (why := impossible(line, app, whole=False))]
    assert problems == []


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_example_parses(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    blocks = read(path).blocks
    problems = [(block.line, why) for block in blocks if (why := wrong_example(block, tmp_path_factory.mktemp("docs")))]
    assert problems == []


def test_every_page_can_be_found() -> None:
    assert unreachable(DOCS / "index.md", [path for path in PAGES if DOCS in path.parents]) == []


def test_the_generated_reference_is_fresh() -> None:
    """When this fails: `uv run just docs`."""
    stale = [name for name, text in generated().items() if read_text(DOCS / "reference" / name) != text]
    assert stale == []


def test_the_gate_s_measured_errors_are_fresh() -> None:
    """When this fails: `uv run just docs`."""
    generate = runpy.run_path(str(DOCS / "generate.py"))
    page = read_text(generate["GATE"])
    assert generate["with_power"](page, json.loads(read_text(generate["POWER"]))) == page
    assert "gate-power.json" in page


def read_text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


@pytest.mark.parametrize("path", sorted((DOCS / "design").glob("[0-9]*.md")), ids=named)
def test_every_design_note_is_one_page_of_four_parts(path: Path) -> None:
    anchors = read(path).anchors
    assert [part for part in NOTE_PARTS if part.replace(" ", "-") not in anchors] == []
    assert len(path.read_text("utf-8").splitlines()) <= 60


def test_every_design_note_has_its_own_number() -> None:
    numbers = [path.name[:4] for path in (DOCS / "design").glob("[0-9]*.md")]
    assert sorted(numbers) == [f"{index:04}" for index in range(1, len(numbers) + 1)]


def changelog_problems(text: str) -> list[str]:
    """What is wrong with a changelog: no Unreleased section, or an entry that is too long to be read."""
    problems = [] if "## Unreleased" in text.splitlines() else ["no section 'Unreleased'"]
    entries = re.findall(r"^- (.*(?:\n  .*)*)", text, re.M)
    return problems + [entry[:40] for entry in entries if len(entry.split()) > 25]


def test_the_changelog_is_readable() -> None:
    assert changelog_problems((ROOT / "CHANGELOG.md").read_text("utf-8")) == []


def test_a_changelog_can_be_wrong() -> None:
    assert changelog_problems("## 1.0\n\n- " + "word " * 26)[0] == "no section 'Unreleased'"
    assert len(changelog_problems("## Unreleased\n\n- " + "word " * 20 + "\n  " + "word " * 6)) == 1


@pytest.mark.parametrize(
    "command",
    ["tidegate nosuch", "tidegate log --nosuch", "tidegate log a b c", "tidegate log --limit x", "tidegate diff"],
)
def test_an_impossible_command_is_found(command: str) -> None:
    assert impossible(command, build(), whole=True)


@pytest.mark.parametrize("command", ["tidegate diff", "tidegate COMMAND", "tidegate log --json", "tidegate diff x v1"])
def test_a_possible_command_is_left_alone(command: str) -> None:
    assert impossible(command, build(), whole=False) is None


def test_commands_are_found_in_blocks_and_in_prose() -> None:
    page = parse(
        "Run `tidegate gate`.\n\n```sh\npip install uv && uv run tidegate demo\ntidegate log x | head\n```\n"
        "\n    tidegate status   # live\n"
    )
    assert [command.strip() for command in commands(page)] == [
        "tidegate demo",
        "tidegate log x",
        "tidegate status   # live",
    ]
    assert list(mentions(page)) == ["tidegate gate"]


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One\n\n[a](#one) [b](#two) [c](b.md) [d](https://example.org) [e](a.md#one)\n")
    assert broken_links(read(page), page) == ["#two", "b.md"]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "def"),
        ("json", "{"),
        ("yaml", "# tidegate.yaml\nroute: {}"),
        ("yaml", "# tidegate.yaml\na: ["),
        ("yaml", "# eval.yaml\nrepeats: 0"),
        ("markdown", "---\nmodle: a/b\n---\nuser:\nhello\n"),
    ],
)
def test_a_wrong_example_is_found(language: str, text: str, tmp_path: Path) -> None:
    assert wrong_example(Block(language, text, 1), tmp_path)


def test_a_lost_page_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.repo.test_docs.named", lambda path: path.name)
    for name, text in {"a.md": "[b](b.md)", "b.md": "[a](a.md)", "c.md": ""}.items():
        (tmp_path / name).write_text(text)
    assert unreachable(tmp_path / "a.md", sorted(tmp_path.iterdir())) == ["c.md"]


def test_the_reference_names_every_error_code() -> None:
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    page = read_text(DOCS / "reference" / "errors.md")
    assert [code for code in codes if f"`{code}`" not in page] == []
