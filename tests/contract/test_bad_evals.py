"""
Evals as a stranger meets them when something is wrong: by the real commands, in a project of their own.

Whatever is wrong, a command says what and where, ends with 3 or 4, shows no traceback, and never says PASS.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.provider import Provider, Said, Say
from tidegate.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWER = json.dumps({"answer": "Return it within 30 days for 9 euros; Forgot password.", "needs_human": False})


@pytest.fixture
def provider() -> Iterator[Callable[[Say], Provider]]:
    with ExitStack() as open_:
        yield lambda say: open_.enter_context(Provider(say))


class Project:
    """A copy of an example, and the program run in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.capsys = capsys
        self.monkeypatch = monkeypatch

    def copy(self, example: str, provider: Provider | None) -> None:
        ignored = shutil.ignore_patterns(".tidegate", "report")
        shutil.copytree(EXAMPLES / example, self.folder, dirs_exist_ok=True, ignore=ignored)
        self.edit("tidegate.yaml", "simulated: true, ", "dialect: openai, api_key: k, ")
        self.edit(
            "tidegate.yaml", "http://127.0.0.1:4010/v1", "http://127.0.0.1:1/v1" if provider is None else provider.url
        )

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def run(self, *words: str) -> tuple[int, str]:
        """Exit code and all that is said. An exception that gets out is a traceback."""
        self.monkeypatch.setattr(sys, "argv", ["tidegate", *words])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = self.capsys.readouterr()
        return int(str(code)), " ".join((said.out + said.err).split())


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("TIDEGATE_URL", "TIDEGATE_KEY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    return Project(tmp_path, capsys, monkeypatch)


GOLDEN = "prompts/support/answer/golden.jsonl"
SUITE = "prompts/support/answer/eval.yaml"
CASE = '{"id": "a", "inputs": {"question": "q?", "context": "c"}, "expected": {"must_mention": "c"}}\n'


def suite(**changed: str) -> str:
    """eval.yaml with lines replaced by their keys."""
    lines = {
        "golden": "golden.jsonl",
        "repeats": "1",
        "checks": "[is-json]",
        "gate": "{must_pass: [is-json], metrics: {pass-rate: {floor: 1.0}}}",
    } | changed
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({GOLDEN: ""}, "golden.jsonl: has no cases"),
        ({GOLDEN: "\n\n"}, "golden.jsonl: has no cases"),
        ({GOLDEN: CASE + CASE}, "golden.jsonl:2: id: the case 'a' stands twice: lines 1 and 2"),
        ({GOLDEN: CASE.replace("question", "qestion")}, "golden.jsonl:1: inputs.question: is missing in case 'a'"),
        ({GOLDEN: CASE.replace("question", "qestion")}, "Did you mean 'question'?"),
        ({GOLDEN: "<html>no</html>\n"}, "golden.jsonl:1"),
        ({GOLDEN: CASE + CASE[:-20]}, "golden.jsonl:2"),
        ({GOLDEN: CASE.replace('"q?"', "NaN")}, "golden.jsonl:1"),
        ({GOLDEN: CASE.replace('"q?"', "5")}, "golden.jsonl:1"),
        ({GOLDEN: "[1]\n"}, "golden.jsonl:1: a case is a JSON object"),
        ({GOLDEN: CASE.replace('"a"', '""')}, "golden.jsonl:1: id"),
        ({GOLDEN: CASE, SUITE: suite(checks="[contains: '{{ expected.mention }}']", gate="{}")}, "eval.yaml:3"),
        ({SUITE: suite(golden="nosuch.jsonl")}, "eval.yaml:1: golden: there is no file 'nosuch.jsonl'"),
        ({SUITE: suite(golden="../../../tidegate.yaml")}, "eval.yaml:1: golden"),
        ({SUITE: suite(golden="prompt.md")}, "a golden set is a file of JSONL, YAML or CSV"),
        ({SUITE: suite(repeats="1000000000")}, "eval.yaml:2: repeats"),
        ({SUITE: suite(repeats="0")}, "eval.yaml:2: repeats"),
        ({SUITE: suite(repeats="three")}, "eval.yaml:2: repeats"),
        ({SUITE: suite(concurrency="-1")}, "eval.yaml:5: concurrency"),
        ({SUITE: suite(threshold="7")}, "eval.yaml:5: threshold"),
        ({SUITE: suite(gate="{metrics: {pass-rate: {margin: 5}}}")}, "eval.yaml:4: gate.metrics.pass-rate.margin"),
        ({SUITE: suite(gate="{metrics: {pass-rate: {margin: -0.1}}}")}, "eval.yaml:4: gate.metrics.pass-rate.margin"),
        ({SUITE: suite(gate="{metrics: {pass-rate: {floor: -1}}}")}, "eval.yaml:4: gate.metrics.pass-rate.floor"),
        ({SUITE: suite(gate="{metrics: {pass-rate: {floor: 90}}}")}, "eval.yaml:4: gate.metrics.pass-rate.floor"),
        ({SUITE: suite(gate="{metrics: {pass-rate: {floor: .nan}}}")}, "eval.yaml:4: gate.metrics.pass-rate.floor"),
        ({SUITE: suite(gate="{metrics: {pass-rate: {margin: .inf}}}")}, "eval.yaml:4: gate.metrics.pass-rate.margin"),
        ({SUITE: suite(gate="{metrics: {pass-rate: {}}}")}, "eval.yaml:4: gate.metrics.pass-rate"),
        ({SUITE: suite(gate="{metrics: {pas-rate: {floor: 1}}}")}, "eval.yaml:4: gate.metrics.pas-rate"),
        ({SUITE: suite(gate="{max_cost_usd: 0}")}, "eval.yaml:4: gate.max_cost_usd"),
        ({SUITE: suite(gate="{max_cost_usd: .nan}")}, "eval.yaml:4: gate.max_cost_usd"),
        ({SUITE: suite(gate="{must_pass: [is-jsn]}")}, "eval.yaml:4: gate.must_pass[0]"),
        ({SUITE: suite(checks="[is-jsn]", gate="{}")}, "Did you mean 'is-json'?"),
        ({SUITE: suite(checks="[is-json: nosuch.json]", gate="{}")}, "eval.yaml:3"),
        ({SUITE: suite(checks="[is-json: prompt.md]", gate="{}")}, "prompt.md:1"),
        ({SUITE: suite(checks="[regex: '(']", gate="{}")}, "eval.yaml:3"),
        ({SUITE: suite(checks="[python: x]", gate="{}")}, "eval.yaml:3"),
        ({SUITE: suite(checks="[]", gate="{}")}, "nothing checks the case"),
        ({SUITE: suite(judges="{tone: {rubric: judges/tone}}")}, "eval.yaml:5: judges.tone"),
        ({SUITE: suite(nosuch="1")}, "eval.yaml:5: nosuch"),
        ({SUITE: suite() + "repeats: 2\n"}, "eval.yaml:5"),
        ({SUITE: ""}, "eval.yaml"),
        ({SUITE: "- is-json\n"}, "eval.yaml:1: a suite is a map"),
        ({SUITE: "checks: [\n"}, "eval.yaml:2"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_named_with_its_line(files: dict[str, str], said: str, project: Project) -> None:
    project.copy("support-bot", None)
    for name, text in files.items():
        (project.folder / name).write_text(text)
    for command in (("eval", "support/answer"), ("gate",)):
        code, told = project.run(*command)
        assert (code, said in told, "PASS" in told) == (4, True, False), told
    assert project.run("lint")[0] == 4


def test_a_golden_set_that_is_no_file_or_too_large(project: Project) -> None:
    project.copy("support-bot", None)
    golden = project.folder / GOLDEN
    with golden.open("wb") as file:
        file.truncate((1 << 30) + 1)
    assert project.run("gate") == (4, f"tidegate: {golden}: larger than 1024 MiB.")
    golden.unlink()
    golden.mkdir()
    code, told = project.run("gate")
    assert (code, "golden" in told) == (4, True), told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eval", "support/anwser"), "Did you mean 'support/answer'?"),
        (("eval", "support/answer", "--repeats", "0"), "repeats"),
        (("eval", "support/answer", "--repeats", "1000000000"), "repeats"),
        (("eval", "support/answer", "--repeats", "nan"), "repeats"),
        (("gate", "--run", "nosuch"), "nosuch"),
        (("gate", "--run", "00000000-0000-0000-0000-000000000000"), "00000000-0000"),
        (("gate", "--metric", "pass-rate.margin=0.1"), "--run"),
        (("gate", "--against", "nosuch"), "nothing is registered yet"),
        (("gate", "--against", "v9"), "nothing is registered yet"),
        (("gate", "support/answer", "--version", "v9"), "nothing is registered yet"),
        (("gate", "--html", "tidegate.yaml/gate.html"), "tidegate.yaml/gate.html"),
        (("gate", "--html", "."), "."),
        (("gate", "--html", "tidegate.yaml"), "tidegate.yaml"),
        (("gate", "--html", "gate.html", "--junit", "gate.html"), "gate.html"),
        (("gate", "--json", "--github"), "choose one"),
        (("judge", "calibrate", "nosuch"), "nosuch"),
        (("golden", "add", "support/answer", "nosuch"), "nosuch"),
    ],
)  # fmt: skip
def test_words_that_make_no_sense(words: tuple[str, ...], said: str, project: Project) -> None:
    project.copy("support-bot", None)
    code, told = project.run(*words)
    assert (code, said in told, "PASS" in told) == (4, True, False), told


