"""
Bad input at the gateway: whatever comes in, a refusal in the client's own dialect goes out, soon and at little cost.

The gateway is whole but for its providers, which answer everything: what passes through to one may well be fine there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.contract.bad_requests import MAX_BODY, WIRES, Answered, Wire, gateway, mutants, watched
from tidegate.gateway.parser import Limits

DEPTH = 100_000
SECONDS = 1.0
LAG_S = 0.1
REFUSED_BYTES = 30 << 20
SERVED_BYTES = 6 * MAX_BODY
"""A large body that is served stands in the call, in the record and in what goes to the provider."""
MARK = "@@"
wires = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


@pytest.fixture(autouse=True)
def _what_other_tests_left_is_not_looked_through() -> Iterator[None]:
    """Or each collection of garbage here, a hundred, would take as long as this process is old."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def models(wire: Wire) -> tuple[str, ...]:
    """Passed through, translated, and through a prompt."""
    return (f"{wire.own}/m", f"{wire.other}/m", "prompt:answer")


def with_raw(wire: Wire, model: str, key: str, raw: bytes) -> bytes:
    """A valid body but for the value of one key, which is these bytes."""
    return json.dumps(wire.body(model, **{key: MARK})).encode().replace(f'"{MARK}"'.encode(), raw)


def nested(opening: bytes, closing: bytes) -> bytes:
    return opening * DEPTH + b"1" + closing * DEPTH


