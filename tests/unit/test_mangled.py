"""
Broken requests and broken answers, thousands of them, through a gateway in memory with all of it on.

Whatever comes: an answer, a refusal or an error in the client's dialect and never a 500 of ours; one record that says
the same; and nothing is left behind of limits, budgets, shared calls and exchanges. `--hypothesis-profile=search` looks
for more of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.bad_requests import ANSWERS, ARTIFACT, WIRES, Wire
from tests.frames import frame
from tests.mangling import broken, cut, written
from tidegate.config import Config
from tidegate.core.artifact import digest
from tidegate.core.errors import StreamBroken, UpstreamUnavailable
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.dialects.sse import EventSplitter, data_of
from tidegate.fakes import FakePrompts, FixedClock, FixedRandom, MemoryRunning, MemorySpool, ScriptedAnswer, as_read
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.caller import Collected
from tidegate.gateway.edge import Request
from tidegate.gateway.lookup import Lookup
from tidegate.gateway.pipeline import Services
from tidegate.gateway.reply import head_bytes
from tidegate.gateway.routes import KNOWN, Routes
from tidegate.ports import UpstreamAnswer, UpstreamRequest
from tidegate.stores.memory import MemoryAnswers
from tidegate.stores.meter import Meter
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

GOLDEN = Path(__file__).parents[1] / "golden" / "dialects"
SPOKEN = {"oai": "chat", "res": "responses", "ant": "anthropic", "goo": "gemini", "bed": "bedrock"}
"""Providers, and what they speak."""
CONFIG: dict[str, Any] = {
    "providers": {
        "oai": {"base_url": "http://127.0.0.1:1/v1", "api_key": "sk-canary"},
        "res": {"dialect": "openai_responses", "base_url": "http://127.0.0.1:2/v1", "api_key": "sk-canary"},
        "ant": {"dialect": "anthropic", "base_url": "http://127.0.0.1:3", "api_key": "sk-canary"},
        "goo": {"dialect": "gemini", "base_url": "http://127.0.0.1:4/v1beta", "api_key": "sk-canary"},
        "bed": {"dialect": "bedrock", "base_url": "http://127.0.0.1:5", "region": "r", "api_key": "sk-canary"},
    },
    "routes": {
        **{name: {"targets": [f"{name}/m"], "retries": 0, "cache": {"exact": {"ttl_s": 60}}} for name in SPOKEN},
        "two": {"targets": ["ant/m", "oai/m"], "retries": 1},
    },
    "prices": {f"{name}/m": {"input": 2, "output": 8} for name in SPOKEN},
    "limits": {"total": {"tokens_per_minute": 10**9, "concurrent": 9}},
    "budgets": {"total": {"day": 10**6}},
}
CHAT_CHUNKS: tuple[dict[str, Any] | bytes, ...] = (
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f"}}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}},
    b"[DONE]",
)
seeds = st.integers(0, 2**32)
MANY = settings(max_examples=4 * settings().max_examples)
Event = tuple[str, Any]
"""The name of an event and its data."""


def events_of(kind: str) -> list[list[Event]]:
    """The streams of a dialect that are known to be right."""
    if kind == "chat":
        return [[("", chunk) for chunk in CHAT_CHUNKS]]
    folder = GOLDEN / {"responses": "openai_responses"}.get(kind, kind)
    texts = [path.read_text().split("\n----------\n")[0] for path in sorted(folder.glob("*.stream.txt"))]
    if kind == "bedrock":
        return [[(name, json.loads(data)) for name, _, data in (line.partition(" ") for line in text.splitlines())]
                for text in texts]  # fmt: skip
    wire = [EventSplitter().feed(text.encode() + b"\n\n") for text in texts]
    return [[("", json.loads(data)) for event in stream if (data := data_of(event))] for stream in wire]


STREAMS = {kind: events_of(kind) for kind in SPOKEN.values()}


def stream_bytes(kind: str, events: list[Event], random: Random) -> bytes:
    pieces = [(name, data if isinstance(data, bytes) else written(data, random)) for name, data in events]
    if kind == "bedrock":
        return b"".join(frame(data, message_type="event", event_type=name) for name, data in pieces)
    return b"".join(b"data: " + data.replace(b"\n", b"") + b"\n\n" for _, data in pieces)


def whole_answer(kind: str, random: Random) -> Any:
    if kind == "bedrock":
        said = {"message": {"role": "assistant", "content": [{"text": "hi"}, {"toolUse": {"name": "f", "input": {}}}]}}
        return {"output": said, "stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 2}}
    return ANSWERS[kind]


def spoken_at(request: UpstreamRequest) -> tuple[str, bool]:
    """What is spoken on the path, and whether a stream is asked for."""
    marks = {"/chat/": "chat", "/responses": "responses", "/messages": "anthropic", "/converse": "bedrock"}
    kind = next((kind for mark, kind in marks.items() if mark in request.path), "gemini")
    if kind in ("bedrock", "gemini"):
        return kind, "stream" in request.path.lower()
    asked = json.loads(request.body, parse_int=len, parse_constant=pytest.fail)  # it is JSON, and no number is too long
    return kind, asked.get("stream") is True


def well(request: UpstreamRequest, random: Random) -> ScriptedAnswer:
    kind, stream = spoken_at(request)
    if stream:
        return ScriptedAnswer(body=[stream_bytes(kind, STREAMS[kind][0], Random(1))])
    answer = {"data": [{"embedding": [0.5]}]} if "/embeddings" in request.path else whole_answer(kind, random)
    return ScriptedAnswer(body=[json.dumps(answer | {"input_tokens": 1, "totalTokens": 1}).encode()])


def badly(request: UpstreamRequest, random: Random) -> ScriptedAnswer:
    kind, stream = spoken_at(request)
    if random.random() < 0.05:
        return ScriptedAnswer(status=random.choice((301, 400, 401, 429, 503)), body=[written({"error": 1}, random)])
    if stream:
        body = stream_bytes(kind, mangled_events(kind, random), random)
        body = body[: random.randrange(len(body) + 1)] if random.random() < 0.1 else body
    else:
        answer = whole_answer(kind, random)
        for _ in range(random.randrange(4)):
            answer = broken(answer, random)
        body = written(answer, random)
    return ScriptedAnswer(
        body=cut(body, random),
        breaks=StreamBroken("broke") if random.random() < 0.08 else None,
        fails=UpstreamUnavailable("down") if random.random() < 0.03 else None,
    )


def mangled_events(kind: str, random: Random) -> list[Event]:
    events = list(random.choice(STREAMS[kind]))
    for _ in range(random.randrange(4)):
        at, other = random.randrange(len(events)), random.randrange(len(events))
        name, data = events[at]
        match random.randrange(6):
            case 0 if len(events) > 1:
                del events[at]
            case 1:
                events.insert(other, events[at])
            case 2:
                events[at], events[other] = events[other], events[at]
            case 3:
                events.insert(at, (name, random.choice((b"", b"{}", b"null", b"[DONE]", b"oops", b'{"error":"x"}'))))
            case _ if not isinstance(data, bytes):
                events[at] = (name, broken(data, random))
            case _:
                pass
    return events


class Reply(Collected):
    """A client that is sometimes slow, and minds the order as the edge does."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.ended = self.streamed = False

    async def start(self, status: int, headers: Any, *, streamed: bool) -> None:
        assert not self.started
        head_bytes(status, headers)
        self.streamed = streamed
        await super().start(status, headers, streamed=streamed)

    def push(self, chunk: bytes) -> bool:
        assert self.started
        assert not self.ended
        super().push(chunk)
        return self.random.random() < 0.8

    async def drained(self) -> None:
        await asyncio.sleep(0)

    async def end(self, tail: bytes = b"") -> None:
        assert self.started
        assert not self.ended
        self.ended = True
        await super().end(tail)


