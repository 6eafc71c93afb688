"""`gate`, `deploy`, `approve`, `log`, `status` and `diff` in a project that is in a git repository."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.gate_schema import gate_json
from tests.repository import Repo
from tidegate import compose
from tidegate.cli import approve as approve_module
from tidegate.cli import deploy as deploy_module
from tidegate.cli import diff as diff_module
from tidegate.cli import gate as gate_module
from tidegate.cli import log as log_module
from tidegate.cli import output, status, watch
from tidegate.cli.approve import approve_
from tidegate.cli.changes import changes_text
from tidegate.cli.deploy import deploy_
from tidegate.cli.diff import diff_
from tidegate.cli.gate import gate_
from tidegate.cli.log import log_
from tidegate.cli.rollback import rollback_
from tidegate.cli.status import status_
from tidegate.core.artifact import Artifact, Message
from tidegate.core.diff import diff
from tidegate.core.errors import BadInput, InvalidFile, NotFound, Refused
from tidegate.ports import PromptAnswer, PromptCall

P = "support/answer"
SUITE = "repeats: 2\nchecks: [contains: ok]\ngate: {must_pass: [contains], metrics: {pass-rate: {floor: 1.0}}}\n"


class Model:
    """Implements ports.Caller: says `ok`, unless its prompt is friendly."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry

    async def call(self, call: PromptCall) -> PromptAnswer:
        friendly = "friendly" in self.registry.artifact(call.digest).messages[0].content
        return PromptAnswer("Hello!" if friendly else "ok", cost_nano_usd=1, input_tokens=1, output_tokens=1)


