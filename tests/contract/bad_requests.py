"""A gateway whose providers always answer well, a client that sends it anything, and whole requests to spoil."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.config import Config
from tidegate.core.artifact import Artifact, Input, Message, digest
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.fakes import FakePrompts, FixedRandom, MemorySpool, ScriptedAnswer, as_read
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.edge import DEFAULT_LIMITS, Edge, Limits
from tidegate.gateway.pipeline import Services
from tidegate.gateway.refusal import refusal_body
from tidegate.gateway.routes import Routes
from tidegate.ports import UpstreamAnswer, UpstreamExchange, UpstreamRequest
from tidegate.system import SystemClock
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

MAX_BODY = 10 << 20
ARTIFACT = Artifact(messages=(Message("user", "{{ question }}"),), model="oai/m", inputs={"question": Input()})
PROVIDERS = {
    "oai": {"base_url": "http://127.0.0.1:1/v1"},
    "res": {"base_url": "http://127.0.0.1:2/v1", "responses": True},
    "ant": {"dialect": "anthropic", "base_url": "http://127.0.0.1:3"},
    "goo": {"dialect": "gemini", "base_url": "http://127.0.0.1:4/v1beta"},
}
ROUTES = {"support": {"targets": ["oai/m"]}}
ANSWERS = {
    "chat": {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    },
    "responses": {
        "id": "r",
        "object": "response",
        "model": "m",
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "anthropic": {
        "id": "a",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "gemini": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1},
    },
}


class Willing:
    """Implements ports.Upstream: answers everything at once, in the dialect of the path."""

    def request(self, request: UpstreamRequest) -> UpstreamExchange:
        """A whole answer, whatever was asked."""
        path = request.path
        marks = {"/chat/": "chat", "/responses": "responses", "/messages": "anthropic", ":generateContent": "gemini"}
        kind = next(kind for mark, kind in marks.items() if mark in path)
        return _Exchange(ScriptedAnswer(body=[json.dumps(ANSWERS[kind]).encode()]))

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class _Exchange:
    answer: ScriptedAnswer

    async def __aenter__(self) -> UpstreamAnswer:
        return self.answer

    async def __aexit__(self, *exc: object) -> None:
        pass


@dataclass(frozen=True)
class Wire:
    """One dialect as a client speaks it."""

    name: str
    path: str
    own: str
    """The provider that speaks it; its requests pass through."""
    other: str
    """One that does not; they are translated."""
    conversation: str
    """The key that holds what was said."""
    valid: Mapping[str, Any]
    """A request that says much; its model stands where the dialect has it."""
    error_keys: frozenset[str]

    def url(self, model: str) -> str:
        return self.path.replace("MODEL", model)

    def body(self, model: str, **changes: Any) -> dict[str, Any]:
        named = {} if "MODEL" in self.path else {"model": model}
        return {**named, **self.valid, **changes}

    def error_of(self, body: bytes) -> Mapping[str, Any]:
        """The error object, which has this dialect's shape."""
        whole = json.loads(body)
        if self.name == "anthropic":
            assert whole["type"] == "error", whole
        error: Mapping[str, Any] = whole["error"]
        assert self.error_keys <= error.keys(), whole
        assert isinstance(error["message"], str)
        assert len(error["message"]) < 2_000
        return error


