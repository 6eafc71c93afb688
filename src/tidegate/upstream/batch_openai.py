"""
OpenAI's Batch API: a JSONL file of requests is uploaded, a batch is made of it, answers and errors come as files.

Source: platform.openai.com/docs/api-reference/batch. Servers that speak OpenAI's dialect and have `/files` and
`/batches` do as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from tidegate.core.errors import UpstreamProtocol
from tidegate.ports import BatchItem, BatchResult, BatchState
from tidegate.upstream.batch import TIER, Door, decoded

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
MARK = "tidegate"
WINDOW = "24h"


class OpenAIBatches:
    """Implements ports.BatchUpstream."""

    def __init__(self, door: Door) -> None:
        self._door = door
        # The API names its own paths, whatever stands before them at a compatible server.
        self._endpoint = "/v1" + door.wire.path(door.target.model, stream=False)

    async def submit(self, items: Sequence[BatchItem], *, mark: str) -> str:
        """Uploads the file and makes the batch."""
        lines = [
            msgspec.json.encode(
                {"custom_id": item.id, "method": "POST", "url": self._endpoint, "body": msgspec.Raw(item.body)}
            )
            for item in items
        ]
        content, body = _form(mark, b"\n".join(lines) + b"\n")
        file = await self._door.json("POST", "/files", body, content=content)
        made = {
            "input_file_id": _text(file, "id"),
            "endpoint": self._endpoint,
            "completion_window": WINDOW,
            "metadata": {MARK: mark},
        }
        return _text(await self._door.json("POST", "/batches", msgspec.json.encode(made)), "id")

    async def find(self, mark: str, *, since: str, total: int) -> str | None:
        """Of the last hundred, the one that carries the mark."""
        listed = (await self._door.json("GET", "/batches?limit=100")).get("data") or []
        return next((_text(one, "id") for one in listed if (one.get("metadata") or {}).get(MARK) == mark), None)

    async def state(self, batch: str) -> BatchState:
        """How far it is; why it was refused, when its file was found wrong."""
        seen = await self._batch(batch)
        counts = seen.get("request_counts") or {}
        done, failed = int(counts.get("completed") or 0), int(counts.get("failed") or 0)
        status = seen.get("status")
        refused = None
        if status == "failed":
            errors = (seen.get("errors") or {}).get("data") or []
            refused = "; ".join(str(error.get("message")) for error in errors[:3]) or "no reason given"
        return BatchState(status in ENDED, done, failed, int(counts.get("total") or 0), refused)

    async def results(self, batch: str) -> AsyncIterator[BatchResult]:
        """The lines of both files."""
        seen = await self._batch(batch)
        for file in (seen.get("output_file_id"), seen.get("error_file_id")):
            if file:
                async for line in self._door.lines(f"/files/{file}/content"):
                    yield _result(decoded(line, self._door))

    async def _batch(self, batch: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._door.json("GET", f"/batches/{batch}")
        return found


def _result(line: dict[str, Any]) -> BatchResult:
    custom_id = str(line.get("custom_id"))
    response, error = line.get("response") or {}, line.get("error") or {}
    body = response.get("body")
    if response.get("status_code") == 200 and isinstance(body, dict):
        return BatchResult(custom_id, msgspec.json.encode({**body, "service_tier": TIER}))
    told = error or (body.get("error") if isinstance(body, dict) else None) or {}
    return BatchResult(custom_id, error=str(told.get("message") or f"HTTP {response.get('status_code')}"))


def _form(mark: str, file: bytes) -> tuple[str, bytes]:
    """Content type and body of the upload (RFC 7578). The boundary is a random mark: no request holds it."""
    boundary = f"tidegate-{mark}"
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{mark}.jsonl"\r\n'
        "content-type: application/jsonl\r\n\r\n"
    )
    return f"multipart/form-data; boundary={boundary}", head.encode() + file + f"\r\n--{boundary}--\r\n".encode()


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise UpstreamProtocol(f"the provider's batch API answered without {name!r}")
    return value
