"""Who may do what on the console: every route × every kind of key, sign-in and sessions, and what never leaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from tests import seed
from tidegate.config import Config, Project
from tidegate.console.access import NEEDS, Doorkeeper, hang_doors
from tidegate.console.app import create_app
from tidegate.console.sessions import COOKIE, LASTS_S, Sessions
from tidegate.core.artifact import Artifact, Message, digest
from tidegate.core.errors import BadInput, InternalError
from tidegate.core.evaluation import Run
from tidegate.core.failures import ALLOWED
from tidegate.core.keys import RIGHTS, ROLES, Role, Wanted
from tidegate.core.run_lines import RunFilter
from tidegate.evals.summary import summarise

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
HOST = "http://127.0.0.1:4001"
BODIES: dict[str, Any] = {
    "/api/v1/versions": {
        "prompt": "new/one",
        "artifact": {"messages": [{"role": "user", "content": "x"}], "model": "a/b"},
    },
    "/api/v1/deployments": {"prompt": seed.NAME, "version": "v1"},
    "/api/v1/rollbacks": {"prompt": seed.NAME},
    "/api/v1/approvals": {"prompt": seed.NAME, "version": "v1"},
    "/api/v1/runs": {"run": {}, "suite": "", "golden": ""},
    "/api/v1/sql": {"query": "SELECT 1 AS one"},
    "/api/v1/keys": {"name": "eve", "role": "admin"},
    "/api/v1/keys/revocations": {"key": "eve"},
}
OPEN_TO_ALL = {"GET /livez", "GET /static/{digest}/{name}", "GET /sign-in", "POST /sign-in", "POST /sign-out"}
CHANGES = ("evaluate", "move", "keys")


@dataclass
class Locked:
    """A console with keys: one of each role, one revoked, one expired."""

    seeded: seed.Seeded
    client: TestClient
    keys: dict[str, str]
    run_id: str
    call_id: str

    def ask(self, method: str, path: str, who: str | None, **options: Any) -> Any:
        headers = {} if who is None else {"authorization": f"Bearer {self.keys[who]}"}
        return self.client.request(method, path, headers=headers, **options)

    def state(self) -> tuple[object, ...]:
        """All that a request could have changed."""
        registry = self.seeded.registry
        return registry.log(), registry.runs(), registry.approvals(), registry.prompts(), registry.keys.all()

    def sign_in(self, who: str, **fields: str) -> Any:
        return self.client.post("/sign-in", data={"key": self.keys[who], **fields})


def client_of(seeded: seed.Seeded) -> TestClient:
    app = create_app(registry=seeded.registry, call_log=seeded.call_log, project=seeded.project, now=lambda: NOW)
    return TestClient(app, base_url=HOST, follow_redirects=False)


def make(seeded: seed.Seeded, name: str, role: Role, **limits: Any) -> str:
    return seeded.registry.keys.create(Wanted(name, role, **limits), who="ada").token


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Locked]:
    with seed.incident(tmp_path, NOW, calls=10) as seeded:
        keys: dict[str, str] = {role: make(seeded, role, role) for role in ROLES}
        keys["expired"] = make(seeded, "expired", "admin", expires_at="2026-11-23T15:00:01.000000Z")
        keys["revoked"] = make(seeded, "revoked", "admin")
        seeded.registry.keys.revoke("revoked", who="ada")
        seeded.clock.now = NOW + timedelta(seconds=2)
        run_id, call_id = seeded.registry.runs()[0].id, seeded.call_log.calls(limit=1)[0]["id"]
        yield Locked(seeded, client_of(seeded), keys, run_id, call_id)


def routes(client: TestClient) -> list[tuple[str, str]]:
    app: Any = client.app
    return [
        (method, route.path)
        for route in app.routes
        for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"})
    ]


def address(locked: Locked, path: str) -> str:
    filled = path.replace("{run_id}", locked.run_id).replace("{call_id}", locked.call_id)
    filled = filled.replace("{name:path}", seed.NAME).replace("{prompt:path}", seed.NAME).replace("{digest}", "0" * 64)
    query = {
        "/api/v1/version": "?prompt=support/answer&selector=v1",
        "/api/v1/traffic": "?since=2026-11-23T14:00:00Z",
        "/api/v1/rollbacks/target": "?prompt=support/answer",
        "/calls/previews": "?id=x&from=2026-11-23T14:00:00Z",
    }
    return filled.replace("{name}", "tidegate.css") + query.get(path, "")


def test_every_route_is_in_the_table_and_the_table_has_no_other(locked: Locked) -> None:
    assert sorted(routes(locked.client)) == sorted(NEEDS)
    assert {f"{method} {path}" for (method, path), need in NEEDS.items() if need == "nothing"} == OPEN_TO_ALL
    assert all(
        need in CHANGES
        for (method, path), need in NEEDS.items()
        if method == "POST" and path in BODIES and path != "/api/v1/sql"
    )


def test_a_route_that_nobody_wrote_into_the_table_is_not_served(locked: Locked) -> None:
    app: Any = locked.client.app
    app.router.routes.append(Route("/new", lambda request: None))
    with pytest.raises(InternalError, match="does not say who may use GET /new"):
        hang_doors(app, Doorkeeper(locked.seeded.registry.keys, loopback=True))


@pytest.mark.parametrize("who", [None, *ROLES, "expired", "revoked"])
def test_each_key_opens_its_own_doors_and_no_other(locked: Locked, who: str | None) -> None:
    rights: frozenset[Any] = RIGHTS.get(who, frozenset()) if who else frozenset()  # type: ignore[call-overload]
    valid = who in ROLES
    for method, path in routes(locked.client):
        need = NEEDS[method, path]
        before = locked.state()
        body = {"json": BODIES[path]} if path in BODIES else {"data": {"reason": "x"}} if method == "POST" else {}
        answer = locked.ask(method, address(locked, path), who, **body)
        where = f"{who}: {method} {path}: {answer.status_code} {answer.text[:200]}"
        if need == "nothing":
            assert answer.status_code not in (401, 403) or path == "/sign-in", where
            continue
        if not valid:
            page = not path.startswith("/api/")
            assert answer.status_code in (303 if page else 401, 429), where  # so many tries are held up
            assert answer.headers.get("location", "/sign-in").startswith("/sign-in"), where
        elif need != "a key" and need not in rights:
            assert answer.status_code == 403, where
        else:
            assert answer.status_code not in (401, 403) or "gate run" in answer.text, where
        if answer.status_code >= 400 or method == "GET":
            assert locked.state() == before, where


def test_what_is_not_there_is_not_told_to_strangers(locked: Locked) -> None:
    assert locked.ask("GET", "/api/v1/nothing", None).status_code == 401
    assert locked.ask("GET", "/api/v1/nothing", "caller").status_code == 404
    assert locked.ask("GET", "/nothing", None).status_code == 303
    assert locked.ask("GET", "/calls.json", None).status_code == 401


def test_every_way_of_having_no_key_is_told_the_same(locked: Locked) -> None:
    locked.keys["unknown"] = locked.keys["admin"][:-1] + ("A" if locked.keys["admin"][-1] != "A" else "B")
    answers = {locked.ask("GET", "/api/v1/status", who).text for who in ("unknown", "expired", "revoked", None)}
    assert len(answers) == 1
    hashed = hashlib.sha256(locked.keys["admin"].encode()).hexdigest()
    assert locked.client.get("/api/v1/status", headers={"authorization": f"Bearer {hashed}"}).status_code == 401


def test_a_key_is_read_from_either_header(locked: Locked) -> None:
    for headers in ({"x-api-key": locked.keys["viewer"]}, {"authorization": f"bearer  {locked.keys['viewer']} "}):
        assert locked.client.get("/api/v1/status", headers=headers).status_code == 200


def test_guessing_is_held_up_and_a_valid_key_is_not(locked: Locked) -> None:
    for _ in range(ALLOWED):
        assert locked.client.get("/api/v1/status", headers={"x-api-key": "guess"}).status_code == 401
    assert locked.client.get("/api/v1/status", headers={"x-api-key": "guess"}).status_code == 429
    assert locked.client.post("/sign-in", data={"key": "guess"}).status_code == 429
    assert locked.ask("GET", "/api/v1/status", "viewer").status_code == 200


# limits, and what a request may say about itself


def test_a_limited_key_changes_only_what_its_lists_name(locked: Locked) -> None:
    locked.keys["ci"] = make(locked.seeded, "ci", "deployer", prompts=("support/*",), environments=("staging",))
    move = {"prompt": seed.NAME, "version": "v1", "reason": "x"}
    assert locked.ask("POST", "/api/v1/deployments", "ci", json=move).status_code == 403
    assert locked.ask("POST", "/api/v1/rollbacks", "ci", json={"prompt": seed.NAME}).status_code == 403
    assert locked.ask("POST", f"/deploy/{seed.NAME}", "ci", data={"to": "v1"}).status_code == 403
    assert locked.ask("POST", f"/rollback/{seed.NAME}", "ci", data={"reason": "x"}).status_code == 403
    staged = locked.ask("POST", "/api/v1/deployments", "ci", json={**move, "environment": "staging"})
    assert (staged.status_code, staged.json()["who"]) == (201, "ci")
    other = {**BODIES["/api/v1/versions"], "prompt": "billing/answer"}
    assert locked.ask("POST", "/api/v1/versions", "ci", json=other).status_code == 403
    assert "billing/answer" not in locked.seeded.registry.prompts()


def test_only_an_admin_overrules_the_policy(locked: Locked) -> None:
    locked.seeded.registry.rollback(seed.NAME, who="ada")
    move = {"prompt": seed.NAME, "version": "v2", "reason": "x", "force": True}
    assert locked.ask("POST", "/api/v1/deployments", "deployer", json=move).status_code == 403
    forced = locked.ask("POST", "/api/v1/deployments", "admin", json=move)
    assert (forced.status_code, forced.json()["forced"]) == (201, True)
    form = {"to": "v2", "reason": "x", "force": "yes"}
    assert locked.ask("POST", f"/deploy/{seed.NAME}", "deployer", data=form).status_code == 403


def test_the_ledger_names_the_keys_holder_whatever_the_request_says(locked: Locked) -> None:
    body = {"prompt": seed.NAME, "reason": "x", "who": "somebody else"}
    assert locked.ask("POST", "/api/v1/rollbacks", "deployer", json=body).json()["who"] == "deployer"
    assert (
        locked.ask(
            "POST", f"/deploy/{seed.NAME}", "admin", data={"to": "v2", "reason": "x", "force": "yes", "who": "x"}
        ).status_code
        == 303
    )
    assert locked.seeded.registry.log()[0].who == "admin"
    for path, body in BODIES.items():
        for field in ("id", "approved_by", "forced", "run_id", "created_by", "sha256", "rights"):
            said = locked.ask("POST", path, "admin", json={**body, field: "x"})
            assert said.status_code == 400, (path, field)


def run_of(seeded: seed.Seeded, **fields: Any) -> dict[str, Any]:
    version = seeded.registry.versions(seed.NAME)[0]
    made = Run(
        "0198-new",
        seed.NAME,
        None,
        version.digest,
        hashlib.sha256(b"suite").hexdigest(),
        hashlib.sha256(b"golden").hexdigest(),
        "2026-11-23T15:00:00.000000Z",
        "2026-11-23T15:00:00.000000Z",
        1,
        (),
    )
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(made, **fields))
    return {"run": plain, "suite": "suite", "golden": "golden"}


def test_a_run_is_stored_under_what_this_store_knows(locked: Locked) -> None:
    seeded = locked.seeded
    assert locked.ask("POST", "/api/v1/runs", "editor", json=run_of(seeded, version=99)).status_code == 201
    assert seeded.registry.run("0198-new").version == 2
    assert seeded.registry.document(hashlib.sha256(b"suite").hexdigest()) == "suite"
    line = next(line for line in seeded.registry.run_lines(RunFilter(), limit=9) if line.id == "0198-new")
    assert line.summary == summarise(seeded.registry.run("0198-new"), "suite", "golden"), "no list has to make it first"
    wrong = [
        (run_of(seeded), "is stored already"),
        (run_of(seeded, id="1", digest="0" * 64), "register it first"),
        ({**run_of(seeded, id="1"), "suite": "another"}, "not that of this text"),
        ({**run_of(seeded, id="1"), "golden": "another"}, "not that of this text"),
        ({**run_of(seeded, id="1"), "run": {"id": 1}}, "Expected `str`"),
        (run_of(seeded, id="1", prompt="support/other"), "register it first"),
    ]
    for body, words in wrong:
        answer = locked.ask("POST", "/api/v1/runs", "editor", json=body)
        assert answer.status_code == 400, answer.text
        assert words in answer.text


def test_no_sequence_of_requests_of_a_lesser_key_makes_a_greater_one(locked: Locked) -> None:
    """Whatever it asks for, in whatever order: no new key, and no right that it did not have."""
    before = locked.seeded.registry.keys.all()
    for role in ("viewer", "caller", "editor", "deployer"):
        for path, body in BODIES.items():
            locked.ask("POST", path, role, json=body)
        for wanted in ROLES:
            assert locked.ask("POST", "/api/v1/keys", role, json={"name": "x", "role": wanted}).status_code == 403
        assert locked.ask("POST", "/api/v1/keys/revocations", role, json={"key": "admin"}).status_code == 403
    assert locked.seeded.registry.keys.all() == before


def test_an_admin_makes_lists_and_revokes_keys_and_no_hash_is_shown(locked: Locked) -> None:
    made = locked.ask("POST", "/api/v1/keys", "admin", json={"name": "ci", "role": "viewer"}).json()
    locked.keys["ci"] = made["token"]
    assert locked.ask("GET", "/api/v1/status", "ci").status_code == 200
    listed = locked.ask("GET", "/api/v1/keys", "admin").text
    for key in locked.seeded.registry.keys.all():
        assert key.sha256 not in listed + json.dumps(made)
    assert json.loads(listed)[-1]["created_by"] == "admin"
    assert locked.ask("POST", "/api/v1/keys/revocations", "admin", json={"key": "ci"}).status_code == 201
    assert locked.ask("GET", "/api/v1/status", "ci").status_code == 401


# browsers


def test_a_browser_signs_in_sees_pages_and_signs_out(locked: Locked) -> None:
    page = locked.client.get("/calls?valid=no")
    assert page.headers["location"] == "/sign-in?next=%2Fcalls%3Fvalid%3Dno"
    form = locked.client.get(page.headers["location"])
    assert (form.status_code, 'value="/calls?valid=no"' in form.text) == (200, True)
    assert "/overview" not in form.text.replace("/calls?valid=no", "").partition("<main")[2]
    done = locked.sign_in("viewer", next="/calls?valid=no")
    assert (done.status_code, done.headers["location"]) == (303, "/calls?valid=no")
    cookie = done.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={LASTS_S}"} <= set(cookie.split("; "))
    assert locked.keys["viewer"][12:] not in cookie
    assert "viewer" in locked.client.get("/overview").text
    assert locked.client.get("/api/v1/status").status_code == 200
    assert locked.client.post(f"/rollback/{seed.NAME}", data={"reason": "x"}).status_code == 403
    out = locked.client.post("/sign-out")
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert locked.client.get("/overview").status_code == 303


def test_a_move_in_the_browser_is_the_key_holders(locked: Locked) -> None:
    locked.sign_in("deployer")
    assert locked.client.post(f"/rollback/{seed.NAME}", data={"reason": "x"}).status_code == 303
    assert locked.seeded.registry.log()[0].who == "deployer"


@pytest.mark.parametrize("back", ["//evil.test/", "https://evil.test/", "/\\evil.test", "javascript:x", "", "/\nx"])
def test_signing_in_leads_to_no_other_site(locked: Locked, back: str) -> None:
    assert locked.sign_in("viewer", next=back).headers["location"] == "/overview"


def test_who_has_no_key_is_told_how_to_get_one(locked: Locked) -> None:
    page = locked.client.get("/sign-in").text
    assert "tidegate keys create NAME --role viewer" in page
    assert "</svg>tidegate" in page, "whose page this is"
    assert "data-theme-toggle" in page


@pytest.mark.parametrize(("who", "status"), [("expired", 401), ("revoked", 401), ("caller", 403)])
def test_a_key_that_may_not_look_does_not_sign_in(locked: Locked, who: str, status: int) -> None:
    answer = locked.sign_in(who)
    assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)
    assert locked.keys[who] not in answer.text


def test_a_session_ends_with_its_key_and_by_itself(locked: Locked) -> None:
    locked.sign_in("viewer")
    assert locked.client.get("/overview").status_code == 200
    locked.seeded.clock.now = NOW + timedelta(seconds=2 + LASTS_S)
    assert locked.client.get("/overview").status_code == 303
    locked.sign_in("viewer")
    assert locked.client.get("/overview").status_code == 200
    locked.seeded.registry.keys.revoke("viewer", who="ada")
    assert locked.client.get("/overview").status_code == 303


def test_a_session_is_sealed() -> None:
    sessions, now = Sessions(), 1_000_000_000_000_000_000
    value = sessions.issue("abcdefgh", now)
    assert sessions.read(value, now) == "abcdefgh"
    prefix, ends, seal = value.split(".")
    forged = [
        f"bbbbbbbb.{ends}.{seal}",
        f"{prefix}.9{ends}.{seal}",
        f"{prefix}.{ends}.",
        f"{prefix}.{ends}",
        "",
        ".",
        "..",
        "\ud800.é",
    ]
    assert [sessions.read(text, now) for text in forged] == [None] * len(forged)
    assert Sessions().read(value, now) is None


def test_a_cookie_goes_over_tls_only_where_the_browser_uses_it(locked: Locked) -> None:
    plain = locked.client.post("/sign-in", data={"key": locked.keys["viewer"]}, headers={"origin": HOST})
    assert "Secure" not in plain.headers["set-cookie"]
    behind_proxy = {"origin": "https://tidegate.example.com", "host": "tidegate.example.com"}
    secure = locked.client.post("/sign-in", data={"key": locked.keys["viewer"]}, headers=behind_proxy)
    assert secure.status_code == 303
    assert secure.headers["set-cookie"].endswith("; Secure")


def test_another_sites_form_moves_nothing_with_a_session(locked: Locked) -> None:
    locked.sign_in("deployer")
    before = locked.state()
    for headers in ({"origin": "https://evil.test"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
        answer = locked.client.post(f"/rollback/{seed.NAME}", data={"reason": "x"}, headers=headers)
        assert answer.status_code == 403
    assert locked.state() == before


def test_with_keys_the_console_answers_to_any_name_and_without_to_this_machines(locked: Locked, tmp_path: Path) -> None:
    headers = {"host": "tidegate.example.com", "authorization": f"Bearer {locked.keys['viewer']}"}
    assert locked.client.get("/api/v1/status", headers=headers).status_code == 200
    with seed.empty(tmp_path / "open", NOW) as seeded:
        assert client_of(seeded).get("/api/v1/status", headers=headers).status_code == 421


def test_without_keys_nothing_asks_for_one(tmp_path: Path) -> None:
    with seed.incident(tmp_path, NOW, calls=10) as seeded:
        client = client_of(seeded)
        assert client.get("/overview").status_code == 200
        assert client.get("/sign-in").headers["location"] == "/overview"
        moved = client.post("/api/v1/rollbacks", json={"prompt": seed.NAME, "who": "ada@laptop"})
        assert moved.json()["who"] == "ada@laptop"
        token = make(seeded, "first", "viewer")
        assert client.get("/overview").status_code == 303
        assert client.get("/overview", headers={"x-api-key": token}).status_code == 200
        seeded.registry.keys.revoke("first", who="ada")
        assert client.get("/overview").status_code == 303


def test_the_world_is_let_in_only_once_there_is_a_key(tmp_path: Path) -> None:
    with seed.incident(tmp_path, NOW, calls=10) as seeded:
        config = Config.model_validate({"console": {"host": "0.0.0.0"}})
        public = Project(seeded.project.root, config)
        with pytest.raises(BadInput, match="without keys tidegate listens on loopback only"):
            create_app(registry=seeded.registry, call_log=seeded.call_log, project=public)
        make(seeded, "first", "viewer")
        app = create_app(registry=seeded.registry, call_log=seeded.call_log, project=public)
        assert TestClient(app, base_url="http://192.0.2.7:4001").get("/api/v1/status").status_code == 401


def test_an_artifact_sent_over_the_api_has_the_digest_it_has_here(locked: Locked) -> None:
    artifact = Artifact(
        messages=(Message("user", "é {{ x }}"),),
        model="a/b",
        params={"temperature": 1.0, "seed": 2**40},
        retrieval={"k": [1, 2.5, None, True, {}], "s": "\u2028"},
    )
    body = {"prompt": "new/one", "artifact": msgspec.to_builtins(artifact)}
    version = locked.ask("POST", "/api/v1/versions", "editor", json=body).json()
    assert version["digest"] == digest(artifact)
    stored = locked.ask("GET", f"/api/v1/artifacts/{version['digest']}", "viewer")
    assert msgspec.json.decode(stored.content, type=Artifact) == artifact


def test_a_body_that_is_too_large_is_not_read(locked: Locked) -> None:
    headers = {"authorization": f"Bearer {locked.keys['admin']}", "content-length": str(1 << 40)}
    answer = locked.client.post("/api/v1/runs", content=b"{}", headers=headers)
    assert answer.status_code == 413


def test_no_answer_holds_a_key(locked: Locked) -> None:
    for method, path in routes(locked.client):
        for who in ("admin", "revoked", "caller"):
            answer = locked.ask(
                method,
                address(locked, path),
                who,
                **({"json": BODIES[path]} if path in BODIES and path != "/api/v1/keys" else {}),
            )
            said = answer.text + str(answer.headers)
            assert not [name for name, key in locked.keys.items() if key[12:] in said], (method, path)
