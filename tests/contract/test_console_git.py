"""The console in a git repository: comparisons with git refs, and deploys under the suite in the folder."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests import seed
from tests.repository import Repo
from tidegate.console.app import create_app

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
HOST = "http://127.0.0.1:4001"
PAGE = f"/prompts/{seed.NAME}"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    repo = Repo(tmp_path).init()
    repo.prompt("Be brief.", seed.NAME)
    repo.commit("the first")
    repo.prompt("Be terse.", seed.NAME)
    with seed.incident(tmp_path, NOW, calls=0) as project:
        app = create_app(registry=project.registry, call_log=project.call_log, project=project.project, now=lambda: NOW)
        yield TestClient(app, base_url=HOST, follow_redirects=False, headers={"origin": HOST})


def test_any_two_selectors_are_compared(client: TestClient) -> None:
    found = client.get(f"{PAGE}.json?a=HEAD&b=worktree").json()
    assert (found["diff_a"]["kind"], found["diff_b"]["kind"]) == ("git", "worktree")
    assert ["del", "brief"] in found["diff"]["messages"][0]["words"]
    assert "main → working tree" in client.get(f"{PAGE}?a=main&b=worktree").text
    assert "production (v2) → main" in client.get(f"{PAGE}?a=production&b=main").text


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("a=--upload-pack=x", 400, "can not be a git ref"),
        ("a=ext::sh", 400, "can not be a git ref"),
        ("a=nosuch", 404, "git knows no such commit"),
        ("a=v9", 404, "has no version"),
        ("a=%3Cscript%3E", 404, "&lt;script&gt;"),
    ],
)
def test_what_can_not_be_compared_is_one_sentence(client: TestClient, query: str, status: int, says: str) -> None:
    answer = client.get(f"{PAGE}?{query}")
    assert answer.status_code == status
    assert says in answer.text
    assert "<script>" not in answer.text


def test_a_deploy_is_judged_by_the_suite_in_the_folder(client: TestClient, tmp_path: Path) -> None:
    fields = {"environment": "production", "to": "v1", "reason": "back to it"}
    refused = client.post(f"/deploy/{seed.NAME}", data=fields)
    assert "before its suite and golden set changed" in refused.text, "the folder has no suite"
    (tmp_path / "prompts" / seed.NAME / "eval.yaml").write_text("checks: [contians: x]\n")
    assert "eval.yaml:1" in client.post(f"/deploy/{seed.NAME}", data=fields).text
    forced = client.post(f"/deploy/{seed.NAME}", data={**fields, "force": "yes"})
    assert forced.status_code == 303