_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_PIXEL = "iVBORw0KGgo="
_OPENAI = frozenset({"message", "type", "param", "code"})
WIRES = (
    Wire(
        "openai_chat",
        "/v1/chat/completions",
        "oai",
        "ant",
        "messages",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "look"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PIXEL}", "detail": "low"}},
                        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "t", "content": "sunny"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": _SCHEMA}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": True,
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA, "strict": True}},
            "stream": False,
            "max_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.5,
            "stop": ["x"],
            "seed": 1,
            "n": 1,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.1,
            "logprobs": True,
            "top_logprobs": 2,
            "reasoning_effort": "low",
            "user": "u",
            "metadata": {"a": "b"},
        },
        _OPENAI,
    ),
    Wire(
        "openai_responses",
        "/v1/responses",
        "res",
        "ant",
        "input",
        {
            "instructions": "Be brief.",
            "input": [
                {"role": "developer", "content": "Be kind."},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "look"},
                        {"type": "input_image", "image_url": f"data:image/png;base64,{_PIXEL}", "detail": "low"},
                        {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a"},
                    ],
                },
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hm"}]},
                {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "so"}]},
                {"type": "function_call", "call_id": "t", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "t", "output": "sunny"},
            ],
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": _SCHEMA, "strict": True}],
            "tool_choice": {"type": "function", "name": "f"},
            "text": {"format": {"type": "json_schema", "name": "a", "schema": _SCHEMA}},
            "reasoning": {"effort": "low", "summary": "auto"},
            "stream": False,
            "max_output_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.5,
            "top_logprobs": 2,
            "parallel_tool_calls": True,
            "store": False,
            "include": ["message.output_text.logprobs"],
            "metadata": {"a": "b"},
            "user": "u",
        },
        _OPENAI,
    ),
    Wire(
        "anthropic",
        "/v1/messages",
        "ant",
        "oai",
        "messages",
        {
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "look"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _PIXEL}},
                        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "so", "signature": "s"},
                        {"type": "tool_use", "id": "t", "name": "f", "input": {"city": "Rome"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t",
                            "content": [{"type": "text", "text": "sunny"}],
                            "is_error": False,
                        }
                    ],
                },
            ],
            "tools": [{"name": "f", "description": "d", "input_schema": _SCHEMA}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            "thinking": {"type": "enabled", "budget_tokens": 1_024},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": _SCHEMA}},
            "metadata": {"user_id": "u"},
            "stream": False,
            "max_tokens": 5,
            "stop_sequences": ["x"],
            "temperature": 0.5,
            "top_p": 0.5,
            "top_k": 3,
        },
        frozenset({"type", "message"}),
    ),
    Wire(
        "gemini",
        "/v1beta/models/MODEL:generateContent",
        "goo",
        "oai",
        "contents",
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {
                    "role": "user",
                    "parts": [
                        {"text": "look"},
                        {"inlineData": {"mimeType": "image/png", "data": _PIXEL}},
                        {"fileData": {"mimeType": "image/png", "fileUri": "https://a.example/b.png"}},
                    ],
                },
                {
                    "role": "model",
                    "parts": [
                        {"text": "so", "thought": True, "thoughtSignature": "AAAA"},
                        {"functionCall": {"id": "t", "name": "f", "args": {"city": "Rome"}}},
                    ],
                },
                {"role": "user", "parts": [{"functionResponse": {"id": "t", "name": "f", "response": {"a": "sunny"}}}]},
            ],
            "tools": [{"functionDeclarations": [{"name": "f", "description": "d", "parameters": _SCHEMA}]}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
            "generationConfig": {
                "temperature": 0.5,
                "topP": 0.5,
                "topK": 3,
                "candidateCount": 1,
                "maxOutputTokens": 5,
                "stopSequences": ["x"],
                "seed": 1,
                "presencePenalty": 0.1,
                "frequencyPenalty": 0.1,
                "responseMimeType": "application/json",
                "responseSchema": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}},
                "responseLogprobs": True,
                "logprobs": 2,
                "thinkingConfig": {"thinkingBudget": 100, "includeThoughts": True},
            },
            "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        },
        frozenset({"code", "message", "status"}),
    ),
)
KINDS: tuple[Any, ...] = (None, True, 0, -1, 1e308, 10**30, "", "x", [], {}, [[]], [None], [{}], {"type": 1}, {"a": []})


def mutants(value: Any, kinds: tuple[Any, ...] = KINDS) -> Iterator[tuple[str, Any]]:
    """`value` with each of its nodes, itself too, replaced by each of `kinds`: (where, the whole)."""
    for kind in kinds:
        yield "$", kind
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        for place, mutant in mutants(inner, kinds):
            whole = dict(value) if isinstance(value, dict) else list(value)
            whole[key] = mutant
            yield f"$[{key!r}]{place[1:]}", whole


@dataclass(frozen=True)
class Answered:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


