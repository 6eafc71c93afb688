"""The commands over prompts: what they print, for people and for programs, and how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tidegate import compose
from tidegate.cli import deploy as deploy_module
from tidegate.cli import diff as diff_module
from tidegate.cli import log as log_module
from tidegate.cli import output, status
from tidegate.cli import render as render_module
from tidegate.cli import rollback as rollback_module
from tidegate.cli.deploy import deploy_
from tidegate.cli.diff import diff_
from tidegate.cli.log import log_
from tidegate.cli.render import render_
from tidegate.cli.rollback import rollback_
from tidegate.cli.status import status_
from tidegate.core.artifact import digest
from tidegate.core.errors import BadInput, InvalidFile, InvalidRequest, NotFound, Refused
from tidegate.prompts.files import load_prompt
from tidegate.telemetry.find import ServedBy

P = "support/answer"
PROMPT = """---
model: simulated/support-2026-03-01
params: {temperature: 0.2}
inputs: {question: string, top: {type: number}}
---
system:
You are a support assistant.

user:
Question: {{ question }}
"""


class Calls:
    """A call log that was served by what it is told."""

    def __init__(self, *served: ServedBy) -> None:
        self.served = served
        self.asked: list[datetime] = []

    def served_by(self, since: datetime, prompt: str | None = None) -> list[ServedBy]:
        self.asked.append(since)
        return [item for item in self.served if item.last >= since]


def calls(version: int, count: int, last_s: float = 0.0, *, environment: str | None = "production") -> ServedBy:
    """Of P; the last of them so many seconds after now."""
    return ServedBy(P, environment, version, count, datetime.now(UTC) + timedelta(seconds=last_s))


class Shop:
    """A project, and the commands run in it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.config = root / "tidegate.yaml"
        self.config.write_text("providers: {simulated: {base_url: 'http://127.0.0.1:4010/v1'}}\n")
        self.folder = root / "prompts" / P
        self.folder.mkdir(parents=True)
        self.write(PROMPT)
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self.served_by()

    def write(self, text: str) -> None:
        (self.folder / "prompt.md").write_text(text)

    def edit(self) -> None:
        self.write(PROMPT.replace("a support", "a warm and friendly support"))

    def text(self, command: Any, *arguments: Any, **options: Any) -> str:
        self._capsys.readouterr()
        command(*arguments, config=self.config, **options)
        return self._capsys.readouterr().out

    def json(self, command: Any, *arguments: Any, **options: Any) -> Any:
        return json.loads(self.text(command, *arguments, json=True, **options))

    def served_by(self, *served: ServedBy) -> Calls:
        """What the records of the last minutes say from now on."""
        log = Calls(*served)
        self._monkeypatch.setattr(compose, "call_log", lambda project: log)
        return log

    def ship(self) -> None:
        """v1, then the friendly v2, both forced."""
        deploy_(P, force=True, reason="first", config=self.config)
        self.edit()
        deploy_(P, force=True, reason="be warm and friendly", config=self.config)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("TIDEGATE_USER", "anna@shop")
    plain = Console(highlight=False, soft_wrap=True, width=80)
    for module in (output, deploy_module, diff_module, log_module, render_module, rollback_module, status):
        monkeypatch.setattr(module, "out", plain)
    return Shop(tmp_path, capsys, monkeypatch)


def test_render_prints_what_a_call_would_send(shop: Shop) -> None:
    shown = shop.json(render_, P, var=["question=How = why?", "top=5"])
    assert shown == {
        "name": P,
        "digest": digest(load_prompt(shop.root / "prompts", P).artifact),
        "version": None,
        "model": "simulated/support-2026-03-01",
        "params": {"temperature": 0.2},
        "messages": [
            {"role": "system", "content": "You are a support assistant."},
            {"role": "user", "content": "Question: How = why?"},
        ],
        "tools": [],
    }
    assert not (shop.root / ".tidegate").exists()
    text = shop.text(render_, P, var=["question=[red]\x1b[31mx", "top=5"])
    assert "Question: [red]␛[31mx" in text
    assert "not registered yet" in text


def test_render_names_the_version_once_there_is_one(shop: Shop) -> None:
    shop.ship()
    variables = ["question=q", "top=1"]
    assert shop.json(render_, P, var=variables)["version"] == 2
    assert (
        shop.json(render_, P, var=variables, version="v1")["messages"][0]["content"] == "You are a support assistant."
    )


