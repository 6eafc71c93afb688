"""
What each stage of a call costs in CPU: `uv run python -m bench.micro`. Prints one table, writes results/micro.json.

Stages with a socket count the CPU of this process only, kernel included; the other end is a child. Every figure is the
best of five runs: what the code costs, not what else the machine did.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import uvloop

from bench.machine import RESULTS, describe
from tidegate.config import Budgets, Config
from tidegate.core.kept import KeptAnswer, answer_key, keyed_hash
from tidegate.dialects.openai_chat import DIALECT
from tidegate.dialects.sse import EventSplitter
from tidegate.fakes import MemorySpool
from tidegate.gateway.admit import admit
from tidegate.gateway.call import Call
from tidegate.gateway.edge import Edge, HttpReply, Request
from tidegate.gateway.record import Record
from tidegate.gateway.resolve import Plan
from tidegate.ports import UpstreamRequest
from tidegate.stores.memory import MemoryAnswers
from tidegate.stores.meter import Meter
from tidegate.system import SystemClock, SystemRandom
from tidegate.telemetry.running import RunningCalls
from tidegate.telemetry.spool import SpoolWriter
from tidegate.upstream.http1 import Pool
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

RUNS = 5
QUESTION = json.dumps(
    {
        "model": "gpt-4.1",
        "messages": [
            {"role": "system", "content": "You are a support assistant. " * 8},
            {"role": "user", "content": "Context: The shop is open on weekdays. Question: When may I come? " * 4},
        ],
        "temperature": 0.2,
        "max_tokens": 300,
    }
).encode()
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4.1-2025-04-14",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 120}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 120, "completion_tokens": 120, "total_tokens": 240},
    }
).encode()
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-4.1-2025-04-14",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null}\n\n'
)
HEADERS = (("content-type", "application/json"), ("user-agent", "tidegate"), ("authorization", "Bearer sk-bench"))
HEAD = b"content-type: application/json\r\nx-request-id: req_0123456789abcdef\r\n"
EVENTS = 500


def provider(pipe: Pipe) -> None:
    """A child: answers every request with ANSWER, or with a stream of EVENTs when it asks for one."""
    whole = b"HTTP/1.1 200 OK\r\n" + HEAD + b"content-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
    start = b"HTTP/1.1 200 OK\r\n" + HEAD + b"transfer-encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            if data.startswith(b"POST /stream"):
                self.transport.write(start)
                self.tick(EVENTS)
            else:
                self.transport.write(whole)

        def tick(self, left: int) -> None:
            self.transport.write(chunk if left else b"0\r\n\r\n")
            if left:
                asyncio.get_running_loop().call_later(0.0002, self.tick, left - 1)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


def client(pipe: Pipe, port: int, count: int) -> None:
    """A child: sends requests to `port` over one connection as fast as they are answered, each time it is told to."""
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n" + HEAD + b"content-length: %d\r\n\r\n" % len(QUESTION)
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while pipe.recv():
            for _ in range(count):
                connection.sendall(request + QUESTION)
                connection.recv(1 << 16)
            pipe.send(None)


def cpu_us(stage: Callable[[], object], count: int) -> float:
    """Microseconds of this process's CPU per call of `stage`; the best of five runs of `count` calls."""
    best = float("inf")
    for _ in range(RUNS):
        began = time.process_time_ns()
        for _ in range(count):
            stage()
        best = min(best, time.process_time_ns() - began)
    return best / count / 1e3


async def cpu_us_async(stage: Callable[[], Coroutine[Any, Any, int]], count: int) -> float:
    """The same for a coroutine, per thing that it did: it returns how many."""
    best = float("inf")
    for _ in range(RUNS):
        began, things = time.process_time_ns(), 0
        for _ in range(count):
            things += await stage()
        best = min(best, (time.process_time_ns() - began) / things)
    return best / 1e3


def parsing() -> dict[str, float]:
    """The stages that neither wait nor write."""
    incoming = DIALECT.parse_request(QUESTION)
    splitter, reader = EventSplitter(), DIALECT.reader(wants_usage=False)

    def event() -> None:
        for part in splitter.feed(EVENT):
            reader.read(part)

    return {
        "dialect: request in": cpu_us(lambda: DIALECT.parse_request(QUESTION), 10_000),
        "dialect: request out": cpu_us(lambda: DIALECT.same_body(incoming, model="m", native=False), 10_000),
        "dialect: answer in": cpu_us(lambda: DIALECT.read_answer(ANSWER), 10_000),
        "sse: one event split and read": cpu_us(event, 10_000),
    }