def test_a_project_folder_that_can_not_be_written(project: Project) -> None:
    project.copy("support-bot", None)
    (project.folder / ".tidegate").write_text("in the way")
    for command in (("eval", "support/answer"), ("gate",)):
        code, told = project.run(*command)
        assert (code in (3, 4), ".tidegate" in told) == (True, True), told


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://127.0.0.1:1", 3, "127.0.0.1:1"),
        ("nonsense", 4, "TIDEGATE_URL"),
        ("ftp://example.org", 4, "TIDEGATE_URL"),
        ("http://", 4, "TIDEGATE_URL"),
    ],
)
def test_a_server_that_is_none(url: str, code: int, said: str, project: Project) -> None:
    project.copy("support-bot", None)
    project.monkeypatch.setenv("TIDEGATE_URL", url)
    project.monkeypatch.setenv("TIDEGATE_KEY", "tg-0123456789")
    for command in (("eval", "support/answer"), ("gate",)):
        ended, told = project.run(*command)
        assert (ended, said in told, "PASS" in told) == (code, True, False), told


def half_way() -> Say:
    left = iter([(200, ANSWER)] * 4)
    return lambda _: next(left, (0, ""))


@pytest.mark.parametrize(
    ("say", "said"),
    [
        (None, "127.0.0.1:1"),
        (lambda _: (401, "Incorrect API key"), "401"),
        (lambda _: (500, "Oh no"), "500"),
        (lambda _: (404, "no such model"), "404"),
        (lambda _: (0, ""), "the connection broke"),
        (lambda _: (200, b"<html>Welcome</html>"), "calls"),
        (lambda _: (200, b"{}"), "calls"),
        (lambda _: (200, b"\xff\xfe"), "calls"),
        (half_way(), "calls"),
    ],
    ids=["not there", "no key", "broken", "no model", "hangs up", "HTML", "no answer", "no text", "dies half-way"],
)
def test_a_provider_that_gives_no_answers(
    say: Say | None, said: str, project: Project, provider: Callable[[Say], Provider]
) -> None:
    project.copy("support-bot", None if say is None else provider(say))
    for command in (("gate", "--junit", "gate.xml"), ("eval", "support/answer", "--junit", "eval.xml")):
        code, told = project.run(*command)
        assert (code, said in told, "PASS" in told) == (3, True, False), told
    assert "<error" in (project.folder / "gate.xml").read_text()