def of_size(item: bytes, size: int = MAX_BODY - (64 << 10)) -> bytes:
    """A JSON array of so many bytes."""
    return b"[" + b",".join([item] * (size // (len(item) + 1))) + b"]"


@cache
def a_million_keys() -> bytes:
    return b",".join(b'"%x":1' % number for number in range(1_000_000))[: 9 << 20].rpartition(b",")[0]


def bombs(wire: Wire, model: str) -> Iterator[tuple[str, bytes]]:
    """Bodies that are to be refused."""
    said = wire.conversation
    keys = a_million_keys()
    turn = {"role": "user", "content": "x", "parts": [{"text": "x"}]}
    for key in (said, "tools"):
        yield f"deep array in {key}", with_raw(wire, model, key, nested(b"[", b"]"))
        yield f"deep object in {key}", with_raw(wire, model, key, nested(b'{"a":', b"}"))
    yield "deep and unclosed", b"[" * DEPTH
    yield "a million keys", b"{" + keys + b"}"
    yield "a million keys inside", with_raw(wire, model, said, b"[{" + keys + b"}]")
    yield "100,000 turns", with_raw(wire, model, said, of_size(json.dumps(turn).encode()))
    yield "numbers", with_raw(wire, model, said, of_size(b"1"))
    yield "empty objects", with_raw(wire, model, said, of_size(b"{}"))
    yield "empty tools", with_raw(wire, model, "tools", of_size(b"{}"))
    yield "short strings", with_raw(wire, model, said, of_size(b'""'))
    yield "raw NUL", with_raw(wire, model, said, b'"\x00"')
    yield "invalid UTF-8", with_raw(wire, model, said, b'"\xff\xfe"')
    yield "half a UTF-8 character", with_raw(wire, model, said, b'"\xc3"')
    yield "UTF-16", json.dumps(wire.body(model)).encode("utf-16")
    yield "NaN", with_raw(wire, model, said, b"NaN")
    yield "empty", b""
    yield "not an object", b'"hello"'
    yield "cut", json.dumps(wire.body(model)).encode()[:-1]
    yield "two values", json.dumps(wire.body(model)).encode() * 2


def check_refused(wire: Wire, what: str, answer: Answered) -> None:
    assert 400 <= answer.status < 500, (what, answer.status, answer.body[:300])
    assert answer.headers["content-type"] == "application/json", what
    wire.error_of(answer.body)
    assert answer.seconds < SECONDS, (what, answer.seconds)


@wires
async def test_a_bomb_is_refused_soon_and_costs_nobody_else(wire: Wire) -> None:
    async with gateway() as bench:
        for model in models(wire):
            for what, body in bombs(wire, model):
                async with watched() as cost:
                    answer = await bench.post(wire.url(model), body)
                check_refused(wire, f"{what}, {model}", answer)
                assert cost.lag_s < LAG_S, (what, model, cost)
                assert cost.peak_bytes <= REFUSED_BYTES, (what, model, cost)
                [call] = bench.take_records()
                assert call["outcome"] == "rejected", (what, call)


@wires
async def test_one_huge_string_holds_nobody_up(wire: Wire) -> None:
    """10 MB of text, whose commas, braces and escapes are no JSON values, are a request like any other."""
    for text in (b"a" * 9_900_000, b'a, [{\\"b\\": ' * 700_000):
        turn = b'{"role":"user","content":"%b"}' % text
        if wire.name == "gemini":
            turn = b'{"role":"user","parts":[{"text":"%b"}]}' % text
        async with gateway() as bench:
            for model in models(wire)[:2]:
                body = with_raw(wire, model, wire.conversation, b"[%b]" % turn)
                async with watched() as cost:
                    answer = await bench.post(wire.url(model), body)
                assert answer.status == 200, answer.body
                assert answer.seconds < SECONDS
                assert cost.lag_s < LAG_S, (model, cost)
                assert cost.peak_bytes <= SERVED_BYTES, (model, cost)
                [call] = bench.take_records()
                assert call["outcome"] == "ok"


@wires
async def test_no_wrong_type_at_any_place_is_more_than_a_refusal(wire: Wire) -> None:
    """Every node of a rich request becomes each kind of JSON: passed through, translated, and through a prompt."""
    seen: dict[int, int] = {}
    async with gateway() as bench, bench.connected() as client:
        for model in models(wire):
            for place, mutant in mutants(wire.body(model)):
                if isinstance(mutant, dict) and mutant.get("stream") is True:
                    continue  # which is right, and not what these providers answer
                answer = await client.post(wire.url(model), json.dumps(mutant).encode())
                seen[answer.status] = seen.get(answer.status, 0) + 1
                if answer.status != 200:
                    check_refused(wire, f"{place} = {mutant!r}"[:300], answer)
                assert len(bench.take_records()) == 1, place
    assert seen[200] > 100, seen
    assert seen[400] > 100, seen


@wires
async def test_what_python_can_hold_and_utf8_can_not_breaks_nothing(wire: Wire) -> None:
    """Lone surrogates and NUL, as keys and as values, in every place that is text."""
    oddities: tuple[Any, ...] = ("\ud800", "\udfff x", "\0", {"\ud800": "\ud800"}, {"\0": 1})
    async with gateway() as bench, bench.connected() as client:
        for model in models(wire):
            for place, mutant in mutants(wire.body(model), oddities):
                answer = await client.post(wire.url(model), json.dumps(mutant).encode())
                if answer.status != 200:
                    check_refused(wire, place, answer)
                assert len(bench.take_records()) == 1, place


@wires
async def test_of_two_equal_keys_the_same_one_counts_everywhere(wire: Wire) -> None:
    """What is checked, kept and sent is one of them, so that none is smuggled past the other."""
    valid = json.dumps(wire.body("nobody/m")).encode()
    async with gateway() as bench:
        body = valid[:-1] + b"".join(b',"model":"%b/m"' % wire.own.encode() for _ in range(1_000)) + b"}"
        answer = await bench.post(wire.url(f"{wire.own}/m"), body)
        assert answer.status == 200, answer.body
        assert len(bench.take_records()) == 1


LIMITS: list[tuple[str, dict[str, Any], str]] = [
    ("openai_chat", {"n": 10**6}, "n"),
    ("openai_chat", {"n": 1e300}, "n"),
    ("openai_chat", {"best_of": 129}, "best_of"),
    ("openai_chat", {"top_logprobs": 10**6}, "top_logprobs"),
    ("openai_chat", {"stop": ["x"] * 257}, "stop"),
    ("openai_chat", {"tools": [{}] * 1_025}, "tools"),
    ("openai_responses", {"top_logprobs": 10**6}, "top_logprobs"),
    ("openai_responses", {"tools": [{}] * 1_025}, "tools"),
    ("anthropic", {"stop_sequences": ["x"] * 257}, "stop_sequences"),
    ("anthropic", {"tools": [{}] * 1_025}, "tools"),
    ("gemini", {"generationConfig": {"candidateCount": 10**6}}, "candidateCount"),
    ("gemini", {"generation_config": {"candidate_count": 10**6}}, "candidate_count"),
    ("gemini", {"generationConfig": {"stopSequences": ["x"] * 257}}, "stopSequences"),
    ("gemini", {"generationConfig": {"logprobs": 10**6}}, "logprobs"),
    ("gemini", {"tools": [{"functionDeclarations": [{}] * 1_025}]}, "functionDeclarations"),
]


@pytest.mark.parametrize(("name", "changes", "named"), LIMITS)
async def test_what_multiplies_the_cost_of_a_call_has_a_bound(name: str, changes: dict[str, Any], named: str) -> None:
    wire = next(wire for wire in WIRES if wire.name == name)
    async with gateway() as bench:
        for model in models(wire):
            answer = await bench.post(wire.url(model), json.dumps(wire.body(model, **changes)).encode())
            check_refused(wire, named, answer)
            assert f"{named} " in answer.body.decode()
            assert "more than" in answer.body.decode()
            [call] = bench.take_records()
            assert call["outcome"] == "rejected"


@wires
async def test_an_unknown_model_is_a_404_with_the_nearest_name(wire: Wire) -> None:
    near = {"suport": "support", "oaai/m": "oai/", "prompt:anser": "", "no/such/thing": ""}
    async with gateway() as bench:
        for model, hint in near.items():
            answer = await bench.post(wire.url(model), json.dumps(wire.body(model)).encode())
            check_refused(wire, model, answer)
            assert answer.status == 404
            assert hint in wire.error_of(answer.body)["message"]
            assert len(bench.take_records()) == 1


@wires
async def test_a_wrong_method_is_a_405_that_says_the_right_one(wire: Wire) -> None:
    async with gateway() as bench:
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
            answer = await bench.send(f"{method} {wire.url('m')} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            assert (answer.status, answer.headers["allow"]) == (405, "POST")
            error = wire.error_of(answer.body)
            assert "method_not_allowed" in json.dumps(error).lower() or wire.name == "anthropic"
            assert error.get("code") == 405 or wire.name != "gemini"
        assert bench.take_records() == []


UNKNOWN = {
    "/v1/chat/completion": ("error", "code", "unknown_path"),
    "/v1/responses/resp_1": ("error", "code", "unknown_path"),
    "/v1/messages/batches": ("error", "type", "not_found_error"),
    "/v1beta/models/m:embedContent": ("error", "status", "NOT_FOUND"),
    "/v1beta/cachedContents": ("error", "status", "NOT_FOUND"),
}


@pytest.mark.parametrize(("path", "where"), UNKNOWN.items())
async def test_an_unknown_path_has_a_code_of_its_own_in_the_words_of_its_family(
    path: str, where: tuple[str, str, str]
) -> None:
    """It is not said to be an unknown model: an application that falls back to another one would go on for ever."""
    async with gateway() as bench:
        answer = await bench.post(path, b"{}")
        assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
        inner, key, code = where
        assert json.loads(answer.body)[inner][key] == code
        assert b"model_not_found" not in answer.body.lower()


@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/v1beta/models", "/v1/capabilities"])
async def test_what_is_read_may_be_asked_for_by_head(path: str) -> None:
    async with gateway() as bench:
        heads = [await bench.send(f"{verb} {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode()) for verb in ("PUT", "GET")]
        assert [(head.status, head.headers.get("allow")) for head in heads] == [(405, "GET, HEAD"), (200, None)]
        length = heads[1].headers["content-length"]
        head = f"HEAD {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        raw = await asyncio.to_thread(bench.raw, head.encode())
        assert raw.startswith(b"HTTP/1.1 200 ")
        assert f"content-length: {length}\r\n".encode() in raw
        assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/chat/completions/", "//v1/chat/completions", "/v1/chat/../chat/completions", "/health"],
)
async def test_an_unknown_path_is_a_404_that_names_the_known(path: str) -> None:
    async with gateway() as bench:
        answer = await bench.post(path, b"{}")
        assert answer.status == 404
        assert "/v1/chat/completions" in WIRES[0].error_of(answer.body)["message"]
        assert bench.take_records() == []


@pytest.mark.parametrize(
    ("path", "meant"),
    {
        "/chat/completions": "/v1/chat/completions",
        "/v1/v1/messages": "/v1/messages",
        "/V1/messages": "/v1/messages",
        "/embeddings": "/v1/embeddings",
        "/v1/completions": "/v1/chat/completions",
    }.items(),
)
async def test_a_base_url_with_too_little_or_too_much_is_told_the_path_that_was_meant(path: str, meant: str) -> None:
    async with gateway() as bench:
        answer = await bench.post(path, b"{}")
        message = json.loads(answer.body)["error"]["message"]
        assert message == f"no such path: {path}. Did you mean {meant!r}?"


@wires
async def test_the_edge_refuses_in_the_words_of_the_path(wire: Wire) -> None:
    """Too large, too many headers, two hosts, none, odd framing: no call, no record, the client's own error shape."""
    path = wire.url("m")
    heads = {
        f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {MAX_BODY + 1}\r\n\r\n": 413,
        f"POST {path} HTTP/1.1\r\nhost: a\r\n" + "x: 1\r\n" * 300 + "\r\n": 431,
        f"POST {path} HTTP/1.1\r\nhost: a\r\nx: {'a' * 100_000}\r\n\r\n": 431,
        f"POST {path} HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n": 400,
        f"POST {path} HTTP/1.1\r\ncontent-length: 2\r\n\r\n{{}}": 400,
        f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n": 400,
        f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n": 400,
        f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{{}}": 415,
        f"POST {path} HTTP/1.1\r\nhost: a\r\nexpect: tea\r\n\r\n": 417,
    }
    async with gateway() as bench:
        for head, status in heads.items():
            async with watched() as cost:
                answer = await bench.send(head.encode())
            check_refused(wire, head[:200], answer)
            assert answer.status == status
            assert cost.peak_bytes <= REFUSED_BYTES
        assert bench.take_records() == []


@wires
async def test_slow_headers_and_bodies_are_given_up_in_the_words_of_the_path(wire: Wire) -> None:
    """A byte now and then keeps nothing open; how long a request may take is a limit, by default 10 s and 30 s."""
    limits = Limits(header_s=0.1, body_s=0.1)
    line = f"POST {wire.url('m')} HTTP/1.1\r\n".encode()
    async with gateway(limits=limits) as bench:
        for begin in (line + b"host: a\r\nx-slow: ", line + b"host: a\r\ncontent-length: 9000\r\n\r\n{"):
            began = time.monotonic()
            answer = b""
            reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
            writer.write(begin)
            while not reader.at_eof() and time.monotonic() - began < 2:
                writer.write(b" ")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        answer = await reader.readuntil(b"\r\n\r\n")
                        break
            rest = await reader.read()
            writer.transport.abort()
            assert answer.startswith(b"HTTP/1.1 408 ")
            wire.error_of(rest)
            assert time.monotonic() - began < SECONDS
        assert bench.take_records() == []


@wires
async def test_a_host_decides_nothing(wire: Wire) -> None:
    """Neither a Host header nor an absolute target changes where a call goes."""
    body = json.dumps(wire.body(f"{wire.own}/m")).encode()
    path = wire.url(f"{wire.own}/m")
    async with gateway() as bench:
        for target in (path, f"http://evil.example{path}"):
            for host in ("a", "provider.internal:1", "[::1]", "169.254.169.254", "x" * 2_000):
                head = f"POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
                answer = await bench.send(head.encode() + body)
                assert answer.status == 200, answer.body
                assert len(bench.take_records()) == 1


ODD_PATHS = [
    *("/v1/prompts/NAME", "/v1/prompts/NAME/render", "/v1/models/NAME", "/v1beta/models/NAME", "/NAME"),
    *(f"/v1beta/models/NAME:{method}" for method in ("generateContent", "streamGenerateContent", "countTokens")),
]
ODD_NAMES = [
    *(
        "%00",
        "%ff",
        "%",
        "%zz",
        "..",
        "%2e%2e%2f",
        "/",
        "//",
        "oai/",
        "oai//",
        "oai/%0d%0a",
        "%F0%9F%98%80",
        "%ED%A0%80",
    ),
    *("prompt:", "prompt:answer@", "prompt:@x", "answer@%00", "answer@v-1", "answer@v1e9", f"answer@v{9**40}"),
    *("answer?environment=%00", "answer?version=%ff&alt=sse&key=%ff", "answer;x", "oai/%s", "a" * 3_000),
]
ODD_HEADERS = [
    *(
        "x-tidegate-cache: \xe9",
        f"cache-control: max-age={9**40}",
        "cache-control: max-age=-1, ,,=",
        "x-request-id: \xff",
    ),
    *('if-none-match: "x", W/"\xe9"', "x-tidegate-tags: \xe9=\xff", "x-tidegate-tags: ,=", "x-tidegate-user: \xe9"),
    *(
        "authorization: \xff",
        "authorization: Bearer \xff",
        "x-api-key: \xe9",
        "x-tidegate-origin: \xe9",
        "traceparent: \xff",
    ),
    *("anthropic-version: \xff", "accept: \xff", "cookie: \xff", "x-tidegate-conversation: %s%d", "content-type: \xff"),
]


@pytest.mark.parametrize("path", ODD_PATHS)
async def test_no_name_in_a_path_and_no_header_is_more_than_a_refusal(path: str) -> None:
    """Of any method: what is asked for is there or it is not, and nothing breaks."""
    bodies = (b"", b"null", b'{"contents": [{"parts": [{"text": "x"}]}]}', b'{"variables": [1]}', b"\xff")
    async with gateway() as bench:
        for number, name in enumerate(ODD_NAMES):
            for turn, method in enumerate(("GET", "POST", "HEAD", "DELETE", "OPTIONS")):
                header = ODD_HEADERS[(5 * number + turn) % len(ODD_HEADERS)]
                body = bodies[(number + turn) % len(bodies)]
                head = f"{method} {path.replace('NAME', name)} HTTP/1.1\r\nhost: 127.0.0.1\r\n{header}\r\n"
                asked = f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode("latin-1") + body
                answer = await asyncio.to_thread(bench.raw, asked)
                assert answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 502")), (asked, answer)


@wires
async def test_no_header_of_a_call_is_more_than_a_refusal(wire: Wire) -> None:
    body = json.dumps(wire.body(f"{wire.own}/m")).encode()
    async with gateway() as bench:
        for header in ODD_HEADERS:
            line = f"POST {wire.url(f'{wire.own}/m')} HTTP/1.1\r\nhost: 127.0.0.1\r\n{header}\r\n"
            asked = f"{line}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode("latin-1") + body
            answer = await asyncio.to_thread(bench.raw, asked)
            assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 4")), (header, answer)
            assert len(bench.take_records()) == 1