@dataclass
class Provider:
    """Implements ports.Upstream: answers as `script` says."""

    script: Callable[[UpstreamRequest, Random], ScriptedAnswer]
    random: Random
    open: int = 0

    def request(self, request: UpstreamRequest) -> _Exchange:
        return _Exchange(self, self.script(request, self.random))

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class _Exchange:
    provider: Provider
    answer: ScriptedAnswer

    async def __aenter__(self) -> UpstreamAnswer:
        if self.answer.fails is not None:
            raise self.answer.fails
        self.provider.open += 1
        return self.answer

    async def __aexit__(self, *exc: object) -> None:
        self.provider.open -= 1


@cache
def parsed() -> Config:
    return Config.model_validate(CONFIG)


@dataclass
class Gateway:
    """All of a gateway but its sockets and files."""

    provider: Provider
    spool: MemorySpool = field(default_factory=MemorySpool)
    running: MemoryRunning = field(default_factory=MemoryRunning)

    def __post_init__(self) -> None:
        config = parsed()
        clock, random = FixedClock(), FixedRandom()
        self.meter = Meter(config.limits, config.budgets, zone=ZoneInfo("UTC"), clock=clock, running=self.running)
        attempts = Attempts(self.provider, RetryBudget(), clock, random)
        self.lookup = Lookup(MemoryAnswers(max_bytes=1 << 20, clock=clock), attempts, clock, secret=b"k" * 32)
        services = Services(
            clock=clock,
            random=random,
            spool=self.spool,
            attempts=attempts,
            targets=Targets(config, PriceList(config.prices, {})),
            prompts=FakePrompts({("answer", "production"): Served("answer", 7, digest(ARTIFACT), ARTIFACT)}),
            keys=Keys(),
            project="default",
            content_sample=1.0,
            admission=self.meter,
            lookup=self.lookup,
        )
        self.routes = Routes(services)

    async def ask(self, wire: Wire, model: str, body: bytes, *, stream: bool) -> Reply:
        reply = Reply(self.provider.random)
        path = wire.url(model).replace(":generate", ":streamGenerate") if stream else wire.url(model)
        request = Request("POST", path, "alt=sse", {"host": "localhost"}, body, "127.0.0.1")
        async with asyncio.timeout(20):
            await self.routes(request, reply)
        return reply

    def check_nothing_left(self, calls: int) -> list[dict[str, Any]]:
        """The records: one per call."""
        assert self.provider.open == 0
        assert self.lookup.flights == {}
        assert not self.running.standing
        assert [state.reserved_nano_usd for state in self.meter.budgets()] == [0]
        assert self.meter._scopes["total"].slots.running == 0  # type: ignore[union-attr]
        assert len(asyncio.all_tasks()) == 1
        rows = [as_read(line)["call"] for line in self.spool.lines]
        assert len(rows) == calls
        for row in rows:
            numbers = [value for value in row.values() if isinstance(value, int)]
            assert all(0 <= number < 2**63 for number in numbers), row
        return rows


