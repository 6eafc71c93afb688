"""The console over HTTP: every page, its JSON, what it escapes, what it refuses, and the two moves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from starlette.testclient import TestClient

from tests import seed
from tidegate.config import Config, Project
from tidegate.console.app import create_app
from tidegate.console.assets import FOLDER, Assets, keep
from tidegate.core.artifact import Message
from tidegate.core.errors import BadInput, NotFound
from tidegate.telemetry.record import Entry

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
HOST = "http://127.0.0.1:4001"
PAGES = (
    "/overview",
    "/overview?by=model&window=1h",
    "/overview?from=2026-11-23T14:50:00Z&to=2026-11-23T14:55:00Z&origin=all",
    "/calls",
    "/calls?valid=no&version=v2&outcome=ok&q=json",
    "/prompts",
    "/prompts/support/answer",
    "/prompts/support/answer?a=v2&b=v2",
    "/rollback/support/answer",
    "/rollback/support/answer?to=v1",
    "/deploy/support/answer?version=v1",
    "/runs",
)
PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</pre></div><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' autofocus onfocus='alert(1)",
    "![x](https://evil.test/x.png)",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "<!--<script>",
    "]]><x>",
    "\u2028\u2029\u202e\x00\x1b[31m",
)


class Tags(HTMLParser):
    """The elements and attributes of a page, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seed.Seeded]:
    with seed.incident(tmp_path_factory.mktemp("console"), NOW, calls=120) as project:
        yield project


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[seed.Seeded]:
    """One that a test may change."""
    with seed.incident(tmp_path, NOW, calls=10) as project:
        yield project


def client_of(project: seed.Seeded) -> TestClient:
    app = create_app(registry=project.registry, call_log=project.call_log, project=project.project, now=lambda: NOW)
    return TestClient(app, base_url=HOST, follow_redirects=False)


