"""The hop from client to provider: what goes up, what never does, and that nothing a client sends moves its end."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import quote, unquote

import pytest

from tests.contract.bad_requests import ANSWERS, WIRES, Wire
from tests.contract.test_records import KINDS, STREAMS
from tests.contract.whole import DIALECTS, SECRETS, Asked, Whole, Write, answers, streams, whole
from tidegate.config import Config, Provider
from tidegate.core.errors import TidegateError
from tidegate.gateway.auth import Keys
from tidegate.gateway.call import Call
from tidegate.ports import UpstreamRequest
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

CANARY = "canary-of-the-client"
OUR_KEY = "tgi_of-the-gateway"
KEYS = Keys(OUR_KEY, loopback=False)
"""Where a key is asked for, whatever else a client says of itself: without one a foreign host is refused."""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CREDENTIALS = {"oai": "authorization", "res": "authorization", "ant": "x-api-key", "goo": "x-goog-api-key"}
ANSWER = {
    name: answers(json.dumps(ANSWERS[kind]).encode())
    for name, kind in {"oai": "chat", "res": "responses", "ant": "anthropic", "goo": "gemini"}.items()
}
OWN = {
    "host",
    "content-length",
    "content-type",
    "user-agent",
    "accept-encoding",
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "anthropic-version",
    "anthropic-beta",
    "traceparent",
}
"""All that a provider may ever see by default."""
SENT = {
    **dict.fromkeys(
        ("authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "proxy-authorization"), CANARY
    ),
    **dict.fromkeys(("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via"), CANARY),
    **dict.fromkeys(("x-real-ip", "cf-connecting-ip", "true-client-ip", "referer", "origin", "user-agent"), CANARY),
    **dict.fromkeys(("openai-organization", "openai-project", "openai-beta", "idempotency-key"), CANARY),
    **dict.fromkeys(("anthropic-version", "x-stainless-lang", "x-goog-user-project", "x-request-id"), CANARY),
    **dict.fromkeys(("te", "trailer", "keep-alive", "x-of-this-hop", "accept-encoding", "accept"), CANARY),
    **dict.fromkeys(("x-tidegate-tags", "x-tidegate-user", "x-tidegate-conversation"), f"a={CANARY}"),
    **dict.fromkeys(("tracestate", "baggage", "x-amz-security-token", "x-anything-else"), CANARY),
    "connection": "keep-alive, x-of-this-hop",
}
"""What a client may send along: keys, cookies, hop-by-hop, proxies' words, its SDK's, and its own."""
SMALL: dict[str, dict[str, Any]] = {
    "openai_chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "openai_responses": {"input": "Hi", "store": False},
    "anthropic": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
}
wires = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


def body(wire: Wire, model: str) -> dict[str, Any]:
    return ({} if "MODEL" in wire.path else {"model": model}) | SMALL[wire.name]


async def ask(here: Whole, wire: Wire, model: str, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await here.client.post(wire.url(model), json=body(wire, model), headers=named)


@pytest.mark.parametrize("provider", DIALECTS)
@wires
async def test_no_header_of_a_client_goes_up(wire: Wire, provider: str) -> None:
    """Whatever it sends, by any dialect to any: the provider sees tidegate's own headers and its own key."""
    async with whole(ANSWER[provider], keys=Keys(CANARY, loopback=False)) as here:
        reply = await here.client.post(
            f"{wire.url(f'{provider}/m')}?key={CANARY}&alt=sse&x={CANARY}",
            json=body(wire, f"{provider}/m"),
            headers={**SENT, "anthropic-beta": "a-beta"},
        )
        assert reply.status_code == 200, reply.text
        [asked] = here.asked
        assert {name for name, _ in asked.headers} <= OWN
        assert len({name for name, _ in asked.headers}) == len(asked.headers)
        assert CANARY not in f"{asked.line}{asked.headers}"
        assert CANARY.encode() not in asked.body
        assert asked.header("user-agent") == ["tidegate"]
        assert asked.header("accept-encoding") == ["identity"]
        secret = SECRETS[provider]
        bearer = f"Bearer {secret}" if CREDENTIALS[provider] == "authorization" else secret
        assert asked.header(CREDENTIALS[provider]) == [bearer]
        assert str(asked.headers).count("sk-canary") == 1
        assert asked.header("anthropic-beta") == (["a-beta"] if provider == "ant" else [])
        assert asked.header("anthropic-version") == (["2023-06-01"] if provider == "ant" else [])


