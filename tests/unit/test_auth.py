"""Who may listen where without keys, and what a key opens: keys in memory, no store."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.unit.test_pipeline import CHAT, GOOD, PROMPT, Bench, completion
from tidegate.core.errors import BadInput, Saturated
from tidegate.core.failures import ALLOWED, MAX_SEEN, WINDOW_S, Failures
from tidegate.core.keys import Key, KeyRing, fingerprint, mint
from tidegate.dialects import anthropic, gemini, openai_chat, openai_responses
from tidegate.dialects.dialect import Dialect
from tidegate.fakes import FakeUpstream, FixedClock, ScriptedAnswer
from tidegate.gateway.auth import NO_KEY, Keys, check_bind
from tidegate.gateway.caller import Collected
from tidegate.gateway.edge import Request
from tidegate.gateway.routes import Routes

TOKEN, PREFIX = mint(bytes(range(38)))
OTHER, OTHER_PREFIX = mint(bytes(range(1, 39)))
INTERNAL = "tgi_secret"
KEY = Key(PREFIX, "shop", "caller", fingerprint(TOKEN), "2026-01-01T00:00:00.000000Z", "ada")
NOW = FixedClock().unix_ns


def held(*keys: Key, loopback: bool = True) -> Keys:
    ring = KeyRing(keys)
    return Keys(INTERNAL, lambda: ring, loopback=loopback)


def changed(**fields: Any) -> Key:
    return msgspec.structs.replace(KEY, **fields)


async def called(keys: Keys, body: Any = CHAT, **options: Any) -> tuple[Collected, dict[str, Any]]:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[completion(GOOD)])), keys=keys)
    reply = await bench.call(body, **options)
    row: dict[str, Any] = bench.record()["call"]
    assert bool(bench.upstream.requests) == (reply.status == 200)
    return reply, row


def message(reply: Collected) -> str:
    said: str = json.loads(reply.body)["error"]["message"]
    return said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_may_listen_without_keys(host: str) -> None:
    check_bind(host, "gateway", KeyRing())


HOSTS = ["0.0.0.0", "::", "192.168.1.4", "127.evil.example", "localhost.evil.example", "::1234", ""]


@pytest.mark.parametrize("host", HOSTS)
def test_anything_else_is_refused_in_one_sentence_until_there_is_a_key(host: str) -> None:
    with pytest.raises(BadInput, match="without keys tidegate listens on loopback only"):
        check_bind(host, "gateway", KeyRing())
    check_bind(host, "gateway", KeyRing([KEY]))


async def test_without_keys_everybody_on_this_machine_may_call_with_any_credential_or_none() -> None:
    for key in (None, "sk-dummy", TOKEN):
        reply, row = await called(held(), key=key)
        assert (reply.status, row["key"], row["key_prefix"]) == (200, None, None)


async def test_without_keys_nobody_may_call_from_elsewhere() -> None:
    """Where the store was replaced by an empty one while the gateway listens to the world."""
    assert (await called(held(loopback=False)))[0].status == 401
    assert (await called(held(loopback=False), key=INTERNAL))[0].status == 200


ELSEWHERE: dict[str, dict[str, str]] = {
    "a name that somebody else may point here": {"host": "evil.example:4000", "origin": "http://evil.example:4000"},
    "a name that begins like ours": {"host": "127.0.0.1.evil.example"},
    "a name that ends like ours": {"host": "evil-localhost.example"},
    "a name with a way around it": {"host": "127.0.0.1@evil.example"},
    "another site's script": {"host": "127.0.0.1:4000", "origin": "https://evil.example"},
    "another port's page": {"host": "127.0.0.1:4000", "origin": "http://127.0.0.1:8000"},
    "a sandboxed frame": {"host": "127.0.0.1:4000", "origin": "null"},
    "an old form of another site": {"host": "localhost:4000", "sec-fetch-site": "cross-site"},
    "another page of this machine": {"host": "localhost:4000", "sec-fetch-site": "same-site"},
}


@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE)
async def test_without_keys_no_web_page_makes_a_browser_call(headers: dict[str, str]) -> None:
    """A page that somebody on this machine looks at would spend money here, and by DNS rebinding read prompts."""
    reply, row = await called(held(), headers=headers)
    assert (reply.status, row["outcome"], row["error_type"]) == (403, "rejected", "forbidden")
    assert "tidegate keys create" in message(reply)
    for path in ("/v1/models", "/v1/prompts/support/answer", "/v1/nothing"):
        assert (await read(held(), path, headers))[0] == 403
    assert (await read(held(), "/livez", headers))[0] == 200


NEARBY: list[dict[str, str]] = [
    {},
    {"host": "127.0.0.1:4000"},
    {"host": "LOCALHOST:4000"},
    {"host": "[::1]:4000"},
    {"host": "tidegate.localhost:4000"},
    {"host": "192.168.65.254:4000"},
    {"host": "host.docker.internal:4000"},
    {"host": "gateway:4000"},
    {"host": "127.0.0.1:4000", "sec-fetch-site": "none"},
    {"host": "127.0.0.1:4000", "origin": "http://127.0.0.1:4000", "sec-fetch-site": "same-origin"},
]


@pytest.mark.parametrize("headers", NEARBY)
async def test_without_keys_programs_call_by_any_name_that_is_this_networks_own(headers: dict[str, str]) -> None:
    assert (await called(held(), headers=headers))[0].status == 200


@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE)
async def test_with_keys_it_is_the_key_that_counts(headers: dict[str, str]) -> None:
    """A browser adds no key by itself, and a proxy may give the gateway any name."""
    assert (await called(held(KEY), headers=headers, key=TOKEN))[0].status == 200
    assert (await called(held(KEY), headers=headers))[0].status == 401


async def test_a_key_opens_and_the_record_says_whose() -> None:
    reply, row = await called(held(KEY), key=TOKEN)
    assert (reply.status, row["key"], row["key_prefix"]) == (200, "shop", PREFIX)
    assert (await called(held(KEY), key=INTERNAL))[0].status == 200


BAD: dict[str, tuple[Key, str | None]] = {
    "none": (KEY, None),
    "empty": (KEY, ""),
    "unknown": (KEY, OTHER),
    "its prefix, another secret": (KEY, f"tg_{PREFIX}_{OTHER[12:]}"),
    "its hash": (KEY, KEY.sha256),
    "one more character": (KEY, TOKEN + "A"),
    "not ASCII": (KEY, "tg_\u00e9\ud800"),
    "revoked": (changed(revoked_at="2026-02-01T00:00:00.000000Z"), TOKEN),
    "expired": (changed(expires_at="2026-03-01T12:00:00.000000Z"), TOKEN),
}


@pytest.mark.parametrize("dialect", [openai_chat, openai_responses, anthropic, gemini])
async def test_every_way_of_having_no_key_is_told_the_same_in_the_clients_dialect(dialect: Any) -> None:
    spoken: Dialect = dialect.DIALECT
    bodies = set()
    for key, token in BAD.values():
        reply, row = await called(held(key), b"not even JSON", key=token, dialect=spoken, model="m", stream=False)
        assert (reply.status, row["outcome"], row["error_type"]) == (401, "rejected", "invalid_api_key")
        bodies.add(reply.body.replace(row["id"].encode(), b"ID"))
        assert NO_KEY in reply.body.decode()
    assert len(bodies) == 1


async def test_the_record_names_a_key_that_is_used_after_its_end() -> None:
    for name in ("revoked", "expired"):
        key, token = BAD[name]
        assert (await called(held(key), key=token))[1]["key"] == "shop"
    assert (await called(held(KEY), key=OTHER))[1]["key"] is None


async def test_a_revoked_key_does_not_leave_the_door_open_behind_it() -> None:
    assert (await called(held(BAD["revoked"][0])))[0].status == 401


async def test_a_key_expires_at_its_instant_and_not_before() -> None:
    keys = held(changed(expires_at="2026-03-01T12:00:01.000000Z"))
    assert (await called(keys, key=TOKEN))[0].status == 200


@pytest.mark.parametrize(
    ("limits", "body", "status"),
    [
        ({}, CHAT, 200),
        ({}, PROMPT, 200),
        ({"models": ("sim/m-1",)}, CHAT, 200),
        ({"models": ("sim/*",)}, CHAT, 200),
        ({"models": ("sim/m",)}, CHAT, 403),
        ({"models": ("sim/*",)}, PROMPT, 403),
        ({"prompts": ("support/answer",)}, PROMPT, 200),
        ({"prompts": ("support/*",)}, PROMPT, 200),
        ({"prompts": ("*",)}, CHAT, 403),
        ({"prompts": ("support/answe",)}, PROMPT, 403),
        ({"prompts": ("support/answer",), "models": ("sim/m-1",)}, CHAT, 200),
        ({"environments": ("production",)}, PROMPT, 200),
        ({"environments": ("production", "staging")}, {**PROMPT, "model": "prompt:support/answer@production"}, 200),
        ({"environments": ("staging",)}, {**PROMPT, "model": "prompt:support/answer@production"}, 403),
        ({"environments": ("production",)}, {**PROMPT, "model": "prompt:support/answer@v7"}, 403),
        ({"environments": ("production",)}, CHAT, 200),
        ({"role": "viewer"}, CHAT, 403),
        ({"role": "admin"}, CHAT, 200),
    ],
)
async def test_a_key_reaches_what_it_names_and_nothing_else(limits: dict[str, Any], body: Any, status: int) -> None:
    reply, row = await called(held(changed(**limits)), body, key=TOKEN)
    assert reply.status == status
    assert row["key"] == "shop"
    if status == 403:
        assert message(reply).startswith("this key may not")


async def test_what_is_forbidden_is_told_the_same_whether_it_exists_or_not() -> None:
    keys = held(changed(prompts=("other",)))
    for real, invented in ((PROMPT["model"], "prompt:support/nothing"), (CHAT["model"], "sim/nothing")):
        there, _ = await called(keys, {**PROMPT, "model": real}, key=TOKEN)
        not_there, _ = await called(keys, {**PROMPT, "model": invented}, key=TOKEN)
        assert there.status == not_there.status
        name, other = (str(model).removeprefix("prompt:") for model in (real, invented))
        assert message(there).replace(name, "X") == message(not_there).replace(other, "X")


async def test_a_prompt_called_by_its_name_alone_is_told_how_to_be_called_whether_it_exists_or_not() -> None:
    keys = held(changed(prompts=("support/*",)))
    for name in ("support/answer", "support/answer@v7", "support/nothing"):
        reply, _ = await called(keys, {**CHAT, "model": name}, key=TOKEN)
        assert reply.status == 403
        assert message(reply).endswith(f"If that is a prompt, call it as 'prompt:{name}'.")
    for name in ("gpt-4.1", "other/answer"):
        reply, _ = await called(keys, {**CHAT, "model": name}, key=TOKEN)
        assert (reply.status, "prompt" in message(reply)) == (403, False)


async def test_a_prompt_is_called_in_the_keys_first_environment_unless_the_call_says() -> None:
    keys = held(changed(environments=("staging", "production")))
    reply, row = await called(keys, PROMPT, key=TOKEN)
    assert (reply.status, row["environment"]) == (404, None)  # nothing is live in staging here
    assert "staging" in message(reply)


@pytest.mark.parametrize(
    ("role", "origin", "status"),
    [
        ("editor", "eval", 200),
        ("deployer", "eval", 200),
        ("caller", "eval", 403),
        ("viewer", "eval", 403),
        ("admin", "canary", 400),
        ("editor", "judge", 200),
        ("caller", "judge", 403),
        ("admin", "nonsense", 400),
    ],
)
async def test_an_eval_may_come_from_elsewhere_with_a_key_for_it(role: str, origin: str, status: int) -> None:
    reply, row = await called(held(changed(role=role)), PROMPT, key=TOKEN, origin=origin)
    assert reply.status == status
    assert row["origin"] == (origin if status == 200 else "live")


async def test_an_eval_calls_any_version_also_with_a_key_for_one_environment() -> None:
    keys = held(changed(role="deployer", environments=("staging",)))
    reply, _ = await called(keys, {**PROMPT, "model": "prompt:support/answer@v7"}, key=TOKEN, origin="eval")
    assert reply.status == 200


async def test_guessing_is_held_up_and_a_valid_key_beside_it_is_not() -> None:
    keys = held(KEY)
    bench = Bench(FakeUpstream(*[ScriptedAnswer(body=[completion(GOOD)]) for _ in range(2)]), keys=keys)
    for _ in range(ALLOWED):
        assert (await bench.call(CHAT, key=OTHER, peer="192.0.2.1")).status == 401
    reply = await bench.call(CHAT, key=OTHER, peer="192.0.2.1")
    assert (reply.status, reply.headers["retry-after"]) == (429, "60")
    assert (await bench.call(CHAT, key=OTHER, peer="192.0.2.2")).status == 401
    assert (await bench.call(CHAT, key=TOKEN, peer="192.0.2.1")).status == 200
    bench.clock.move(WINDOW_S)
    assert (await bench.call(CHAT, key=OTHER, peer="192.0.2.1")).status == 401


def test_failures_are_remembered_for_a_bounded_number_of_addresses() -> None:
    failures = Failures()
    for number in range(2 * MAX_SEEN):
        failures.count(str(number), None, 0.0)
    assert len(failures._seen) == MAX_SEEN
    for _ in range(ALLOWED - 1):
        failures.count("8191", None, 1.0)
    with pytest.raises(Saturated):
        failures.count("8191", None, 1.0)


async def test_no_key_is_written_into_a_record_or_an_answer() -> None:
    for keys, token in ((held(KEY), TOKEN), (held(KEY), OTHER), (held(changed(role="viewer")), TOKEN)):
        bench = Bench(FakeUpstream(ScriptedAnswer(body=[completion(GOOD)])), keys=keys)
        reply = await bench.call(CHAT, key=token, origin="eval")
        written = b"".join([reply.body, *bench.spool.lines, repr(reply.headers).encode()])
        assert token[12:].encode() not in written
        assert all(token not in str(request.headers) for request in bench.upstream.requests)
    shown = repr([KEY, replace(held(KEY)), Keys(INTERNAL)])
    assert all(secret not in shown for secret in (TOKEN[12:], KEY.sha256, INTERNAL))


async def read(keys: Keys, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    bench = Bench(FakeUpstream(), keys=keys)
    reply = Collected()
    request = Request("GET", path.partition("?")[0], path.partition("?")[2], headers or {}, b"", "127.0.0.1")
    await Routes(bench.services())(request, reply)
    return reply.status, json.loads(reply.body)


READ = ["/v1/models", "/v1beta/models", "/v1/capabilities", "/v1/prompts/support/answer", "/v1/nothing", "/nothing"]


@pytest.mark.parametrize("path", READ)
async def test_what_is_read_asks_for_a_key_too(path: str) -> None:
    status, body = await read(held(KEY), path)
    assert (status, body["error"]["message"]) == (401, NO_KEY)
    assert (await read(held(KEY), path, {"x-api-key": TOKEN}))[0] in (200, 404)
    assert (await read(held(KEY), f"{path}?key={TOKEN}"))[0] in (200, 400, 404)


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "x-goog-api-key"])
async def test_a_key_is_taken_from_where_the_sdks_put_it(header: str) -> None:
    token = f"Bearer {TOKEN}" if header == "authorization" else TOKEN
    assert (await read(held(KEY), "/v1/models", {header: token}))[0] == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_whether_it_lives_is_told_to_everybody(path: str) -> None:
    assert (await read(held(KEY), path))[0] == 200


async def test_a_key_sees_the_models_it_may_call() -> None:
    async def seen(**limits: Any) -> set[str]:
        _, body = await read(held(changed(**limits)), "/v1/models", {"x-api-key": TOKEN})
        return {model["id"] for model in body["data"]}

    everything = await seen()
    assert "prompt:support/answer" in everything
    assert await seen(prompts=("*",)) == {"prompt:support/answer"}
    models = everything - {"prompt:support/answer"}
    assert await seen(models=("*",)) == models
    one = sorted(models)[0]
    assert await seen(models=(one,)) == {one}


@pytest.mark.parametrize(
    ("limits", "query", "status"),
    [
        ({"prompts": ("support/*",)}, "", 200),
        ({"prompts": ("other",)}, "", 403),
        ({"models": ("*",)}, "", 403),
        ({"environments": ("production",)}, "", 200),
        ({"environments": ("staging",)}, "?environment=production", 403),
        ({"environments": ("production",)}, "?version=7", 403),
        ({"role": "viewer"}, "?version=7", 200),
    ],
)
async def test_a_prompt_is_read_by_whom_may_call_it(limits: dict[str, Any], query: str, status: int) -> None:
    keys = held(changed(**limits))
    assert (await read(keys, f"/v1/prompts/support/answer{query}", {"x-api-key": TOKEN}))[0] == status