@pytest.fixture(scope="module")
def client(seeded: seed.Seeded) -> TestClient:
    return client_of(seeded)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers_in_html_and_in_json(client: TestClient, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200, page.text
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "style" not in {name for _, attributes in Tags(page.text).tags for name in attributes}
    bare, _, query = path.partition("?")
    data = client.get(f"{bare}.json?{query}")
    assert data.status_code == 200
    assert isinstance(data.json(), dict)


def test_links_of_every_page_lead_somewhere(client: TestClient) -> None:
    """Crawls from the start page; static files are part of it."""
    seen: set[str] = set()
    todo = ["/"]
    while todo:
        path = todo.pop().partition("#")[0]
        if path in seen or len(seen) > 150:
            continue
        seen.add(path)
        answer = client.get(path, follow_redirects=True)
        assert answer.status_code == 200, path
        if "html" in answer.headers["content-type"]:
            for _, attributes in Tags(answer.text).tags:
                link = attributes.get("href") or attributes.get("src") or ""
                if link.startswith("/"):
                    todo.append(link)
    assert {"/overview", "/calls", "/prompts", "/runs"} <= seen
    assert any(path.startswith("/runs/") for path in seen)
    assert any(path.startswith("/calls/") for path in seen)


def test_a_call_shows_what_was_said_and_why_it_is_invalid(client: TestClient) -> None:
    found = client.get("/calls.json?valid=no").json()["calls"][0]
    page = Tags(client.get(f"/calls/{found['id']}").text).text
    assert seed.QUESTION in page
    assert seed.CHATTY in page
    assert seed.NOT_JSON in page
    data = client.get(f"/calls/{found['id']}.json").json()
    assert [message["role"] for message in data["messages"]] == ["system", "user"]


def test_pages_of_calls_follow_one_another(client: TestClient) -> None:
    first = client.get("/calls.json").json()
    second = client.get("/calls.json", params={"before": first["older"]}).json()
    ids = [call["id"] for call in first["calls"] + second["calls"]]
    assert (len(ids), len(set(ids))) == (100, 100)
    assert 'rel="next"' in client.get("/calls").text


def test_the_list_holds_no_content_until_previews_are_asked_for(client: TestClient) -> None:
    page = client.get("/calls")
    assert "sorry" not in page.text
    call = client.get("/calls.json?valid=no").json()["calls"][0]
    asked = client.get("/calls/previews.json", params={"id": call["id"], "from": call["start"]}).json()
    assert asked["previews"][call["id"]] == seed.CHATTY[:200]


def test_the_overview_names_the_version_that_broke(client: TestClient) -> None:
    data = client.get("/overview.json").json()
    assert [(item["version"], item["before_version"], item["live"]) for item in data["regressions"]] == [
        (2, 1, ["production", "staging"])
    ]
    assert "v2 breaks its output format" in client.get("/overview").text
    validity = data["charts"][0]
    assert validity["id"] == "validity"
    rows = [row for layer in validity["spec"]["layer"] for row in layer.get("data", {}).get("values", [])]
    assert "forced v2" in {row.get("label") for row in rows}


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/overvew", 404, "Did you mean &#39;overview&#39;?"),
        ("/prompts/support/anser", 404, "Did you mean &#39;support/answer&#39;?"),
        ("/rollback/nobody", 404, "no prompt named"),
        ("/calls/nobody", 404, "There is no call"),
        ("/runs/nobody", 404, "no run"),
        ("/prompts/support/answer?a=v9", 404, "v9"),
        ("/prompts/support/answer?ms=x", 400, "ms"),
        ("/overview?window=2w", 400, "no window"),
        ("/overview?by=x", 400, "no split"),
        ("/overview?from=2026-11-23T14:50:00Z", 400, "come together"),
        ("/overview?from=x&to=y", 400, "not an instant"),
        ("/overview?from=2026-11-23T15:00:00Z&to=2026-11-23T14:00:00Z", 400, "empty"),
        ("/calls?before=x", 400, "cursor"),
        ("/calls?version=two", 400, "not a version"),
        ("/calls?outcome=okay", 400, "Did you mean"),
        ("/calls?valid=maybe", 400, "neither"),
        ("/calls?from=99999-01-01", 400, "not an instant"),
        ("/static/0/tidegate.css", 404, "changed"),
        ("/static/0/..%2Fapp.py", 404, "no"),
    ],
)
def test_a_wrong_address_is_one_sentence(client: TestClient, path: str, status: int, said: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert said in answer.text
    assert "Traceback" not in answer.text


def test_errors_of_json_addresses_are_json(client: TestClient) -> None:
    assert client.get("/calls.json?before=x").json()["error"]["code"] == "bad_input"
    assert client.get("/nothing.json").json()["error"]["code"] == "not_found"
    assert client.get("/api/v1/calls/x").json()["error"]["code"] == "not_found"
    assert client.get("/api/v1/calls?limit=0").json()["error"]["code"] == "invalid_request_error"


def test_a_bug_is_a_page_without_a_traceback(fresh: seed.Seeded, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(registry=fresh.registry, call_log=None, project=fresh.project, now=lambda: NOW)  # type: ignore[arg-type]  # the bug
    answer = TestClient(app, base_url=HOST, raise_server_exceptions=False).get("/prompts")
    assert answer.status_code == 500
    assert "has a bug here" in answer.text
    assert "Traceback" not in answer.text
    assert "AttributeError" in caplog.text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_whatever_models_and_users_say_stays_text(fresh: seed.Seeded, payload: str) -> None:
    row = seed.call(
        fresh,
        NOW - timedelta(seconds=5),
        prompt=f"p{payload}"[:60],
        outcome="error",
        error_type=payload,
        error_message=payload,
        output_valid=False,
        output_problem=payload,
        response_model=payload,
        service=payload,
        environment=payload,
        trace_id=payload,
        tags={payload: payload},
    )
    fresh.record(Entry(row, seed.content(row, payload, question=payload, system=payload)))
    fresh.registry.register(
        seed.NAME, msgspec.structs.replace(seed.artifact("x"), messages=(Message("user", payload),))
    )
    fresh.registry.deploy(seed.NAME, "v3", who=payload, reason=payload, force=True)
    client = client_of(fresh)
    plain = Tags(client.get("/overview").text)
    shape = {(tag, name) for tag, attributes in plain.tags for name in attributes}
    for path in ("/overview?by=service", "/calls", f"/calls/{row.id}", "/prompts", "/prompts/support/answer"):
        page = client.get(path, params={"q": payload} if path == "/calls" else None)
        assert page.status_code == 200
        found = Tags(page.text)
        assert not {tag for tag, _ in found.tags} & {"img", "iframe", "object", "embed", "base", "x"}
        assert all(not name.startswith("on") for _, attributes in found.tags for name in attributes)
        scripts = [attributes for tag, attributes in found.tags if tag == "script"]
        assert all("src" in script or script.get("type") == "application/json" for script in scripts)
        links = [attributes.get("href") or "" for _, attributes in found.tags]
        assert all(re.match(r"(/|#|$)", link) for link in links)
    assert ("script", "src") in shape


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/overview", "/nothing", "/livez", "/api/v1/status", "/calls.json"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "set-cookie" not in headers


@pytest.mark.parametrize(
    "host",
    ["evil.test", "evil.test:4001", "127.0.0.1.evil.test", "127.0.0.1@evil.test", "evil.test#127.0.0.1", "", "a/x?"],
)
def test_a_foreign_name_of_this_machine_is_refused(client: TestClient, host: str) -> None:
    """DNS rebinding: a page of evil.test would read everything here."""
    assert client.get("/calls.json", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:4001", "localhost:4001", "LOCALHOST", "[::1]:4001", "127.0.0.1"])
def test_the_names_of_loopback_are_accepted(client: TestClient, host: str) -> None:
    assert client.get("/livez", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://127.0.0.1:4000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": HOST},
    ],
)
@pytest.mark.parametrize("path", ["/rollback/support/answer", "/api/v1/rollbacks"])
def test_another_site_can_not_move_anything(fresh: seed.Seeded, headers: dict[str, str], path: str) -> None:
    before = fresh.registry.log()
    answer = client_of(fresh).post(path, content=b"reason=x", headers=headers)
    assert answer.status_code == 403
    assert fresh.registry.log() == before


def test_a_rollback_says_what_it_did(fresh: seed.Seeded) -> None:
    client = client_of(fresh)
    done = client.post(
        "/rollback/support/answer",
        data={"environment": "production", "to": "", "reason": "the parser breaks"},
        headers={"origin": HOST, "sec-fetch-site": "same-origin"},
    )
    assert done.status_code == 303
    page = client.get(done.headers["location"])
    assert re.search(r"Rolled back production from v2 to v1 in \d+(\.\d)? ms", page.text)
    move = fresh.registry.log(seed.NAME)[0]
    assert (move.action, move.to_version, move.reason) == ("rollback", 1, "the parser breaks")
    assert move.who.endswith("console)") or move.who == "console"


def test_there_is_no_button_where_there_is_nothing_to_roll_back_to(fresh: seed.Seeded) -> None:
    client = client_of(fresh)
    assert client.get("/prompts/support/answer").text.count('href="/rollback/') == 2
    fresh.registry.rollback(seed.NAME, who="ada")
    assert client.get("/prompts/support/answer").text.count('href="/rollback/') == 1
    page = client.get("/rollback/support/answer")
    assert "There is nothing to roll back to" in page.text
    assert client.post("/rollback/support/answer", data={}).status_code == 404


def test_a_deploy_that_policy_refuses_changes_nothing_and_can_be_forced(fresh: seed.Seeded) -> None:
    client = client_of(fresh)
    fresh.registry.rollback(seed.NAME, who="ada", reason="broken")
    before = fresh.registry.log()
    refused = client.post("/deploy/support/answer", data={"environment": "production", "to": "v2"})
    assert refused.status_code == 403
    assert "Nothing was changed" in refused.text
    assert "was rolled back from production" in refused.text
    assert "--force" not in refused.text
    assert fresh.registry.log() == before
    unreasoned = client.post("/deploy/support/answer", data={"environment": "production", "to": "v2", "force": "yes"})
    assert unreasoned.status_code == 400
    assert fresh.registry.log() == before
    done = client.post("/deploy/support/answer", data={"to": "v2", "force": "yes", "reason": "fixed downstream"})
    assert done.status_code == 303
    assert fresh.registry.log()[0].forced
    again = client.post("/deploy/support/answer", data={"to": "v2", "force": "yes", "reason": "twice"})
    assert "serves v2 already" in client.get(again.headers["location"]).text


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/rollback/nobody", b"", 404),
        ("/rollback/support/answer", b"environment=nowhere", 404),
        ("/rollback/support/answer", b"environment=%2e%2e", 400),
        ("/rollback/support/answer", b"to=v9", 404),
        ("/deploy/support/answer", b"", 400),
        ("/deploy/support/answer", b"\xff=1", 400),
        ("/deploy/support/answer", b"a=" + b"x" * 70_000, 413),
        ("/overview", b"", 405),
    ],
)
def test_a_bad_form_is_one_sentence_and_no_change(fresh: seed.Seeded, path: str, body: bytes, status: int) -> None:
    before = fresh.registry.log()
    answer = client_of(fresh).post(path, content=body)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert fresh.registry.log() == before