async def test_what_a_provider_is_configured_to_get_of_a_clients_headers_goes_up() -> None:
    """And an empty list keeps even the default one back."""
    providers: dict[str, dict[str, Any]] = {
        "oai": {"forward_headers": ["openai-organization", "x-tenant"]},
        "ant": {"forward_headers": []},
    }
    async with whole(ANSWER["oai"], providers=providers) as here:
        await ask(here, WIRES[0], "oai/m", openai_organization="org-1", x_tenant="tenant", openai_project="p-1")
        [asked] = here.asked
        assert asked.header("openai-organization") == ["org-1"]
        assert asked.header("x-tenant") == ["tenant"]
        assert asked.header("openai-project") == []
    async with whole(ANSWER["ant"], providers=providers) as here:
        await ask(here, WIRES[2], "ant/m", anthropic_beta="a-beta")
        assert here.asked[0].header("anthropic-beta") == []


LIMITS: dict[str, Any] = {
    "x_ratelimit_remaining_tokens": "149984",
    "x_request_id": "req_7",
    "retry_after": "9",
    "set_cookie": "a=b",
}
SHOWN = ["x-ratelimit-remaining-tokens", "x-request-id", "retry-after", "x-none"]


@pytest.mark.parametrize("how", ["whole", "stream", "refused"])
@wires
async def test_what_a_provider_is_configured_to_show_of_its_headers_comes_back_prefixed(wire: Wire, how: str) -> None:
    """And nothing else of them; its key neither, should it stand in one."""
    limits: dict[str, Any] = {**LIMITS, "x_request_id": f"req_7 of {SECRETS[wire.own]}"}
    said = json.dumps(ANSWERS[KINDS[wire.own]]).encode() if how == "whole" else STREAMS[wire.own]
    script = answers(b"{}", 429, **limits) if how == "refused" else answers(said, **limits)
    routes = {"r": {"targets": [f"{wire.own}/m"], "retries": 0}}
    for shown in ([], SHOWN):
        async with whole(script, routes=routes, providers={wire.own: {"return_headers": shown}}) as here:
            url, asked = wire.url("r"), body(wire, "r")
            if how == "stream":
                url = url.replace(":generateContent", ":streamGenerateContent?alt=sse")
                asked = {**asked, **({} if wire.name == "gemini" else {"stream": True})}
            reply = await here.client.post(url, json=asked)
            assert reply.status_code == (429 if how == "refused" else 200), reply.text
            prefix = "x-tidegate-provider-"
            seen = {key.removeprefix(prefix): value for key, value in reply.headers.items() if key.startswith(prefix)}
            expected = {
                "x-ratelimit-remaining-tokens": "149984",
                "x-request-id": "req_7 of [redacted]",
                "retry-after": "9",
            }
            assert seen == (expected if shown else {})
            assert reply.headers["x-request-id"] == here.record()["id"]
            assert "set-cookie" not in reply.headers


async def test_a_fallbacks_answer_shows_headers_of_its_own_only() -> None:
    async def script(asked: Asked, write: Write) -> None:
        refused = asked.path.endswith("/chat/completions")
        await (answers(b"{}", 429, **LIMITS) if refused else ANSWER["ant"])(asked, write)

    routes = {"r": {"targets": ["oai/m", "ant/m"], "retries": 0}}
    async with whole(script, routes=routes, providers={"oai": {"return_headers": SHOWN}}) as here:
        reply = await ask(here, WIRES[0], "r")
        assert (reply.status_code, "x-tidegate-provider" in str(reply.headers)) == (200, False)


