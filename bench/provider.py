"""
The provider of bench.load: `python -m bench.provider`. Prints its port; answers at once, whole or as a stream.

A request says what it wants where a gateway passes it on as it came: `max_tokens` words, one every `seed` milliseconds,
or every five.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-request-id: req_0f8c2f5c1b9b4d0e9a4b7c6d5e4f3a2b\r\n"
USAGE = {"prompt_tokens": 119, "completion_tokens": 64, "total_tokens": 183}
SAID = "Items can be returned within thirty days of delivery, unused and in their box. " * 5
WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-4.1-2025-04-14",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": SAID}, "logprobs": None, "finish_reason": "stop"}
    ],
    "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}},
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One event of a stream, in its HTTP chunk."""
    part = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event({"choices": [part], "usage": None})


def event(said: dict[str, Any]) -> bytes:
    """The same, of any content."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1741569952, "model": WHOLE["model"]}
    return framed(b"data: " + json.dumps({**head, **said}, separators=(",", ":")).encode() + b"\n\n")


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def word(number: int) -> str:
    """The word that stands at this place of every stream."""
    return f" word{number}"


BODY = json.dumps(WHOLE).encode()
ANSWER = HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
BEGIN = (
    HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n" + chunk({"role": "assistant", "content": ""})
)
WORDS = [chunk({"content": word(number)}) for number in range(1_024)]
END = chunk({}, "stop") + event({"choices": [], "usage": USAGE}) + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Provider(asyncio.Protocol):
    """One connection; its requests come one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, blank, body = self.data.partition(b"\r\n\r\n")
        if not blank or len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return
        self.data = b""
        asked = json.loads(body)
        if asked.get("stream"):
            self.transport.write(BEGIN)
            self.say(0, asked["max_tokens"], asked.get("seed", 5) / 1e3)
        else:
            self.transport.write(ANSWER)

    def say(self, number: int, words: int, every_s: float) -> None:
        if self.transport.is_closing():
            return
        if number == words:
            self.transport.write(END)
            return
        self.transport.write(WORDS[number])
        asyncio.get_running_loop().call_later(every_s, self.say, number + 1, words, every_s)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=4_096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