def test_a_made_up_flash_shows_nothing(client: TestClient) -> None:
    """What the page says about a move comes from the ledger, never from the address."""
    assert "Rolled back production from" not in client.get("/prompts/support/answer?moved=nobody&ms=3").text


def test_the_api_moves_and_reports(fresh: seed.Seeded) -> None:
    client = client_of(fresh)
    status = client.get("/api/v1/status").json()
    assert [(item["environment"], item["version"]) for item in status] == [("production", 2), ("staging", 2)]
    back = client.post("/api/v1/rollbacks", json={"prompt": seed.NAME, "reason": "broken"})
    assert (back.status_code, back.json()["to_version"]) == (201, 1)
    refused = client.post("/api/v1/deployments", json={"prompt": seed.NAME, "version": "v2"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "refused")
    unknown = client.post("/api/v1/deployments", json={"prompt": seed.NAME, "version": "v2", "forced": True})
    assert unknown.status_code == 400
    assert client.get("/api/v1/prompts").json() == [seed.NAME]
    assert [item["number"] for item in client.get(f"/api/v1/versions/{seed.NAME}").json()] == [2, 1]
    assert client.get("/api/v1/deployments").json()[0]["action"] == "rollback"
    run = client.get("/api/v1/runs").json()[0]
    assert len(client.get(f"/api/v1/runs/{run['id']}").json()["results"]) == 9
    calls = client.get("/api/v1/calls?limit=3").json()
    assert len(calls["calls"]) == 3
    assert client.get(f"/api/v1/calls/{calls['calls'][0]['id']}").json()["content"]["variables"]
    assert set(client.get("/api/v1/openapi.json").json()["paths"]) >= {"/api/v1/rollbacks", "/api/v1/calls"}


@pytest.mark.parametrize("path", ["/overview", "/calls", "/prompts", "/runs"])
def test_an_empty_project_says_what_to_type_next(tmp_path: Path, path: str) -> None:
    with seed.empty(tmp_path, NOW) as project:
        page = client_of(project).get(path)
    assert page.status_code == 200
    assert re.search(r'<code id="try">tidegate (demo|gate)', page.text)


def test_the_next_step_follows_the_project(tmp_path: Path) -> None:
    with seed.empty(tmp_path, NOW) as project:
        client = client_of(project)
        folder = tmp_path / "prompts" / "support" / "answer"
        folder.mkdir(parents=True)
        (folder / "prompt.md").write_text("x")
        assert "tidegate gate support/answer" in client.get("/prompts").text
        project.registry.register(seed.NAME, seed.artifact("x"))
        assert "tidegate deploy support/answer" in client.get("/calls").text
        project.registry.deploy(seed.NAME, "v1", who="ada", reason="x", force=True)
        assert "tidegate serve" in client.get("/calls").text


def test_traffic_that_disagrees_with_the_pointer_is_said(fresh: seed.Seeded) -> None:
    client = client_of(fresh)
    assert "points at v2, but" not in client.get("/prompts").text
    fresh.record(Entry(seed.call(fresh, NOW - timedelta(seconds=5), version=1)))
    for path in ("/prompts", "/prompts/support/answer"):
        assert "production points at v2, but v1 served calls after that." in client.get(path).text


def test_static_files_are_kept_for_ever_under_their_content(client: TestClient) -> None:
    urls = re.findall(r'(?:href|src)="(/static/[^"]+)"', client.get("/overview").text)
    assert {url.rpartition("/")[2] for url in urls} == {
        "charts.js",
        "icon.svg",
        "theme.js",
        "tidegate.css",
        "tidegate.js",
    }
    for url in urls:
        answer = client.get(url)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-encoding"] == "gzip"
        assert client.get(url, headers={"accept-encoding": "identity"}).content == answer.content


def test_the_chart_bundle_is_written_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    Assets(cache).url("charts.js")
    (file,) = cache.iterdir()
    keep(file, b"kept")
    url = Assets(cache).url("charts.js")
    assert Assets(cache).respond(url.split("/")[2], "charts.js", "").body == b"kept"


def test_a_cache_that_can_not_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert Assets(tmp_path / "cache").url("charts.js").endswith("/charts.js")


def test_no_file_outside_the_static_folder_is_served(tmp_path: Path) -> None:
    assets = Assets(tmp_path)
    for name in ("../app.py", "/etc/passwd", "", "nothing.js"):
        with pytest.raises(NotFound):
            assets.respond("0", name, "")
    assert (FOLDER / "tidegate.css").is_file()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "console.test"])