@pytest.mark.parametrize("name", ["set-cookie", "X-Request-Id", "a b", "a:b", "a\r\nb", ""])
def test_some_headers_can_not_be_configured_to_come_back(name: str) -> None:
    with pytest.raises(ValueError, match=r"no client sees it|no header's name"):
        Provider(return_headers=[name])


@wires
async def test_the_head_of_a_stream_keeps_those_between_from_holding_it_back(wire: Wire) -> None:
    """And from keeping it for somebody else."""
    async with whole(streams(STREAMS[wire.own])) as here:
        url = wire.url(f"{wire.own}/m").replace(":generateContent", ":streamGenerateContent?alt=sse")
        reply = await here.client.post(url, json={**body(wire, f"{wire.own}/m"), "stream": True})
        said = ("content-type", "cache-control", "x-accel-buffering")
        assert [reply.headers[name] for name in said] == ["text/event-stream; charset=utf-8", "no-cache", "no"]


NEVER = [
    *("authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "host", "connection", "te", "expect"),
    *("content-length", "content-type", "transfer-encoding", "x-forwarded-for", "proxy-authorization", "forwarded"),
    *("x-tidegate-origin", "user-agent", "accept-encoding", "X-Tenant", "a b", "a:b", "a\r\nb", ""),
]


@pytest.mark.parametrize("name", NEVER)
def test_some_headers_can_not_be_configured_to_go_up(name: str) -> None:
    with pytest.raises(ValueError, match=r"never goes up|no header's name"):
        Provider(forward_headers=[name])


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (TRACE, [TRACE]),
        (TRACE[:-1], []),
        (f"{TRACE}-more", []),
        (TRACE.upper(), []),
        ("00-xyz", []),
        (f"{TRACE}, {TRACE}", []),
    ],
)
async def test_a_trace_goes_on_to_the_provider_and_stands_in_the_record(sent: str, passed: list[str]) -> None:
    async with whole(ANSWER["goo"]) as here:
        await ask(here, WIRES[0], "goo/m", traceparent=sent)
        assert here.asked[0].header("traceparent") == passed
        assert here.record()["trace_id"] == (TRACE[3:35] if passed else None)


@pytest.mark.parametrize(("sent", "echoed"), [("req-1.a:b/c", True), ("x" * 129, False), ("a b", False), ("", False)])
async def test_a_clients_request_id_is_echoed_when_it_is_one_and_else_the_calls_id(sent: str, echoed: bool) -> None:
    async with whole(ANSWER["oai"]) as here:
        reply = await here.client.post(
            "/v1/chat/completions", json=body(WIRES[0], "oai/m"), headers={"x-request-id": sent}
        )
        record = here.record()
        assert reply.headers["x-tidegate-call-id"] == record["id"]
        assert reply.headers["x-request-id"] == (sent if echoed else record["id"])
        assert record["tags"].get("tidegate.request_id") == (sent if echoed else None)
        assert here.asked[0].header("x-request-id") == []


TRICKS = [
    *("..", "../../admin", "..%2f..%2fadmin", "%2e%2e/admin", "a/../../b", "/admin", "//evil.example/a", "."),
    *("m@evil.example", "m?x=y", "m?alt=sse&key=k", "m#part", "m;a=b", "m:streamGenerateContent", "m\\..\\b"),
    *(
        "m HTTP/1.1",
        "m\r\nx-smuggled: 1",
        "m\0",
        "m%0d%0ax-smuggled:1",
        "m%",
        "m%zz",
        "\u00fc",
        "m\ud83d\ude00",
        "http://evil.example/",
    ),
    *("models/../m", "x" * 2_000),
]