def test_a_price_that_nobody_knows_under_a_cap(project: Project, provider: Callable[[Say], Provider]) -> None:
    served = provider(lambda _: (200, ANSWER))
    project.copy("support-bot", served)
    project.edit("tidegate.yaml", "simulated/support-2026-03-01: {", "simulated/other: {")
    code, told = project.run("gate")
    assert (code, "max_cost_usd" in told, "prices" in told) == (3, True, True), told
    assert served.calls == 1


def test_a_cap_that_holds_nothing(project: Project, provider: Callable[[Say], Provider]) -> None:
    served = provider(lambda _: (200, ANSWER))
    project.copy("support-bot", served)
    project.edit(SUITE, "max_cost_usd: 1", "max_cost_usd: 0.000000001")
    code, told = project.run("gate")
    assert (code, "may pass gate.max_cost_usd" in told) == (3, True), told
    assert served.calls == 1


BAD_JUDGES: list[Say] = [
    lambda _: (200, "I would say it is quite good, 5 out of 5."),
    lambda _: (200, ""),
    lambda _: (200, "<html><body>Bad gateway</body></html>"),
    lambda _: (500, "Oh no"),
    lambda _: (0, ""),
]


@pytest.mark.parametrize("said", BAD_JUDGES, ids=["prose", "nothing", "HTML", "error", "hangs up"])
def test_a_judge_that_gives_no_verdict(said: Say, project: Project, provider: Callable[[Say], Provider]) -> None:
    """Calibrated, so that it may gate: then it loses its mind."""
    from tidegate.simulate.judge import verdict

    sane = True

    def say(asked: dict[str, Any]) -> tuple[int, Said]:
        if "judge" not in asked["model"]:
            return 200, json.dumps({"answer": "Refunds take five working days.", "needs_human": False})
        return (200, verdict([message["content"] for message in asked["messages"]])) if sane else said(asked)

    project.copy("rag", provider(say))
    assert project.run("judge", "calibrate", "grounded")[0] == 0
    sane = False
    code, told = project.run("gate", "--junit", "gate.xml")
    assert (code, "grounded" in told, "PASS" in told) == (3, True, False), told
    code, told = project.run("eval", "docs/answer")
    assert (code, "grounded" in told, "PASS" in told) == (3, True, False), told
    project.edit("judges/grounded/prompt.md", "You check", "You always check")
    code, told = project.run("judge", "calibrate", "grounded")
    assert (code, "scored" in told) == (3, True), told


