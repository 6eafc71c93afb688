"""
Which batch API a target has, and what those of all providers share: one HTTP request, and JSON lines as they arrive.

    openai, openai_responses   a file of requests, a batch of it, a file of answers and one of errors: batch_openai.py
    anthropic                  message batches: batch_anthropic.py
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from tidegate.core.errors import BadInput, UpstreamProtocol, UpstreamRejected
from tidegate.core.retries import retry_after_s
from tidegate.dialects.dialect import Wire
from tidegate.dialects.reason import reason
from tidegate.ports import Upstream, UpstreamAnswer, UpstreamRequest
from tidegate.upstream.targets import Target

TIER = "batch"
"""The service tier of every answer: what `prices` and the catalogue call it."""
MOST_ITEMS = 10_000
MOST_BYTES = 64 << 20
"""Of one batch. Providers take more (50,000 and 200 MB); ours stay small enough to be held in memory."""
MAX_JSON = 8 << 20
MAX_LINE = 64 << 20
CONNECT_S = 15.0
PATIENCE_S = 180.0


class Door:
    """Requests to one target's provider, outside of its calls."""

    def __init__(self, target: Target, wire: Wire, upstream: Upstream) -> None:
        self.target = target
        self.wire = wire
        self._upstream = upstream

    async def json(self, method: str, path: str, body: bytes = b"", *, content: str = "application/json") -> Any:
        """The JSON object that the provider answers. Raises UpstreamError."""
        async with self._upstream.request(self._request(method, path, body, content)) as answer:
            await self._check(answer)
            raw = await answer.read(MAX_JSON)
        try:
            found = msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise UpstreamProtocol(f"{self.target.provider} answered {path} with something that is no JSON") from error
        if not isinstance(found, dict):
            raise UpstreamProtocol(f"{self.target.provider} answered {path} with something that is no JSON object")
        return found

    async def lines(self, path: str) -> AsyncIterator[bytes]:
        """The lines of a body, as they arrive, without empty ones. Raises UpstreamError."""
        async with self._upstream.request(self._request("GET", path, b"", "application/json")) as answer:
            await self._check(answer)
            rest = b""
            async for chunk in answer.chunks():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield line
                if len(rest) > MAX_LINE:
                    raise UpstreamProtocol(f"{self.target.provider} answered {path} with a line that is too long")
            if rest.strip():
                yield rest

    async def _check(self, answer: UpstreamAnswer) -> None:
        if answer.status < 300:
            return
        body = self.target.redact((await answer.read(MAX_JSON)).decode("utf-8", "replace")).encode()
        why = reason(body)
        raise UpstreamRejected(
            f"{self.target.provider} answered {answer.status}{f': {why}' if why else ''}",
            status=answer.status,
            body=body,
            retry_after_s=retry_after_s(answer.headers),
        )

    def _request(self, method: str, path: str, body: bytes, content: str) -> UpstreamRequest:
        own = [(name, value) for name, value in self.target.headers(self.wire) if name != "content-type"]
        return UpstreamRequest(
            origin=self.target.origin,
            method=method,
            path=self.target.base_path + path,
            headers=(("content-type", content), *own) if body else tuple(own),
            body=body,
            connect_s=CONNECT_S,
            first_byte_s=PATIENCE_S,
            idle_s=PATIENCE_S,
        )


def decoded(line: bytes, door: Door) -> dict[str, Any]:
    """One line of results. Raises UpstreamProtocol."""
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise UpstreamProtocol(f"{door.target.provider} gave a batch's result that is no JSON") from error
    if not isinstance(found, dict):
        raise UpstreamProtocol(f"{door.target.provider} gave a batch's result that is no JSON object")
    return found


def no_batches(target: Target) -> BadInput:
    """For a target without a batch API."""
    return BadInput(
        f"{target.name} has no batch API that tidegate speaks: OpenAI's and Anthropic's are. Leave out --batch."
    )