def test_the_console_never_listens_beyond_this_machine(seeded: seed.Seeded, host: str) -> None:
    project = Project(seeded.project.root, Config.model_validate({"console": {"host": host}}))
    with pytest.raises(BadInput, match="without keys tidegate listens on loopback only"):
        create_app(registry=seeded.registry, call_log=seeded.call_log, project=project)


def test_a_split_is_shown_and_made_whole_or_ended(fresh: seed.Seeded) -> None:
    """v1 90 % / v2 10 % in production."""
    client, registry = client_of(fresh), fresh.registry
    registry.rollback(seed.NAME, who="ada")
    registry.deploy(seed.NAME, "v2", who="ada", weight=0.1, force=True, reason="try it")
    (split,) = [
        pointer["split"]
        for pointer in client.get("/prompts/support/answer.json").json()["pointers"]
        if pointer["split"]
    ]
    assert (split["version"], split["weight"]) == (2, 0.1)
    page = client.get("/prompts/support/answer").text
    for shown in ("v1 90 % / v2 10 %", "production 10 %", "production 90 %", "Make v2 100 %", "End the split"):
        assert shown in page
    assert "v1 → v2 for 10.0 % of its calls" in page
    assert "production v1 90 % / v2 10 %" in Tags(client.get("/prompts").text).text
    whole = client.get("/deploy/support/answer?version=v2&environment=production").text
    assert "v1 90 % / v2 10 %" in whole
    assert "from v1 to v2" in whole
    end = client.get("/rollback/support/answer?environment=production").text
    assert "from v2 to v1" in end
    done = client.post("/rollback/support/answer", data={"environment": "production", "reason": "enough"})
    assert done.status_code == 303
    assert registry.log(seed.NAME)[0].to_version == 1
    assert "End the split" not in client.get("/prompts/support/answer").text