@pytest.mark.parametrize(
    ("var", "error", "message"),
    [
        ([], InvalidRequest, "variables.question: is missing"),
        (["question"], BadInput, "write it as name=value"),
        (["question=a", "question=b"], BadInput, "given twice"),
        (["question=a", "top=five"], BadInput, "a number is written as JSON, and 'five' is not"),
        (["qestion=a"], InvalidRequest, "Did you mean 'question'"),
    ],
)
def test_render_refuses_wrong_variables(shop: Shop, var: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        render_(P, var=var, config=shop.config)


def test_a_deploy_without_a_gate_is_refused_and_moves_nothing(shop: Shop) -> None:
    with pytest.raises(Refused, match="Run `tidegate gate support/answer`"):
        deploy_(P, config=shop.config)
    assert shop.json(status_) == []


def test_a_malformed_prompt_is_not_registered(shop: Shop) -> None:
    shop.write(PROMPT.replace("{{ question }}", "{{ qestion }}"))
    with pytest.raises(InvalidFile, match=r"prompts/support/answer/prompt\.md:10: the variable 'qestion'"):
        deploy_(P, config=shop.config)
    assert not (shop.root / ".tidegate").exists()


def test_a_forced_deploy_is_marked(shop: Shop) -> None:
    text = shop.text(deploy_, P, force=True, reason="first")
    assert "support/answer · production · v1" in text
    assert "FORCED" in text
    again = shop.json(deploy_, P)
    assert (again["changed"], again["forced"], again["to_version"], again["who"]) == (False, True, 1, "anna@shop")
    assert "is live in production already" in shop.text(deploy_, P)


def test_a_stored_version_is_deployed_without_its_file(shop: Shop) -> None:
    shop.ship()
    (shop.folder / "prompt.md").unlink()
    assert shop.json(deploy_, P, env="staging", version="v1")["to_version"] == 1


def test_a_rollback_says_where_it_went(shop: Shop) -> None:
    shop.ship()
    assert "support/answer · production · v2 → v1" in shop.text(rollback_, P, reason="chats")
    with pytest.raises(NotFound, match="v1 stays live"):
        rollback_(P, config=shop.config)
    with pytest.raises(Refused, match="v2 was rolled back"):
        deploy_(P, config=shop.config)


def test_status_shows_the_pointer_and_the_traffic(shop: Shop) -> None:
    shop.ship()
    log = shop.served_by(calls(1, 1), calls(2, 49), calls(3, 7, environment="staging"), calls(4, 9, environment=None))
    (row,) = shop.json(status_, minutes=5)
    assert (row["prompt"], row["environment"], row["version"], row["by"]) == (P, "production", 2, "anna@shop")
    assert row["served"] == {"v1": 0.02, "v2": 0.98}
    assert "stray" not in row  # the move is too young to tell
    assert timedelta(minutes=5) <= datetime.now(UTC) - log.asked[0] < timedelta(minutes=6)
    text = shop.text(status_)
    assert "v1 2%, v2 98%" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_status_says_when_traffic_does_not_follow_the_pointer(shop: Shop) -> None:
    """Also where the version is the right one in another environment."""
    shop.ship()
    deploy_(P, env="staging", version="v1", config=shop.config)
    shop.served_by(calls(1, 10, 3), calls(2, 10, 3))
    rows = {row["environment"]: row for row in shop.json(status_)}
    assert rows["production"]["stray"] == ["v1"]
    assert "stray" not in rows["staging"]
    assert "v1 still served calls after production moved to v2" in shop.text(status_)


def test_calls_from_before_the_move_are_not_stray(shop: Shop) -> None:
    shop.ship()
    shop.served_by(calls(1, 10), calls(2, 10, 3))
    assert "stray" not in shop.json(status_)[0]


def test_a_split_is_told_where_the_pointer_is(shop: Shop) -> None:
    deploy_(P, force=True, reason="first", config=shop.config)
    shop.edit()
    text = shop.text(deploy_, P, weight="10%", force=True, reason="try it")
    assert "support/answer · production · v1 90 % / v2 10 %" in text
    assert "all calls:  tidegate deploy support/answer --version v2\n" in text
    assert "back again: tidegate rollback support/answer\n" in text
    assert "is live in production already for 10 % of its calls" in shop.text(deploy_, P, weight="10%")
    lines = [line.split() for line in shop.text(status_).splitlines()]
    assert lines[1][2:5] == ["v1", "90", "%"]
    assert lines[2] == ["v2", "10", "%"]  # below, so that the table keeps its width
    text = shop.text(log_, P)
    assert "production · v1 90 % / v2 10 %  deploy  FORCED" in text
    assert "changed: system message" in text
    shop.write(PROMPT.replace("0.2", "0.9"))
    assert ") of v1 90 % / v2 10 % → working tree" in shop.text(diff_, P)
    assert "production · v2 → v1" in shop.text(rollback_, P, reason="chats")
    assert "v1 90 %" not in shop.text(status_)


def test_status_says_when_traffic_does_not_follow_a_split(shop: Shop) -> None:
    shop.ship()
    shop.edit()
    shop.write(PROMPT.replace("0.2", "0.9"))
    deploy_(P, weight="10%", force=True, reason="colder", config=shop.config)
    shop.served_by(calls(2, 90, 3), calls(3, 10, 3))
    (row,) = shop.json(status_)
    assert (row["served"], row.keys() & {"stray", "idle"}) == ({"v2": 0.9, "v3": 0.1}, set())
    shop.served_by(calls(1, 5, 3), calls(2, 600, 3))
    (row,) = shop.json(status_)
    assert (row["stray"], row["idle"]) == (["v1"], ["v3"])
    text = shop.text(status_)
    assert "v1 still served calls after production moved to v2 90 % / v3 10 %: a gateway does not follow" in text
    assert "v3 served none of production's calls since it became v2 90 % / v3 10 %" in text
    shop.served_by(calls(2, 600))
    assert "idle" not in shop.json(status_)[0], "these calls were before the split"


@pytest.mark.parametrize("weight", ["10", "0%", "100%", "ten"])
def test_a_weight_that_is_none_is_bad_input(shop: Shop, weight: str) -> None:
    with pytest.raises(BadInput, match="share of an environment's calls"):
        deploy_(P, weight=weight, config=shop.config)
    assert not (shop.root / ".tidegate").exists()


def test_the_log_tells_what_changed_and_why(shop: Shop) -> None:
    shop.ship()
    rollback_(P, reason="chats", config=shop.config)
    text = shop.text(log_, P)
    assert text.index("v2 → v1  rollback") < text.index("v1 → v2  deploy  FORCED") < text.index("· v1  deploy")
    assert "“be warm and friendly”" in text
    assert "changed: system message" in text
    assert "+You are a warm and friendly support assistant." in shop.text(log_, P, diff=True)
    moves = shop.json(log_, P, limit=2)
    assert [move["action"] for move in moves] == ["rollback", "deploy"]
    assert moves[0]["diff"]["messages"][0]["after_role"] == "system"
    assert shop.json(log_)[-1]["diff"] is None


def test_diff_compares_versions_and_the_working_tree(shop: Shop) -> None:
    shop.ship()
    assert "You are a {+warm and friendly +}support assistant." in shop.text(diff_, P, "v1", "v2")
    assert "no difference" in shop.text(diff_, P)
    shop.write(PROMPT)
    shown = shop.json(diff_, P)
    assert (shown["a"]["kind"], shown["a"]["version"]) == ("environment", 2)
    assert (shown["b"]["kind"], shown["b"]["version"]) == ("worktree", 1)
    assert shown["diff"]["messages"][0]["lines"][1] == "-You are a warm and friendly support assistant."


def test_an_empty_project_is_told_the_next_step(shop: Shop) -> None:
    assert "`tidegate gate support/answer`, then `tidegate deploy support/answer`" in shop.text(status_)
    assert "Nothing was deployed yet" in shop.text(log_)
    assert not (shop.root / ".tidegate").exists()
    with pytest.raises(NotFound, match="Did you mean 'support/answer'"):
        status_("suport/answer", config=shop.config)


def test_the_program_says_one_sentence_and_its_exit_code(shop: Shop) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", "deploy", P, "--config", str(shop.config)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("tidegate: support/answer v1 (")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