def raw(path: str, payload: Any, *lines: str) -> bytes:
    content = json.dumps(payload).encode()
    head = [f"POST {path} HTTP/1.1", f"content-length: {len(content)}", "connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode() + content


@pytest.mark.parametrize("trick", TRICKS)
async def test_a_models_name_is_one_segment_of_the_path_whatever_it_holds(trick: str) -> None:
    """Neither the host, nor the path around the model, nor the query is a client's to say."""
    async with whole(ANSWER["goo"]) as here:
        for wire in WIRES[:3]:
            await here.raw(raw(wire.path, body(wire, f"goo/{trick}"), "host: a"))
        for asked in here.asked:
            before, _, after = asked.path.partition("/v1beta/models/")
            assert before == ""
            model, colon, method = after.rpartition(":")
            assert (colon, method) == (":", "generateContent")
            assert model.isascii()
            assert not set(model) & set("/?#@:;\\ \r\n\0"), model
            assert asked.header("x-smuggled") == []
            assert asked.line.count(" ") == 2
            _own_host(asked, here)


@pytest.mark.parametrize(
    "trick", ["%2e%2e%2f%2e%2e%2fadmin", "%2e%2e", "a%2f..%2fb", "m%3Fx=y", "m%23a", "m%40evil", "m%0d%0ax:y"]
)
async def test_a_models_name_in_the_url_neither(trick: str) -> None:
    async with whole(ANSWER["goo"]) as here:
        path = f"/v1beta/models/goo%2F{trick}:generateContent"
        await here.raw(raw(path, SMALL["gemini"], "host: a"))
        for asked in here.asked:
            model = asked.path.removeprefix("/v1beta/models/").removesuffix(":generateContent")
            assert not set(model) & set("/?#@:;\\ \r\n\0"), model
            _own_host(asked, here)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("model", ["\U0001f600", "\u00fc", "m\rx-split: 1", "m\0", "m\x7f", "100%s", "m x"])
@wires
async def test_a_model_may_be_called_anything_and_the_answer_says_so(wire: Wire, model: str, fails: bool) -> None:
    """Its name stands in a header of the answer, percent-encoded where none could hold it."""
    script = answers(b"{}", 422) if fails else ANSWER[wire.own]
    async with whole(script) as here:
        named = quote(model, safe="") if "MODEL" in wire.path else model
        reply = await here.client.post(
            wire.url(f"{wire.own}/{named}"), json=body(wire, f"{wire.own}/{model}"), headers={"x-request-id": "r"}
        )
        assert reply.status_code == (422 if fails else 200), reply.text
        assert unquote(reply.headers["x-tidegate-model"].replace("%s", "%25s")) == f"{wire.own}/{model}"
        assert "x-split" not in reply.headers
        assert here.record()["attempts"][0]["target"] == f"{wire.own}/{model}"


@pytest.mark.parametrize(
    "target", ["{}", "http://evil.example{}", "https://a:b@evil.example:99{}", "HTTP://127.0.0.1:1{}"]
)
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "a@evil.example", "[::1]:80"])
@wires
async def test_a_host_or_a_whole_url_does_not_move_the_provider(wire: Wire, host: str, target: str) -> None:
    async with whole(ANSWER[wire.own], keys=KEYS) as here:
        path = target.format(wire.url(f"{wire.own}/m"))
        lines = (f"host: {host}", "x-forwarded-host: evil.example", f"x-api-key: {OUR_KEY}")
        answer = await here.raw(raw(path, body(wire, f"{wire.own}/m"), *lines))
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        [asked] = here.asked
        _own_host(asked, here)
        assert "evil" not in f"{asked}"


def _own_host(asked: Asked, here: Whole) -> None:
    [host] = asked.header("host")
    assert host.startswith("127.0.0.1:")
    assert host != f"127.0.0.1:{here.port}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@wires
async def test_a_redirect_is_not_followed(wire: Wire, status: int) -> None:
    """Not even to the same host: a credential goes where the configuration says."""
    away = answers(b"{}", status, location="/v1/elsewhere")
    async with whole(away) as here:
        reply = await ask(here, wire, f"{wire.own}/m")
        assert (reply.status_code, "location" in reply.headers) == (502, False)
        assert len(here.asked) == 1
        assert here.record()["http_status"] == 502