def test_the_api_splits_traffic(fresh: seed.Seeded) -> None:
    client = client_of(fresh)
    fresh.registry.rollback(seed.NAME, who="ada")
    deploy = {"prompt": seed.NAME, "version": "v2", "reason": "try it", "force": True}
    for weight in (0, 1, -1, "a"):
        assert client.post("/api/v1/deployments", json=deploy | {"weight": weight}).status_code == 400
    moved = client.post("/api/v1/deployments", json=deploy | {"weight": 0.25})
    assert (moved.status_code, moved.json()["weight"]) == (201, 0.25)
    (row,) = [row for row in client.get("/api/v1/status").json() if row["environment"] == "production"]
    assert (row["version"], row["split"]["version"], row["split"]["weight"]) == (1, 2, 0.25)


def test_a_prompt_that_is_only_on_disk_says_how_it_gets_a_version(tmp_path: Path) -> None:
    with seed.incident(tmp_path, NOW, calls=5) as project:
        client = client_of(project)
        for name, text in (
            ("new", "---\nmodel: simulated/m\ninputs: {word: string}\n---\nuser:\nSay {{ word }}.\n"),
            ("broken", "---\nmodel: [\n---\nx\n"),
        ):
            (tmp_path / "prompts" / name).mkdir(parents=True)
            (tmp_path / "prompts" / name / "prompt.md").write_text(text)
        (tmp_path / "prompts" / "new" / "eval.yaml").write_text("checks: [is-json]\n")
        assert client.get("/prompts.json").json()["unregistered"] == ["broken", "new"]
        assert 'href="/prompts/new"' in client.get("/prompts").text
        page = client.get("/prompts/new")
        assert page.status_code == 200
        assert "tidegate gate new" in page.text
        assert "Say {{ word }}." in Tags(page.text).text
        (tmp_path / "prompts" / "new" / "eval.yaml").unlink()
        assert "tidegate deploy new --env staging" in client.get("/prompts/new").text
        broken = client.get("/prompts/broken")
        assert broken.status_code == 200
        assert "prompts/broken/prompt.md:" in Tags(broken.text).text
        for path in ("/runs/trend?prompt=new", "/deploy/new?version=v1", "/rollback/new"):
            missing = client.get(path)
            assert missing.status_code == 404
            assert "tidegate gate new" in missing.text
        assert "Did you mean" in client.get("/prompts/nev").text


