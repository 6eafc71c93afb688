"""A CI job far from the server: only the prompts' files, an address and a key; and no key is left anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tidegate.simulate.stage import Stage

P = "support/answer"


@dataclass
class Run:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Server:
    """The example project served with keys, and a folder elsewhere that has only its prompts."""

    def __init__(self, stage: Stage, elsewhere: Path) -> None:
        self.stage = stage
        self.elsewhere = elsewhere
        self.said: list[str] = []
        shutil.copytree(stage.folder / "prompts", elsewhere / "prompts")

    def here(self, *arguments: str) -> Run:
        return self._run(self.stage.folder, arguments, {})

    def key(self, name: str, role: str, *limits: str) -> str:
        made: str = self.here("keys", "create", name, "--role", role, *limits, "--json").json["key"]
        del self.said[-2:]  # the one place where it is shown
        return made

    def there(self, key: str | None, *arguments: str, **environment: str) -> Run:
        settings = {"TIDEGATE_URL": self.stage.url("console"), "TIDEGATE_API_KEY": key or ""}
        return self._run(self.elsewhere, arguments, {**settings, **environment})

    def call(self, key: str | None) -> tuple[int, dict[str, str]]:
        body = json.dumps({"model": f"prompt:{P}", "variables": {"question": "Why?", "context": "Because."}}).encode()
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(f"{self.stage.url('gateway')}/v1/chat/completions", body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - our own loopback address
                return answer.status, dict(answer.headers)
        except urllib.error.HTTPError as error:
            self.said.append(error.read().decode())
            error.close()
            return error.code, {}

    def _run(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> Run:
        done = subprocess.run(
            [sys.executable, "-m", "tidegate", *arguments],
            cwd=folder,
            env={**os.environ, "COLUMNS": "200", **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        self.said += [done.stdout, done.stderr]
        assert "Traceback" not in done.stderr, done.stderr
        return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Stage(tmp_path / "shop") as stage:
        stage.copy_example("support-bot")
        stage.start_provider()
        stage.start_serve()
        yield Server(stage, tmp_path / "checkout")


def be_friendly(folder: Path) -> None:
    prompt = folder / "prompts" / P / "prompt.md"
    prompt.write_text(prompt.read_text().replace("system:\n", "system:\nBe warm and friendly. ", 1))


def test_a_ci_job_gates_deploys_and_rolls_back_with_an_address_and_a_key(server: Server) -> None:
    ci, admin = server.key("ci", "deployer"), server.key("ada", "admin")
    app = server.key("shop", "caller", "--prompts", P)
    assert server.there(ci, "status").out.startswith("Nothing is deployed yet.")

    first = server.there(ci, "deploy", P, "--gate", "--reason", "first", "--json")
    assert first.code == 0, first
    assert (first.json["to_version"], first.json["who"], first.json["gate"]["verdict"]) == (1, "ci", "PASS")
    assert first.json["run_id"] == first.json["gate"]["run_id"]

    began = time.monotonic()
    while server.call(app)[0] != 200:
        assert time.monotonic() - began < 2
    status, headers = server.call(app)
    assert (status, headers["x-tidegate-version"]) == (200, "v1")

    be_friendly(server.elsewhere)
    refused = server.there(ci, "deploy", P, "--gate", "--json")
    assert (refused.code, refused.json["deployment"]) == (1, None)
    assert refused.json["gate"]["verdict"] == "FAIL"
    assert server.there(ci, "gate", P).code == 1
    assert "its gate said FAIL" in server.there(ci, "deploy", P).err
    forced = server.there(ci, "deploy", P, "--force", "--reason", "marketing")
    assert (forced.code, "that takes the role admin" in forced.err) == (4, True)
    assert "FORCED" in server.there(admin, "deploy", P, "--force", "--reason", "marketing").out
    back = server.there(ci, "rollback", P, "--reason", "chats", "--json").json
    assert (back["to_version"], back["who"]) == (1, "ci")

    live = server.there(ci, "status", "--json").json
    assert [(row["prompt"], row["version"], row["by"]) for row in live] == [(P, 1, "ci")]
    log = server.there(ci, "log", P, "--json").json
    assert [entry["who"] for entry in log] == ["ci", "ada", "ci"]
    assert server.there(ci, "log", "--verify").code == 0
    assert "Be warm and friendly" in server.there(ci, "diff", P, "v1", "worktree").out
    assert server.there(ci, "render", P, "--version", "v1", "--var", "question=q", "--var", "context=c").code == 0
    assert server.there(ci, "eval", P, "--repeats", "1", "--json").json["version"] == 2
    rows = server.there(ci, "sql", "SELECT key, origin, count(*) AS n FROM calls GROUP BY ALL", "--json").json
    assert {(row["key"], row["origin"]) for row in rows} >= {("ci", "eval"), ("shop", "live")}
    one = server.there(ci, "calls", "--where", "origin = 'live'", "--limit", "1", "--json").json
    assert server.there(ci, "calls", one["id"][-8:], "--json").json["content"]["output"]
    assert not (server.elsewhere / ".tidegate").exists()

    # At home, the same store says the same; and what runs there asks for no key.
    assert server.here("status", "--json").json[0]["version"] == 1
    assert server.here("eval", P, "--repeats", "1").code == 0


def test_who_may_not_is_told_so_in_one_sentence(server: Server) -> None:
    ci, app = server.key("ci", "deployer", "--environments", "staging"), server.key("shop", "caller")
    url = server.stage.url("console")
    cases = [
        (server.there(None, "status"), 4, f"tidegate: {url} asks for a key: set TIDEGATE_API_KEY."),
        (server.there(f"{ci[:-1]}_", "status"), 4, "does not accept the key in TIDEGATE_API_KEY"),
        (server.there(app, "status"), 4, "this key may not read what is stored here"),
        (server.there(app, "eval", P), 4, "this key may not"),
        (server.there(ci, "deploy", P), 4, "this key may not use 'production', only what is live in staging"),
        (server.there(ci, "keys", "list"), 4, "this key may not make, list or revoke keys"),
        (server.there(ci, "status", TIDEGATE_URL="http://127.0.0.1:9"), 3, "it can not be reached: connection refused"),
        (server.there(ci, "status", TIDEGATE_URL=server.stage.url("gateway")), 4, "is not a tidegate console"),
        (server.there(ci, "status", TIDEGATE_URL="http://192.0.2.1"), 4, "would send the key unencrypted"),
    ]
    for run, code, words in cases:
        assert run.code == code, run
        assert words in run.err
        assert run.err.count("\n") == 1


def test_no_key_is_left_in_a_log_a_record_an_error_or_the_store(server: Server) -> None:
    """A canary of each kind goes everywhere a key can go; then everything that was written is searched."""
    ci, app, gone = server.key("ci", "deployer"), server.key("shop", "caller"), server.key("old", "caller")
    server.here("keys", "revoke", "old")
    unknown = f"{app[:-4]}beef"
    server.there(ci, "deploy", P, "--gate")
    for key in (app, ci, gone, unknown):
        server.call(key)
        for command in (("status",), ("eval", P), ("keys", "create", "x", "--role", "admin"), ("keys", "revoke", "x")):
            server.there(key, *command)
    server.here("keys", "revoke", app.replace("tg_", "tg_x"))
    server.there(ci, "keys", "revoke", app)
    server.call(app)
    server.here("keys", "list", "--json")
    server.here("calls", "--json", "--limit", "100")
    server.here("log", "--json")

    secrets = [key[12:] for key in (ci, app, gone, unknown)]
    files = [path for path in server.stage.folder.rglob("*") if path.is_file()]
    assert {"control.db", "snapshot.json"} <= {path.name for path in files}
    assert any(path.suffix in (".jsonl", ".open", ".parquet") for path in files)
    texts = {path: path.read_bytes().decode("latin-1") for path in files} | {Path("said"): "\n".join(server.said)}
    found = [(str(path), secret) for path, text in texts.items() for secret in secrets if secret in text]
    assert found == []
