"""
Anthropic's Message Batches: requests go in with one call, results come as JSON lines.

Source: docs.anthropic.com/en/api/creating-message-batches. A batch has no room for a mark: one whose id was never heard
is looked for by its time and its size, and what is in it tells by the requests' own ids whether it was the right one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from tidegate.core.errors import UpstreamProtocol
from tidegate.ports import BatchItem, BatchResult, BatchState
from tidegate.upstream.batch import TIER, Door, decoded

PATH = "/v1/messages/batches"
CLOCKS_DIFFER_S = 60.0


class AnthropicBatches:
    """Implements ports.BatchUpstream."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def submit(self, items: Sequence[BatchItem], *, mark: str) -> str:
        """Hands the batch in."""
        requests = [{"custom_id": item.id, "params": msgspec.Raw(item.body)} for item in items]
        made = await self._door.json("POST", PATH, msgspec.json.encode({"requests": requests}))
        if not isinstance(made.get("id"), str):
            raise UpstreamProtocol("the provider's batch API answered without an id")
        return str(made["id"])

    async def find(self, mark: str, *, since: str, total: int) -> str | None:
        """Of the last hundred, the oldest of that size that is not older than `since`."""
        earliest = datetime.fromisoformat(since).timestamp() - CLOCKS_DIFFER_S
        listed = (await self._door.json("GET", f"{PATH}?limit=100")).get("data") or []
        fitting = [
            (created, str(one["id"]))
            for one in listed
            if sum(_counts(one).values()) == total
            and (created := datetime.fromisoformat(str(one["created_at"])).timestamp()) >= earliest
        ]
        return min(fitting)[1] if fitting else None

    async def state(self, batch: str) -> BatchState:
        """How far it is."""
        seen = await self._door.json("GET", f"{PATH}/{batch}")
        counts = _counts(seen)
        done, total = counts.get("succeeded", 0), sum(counts.values())
        failed = total - done - counts.get("processing", 0)
        return BatchState(seen.get("processing_status") == "ended", done, failed, total)

    async def results(self, batch: str) -> AsyncIterator[BatchResult]:
        """Every request's."""
        async for line in self._door.lines(f"{PATH}/{batch}/results"):
            found = decoded(line, self._door)
            yield _result(str(found.get("custom_id")), found.get("result") or {})


def _counts(batch: dict[str, Any]) -> dict[str, int]:
    return {name: int(count) for name, count in (batch.get("request_counts") or {}).items()}


def _result(custom_id: str, result: dict[str, Any]) -> BatchResult:
    message = result.get("message")
    if result.get("type") == "succeeded" and isinstance(message, dict):
        usage = {**(message.get("usage") or {}), "service_tier": TIER}
        return BatchResult(custom_id, msgspec.json.encode({**message, "usage": usage}))
    error = (result.get("error") or {}).get("error") or {}
    return BatchResult(custom_id, error=str(error.get("message") or result.get("type") or "no result"))