def ended(wire: Wire, stream: bytes) -> tuple[bool, bool]:
    """Whether a stream says that it is complete, and that it broke."""
    datas = [data for event in EventSplitter().feed(stream) if (data := data_of(event))]
    last = datas[-1].decode("utf-8", "replace") if datas else ""  # what passes through may hold any bytes
    said: Any = json.loads(last, parse_int=len) if last.startswith("{") else {}
    broke = said.get("type") == "error" or (bool(said.get("error")) and wire.name != "openai_responses")
    if broke and wire.name != "openai_responses":
        wire.error_of(last.encode())
    match wire.name:
        case "openai_chat":
            return last == "[DONE]", broke
        case "gemini":
            return not broke, broke
        case _:
            return said.get("type") in ("response.completed", "response.incomplete", "message_stop"), broke


def check(wire: Wire, reply: Reply, row: dict[str, Any], *, willing: bool) -> None:
    """What the client got is one thing, and the record says it."""
    assert reply.ended
    assert b"sk-canary" not in reply.body + str(reply.headers).encode()
    if reply.status == 200 and reply.streamed:
        complete, broke = ended(wire, reply.body)
        assert complete != broke
        assert row["outcome"] == ("error" if broke else "ok")
        return
    assert row["http_status"] == reply.status
    assert (row["outcome"] == "ok") == (reply.status == 200)
    if reply.status == 200:
        assert row["cost_nano_usd"] is not None or row["service_tier"] is not None
        return
    assert 400 <= reply.status < (500 if willing else 600)
    assert row["error_type"] != "internal_error"
    wire.error_of(reply.body)


@pytest.fixture(autouse=True)
def _no_bug_is_logged(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.ERROR)
    yield
    assert caplog.records == []


@given(seeds)
@MANY
def test_a_broken_request_is_refused_or_served_and_leaves_nothing_behind(seed: int) -> None:
    asyncio.run(ask_brokenly(Random(seed)))


async def ask_brokenly(random: Random) -> None:
    wire, stream = random.choice(WIRES), random.random() < 0.3
    model = random.choice((*SPOKEN, "two", "prompt:answer"))
    body: Any = wire.body(model)
    if model == "prompt:answer":
        body = {key: body[key] for key in body if key in ("model", wire.conversation, "max_tokens")}
        body["variables"] = {"question": "why?"}
    if wire.name != "gemini":
        body["stream"] = stream
    for _ in range(random.randrange(4)):
        body = broken(body, random)
    gateway = Gateway(Provider(well, random))
    reply = await gateway.ask(wire, model, written(body, random), stream=stream)
    [row] = gateway.check_nothing_left(1)
    check(wire, reply, row, willing=True)


