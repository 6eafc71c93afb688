"""What a broken or hostile provider does to a whole gateway: what its client gets, how soon, and what is recorded."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import httpx
import pytest

from tests.contract.bad_requests import ANSWERS, WIRES, Wire
from tests.contract.test_records import (
    BEFORE_THE_CUT,
    CHAT_HALF,
    CHAT_REST,
    COUNTED,
    KINDS,
    STREAMS,
    body,
    chat_chunk,
    lines,
    silent,
    stalls,
    url,
)
from tests.contract.whole import Asked, Script, Whole, Write, answers, streams, whole
from tests.golden.test_dialect_pairs import PROVIDERS, STREAMED, sse
from tidegate.fakes import FixedRandom
from tidegate.gateway import attempt

CHAT = WIRES[0]
SOON_S = 1.0
GOOD = answers(json.dumps(ANSWERS["anthropic"]).encode())
FAR = "Thu, 01 Mar 2063 12:00:00 GMT"
PAST = "Sun, 01 Mar 2015 12:00:00 GMT"


async def ask(here: Whole, model: str, **more: Any) -> httpx.Response:
    said = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}
    return await here.client.post(CHAT.path, json=said)


async def stream(here: Whole, wire: Wire, model: str) -> httpx.Response:
    more = {} if wire.name == "gemini" else {"stream": True}
    return await here.client.post(url(wire, model, stream=True), content=body(wire, model, **more))


def by_turn(*scripts: Script) -> Script:
    """One after the other; the last for ever."""
    left = list(scripts)

    async def script(asked: Asked, write: Write) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(asked, write)

    return script


# --- retries


@pytest.mark.parametrize(
    ("status", "asks"), [(429, {}), (429, {"retry_after": "20"}), (503, {"retry_after_ms": "20000"}), (429, {"x": "y"})]
)
async def test_who_asks_for_patience_is_left_for_the_next_target(status: int, asks: dict[str, str]) -> None:
    routes = {"r": {"targets": ["oai/m", "ant/m"], "retries": 2}}
    async with whole(by_turn(answers(b"{}", status, **asks), GOOD), routes=routes) as here:
        began = time.monotonic()
        assert (await ask(here, "r")).status_code == 200
        assert time.monotonic() - began < SOON_S
        assert [attempt["status"] for attempt in here.record()["attempts"]] == [status, 200]


@pytest.mark.parametrize("asks", ["94608000", FAR, "31", "3"])
async def test_nobody_is_kept_waiting_for_what_comes_too_late(asks: str) -> None:
    """In years, in over half a minute, or when the call's time is over: the client is told at once how long to wait."""
    routes = {"r": {"targets": ["oai/m"], "retries": 2, "timeouts": {"total_s": 2 if asks == "3" else 300}}}
    async with whole(answers(b"{}", 429, retry_after=asks), routes=routes) as here:
        began = time.monotonic()
        reply = await ask(here, "r")
        assert time.monotonic() - began < SOON_S
        assert (reply.status_code, len(here.asked)) == (429, 1)
        assert int(reply.headers["retry-after"]) >= 3
        assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("asks", [PAST, "0", "-1", "nonsense", "Sun, 01 Mar 99999999999999999999 12:00:00 GMT", ""])
async def test_a_wait_that_is_over_or_none_is_no_obstacle(asks: str) -> None:
    routes = {"r": {"targets": ["oai/m"], "retries": 1}}
    good = answers(json.dumps(ANSWERS["chat"]).encode())
    async with whole(by_turn(answers(b"{}", 429, retry_after=asks), good), routes=routes) as here:
        began = time.monotonic()
        assert (await ask(here, "r")).status_code == 200
        assert time.monotonic() - began < SOON_S