def leaking(secret: str) -> dict[str, Any]:
    """Providers that say our key again."""
    words = f"Incorrect API key provided: {secret}. Bearer {secret}"
    error = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": words, "code": words}})
    event = f"data: {error}\n\n".encode()
    named = f"event: error\ndata: {error}\n\n".encode()
    return {
        **{
            f"status {status}": answers(error.encode(), status)
            for status in (400, 401, 402, 403, 404, 422, 429, 500, 503)
        },
        "plain text": answers(words.encode(), 400, "text/plain"),
        "in a header": answers(b"{}", 400, www_authenticate=words),
        "as a location": answers(b"{}", 302, location=f"https://{secret}.example"),
        "error in 200": answers(error.encode()),
        "garbage in 200": answers(words.encode()),
        "event": streams(event),
        "named event": streams(named),
        "garbage event": streams(f"data: {words}\n\n".encode()),
        "cut": streams(f": {words}\n\n".encode(), cut=True),
    }


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("provider", DIALECTS)
async def test_our_key_is_said_again_to_nobody(provider: str, streamed: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Not in an error, an error event, a record, a header or the log, in whatever words a provider leaks it."""
    caplog.set_level(logging.DEBUG)
    secret = SECRETS[provider]
    routes = {"r": {"targets": [f"{provider}/m"], "retries": 0}}
    async with whole(ANSWER[provider], routes=routes) as here:
        for what, script in leaking(secret).items():
            here.script = script
            for wire in WIRES:
                url = wire.url("r")
                if streamed and wire.name == "gemini":
                    url = url.replace(":generateContent", ":streamGenerateContent?alt=sse")
                asked = {**body(wire, "r"), **({"stream": True} if streamed and wire.name != "gemini" else {})}
                reply = await here.client.post(url, json=asked)
                assert reply.status_code >= 400, (what, wire.name, reply.text)
                assert secret not in reply.text, (what, wire.name)
                assert secret not in str(reply.headers), (what, wire.name)
        assert len(here.spool.lines) == len(leaking(secret)) * len(WIRES)
        assert secret.encode() not in b"".join(here.spool.lines)
    assert secret not in caplog.text


async def test_a_key_in_a_stream_that_has_begun_is_redacted_too() -> None:
    """After the first content there is only an error event left to say it in."""
    secret = SECRETS["oai"]
    first = json.dumps({"choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    error = json.dumps({"error": {"message": f"bad key {secret}", "type": secret, "code": secret}})
    async with whole(streams(f"data: {first}\n\n".encode(), f"data: {error}\n\n".encode(), pause_s=0.05)) as here:
        for wire in WIRES:
            url = wire.url("oai/m").replace(":generateContent", ":streamGenerateContent?alt=sse")
            reply = await here.client.post(url, json={**body(wire, "oai/m"), "stream": True})
            assert (reply.status_code, "error" in reply.text) == (200, True)
            assert secret not in reply.text
        assert secret.encode() not in b"".join(here.spool.lines)


def test_nothing_that_holds_a_key_shows_it() -> None:
    secret = SECRETS["oai"]
    config = Config.model_validate({"providers": {"oai": {"api_key": secret, "base_url": "http://127.0.0.1:1/v1"}}})
    target = Targets(config, PriceList({}, {})).find("oai/m").targets[0]
    headers = target.headers(target.dialects[0])
    request = UpstreamRequest("http://127.0.0.1:1", "POST", "/", headers, secret.encode(), 1, 1, 1, (("a", secret),))
    call = Call(body=secret.encode(), key=secret, headers={"authorization": secret})
    assert secret in str(headers)
    for holder in (config, config.providers["oai"], target, target.access, request, call):
        for shown in (repr(holder), str(holder)):
            assert secret not in shown
    error = TidegateError(target.redact(f"no: {secret}"))
    assert secret not in repr(error)
