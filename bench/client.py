"""
The clients of bench.load: `python -m bench.client PORT CONNECTIONS SECONDS [--words N --every-ms MS]`.

Every connection asks, takes the whole answer and asks again, until the time is up; with --words for streams. No two
bodies are the same, and every answer is checked. Prints JSON: how many, the median of milliseconds to the first byte,
and what was bad.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from functools import partial
from statistics import median
from typing import Any

import uvloop

from bench.provider import SAID, word

SYSTEM = "You are a support assistant of an online shop. Answer in JSON. Use only the context given. " * 2
QUESTION = "Context: Items can be returned within thirty days of delivery, unused, in the original box. " * 3
RUN = time.time_ns()
"""No client before or after this one asks the same."""
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
SPOKEN = {
    "openai": re.compile(rb'"delta":\{"content":"([^"]*)"'),
    "anthropic": re.compile(rb'"text":"( [^"]*)"'),
}


class Asking(asyncio.Protocol):
    """One connection."""

    def __init__(self, options: argparse.Namespace, number: int, tally: dict[str, Any], until: float) -> None:
        self.options = options
        self.number = number
        self.tally = tally
        self.until = until
        self.asked = 0
        self.done = asyncio.get_running_loop().create_future()
        self.expected = "".join(word(at) for at in range(options.words)).encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.ask()

    def ask(self) -> None:
        if time.monotonic() > self.until:
            self.transport.close()
            return
        self.asked += 1
        self.parts: list[bytes] = []
        self.began, self.first_s = time.perf_counter(), 0.0
        self.transport.write(self.request())

    def request(self) -> bytes:
        options = self.options
        said = [{"role": "user", "content": f"{QUESTION} Question {RUN}.{self.number}.{self.asked}: how long?"}]
        body: dict[str, Any] = {"model": "gpt-4.1", "temperature": 0.2, "max_tokens": options.words or 200}
        if options.dialect == "anthropic":
            body |= {"system": SYSTEM, "messages": said}
        else:
            body |= {"messages": [{"role": "system", "content": SYSTEM}, *said], "seed": options.every_ms}
        if options.words:
            body["stream"] = True
        payload = json.dumps(body).encode()
        head = (
            f"POST {PATHS[options.dialect]} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {options.key}\r\ncontent-length: {len(payload)}\r\n\r\n"
        )
        return head.encode() + payload

    def data_received(self, data: bytes) -> None:
        if not self.first_s:
            self.first_s = time.perf_counter() - self.began
        self.parts.append(data)
        if self.options.words:
            whole = data.endswith(b"0\r\n\r\n")
        else:
            head, _, body = b"".join(self.parts).partition(b"\r\n\r\n")
            whole = len(body) == int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or -1)
        if whole:
            self.tally["first_ms"].append(self.first_s * 1e3)
            self.tally["answers"] += 1
            self.tally["bad"] += not self.right(b"".join(self.parts))
            self.ask()

    def right(self, answer: bytes) -> bool:
        if not answer.startswith(b"HTTP/1.1 200"):
            return False
        if not self.options.words:
            return SAID.encode() in answer
        return b"".join(SPOKEN[self.options.dialect].findall(answer)) == self.expected

    def connection_lost(self, exc: Exception | None) -> None:
        if time.monotonic() < self.until:
            self.tally["bad"] += 1
        self.done.set_result(None)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """The tally of all connections."""
    tally: dict[str, Any] = {"answers": 0, "bad": 0, "first_ms": []}
    loop = asyncio.get_running_loop()
    until = time.monotonic() + options.seconds
    asking = []
    # Streams begin one after the other: if all began at once, the first byte would tell of a queue that nobody has.
    apart_s = options.words * options.every_ms / 1e3 / options.connections
    for number in range(options.connections):
        await asyncio.sleep(apart_s)
        made = partial(Asking, options, number, tally, until)
        _, one = await loop.create_connection(made, "127.0.0.1", options.port)
        asking.append(one)
    await asyncio.wait_for(asyncio.gather(*(one.done for one in asking)), options.seconds + 60)
    return {**tally, "first_ms": median(tally["first_ms"])}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.client")
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--words", type=int, default=0)
    parser.add_argument("--every-ms", type=int, default=5)
    parser.add_argument("--dialect", choices=PATHS, default="openai")
    parser.add_argument("--key", default="sk-bench")
    print(json.dumps(uvloop.run(run(parser.parse_args()))))