async def test_the_last_target_is_waited_for_as_long_as_it_asks() -> None:
    routes = {"r": {"targets": ["ant/m", "oai/m"], "retries": 1}}
    good = answers(json.dumps(ANSWERS["chat"]).encode())
    script = by_turn(answers(b"{}", 429), answers(b"{}", 429, retry_after_ms="300"), good)
    async with whole(script, routes=routes) as here:
        began = time.monotonic()
        assert (await ask(here, "r")).status_code == 200
        assert time.monotonic() - began >= 0.3
        assert [attempt["target"] for attempt in here.record()["attempts"]] == ["ant/m", "oai/m", "oai/m"]


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 425, 429, 451, 500, 502, 503, 529]
)
async def test_what_may_pass_is_tried_again_and_what_is_this_targets_matter_elsewhere(status: int) -> None:
    """A request that is wrong is wrong everywhere."""
    again = status in (408, 409, 425, 429) or status >= 500
    elsewhere = again or status in (401, 402, 403, 404)
    routes = {"r": {"targets": ["oai/m"], "retries": 1}, "two": {"targets": ["oai/m", "ant/m"], "retries": 0}}
    async with whole(answers(b"{}", status), routes=routes, random=FixedRandom()) as here:
        await ask(here, "r")
        assert len(here.asked) == (2 if again else 1)
        here.script = by_turn(answers(b"{}", status), GOOD)
        assert (await ask(here, "two")).status_code == (200 if elsewhere else status)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_who_says_not_to_ask_again_is_not_asked_again(status: int) -> None:
    """OpenAI says so of a quota that is used up, and a gateway behind this one of what it has tried itself."""
    routes = {"r": {"targets": ["oai/m"], "retries": 3}, "two": {"targets": ["oai/m", "ant/m"], "retries": 3}}
    never = answers(b"{}", status, x_should_retry="false")
    async with whole(never, routes=routes, random=FixedRandom()) as here:
        assert ((await ask(here, "r")).status_code, len(here.asked)) == (status, 1)
        here.script = by_turn(never, GOOD)
        assert ((await ask(here, "two")).status_code, len(here.asked)) == (200, 3)


async def test_an_outage_is_not_made_worse_by_retries() -> None:
    """At most a fifth of the calls, and three."""
    routes = {"r": {"targets": ["oai/m"], "retries": 10}}
    async with whole(answers(b"{}", 503), routes=routes, random=FixedRandom()) as here:
        for _ in range(40):
            assert (await ask(here, "r")).status_code == 503
        assert 40 < len(here.asked) <= 1.2 * 40 + 3


async def test_one_deadline_spans_all_tries_and_all_targets() -> None:
    timeouts = {"first_byte_s": 0.2, "total_s": 0.5}
    routes = {"r": {"targets": ["oai/m", "ant/m", "goo/m"], "retries": 1, "timeouts": timeouts}}
    async with whole(silent, routes=routes, random=FixedRandom()) as here:
        began = time.monotonic()
        reply = await ask(here, "r")
        assert 0.45 < time.monotonic() - began < SOON_S
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "upstream_timeout")
        assert 2 <= len(here.asked) <= 3


async def test_a_stream_that_broke_after_its_first_content_is_asked_for_once() -> None:
    """Neither again nor elsewhere: its client has seen the beginning of another answer."""
    routes = {"r": {"targets": ["oai/m", "ant/m"], "retries": 2}}
    async with whole(streams(CHAT_HALF, cut=True, pause_s=0.03), routes=routes) as here:
        reply = await stream(here, CHAT, "r")
        assert (reply.status_code, "stream_broken" in reply.text, len(here.asked)) == (200, True, 1)
        assert [attempt["status"] for attempt in here.record()["attempts"]] == [200]


# --- whose fault it is


@pytest.mark.parametrize("status", [407, 600, 999])
async def test_what_is_said_to_us_or_is_no_status_is_a_broken_gateway_to_the_client(status: int) -> None:
    """A 407 is the way out's: a client would look for the password of a proxy of its own."""
    routes = {"r": {"targets": ["oai/m"], "retries": 0}, "two": {"targets": ["oai/m", "ant/m"], "retries": 0}}
    async with whole(answers(b"{}", status), routes=routes) as here:
        reply = await ask(here, "r")
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_rejected")
        assert here.record()["attempts"][0]["status"] == status
        here.script = by_turn(answers(b"{}", status), GOOD)
        assert (await ask(here, "two")).status_code == 200