@pytest.mark.parametrize(
    ("changed", "said", "not_said"),
    [
        (
            {"outcome": "lost", "http_status": 0, "attempts": []},
            "The gateway died while this call ran",
            ["HTTP 0", "0.0 ms", "never left the gateway"],
        ),
        ({"outcome": "rejected", "http_status": 429, "error_type": "rate_limit_exceeded"}, "refused", ["always"]),
        ({"outcome": "client_closed"}, "The client left before the answer was whole", []),
        ({"key": "shop", "key_prefix": "tg_ab12"}, "shop (tg_ab12…)", []),
        ({"cache": "hit", "saved_cost_nano_usd": 54_000}, "Saved by the cache", []),
        ({"service_tier": "flex", "split_by": "user"}, "flex", []),
        ({"error_type": "x\u202ey", "outcome": "error"}, "x\\u202ey", ["\u202e"]),
    ],
)
def test_a_call_says_what_its_record_knows_and_nothing_else(
    fresh: seed.Seeded, changed: dict[str, object], said: str, not_said: list[str]
) -> None:
    row = seed.call(fresh, NOW - timedelta(seconds=5), **changed)
    fresh.record(Entry(row))
    page = Tags(client_of(fresh).get(f"/calls/{row.id}").text).text
    assert said in page
    assert [words for words in not_said if words in page] == []


def test_no_two_pages_have_one_title(fresh: seed.Seeded) -> None:
    client = client_of(fresh)
    one, two = (run.id for run in fresh.registry.runs(seed.NAME))
    again = msgspec.structs.replace(
        fresh.registry.run(one), id=f"{one[:-4]}0000", started_at="2026-11-23T14:59:00.000000Z"
    )
    fresh.registry.save_run(again, suite="checks: []", golden="")
    paths = ["/overview", "/calls", "/prompts", f"/prompts/{seed.NAME}", "/runs", "/runs/trend", "/runs/compare"]
    paths += [f"/runs/{run}" for run in (one, two, again.id)]
    paths += [f"/runs/compare?a={two}&b={run}" for run in (one, again.id)]
    titles = [re.search(r"<title>(.*?)</title>", client.get(path).text) for path in paths]
    assert len({title[1] for title in titles if title}) == len(paths)
    headings = [len(re.findall("<h1", client.get(path).text)) for path in [*paths, "/nope"]]
    assert headings == [1] * (len(paths) + 1)


def test_where_nothing_can_be_rolled_back_there_is_no_form(fresh: seed.Seeded) -> None:
    client = client_of(fresh)
    fresh.registry.rollback(seed.NAME, who="ada", reason="x")
    page = client.get(f"/rollback/{seed.NAME}").text
    assert "There is nothing to roll back to" in page
    assert "<form" not in page.partition("<main")[2]
