"""Prompts over HTTP: called by name, version and digest, split between two versions, and read by applications."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tidegate.config import Config
from tidegate.core.artifact import Artifact, Input, Message, Output, Tool, digest
from tidegate.core.errors import BadInput
from tidegate.core.retries import RetryBudget
from tidegate.core.split import point_of
from tidegate.fakes import FakeUpstream, FixedClock, FixedRandom, MemorySpool, ScriptedAnswer, as_read
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.edge import Edge
from tidegate.gateway.pipeline import Services
from tidegate.gateway.routes import Routes
from tidegate.prompts.live import LivePrompts
from tidegate.prompts.registry import Registry
from tidegate.stores.control import open_control
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

P = "support/de/answer"
CHAT = "/v1/chat/completions"
PAGE = f"/v1/prompts/{P}"
CALLERS = [f"user-{number}" for number in range(8)]


def artifact(number: int) -> Artifact:
    return Artifact(
        messages=(Message("system", f"You are number {number}."), Message("user", "{{ question }}")),
        model="sim/m-1",
        params={"temperature": 0.2},
        inputs={"question": Input()},
        output=Output("json"),
        tools=(Tool("find"),),
        retrieval={"index": "help-2026-03", "top_k": 5},
    )


def completion() -> ScriptedAnswer:
    choice = {"index": 0, "message": {"role": "assistant", "content": "{}"}, "finish_reason": "stop"}
    return ScriptedAnswer(body=[json.dumps({"model": "m-1", "choices": [choice]}).encode()])


@dataclass
class Gateway:
    """A gateway on a real registry: v1 … v3 are registered, v2 is live in production, v1 in staging."""

    registry: Registry
    prompts: LivePrompts
    upstream: FakeUpstream
    spool: MemorySpool
    random: FixedRandom
    client: httpx.AsyncClient

    async def deploy(self, version: str, weight: float | None = None, environment: str = "production") -> None:
        self.registry.deploy(P, version, environment, who="me", weight=weight)
        await self.prompts.refresh()

    async def call(self, model: str = f"prompt:{P}", *, headers: dict[str, str] | None = None, **body: Any) -> str:
        """The version that served it."""
        sent = {"model": model, "variables": {"question": "why?"}, **body}
        answer = await self.client.post(CHAT, json=sent, headers=headers)
        assert answer.status_code == 200, answer.text
        row = self.record()
        sent_up = json.loads(self.upstream.requests[-1].body)
        assert sent_up["messages"][0]["content"] == f"You are number {row['version']}."
        assert row["digest"] == digest(artifact(row["version"]))
        version = answer.headers["x-tidegate-version"]
        assert version == f"v{row['version']}"
        return version

    async def refused(self, model: str) -> dict[str, Any]:
        answer = await self.client.post(CHAT, json={"model": model, "variables": {"question": "why?"}})
        error: dict[str, Any] = answer.json()["error"]
        return {"status": answer.status_code, **error}

    def record(self) -> dict[str, Any]:
        row: dict[str, Any] = as_read(self.spool.lines[-1])["call"]
        return row


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    clock, random, spool, upstream = (
        FixedClock(),
        FixedRandom(),
        MemorySpool(),
        FakeUpstream(*(completion() for _ in range(300))),
    )
    config = Config.model_validate({"providers": {"sim": {"base_url": "http://127.0.0.1:1/v1"}}})
    with closing(Registry(open_control(tmp_path / "control.db"), clock, random, protects=[])) as registry:
        for number in (1, 2, 3):
            registry.register(P, artifact(number))
        registry.register("support/other", artifact(1))
        registry.deploy("support/other", "v1", who="me")
        registry.deploy(P, "v1", "staging", who="me")
        registry.deploy(P, "v2", who="me")
        prompts = LivePrompts(registry, clock)
        await prompts.refresh()
        services = Services(
            clock=clock,
            random=random,
            spool=spool,
            attempts=Attempts(upstream, RetryBudget(), clock, random),
            targets=Targets(config, PriceList({}, {})),
            prompts=prompts,
            keys=Keys(),
            project="default",
            content_sample=1.0,
        )
        edge = Edge(Routes(services), max_body_bytes=1 << 20)
        port = await edge.start()
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
                yield Gateway(registry, prompts, upstream, spool, random, client)
        finally:
            await edge.close(0)


# --- called by name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "version", "environment"),
    [
        ("", "v2", "production"),
        ("@production", "v2", "production"),
        ("@staging", "v1", "staging"),
        ("@v1", "v1", None),
        ("@v3", "v3", None),
        (f"@{digest(artifact(3))}", "v3", None),
        (f"@{digest(artifact(1))[:6]}", "v1", None),
    ],
)
async def test_a_prompt_is_called_by_environment_version_or_digest(
    gateway: Gateway, selector: str, version: str, environment: str | None
) -> None:
    assert await gateway.call(f"prompt:{P}{selector}") == version
    row = gateway.record()
    assert (row["prompt"], row["environment"], row["split_by"]) == (P, environment, None)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (f"prompt:{P}@v4", "no version 'v4'"),
        (f"prompt:{P}@v0", "no version 'v0'"),
        (f"prompt:{P}@prodution", "Did you mean 'production'?"),
        (f"prompt:{P}@{'0' * 64}", "no version '000"),
        (f"prompt:{P}@{digest(artifact(1))[:5]}", "no version"),
        (f"prompt:{P}@v1@v2", "no version 'v1@v2'"),
        (f"prompt:{P}@V1", "no version 'V1'"),
        ("prompt:support/de/anser", f"Did you mean '{P}'?"),
        ("prompt:Support/De/Answer", "no registered prompt is named"),
        (f"prompt:{P}/", "no registered prompt is named"),
        (f"prompt:/{P}", "no registered prompt is named"),
        ("prompt:support", "no registered prompt is named"),
        ("prompt:../support/other", "no registered prompt is named"),
        ("prompt:sup\u0000port", "no registered prompt is named"),
    ],
)
async def test_what_no_prompt_has_is_a_404_that_names_the_nearest(gateway: Gateway, model: str, says: str) -> None:
    error = await gateway.refused(model)
    assert (error["status"], error["code"], error["param"]) == (404, "model_not_found", "model")
    assert says in error["message"]
    assert not gateway.upstream.requests


@pytest.mark.parametrize("model", ["prompt:", "prompt:@v1", f"prompt:{P}@"])
async def test_half_a_name_is_a_400(gateway: Gateway, model: str) -> None:
    error = await gateway.refused(model)
    assert (error["status"], error["param"]) == (400, "model")


@pytest.mark.parametrize("name", ["v1", "v12", "deadbeef", "c0ffee", "V1", "", "a b", "-x", "1st", "é", "a" * 33])
def test_an_environment_can_not_be_named_as_a_version(tmp_path: Path, name: str) -> None:
    """Or a call of `@v1` would mean two things."""
    with closing(Registry(open_control(tmp_path / "c.db"), FixedClock(), FixedRandom(), protects=[])) as registry:
        registry.register(P, artifact(1))
        with pytest.raises(BadInput, match="can not be an environment's name"):
            registry.deploy(P, "v1", name, who="me")


# --- split ----------------------------------------------------------------------------------------------------------


async def test_without_an_id_each_call_draws(gateway: Gateway) -> None:
    await gateway.deploy("v3", 0.1)
    for draw, version in ((0.0, "v3"), (0.0999, "v3"), (0.1, "v2"), (0.9, "v2")):
        gateway.random.draw = draw
        assert await gateway.call() == version
        assert gateway.record()["split_by"] == "draw"
        assert gateway.record()["environment"] == "production"
    assert await gateway.call("prompt:support/de/answer@staging") == "v1", "another environment is not split"


@pytest.mark.parametrize(
    ("sent", "by"),
    [
        ({"headers": {"x-tidegate-user": "ID"}}, "user"),
        ({"headers": {"x-tidegate-conversation": "ID"}}, "conversation"),
        ({"headers": {"x-tidegate-user": "ID", "x-tidegate-conversation": "other"}, "user": "third"}, "user"),
        ({"headers": {"x-tidegate-conversation": "ID"}, "user": "third"}, "conversation"),
        ({"user": "ID"}, "user"),
        ({"safety_identifier": "ID"}, "user"),
        ({"user": "ID", "safety_identifier": "other"}, "user"),
        ({"metadata": {"user_id": "ID"}}, "user"),
    ],
)
async def test_a_caller_stays_on_its_side_whatever_is_drawn(gateway: Gateway, sent: dict[str, Any], by: str) -> None:
    """The first id of this order decides; the same id is on the same side wherever it was said."""
    await gateway.deploy("v3", 0.5)
    sides: dict[str, set[str]] = {}
    for caller in CALLERS:
        options = json.loads(json.dumps(sent).replace("ID", caller))
        for draw in (0.0, 0.999):
            gateway.random.draw = draw
            sides.setdefault(caller, set()).add(await gateway.call(**options))
            assert gateway.record()["split_by"] == by
    split = gateway.registry.pointers(P)[0].split
    assert split is not None
    points = {caller: point_of(P, "production", split.id, caller) for caller in CALLERS}
    assert sides == {caller: {"v3" if point < 0.5 else "v2"} for caller, point in points.items()}
    assert len(set(map(str, sides.values()))) == 2


async def test_what_names_nobody_draws(gateway: Gateway) -> None:
    await gateway.deploy("v3", 0.5)
    for sent in ({"user": ""}, {"user": None}, {"metadata": {"user_id": ""}}, {"metadata": {"team": "a"}}):
        for gateway.random.draw, version in ((0.0, "v3"), (0.9, "v2")):
            assert await gateway.call(**sent) == version


async def test_a_growing_share_keeps_who_has_it(gateway: Gateway) -> None:
    users = [f"u{number}" for number in range(60)]
    gateway.random.draw = 0.5
    before: set[str] = set()
    for weight in (0.1, 0.2, 0.6):
        await gateway.deploy("v3", weight)
        now = {user for user in users if await gateway.call(headers={"x-tidegate-user": user}) == "v3"}
        assert before < now
        before = now
    gateway.registry.rollback(P, who="me")
    await gateway.prompts.refresh()
    assert {await gateway.call(headers={"x-tidegate-user": user}) for user in users} == {"v2"}


async def test_either_side_of_a_split_is_called_by_its_own_name(gateway: Gateway) -> None:
    await gateway.deploy("v3", 0.5)
    for version in ("v2", "v3"):
        assert await gateway.call(f"prompt:{P}@{version}") == version
        assert gateway.record()["split_by"] is None


# --- read -----------------------------------------------------------------------------------------------------------


def page(number: int, environment: str | None, messages: list[dict[str, str]] | None = None) -> dict[str, Any]:
    return {
        "name": P,
        "version": number,
        "digest": digest(artifact(number)),
        "environment": environment,
        "model": "sim/m-1",
        "params": {"temperature": 0.2},
        "messages": messages
        or [
            {"role": "system", "content": f"You are number {number}."},
            {"role": "user", "content": "{{ question }}"},
        ],
        "inputs": {"question": {"type": "string"}},
        "output": {"format": "json"},
        "tools": [{"name": "find", "description": "", "parameters": {}}],
        "retrieval": {"index": "help-2026-03", "top_k": 5},
        "fallbacks": [],
        "overridable": [],
    }


@pytest.mark.parametrize(
    ("query", "number", "environment"),
    [
        ("", 2, "production"),
        ("?environment=staging", 1, "staging"),
        ("?version=v3", 3, None),
        ("?version=3", 3, None),
        (f"?digest={digest(artifact(1))[:8]}", 1, None),
    ],
)
async def test_an_application_reads_what_a_call_would_be_served_by(
    gateway: Gateway, query: str, number: int, environment: str | None
) -> None:
    answer = await gateway.client.get(PAGE + query)
    assert answer.status_code == 200
    assert answer.json() == page(number, environment)
    assert answer.headers["etag"] == f'"{digest(artifact(number))}"'
    assert answer.headers["cache-control"] == "no-cache"
    assert {"authorization", "x-tidegate-user", "x-tidegate-conversation"} <= set(answer.headers["vary"].split(", "))
    assert answer.headers["content-type"] == "application/json"
    assert not gateway.spool.lines, "it is no call"


async def test_a_name_may_be_percent_encoded(gateway: Gateway) -> None:
    assert (await gateway.client.get("/v1/prompts/support%2Fde%2Fanswer")).json()["version"] == 2


async def test_what_is_known_is_not_sent_again(gateway: Gateway) -> None:
    tag = (await gateway.client.get(PAGE)).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await gateway.client.get(PAGE, headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert "content-type" in answer.headers or "content-length" not in answer.headers
    for other in ('"other"', tag[:-2] + '"', tag.strip('"')):
        assert (await gateway.client.get(PAGE, headers={"if-none-match": other})).status_code == 200
    await gateway.deploy("v3")
    answer = await gateway.client.get(PAGE, headers={"if-none-match": tag})
    assert (answer.status_code, answer.json()["version"]) == (200, 3)


async def test_head_is_get_without_its_body(gateway: Gateway) -> None:
    got, head = await gateway.client.get(PAGE), await gateway.client.head(PAGE)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "content-type", "cache-control"):
        assert head.headers[name] == got.headers[name]
    known = await gateway.client.head(PAGE, headers={"if-none-match": got.headers["etag"]})
    assert known.status_code == 304
    assert (await gateway.client.head("/v1/prompts/nobody")).status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("support/de/anser", 404, f"Did you mean '{P}'?"),
        ("Support/DE/Answer", 404, "no prompt is named 'Support/DE/Answer'"),
        ("..%2F..%2Fetc/passwd", 404, "no prompt is named"),
        ("", 404, "no prompt is named ''. Known: support/de/answer, support/other."),
        (f"{P}?environment=stagin", 404, "Did you mean 'staging'?"),
        (f"{P}?version=9", 404, "no version 'v9'"),
        (f"{P}?digest={'0' * 64}", 404, "no version '0000"),
        (f"{P}?env=staging", 400, "no parameter 'env'. Known: digest, environment, version."),
        (f"{P}?environment=v1", 400, "'v1' is no environment"),
        (f"{P}?environment=", 400, "'' is no environment"),
        (f"{P}?version=staging", 400, "'staging' is no version; write v3"),
        (f"{P}?digest=xyz", 400, "'xyz' is no digest"),
        (f"{P}?version=1&environment=staging", 400, "give one of environment, version and digest"),
        (f"{P}?version=1&version=2", 400, "give one of environment, version and digest"),
        (f"{P}?version", 400, "the query can not be read"),
        ("support%FFanswer", 400, "not percent-encoded UTF-8"),
    ],
)
async def test_what_is_not_there_or_wrong_is_said_in_openais_shape(
    gateway: Gateway, path: str, status: int, says: str
) -> None:
    answer = await gateway.client.get(f"/v1/prompts/{path}")
    error = answer.json()["error"]
    assert answer.status_code == status
    assert says in error["message"]
    assert error.keys() >= {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", PAGE, "GET, HEAD"),
        ("DELETE", PAGE, "GET, HEAD"),
        ("PUT", f"{PAGE}/render", "GET, HEAD, POST"),
    ],
)
async def test_other_methods_are_refused(gateway: Gateway, method: str, path: str, allow: str) -> None:
    answer = await gateway.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


async def test_messages_are_rendered_as_a_call_would(gateway: Gateway) -> None:
    answer = await gateway.client.post(f"{PAGE}/render?version=v1", json={"variables": {"question": "{{ why }}?"}})
    assert answer.status_code == 200
    rendered = [{"role": "system", "content": "You are number 1."}, {"role": "user", "content": "{{ why }}?"}]
    assert answer.json() == page(1, None, rendered)
    assert "etag" not in answer.headers


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b"", "question", "variables.question"),
        (b'{"variables": {"question": 3}}', "question", "variables.question"),
        (b'{"variables": {"question": "a", "other": 1}}', "other", "variables.other"),
        (b'{"variables": []}', "the body must be", None),
        (b'{"question": "a"}', "the body must be", None),
        (b"[", "the body must be", None),
        (b"\xff", "the body must be", None),
        (b"[" * 100_000, "the body must be", None),
    ],
)
async def test_variables_that_do_not_fit_are_a_400(gateway: Gateway, body: bytes, says: str, param: str | None) -> None:
    answer = await gateway.client.post(f"{PAGE}/render", content=body)
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == param


async def test_a_prompt_named_render_is_read_and_rendered(gateway: Gateway) -> None:
    name = "support/render"
    gateway.registry.deploy(name, gateway.registry.register(name, artifact(3)).name, who="me")
    await gateway.prompts.refresh()
    assert (await gateway.client.get(f"/v1/prompts/{name}")).json()["name"] == name
    answer = await gateway.client.post(f"/v1/prompts/{name}/render", json={"variables": {"question": "a"}})
    assert answer.json()["messages"][1]["content"] == "a"


async def test_who_reads_a_split_prompt_reads_what_their_calls_are_served_by(gateway: Gateway) -> None:
    await gateway.deploy("v3", 0.5)
    gateway.random.draw = 0.0
    for header in ("x-tidegate-user", "x-tidegate-conversation"):
        for caller in CALLERS:
            read = (await gateway.client.get(PAGE, headers={header: caller})).json()
            assert await gateway.call(headers={header: caller}) == f"v{read['version']}"
            assert read["environment"] == "production"
    assert (await gateway.client.get(PAGE)).json()["version"] == 2, "nobody in particular reads what has the rest"