async def test_a_client_whose_gateway_shuts_down_may_ask_again() -> None:
    """An SDK leaves be what says `x-should-retry: false`; another gateway may well answer."""
    async with whole(silent, routes={"r": {"targets": ["oai/m"], "retries": 0}}) as here:
        asking = asyncio.create_task(ask(here, "r"))
        while not here.asked:  # noqa: ASYNC110  the provider does not tell
            await asyncio.sleep(0.002)
        await here.edge.close(grace_s=0.02)
        reply = await asking
    assert (reply.status_code, "x-should-retry" in reply.headers) == (503, False)


ENDS: dict[str, dict[str, Any]] = {
    "cut": {"cut": True},
    "over": {},
    "garbage": {"more": b"data: {garbage\n\n"},
    "an error": {"more": b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}\n\n'},
    "stalls": {"stalls": True},
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("provider", BEFORE_THE_CUT)
@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_an_error_amid_a_stream_names_the_provider_once(wire: Wire, provider: str, how: str) -> None:
    """As one before its first event does, to the client and in the record."""
    name, end = PROVIDERS[provider], ENDS[how]
    came = sse(provider, STREAMED[provider]["text"][: BEFORE_THE_CUT[provider]]).removesuffix(b"data: [DONE]\n\n")
    pieces = [came, end["more"]] if "more" in end else [came]
    script = stalls(*pieces) if "stalls" in end else streams(*pieces, cut="cut" in end, pause_s=0.03)
    routes = {"r": {"targets": [f"{name}/m"], "retries": 0, "timeouts": {"idle_s": 0.1}}}
    async with whole(script, routes=routes) as here:
        reply = await stream(here, wire, "r")
        record = here.record()
    assert reply.status_code == 200
    message = json.loads(reply.text.strip().splitlines()[-1].removeprefix("data: "))["error"]["message"]
    assert message.startswith(f"provider '{name}': ")
    assert record["error_message"] == message
    assert message.count(name) == 1


# --- what takes too long, or is too much


async def drips(_: Asked, write: Write) -> None:
    """A body that comes a byte at a time."""
    await write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n")
    while True:
        await write(b" ")
        await asyncio.sleep(0.02)


async def pings(_: Asked, write: Write) -> None:
    """A stream of comments."""
    await write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await write(b"8\r\n: ping\n\n\r\n")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("script", [drips, pings])
async def test_a_provider_that_keeps_a_call_just_alive_has_no_more_time_than_others(script: Script) -> None:
    routes = {"r": {"targets": ["oai/m"], "retries": 2, "timeouts": {"idle_s": 0.2, "total_s": 0.4}}}
    async with whole(script, routes=routes) as here:
        began = time.monotonic()
        reply = await (stream(here, CHAT, "r") if script is pings else ask(here, "r"))
        assert 0.35 < time.monotonic() - began < SOON_S
        assert reply.status_code == 504
        async with asyncio.timeout(SOON_S):
            await here.gone.wait()


async def test_a_refusal_counts_before_its_words_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "ERROR_BODY_S", 0.05)

    async def script(_: Asked, write: Write) -> None:
        await write(b"HTTP/1.1 422 X\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        await asyncio.Event().wait()

    async with whole(script) as here:
        began = time.monotonic()
        assert (await ask(here, "oai/m")).status_code == 422
        assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("provider", STREAMS)
async def test_names_of_megabytes_leave_a_record_that_can_be_stored(provider: str) -> None:
    """The recorder takes lines of up to 16 MiB."""
    long = "x" * (4 << 20)
    more: dict[str, Any] = {"system_fingerprint": long, "service_tier": long}
    said: dict[str, Any] = {**ANSWERS[KINDS[provider]], "model": long, "modelVersion": long, **more}
    if provider == "oai":
        said["choices"] = [{**said["choices"][0], "finish_reason": long}]
    async with whole(answers(json.dumps(said).encode())) as here:
        reply = await ask(here, f"{provider}/m")
        assert reply.status_code == 200
        assert len(here.spool.lines[0]) < 10_000
        assert len(here.record()["response_model"]) == 200


# --- what is no stream, or too much of one


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"<!doctype html><body>Bad gateway\n\nsorry</body>", "text/html; charset=utf-8"),
        (b'{"error": {"message": "overloaded"}}', "application/json"),
        (b'{\n\n"error": {"message": "overloaded"}}', "application/json"),
        (json.dumps(ANSWERS["chat"]).encode(), "application/json"),
        (b"", "application/json"),
    ],
)
@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_a_200_that_is_no_stream_is_told_as_such_and_tried_again(wire: Wire, said: bytes, kind: str) -> None:
    routes = {"r": {"targets": [f"{wire.own}/m", "oai/m"], "retries": 0}}
    script = by_turn(answers(said, kind=kind), streams(STREAMS["oai"]), answers(said, kind=kind))
    async with whole(script, routes=routes) as here:
        assert (await stream(here, wire, "r")).status_code == 200
        reply = await stream(here, wire, "r")
        assert reply.status_code == 502
        assert f"answered with {kind.partition(';')[0]}, which is no stream" in reply.text
        assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("provider", STREAMS)