PATHS = (
    *("/", "*", "//", "/v1", "/v1beta/models/", "/v1/prompts/", "/v1/cache", "/v1/models/", "/..%2f", "/livez"),
    *KNOWN,
)
PIECES = (
    "",
    "/",
    "x",
    "%ff",
    "%00",
    "%0d%0a",
    "%F0%9F%98%80",
    ":",
    ":generateContent",
    "answer",
    "prompt:answer",
    "oai/m",
)
QUERIES = (
    "",
    "alt=sse",
    "key=x",
    "version=v7",
    "version=%ff",
    "a=%zz&=&&",
    "prompt=answer&version=v7",
    "a&" * 99,
    "\xff",
)
HEADERS = (
    *(
        "authorization",
        "x-api-key",
        "origin",
        "host",
        "cookie",
        "traceparent",
        "x-request-id",
        "cache-control",
        "accept",
    ),
    *("x-tidegate-tags", "x-tidegate-user", "x-tidegate-cache", "x-tidegate-origin", "anthropic-version", "\xff"),
)
VALUES = (
    "",
    "x",
    "Bearer ",
    "a=b",
    "no-store",
    "max-age=" + "9" * 30,
    "a\tb",
    "\xff\xfe",
    "x" * 9_000,
    ",=,",
    "eval",
    "null",
)


@given(seeds)
@MANY
def test_whatever_is_asked_of_whatever_path_is_answered(seed: int) -> None:
    asyncio.run(ask_anywhere(Random(seed)))


async def ask_anywhere(random: Random) -> None:
    gateway, reply = Gateway(Provider(well, random)), Reply(random)
    path = random.choice(PATHS) + "".join(random.choice(PIECES) for _ in range(random.choice((0, 0, 1, 2))))
    headers = {random.choice(HEADERS): random.choice(VALUES) for _ in range(random.randrange(5))}
    method = random.choice(("GET", "GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "BREW"))
    wire = random.choice(WIRES)
    body = random.choice((b"", b"{}", asked(wire, "oai", stream=False)))
    request = Request(method, path, random.choice(QUERIES), headers, body, "127.0.0.1")
    await gateway.routes(request, reply)
    assert reply.ended
    assert reply.status == 200 or 400 <= reply.status < 500, reply.body
    json.loads(reply.body)
    gateway.check_nothing_left(len(gateway.spool.lines))
    assert len(gateway.spool.lines) <= 1


@given(seeds)
@MANY
def test_a_broken_answer_is_an_answer_or_an_error_and_leaves_nothing_behind(seed: int) -> None:
    asyncio.run(answer_brokenly(Random(seed)))


async def answer_brokenly(random: Random) -> None:
    wire, stream = random.choice(WIRES), random.random() < 0.6
    model = random.choice((*SPOKEN, "two"))
    gateway = Gateway(Provider(badly, random))
    reply = await gateway.ask(wire, model, asked(wire, model, stream=stream), stream=stream)
    [row] = gateway.check_nothing_left(1)
    check(wire, reply, row, willing=False)


@given(seeds)
@MANY
def test_whoever_shares_a_broken_answer_and_leaves_it_leaves_nothing_behind(seed: int) -> None:
    asyncio.run(share_and_leave(Random(seed)))


async def share_and_leave(random: Random) -> None:
    wire, model = random.choice(WIRES), random.choice((*SPOKEN, "two"))
    gateway = Gateway(Provider(badly, random))
    tasks = []
    for _ in range(random.randrange(1, 6)):
        stream = random.random() < 0.7
        ask = gateway.ask(wire, model, asked(wire, model, stream=stream), stream=stream)
        tasks.append(asyncio.create_task(ask))
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
    for _ in range(random.randrange(30)):
        await asyncio.sleep(0)
        if random.random() < 0.1:
            random.choice(tasks).cancel()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [reply for reply in replies if isinstance(reply, Exception)]
    rows = {row["id"]: row for row in gateway.check_nothing_left(len(tasks))}
    for reply in replies:
        if isinstance(reply, Reply):
            check(wire, reply, rows[reply.headers["x-tidegate-call-id"]], willing=False)


def asked(wire: Wire, model: str, *, stream: bool) -> bytes:
    turn = {"role": "user", "content": "hi"} if wire.name != "gemini" else {"role": "user", "parts": [{"text": "hi"}]}
    body: dict[str, Any] = {wire.conversation: [turn]}
    if wire.name != "gemini":
        body |= {"model": model, "stream": stream}
    return json.dumps(body | ({"max_tokens": 9} if wire.name == "anthropic" else {})).encode()