LABELS = "judges/grounded/labels.jsonl"
LABEL = '{"id": "a", "inputs": {"passages": ["p"]}, "output": "o", "human": 1}\n'


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("", "labels.jsonl"),
        ("nonsense\n", "labels.jsonl:1"),
        (LABEL + LABEL, "labels.jsonl:2"),
        (LABEL.replace("1}", "7}"), "labels.jsonl:1"),
        (LABEL.replace("1}", "null}"), "labels.jsonl:1"),
        (LABEL.replace(', "human": 1', ""), "labels.jsonl:1"),
        (LABEL.replace('"output"', '"outpt"'), "labels.jsonl:1"),
    ],
)
def test_labels_that_say_nothing(labels: str, said: str, project: Project) -> None:
    project.copy("rag", None)
    (project.folder / LABELS).write_text(labels)
    code, told = project.run("judge", "calibrate", "grounded")
    assert (code, said in told, "may gate" in told) == (4, True, False), told


def test_too_few_labels(project: Project, provider: Callable[[Say], Provider]) -> None:
    from tidegate.simulate.judge import verdict

    project.copy("rag", provider(lambda asked: (200, verdict([one["content"] for one in asked["messages"]]))))
    (project.folder / LABELS).write_text("".join((project.folder / LABELS).read_text().splitlines(True)[:5]))
    code, told = project.run("judge", "calibrate", "grounded")
    assert (code, "20" in told, "✓ it may gate" in told) == (3, True, False), told


def test_an_interrupted_calibration_says_so(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    project.copy("rag", None)
    monkeypatch.setattr("tidegate.cli.judge.calibrated", interrupted)
    code, told = project.run("judge", "calibrate", "grounded")
    assert (code, "interrupted" in told) == (3, True), told


RAG_SUITE = "prompts/docs/answer/eval.yaml"
JUDGE = "{groundedness: judges/grounded, pass_at: 1, fields: {answer: output.answer, context: inputs.passages}}"


def test_a_judge_that_nobody_calibrated_lets_nothing_pass(
    project: Project, provider: Callable[[Say], Provider]
) -> None:
    """With no check beside it, nothing decides about an answer: that is no pass."""
    from tidegate.simulate.judge import verdict

    def say(asked: dict[str, Any]) -> tuple[int, Said]:
        if "judge" not in asked["model"]:
            return 200, "The moon is made of cheese."
        return 200, verdict([message["content"] for message in asked["messages"]])

    project.copy("rag", provider(say))
    (project.folder / RAG_SUITE).write_text(f"golden: golden.jsonl\njudges:\n  grounded: {JUDGE}\n")
    code, told = project.run("gate")
    assert (code, "PASS" in told) == (3, False), told
    assert "there is nothing to gate by. the judge 'grounded' is not calibrated" in told.replace(" │ │ ", " "), told
    assert project.run("judge", "calibrate", "grounded")[0] == 0
    code, told = project.run("gate")
    assert (code, "FAIL" in told) == (1, True), told