@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_nothing_follows_a_streams_end(wire: Wire, provider: str) -> None:
    """Whatever a provider sends behind it: the client sees the very stream that it would see without."""
    behind = b': bye\n\nevent: ping\ndata: {"type": "ping"}\n\n' + STREAMS[provider] + b"data: {garbage\n\n"
    async with whole(streams(STREAMS[provider])) as here:
        plain = await stream(here, wire, f"{provider}/m")
        here.script = streams(STREAMS[provider] + behind)
        reply = await stream(here, wire, f"{provider}/m")
        if provider == "goo":  # whose streams have no end of their own: it is all one
            assert "error" in reply.text
            return
        assert _without_names(reply) == _without_names(plain)
        assert [entry.call.outcome for entry in here.entries()] == ["ok", "ok"]


def _without_names(reply: httpx.Response) -> str:
    """Its text, but for the id of the call and the time."""
    return re.sub(r'"(created|created_at)":\d+', "", reply.text.replace(reply.headers["x-tidegate-call-id"], ""))


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_usage_on_a_chunk_that_has_choices_counts(wire: Wire) -> None:
    """OpenAI sends it on one of its own; many that are compatible do not."""
    _, last = chat_chunk(finish_reason="stop")
    came = CHAT_HALF + lines((None, {**last, "usage": COUNTED}), (None, "[DONE]"))
    async with whole(streams(came)) as here:
        assert (await stream(here, wire, "oai/m")).status_code == 200
        record = here.record()
        assert (record["usage_source"], record["input_tokens"], record["output_tokens"]) == ("provider", 11, 3)


async def test_a_stream_that_never_comes_to_its_content_is_not_held() -> None:
    """From a megabyte on it is passed on as it comes: then the client may leave, and its reading sets the pace."""
    role = lines(chat_chunk(delta={"role": "assistant"})) * 1_000
    left = asyncio.Event()

    async def script(_: Asked, write: Write) -> None:
        await write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                await write(b"%x\r\n%b\r\n" % (len(role), role))
        finally:
            left.set()

    async with whole(script) as here, asyncio.timeout(10):
        async with here.client.stream("POST", CHAT.path, content=body(CHAT, "oai/m", stream=True)) as reply:
            assert reply.status_code == 200
            async for _ in reply.aiter_bytes():
                break
        await left.wait()
        await here.recorded()
        assert here.record()["outcome"] == "client_closed"


@pytest.mark.parametrize("model", ["oai/m", "ant/m"])
async def test_an_event_may_be_as_large_as_a_picture(model: str) -> None:
    """6 MB, which the network cuts into many pieces."""
    large = "x" * 6_000_000
    said = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": large}}
    big = {
        "oai/m": lines(chat_chunk(delta={"role": "assistant", "content": large})) + CHAT_REST,
        "ant/m": STREAMS["ant"].replace(
            b"event: content_block_stop", lines((None, said)) + b"event: content_block_stop"
        ),
    }[model]
    pieces = [big[at : at + 60_000] for at in range(0, len(big), 60_000)]
    async with whole(streams(*pieces)) as here:
        reply = await stream(here, CHAT, model)
        assert large in reply.text
        assert reply.text.endswith("data: [DONE]\n\n")