class Shop:
    """A project in a repository, and the commands run in it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.repo = Repo(root).init()
        self.config = root / "tidegate.yaml"
        self.config.write_text("providers: {simulated: {base_url: 'http://127.0.0.1:4010/v1'}}\n")
        self.repo.write(".gitignore", ".tidegate/\n")
        self.repo.write(f"prompts/{P}/eval.yaml", SUITE)
        self.golden("a", "b", "c")
        self.repo.prompt("Be brief.")
        self.first = self.repo.commit("the first")
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self.user("anna@shop")

    def user(self, name: str) -> None:
        self._monkeypatch.setenv("TIDEGATE_USER", name)

    def golden(self, *ids: str) -> None:
        cases = [json.dumps({"id": id_, "inputs": {"question": f"{id_}?"}}) for id_ in ids]
        self.repo.write(f"prompts/{P}/golden.jsonl", "\n".join(cases))

    def gate(self, *names: str, **options: Any) -> tuple[int, dict[str, Any]]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            gate_(*(names or (P,)), config=self.config, json=True, **options)
        return ended.value.code, gate_json(self._capsys.readouterr().out)  # type: ignore[return-value]

    def text(self, command: Any, *arguments: Any, **options: Any) -> str:
        self._capsys.readouterr()
        command(*arguments, config=self.config, **options)
        return self._capsys.readouterr().out

    def json(self, command: Any, *arguments: Any, **options: Any) -> Any:
        return json.loads(self.text(command, *arguments, json=True, **options))


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shop:
    @asynccontextmanager
    async def caller(_project: Any, registry: Any) -> AsyncIterator[Model]:
        yield Model(registry)

    plain = Console(highlight=False, soft_wrap=True, width=80)
    for module in (output, approve_module, deploy_module, diff_module, gate_module, log_module, status, watch):
        monkeypatch.setattr(module, "out", plain)
    monkeypatch.setattr(compose, "caller", caller)
    return Shop(tmp_path / "shop", capsys, monkeypatch)


# gate


def test_a_pull_request_is_gated_against_the_main_branch_without_a_store(shop: Shop) -> None:
    shop.repo.git("checkout", "-q", "-b", "friendly")
    shop.repo.prompt("Be friendly.")
    shop.repo.commit("be friendly")
    code, report = shop.gate(against="main")
    assert (code, report["verdict"]) == (1, "FAIL")
    assert (report["baseline"], report["candidate"]) == ("v1", "v2")
    assert report["notes"] == [f"the baseline v1 is main at {shop.first[:10]}."]
    assert "-Be brief." in report["diff"]
    shop.repo.git("checkout", "-q", "main")
    shop.repo.prompt("Be quite brief.")
    assert shop.gate(against="main")[0] == 0


def test_without_against_the_baseline_is_where_the_branch_began(shop: Shop) -> None:
    code, report = shop.gate()
    assert (code, report["baseline"]) == (0, None)
    assert report["notes"][0].startswith("nothing is live, and the prompt is the one of main: the suite's floors")
    shop.repo.prompt("Be friendly.")
    code, report = shop.gate()
    assert (code, report["baseline"], report["candidate"]) == (1, "v1", "v2")
    assert report["notes"][0] == f"the baseline v1 is main@{shop.first[:10]}."


def test_what_is_live_comes_before_git(shop: Shop) -> None:
    shop.gate()
    deploy_(P, config=shop.config)
    shop.repo.prompt("Be quite brief.")
    shop.repo.commit()
    assert shop.gate()[1]["notes"] == []
    assert shop.gate()[1]["baseline"] == "v1"


def test_a_prompt_that_the_ref_does_not_hold_is_judged_by_its_floors(shop: Shop) -> None:
    shop.repo.git("mv", "prompts/support/answer", "prompts/support/reply")
    code, report = shop.gate("support/reply", against="main")
    assert (code, report["baseline"]) == (0, None)
    assert report["notes"] == [
        "main does not hold this prompt: the suite's floors and must_pass decide alone.",
    ]


def test_a_broken_baseline_names_ref_file_and_line(shop: Shop) -> None:
    shop.repo.write(f"prompts/{P}/prompt.md", "---\nmodel: a/b\n---\n")
    shop.repo.commit()
    shop.repo.prompt()
    with pytest.raises(InvalidFile, match=r"^main:prompts/support/answer/prompt\.md:"):
        gate_(P, against="main", config=shop.config)


def test_a_stored_version_is_gated_by_the_suite_in_the_folder(shop: Shop) -> None:
    shop.gate()
    shop.repo.prompt("Be friendly.")
    code, report = shop.gate(version="v1")
    assert (code, report["candidate"]) == (0, "v1")
    with pytest.raises(BadInput, match="--version needs the name of one prompt"):
        gate_(version="v1", config=shop.config)


# approval


def test_a_changed_golden_set_voids_the_approval_until_the_gate_ran_again(shop: Shop) -> None:
    shop.gate()
    shop.golden("a", "b", "c", "d")
    with pytest.raises(Refused) as caught:
        deploy_(P, config=shop.config)
    assert "before its golden set changed" in str(caught.value)
    with pytest.raises(Refused, match="`tidegate gate support/answer --version v1`"):
        deploy_(P, version="v1", config=shop.config)
    assert shop.gate(version="v1")[0] == 0
    move = shop.json(deploy_, P)
    assert (move["forced"], len(move["suite_digest"]), len(move["golden_digest"])) == (False, 64, 64)


def test_a_changed_suite_voids_it_too_and_its_way_back_restores_it(shop: Shop) -> None:
    shop.gate()
    shop.repo.write(f"prompts/{P}/eval.yaml", SUITE.replace("floor: 1.0", "floor: 0.1"))
    with pytest.raises(Refused, match="before its suite changed"):
        deploy_(P, config=shop.config)
    shop.repo.write(f"prompts/{P}/eval.yaml", SUITE)
    assert shop.json(deploy_, P)["to_version"] == 1


def test_a_suite_that_is_gone_voids_it_as_well(shop: Shop) -> None:
    shop.gate()
    (shop.repo.root / "prompts" / P / "eval.yaml").unlink()
    with pytest.raises(Refused, match="before its suite and golden set changed"):
        deploy_(P, config=shop.config)


def test_a_broken_suite_stops_a_protected_deploy_only(shop: Shop) -> None:
    shop.gate()
    shop.repo.write(f"prompts/{P}/eval.yaml", "checks: [contians: ok]\n")
    with pytest.raises(InvalidFile, match=r"eval\.yaml:1"):
        deploy_(P, config=shop.config)
    assert shop.json(deploy_, P, env="staging")["to_version"] == 1
    assert shop.json(deploy_, P, force=True, reason="the customer waits")["to_version"] == 1


def test_status_and_log_and_gate_say_when_the_suite_changed(shop: Shop) -> None:
    shop.gate()
    deploy_(P, config=shop.config)
    assert "measure_changed" not in shop.json(status_)[0]
    shop.golden("a")
    said = "the golden set changed since v1 was approved for production."
    assert shop.json(status_)[0]["measure_changed"] == said
    assert said in shop.text(status_)
    assert shop.gate()[1]["notes"] == [said]
    shop.repo.prompt("Be quite brief.")
    shop.gate()
    deploy_(P, config=shop.config)
    assert "approved under another golden set than the one before" in shop.text(log_, P)
    rollback_(P, config=shop.config)
    assert shop.json(status_)[0]["measure_changed"] == said, "a rollback goes back under the old approval"


def test_a_second_person_approves(shop: Shop) -> None:
    shop.config.write_text(shop.config.read_text() + "gate: {protects: [production], second_approver: [production]}\n")
    with pytest.raises(NotFound, match="nothing is registered yet"):
        approve_(P, config=shop.config)
    shop.gate()
    with pytest.raises(Refused, match="Somebody other than anna@shop runs `tidegate approve support/answer"):
        deploy_(P, config=shop.config)
    approve_(P, config=shop.config)
    with pytest.raises(Refused, match="was approved by anna@shop alone, who deploys it"):
        deploy_(P, config=shop.config)
    shop.user("bert@shop")
    text = shop.text(approve_, P, version="v1", reason="read the\x1b[31m diff")
    assert "support/answer · production · v1" in text
    assert "approved by bert@shop" in text
    shop.user("anna@shop")
    assert "and bert@shop" in shop.text(deploy_, P)
    log = shop.text(log_, P)
    assert "and by bert@shop" in log
    assert "“read the [31m diff”" in log
    kinds = [entry["kind"] for entry in shop.json(log_, P)]
    assert sorted(kinds) == ["approval", "approval", "commit", "deployment"]


# log


def test_the_log_shows_commits_beside_moves_in_time_order(shop: Shop) -> None:
    shop.gate()
    deploy_(P, config=shop.config)
    shop.repo.write(f"prompts/{P}/prompt.md", "---\n")
    shop.repo.commit("break it\x1b[31m")
    entries = shop.json(log_, P)
    assert [entry["kind"] for entry in entries] == ["deployment", "commit", "commit"], "the commits are of March"
    assert (entries[2]["version"], entries[2]["subject"], entries[2]["author"]) == (1, "the first", "Anna")
    assert (entries[1]["digest"], entries[1]["version"]) == (None, None)
    text = shop.text(log_, P)
    assert f"git {shop.first[:10]} · v1 (" in text
    assert "not a valid prompt" in text
    assert "\x1b" not in text
    assert [entry["kind"] for entry in shop.json(log_, P, commits=0)] == ["deployment"]
    assert [entry["kind"] for entry in shop.json(log_)] == ["deployment"]


def test_the_log_of_a_prompt_that_was_never_registered_is_its_history(shop: Shop) -> None:
    (entry,) = shop.json(log_, P)
    assert (entry["kind"], entry["version"]) == ("commit", None)
    assert not (shop.repo.root / ".tidegate").exists()
    assert "Nothing of support/answer was deployed yet" in shop.text(log_, P)


def test_the_log_goes_on_without_git(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy_(P, force=True, reason="first", config=shop.config)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert [entry["kind"] for entry in shop.json(log_, P)] == ["deployment"]


def test_verify_finds_an_edited_line(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    def verify(**options: Any) -> tuple[object, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            log_(verify=True, config=shop.config, **options)
        return ended.value.code, capsys.readouterr().out

    assert verify() == (0, "ledger intact: 0 moves\n")
    deploy_(P, force=True, reason="first", config=shop.config)
    shop.repo.prompt("Be friendly.")
    deploy_(P, force=True, reason="second", config=shop.config)
    assert verify() == (0, "ledger intact: 2 moves\n")
    with closing(sqlite3.connect(shop.repo.root / ".tidegate" / "control.db")) as raw, raw:
        raw.execute("UPDATE deployments SET who = 'bert@shop' WHERE seq = 1")
    code, text = verify()
    assert code == 1
    assert "was edited" in text
    code, text = verify(json=True)
    assert (code, json.loads(text)["intact"], json.loads(text)["moves"]) == (1, False, 2)
    with pytest.raises(BadInput, match="leave the name out"):
        log_(P, verify=True, config=shop.config)


# diff


def test_diff_takes_any_two_selectors_and_the_first_that_fits_wins(shop: Shop) -> None:
    shop.gate()
    deploy_(P, config=shop.config)
    shop.repo.prompt("Be friendly.")
    shop.repo.git("branch", "production")
    shop.repo.commit("be friendly")
    sides = {
        selector: shop.json(diff_, P, selector, "worktree")["a"]
        for selector in ("v1", "production", "main", "HEAD~1", "git:production", shop.first[:8], "worktree")
    }
    assert {selector: side["kind"] for selector, side in sides.items()} == {
        "v1": "version",
        "production": "environment",
        "main": "git",
        "HEAD~1": "git",
        "git:production": "git",
        shop.first[:8]: "git",
        "worktree": "worktree",
    }
    assert sides["HEAD~1"] == {
        "selector": "HEAD~1",
        "kind": "git",
        "version": 1,
        "digest": sides["v1"]["digest"],
        "commit": shop.first,
    }
    assert shop.json(diff_, P, sides["v1"]["digest"][:6])["a"]["kind"] == "digest"
    text = shop.text(diff_, P, "HEAD~1", "main")
    assert f"support/answer: HEAD~1 at {shop.first[:10]}, v1 (" in text
    assert "Be [-brief-]{+friendly+}." in text
    assert "no difference" in shop.text(diff_, P, "main")


def test_an_environment_where_nothing_is_deployed_is_not_a_branch(shop: Shop) -> None:
    shop.repo.git("branch", "production")
    with pytest.raises(NotFound, match="For a git ref of that name write git:production"):
        diff_(P, "production", config=shop.config)
    assert shop.json(diff_, P, "git:production")["a"]["kind"] == "git"


def test_a_long_message_shows_its_changed_lines_only() -> None:
    lines = [f"line {number}" for number in range(40)]
    before = Artifact(messages=(Message("user", "\n".join(lines)),), model="a/b", params={"temperature": 0.2})
    lines[20] = "line twenty"
    after = Artifact(messages=(Message("user", "\n".join(lines)),), model="a/c")
    shown = changes_text(diff(before, after), marks=True).plain.split("\n")
    assert shown[:6] == ["@@ user message @@", "⋮", "line 17", "line 18", "line 19", "line [-20-]{+twenty+}"]
    assert shown[6:10] == ["line 21", "line 22", "line 23", "⋮"]
    assert shown[10:] == ["@@ model @@", "-a/b", "+a/c", "@@ params.temperature @@", "-0.2"]
    coloured = changes_text(diff(before, after), marks=False)
    assert {"red strike", "green"} <= {str(span.style) for span in coloured.spans}