def spooling() -> dict[str, float]:
    """One record on disk."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        spool = SpoolWriter(Path(folder) / "spool", clock=SystemClock(), writer_id="bench")
        try:
            return {"spool: append of 1.5 KB": cpu_us(lambda: spool.append(b"x" * 1_500), 5_000)}
        finally:
            spool.close()


def admitting() -> dict[str, float]:
    """A limit of the key, a budget over all calls and a limit of the model: asked, written down, given back."""
    settings = {
        "providers": {"openai": {"base_url": "http://127.0.0.1:1/v1"}},
        "prices": {"openai/gpt-4.1": {"input": 2, "output": 8}},
        "limits": {
            "each_key": {"requests_per_minute": 10**9},
            "models": {"openai/gpt-4.1": {"tokens_per_minute": 10**12}},
        },
        "budgets": {"total": {"month": 10**9}},
    }
    config, clock, random = Config.model_validate(settings), SystemClock(), SystemRandom()
    targets = Targets(config, PriceList(config.prices, {}))
    call = Call(body=QUESTION)
    plan = Plan(DIALECT, DIALECT.parse_request(QUESTION), targets.find("openai/gpt-4.1"))

    def stage(meter: Meter) -> float:
        record = Record(call, "shop", clock, random, MemorySpool())
        record.row.key = "shop"

        def admitted() -> None:
            admit(call, plan, record, meter, unbounded=4_096)
            if record.hold is not None:
                record.hold.settle(240, 1_200_000, "openai/gpt-4.1")
                record.hold.end(recorded=True)

        return cpu_us(admitted, 5_000)

    def meter(budgets: Budgets) -> Meter:
        return Meter(config.limits, budgets, zone=ZoneInfo("UTC"), clock=clock, running=running)

    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        running = RunningCalls(Path(folder) / "running")
        try:
            return {
                "admit: limits": stage(meter(Budgets())),
                "admit: reserve and settle": stage(meter(config.budgets)),
            }
        finally:
            running.close()


def caching() -> dict[str, float]:
    """The exact cache without the loop: what it awaits is in memory, and never waits."""
    fields, clock = DIALECT.parse_request(QUESTION).fields, SystemClock()
    scope = ("default", None, None, None, "chat", "openai_chat", "openai_chat", "support", "openai", "gpt-4.1", None)
    answers, keyed, count = MemoryAnswers(max_bytes=64 << 20, clock=clock), keyed_hash(bytes(32)), iter(range(1 << 30))
    kept = answer_key(keyed, scope, fields)

    def now(work: Coroutine[Any, Any, object]) -> None:
        with suppress(StopIteration):
            work.send(None)

    def miss() -> None:
        key = answer_key(keyed, (*scope, next(count)), fields)
        now(answers.get(key))
        now(answers.put(key, KeptAnswer(ANSWER, False, clock.now_ns()), 60))

    now(answers.put(kept, KeptAnswer(ANSWER, False, clock.now_ns()), 60))
    return {
        "cache: key": cpu_us(lambda: answer_key(keyed, scope, fields), 20_000),
        "cache: key and look-up, a hit": cpu_us(lambda: now(answers.get(answer_key(keyed, scope, fields))), 20_000),
        "cache: key, look-up, answer kept": cpu_us(miss, 20_000),
    }


async def pooling(port: int) -> dict[str, float]:
    """The pool against a provider that does nothing else."""
    pool = Pool()

    def request(path: str) -> UpstreamRequest:
        return UpstreamRequest(f"http://127.0.0.1:{port}", "POST", path, HEADERS, QUESTION, 5, 60, 60)

    async def unary() -> int:
        async with pool.request(request("/unary")) as answer:
            return 1 if await answer.read(1 << 20) else 0

    async def stream() -> int:
        async with pool.request(request("/stream")) as answer:
            return len([piece async for piece in answer.chunks()])

    try:
        return {
            "pool: unary round trip": await cpu_us_async(unary, 3_000),
            "pool: one piece of a stream": await cpu_us_async(stream, 4),
        }
    finally:
        await pool.close()


async def edging() -> dict[str, float]:
    """The edge with a handler that does nothing else."""

    async def handler(request: Request, reply: HttpReply) -> None:
        await reply.start(200, (("content-type", "application/json"),), streamed=False)
        await reply.end(ANSWER)

    edge, count = Edge(handler), 3_000
    ours, theirs = get_context("spawn").Pipe()
    child = get_context("spawn").Process(target=client, args=(theirs, await edge.start(), count))
    child.start()

    async def requests() -> int:
        ours.send(True)
        await asyncio.to_thread(ours.recv)
        return count

    try:
        return {"edge: unary round trip": await cpu_us_async(requests, 1)}
    finally:
        ours.send(False)
        await asyncio.to_thread(child.join)
        await edge.close(0)


def run() -> dict[str, float]:
    """Microseconds of CPU per stage."""
    ours, theirs = get_context("spawn").Pipe()
    child = get_context("spawn").Process(target=provider, args=(theirs,))
    child.start()
    try:
        return {
            **parsing(),
            **admitting(),
            **caching(),
            **spooling(),
            **uvloop.run(edging()),
            **uvloop.run(pooling(ours.recv())),
        }
    finally:
        child.terminate()
        child.join()


def main() -> None:
    """Prints the table and writes it."""
    machine = describe()
    stages = run()
    for name, microseconds in stages.items():
        sys.stdout.write(f"{name:32} {microseconds:7.2f} µs\n")
    RESULTS.mkdir(exist_ok=True)
    result = {"cpu_us": {name: round(value, 3) for name, value in stages.items()}, "machine": machine}
    (RESULTS / "micro.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