@dataclass
class Bench:
    """A gateway that listens, and what it kept of its calls."""

    port: int = 0
    spool: MemorySpool = field(default_factory=MemorySpool)

    async def send(self, *payload: bytes) -> Answered:
        """Sends bytes over a connection of their own, from a thread: the client's work is not the gateway's."""
        return await asyncio.to_thread(self._send, *payload)

    async def post(self, path: str, body: bytes, *lines: str) -> Answered:
        head = [f"POST {path} HTTP/1.1", "host: a", "content-type: application/json", f"content-length: {len(body)}"]
        return await self.send("\r\n".join([*head, *lines, "connection: close", "", ""]).encode(), body)

    def _send(self, *payload: bytes) -> Answered:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            began = time.monotonic()
            for part in payload:
                client.sendall(part)
            return _read(client, began)

    def raw(self, payload: bytes) -> bytes:
        """All that comes back until the gateway closes. Blocking."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            client.sendall(payload)
            return b"".join(iter(lambda: client.recv(1 << 16), b""))

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connected]:
        """One connection for many small requests."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Connected(reader, writer)
        finally:
            writer.transport.abort()

    def take_records(self) -> list[Any]:
        """The calls since last time."""
        calls = [as_read(line)["call"] for line in self.spool.lines]
        self.spool.lines.clear()
        return calls


@dataclass
class Connected:
    """A client that keeps its connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def post(self, path: str, body: bytes) -> Answered:
        began = time.monotonic()
        self.writer.write(f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        line, *fields = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        headers = dict(item.split(": ", 1) for item in fields)
        answer = await self.reader.readexactly(int(headers["content-length"]))
        return Answered(int(line.split()[1]), headers, answer, time.monotonic() - began)


def _read(client: socket.socket, began: float) -> Answered:
    received = b""
    while b"\r\n\r\n" not in received:
        part = client.recv(1 << 16)
        assert part, f"closed after {received[:200]!r}"
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = dict(item.split(": ", 1) for item in fields)
    while len(body) < int(headers["content-length"]):
        part = client.recv(1 << 16)
        assert part, "the answer is cut"
        body += part
    return Answered(int(line.split()[1]), headers, body, time.monotonic() - began)


@asynccontextmanager
async def gateway(*, limits: Limits = DEFAULT_LIMITS, **config: Any) -> AsyncIterator[Bench]:
    """Edge, routes and pipeline, with a key of their own dialect for nothing but the provider's answers."""
    bench = Bench()
    made = Config.model_validate({"providers": PROVIDERS, "routes": ROUTES, **config})
    clock, random = SystemClock(), FixedRandom()
    services = Services(
        clock=clock,
        random=random,
        spool=bench.spool,
        attempts=Attempts(Willing(), RetryBudget(), clock, random),
        targets=Targets(made, PriceList({}, {})),
        prompts=FakePrompts({("answer", "production"): Served("answer", 7, digest(ARTIFACT), ARTIFACT)}),
        keys=Keys(),
        project="default",
        content_sample=1.0,
    )
    edge = Edge(Routes(services), max_body_bytes=MAX_BODY, limits=limits, error_body=refusal_body)
    bench.port = await edge.start()
    try:
        yield bench
    finally:
        await edge.close(grace_s=1)
        assert (edge.connections, edge.running) == (0, 0)


@dataclass
class Watch:
    """What a block of work cost those who wait for the loop, and the machine."""

    lag_s: float = 0.0
    """The longest time in which the loop did nothing else, in CPU seconds: others on this machine do not count."""
    peak_bytes: int = 0
    """Above what was resident before."""


@asynccontextmanager
async def watched() -> AsyncIterator[Watch]:
    """A task that ticks every millisecond, and the process's high-water mark."""
    watch = Watch()

    async def tick() -> None:
        while True:
            wall, cpu = time.monotonic(), time.process_time()
            await asyncio.sleep(0.001)
            watch.lag_s = max(watch.lag_s, min(time.monotonic() - wall, time.process_time() - cpu))

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the high-water mark
    before = _status("VmRSS:")
    ticking = asyncio.create_task(tick())
    try:
        yield watch
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        watch.peak_bytes = _status("VmHWM:") - before


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10
