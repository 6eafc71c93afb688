"""
Prompt calls through a provider's batch API, by the pipeline itself.

Each call goes through `serve` twice. To be handed in it runs up to the provider's door, where its request is taken and
nothing is sent or recorded. When the batch's answer is there it runs again, and the door gives that answer: so it is
read, priced at the tier `batch`, and recorded as any other. Limits and budgets are not asked: a batch is no traffic of
this gateway's, and its cost is bounded by whoever hands it in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import msgspec

from tidegate.core.errors import NotFound, UpstreamRejected
from tidegate.core.retries import RetryBudget
from tidegate.dialects import anthropic, openai_chat, openai_responses
from tidegate.dialects.dialect import Wire
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.caller import InProcessCaller
from tidegate.gateway.pipeline import Services
from tidegate.ports import (
    BatchItem,
    BatchState,
    BatchUpstream,
    Pieces,
    PromptAnswer,
    PromptCall,
    Upstream,
    UpstreamAnswer,
    UpstreamRequest,
)
from tidegate.upstream.batch import MOST_BYTES, MOST_ITEMS, Door, no_batches
from tidegate.upstream.batch_anthropic import AnthropicBatches
from tidegate.upstream.batch_openai import OpenAIBatches
from tidegate.upstream.targets import Target

UNKNOWN = (404, 405)
"""What a server without a batch API says."""


class _Door:
    """Implements ports.Upstream and its exchange: takes the request, or gives the answer that came in a batch."""

    def __init__(self, body: bytes | None = None) -> None:
        self.status = 200
        self.headers: Mapping[str, str] = {"content-type": "application/json"}
        self.request_body: bytes | None = None
        self._body = body

    def request(self, request: UpstreamRequest) -> _Door:
        """Keeps what would be sent."""
        self.request_body = request.body
        return self

    async def __aenter__(self) -> UpstreamAnswer:
        if self._body is None:
            raise UpstreamRejected("taken for a batch", status=400, body=b"")  # which is not tried again
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    def chunks(self) -> Pieces:
        """The whole body, in one."""
        return _Whole(self._body or b"")

    async def read(self, limit: int) -> bytes:
        """The whole body."""
        return self._body or b""

    async def close(self) -> None:
        """Nothing to close."""


class _Whole(Pieces):
    def __init__(self, body: bytes) -> None:
        self._left = [body]

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _Unrecorded:
    """Implements ports.Spool: what is not sent is no call."""

    def append(self, line: bytes) -> bool:
        """Forgets it."""
        return True


class PipelineBatches:
    """Implements ports.BatchCaller over the pipeline's own parts."""

    def __init__(self, services: Services, upstream: Upstream) -> None:
        """`upstream`: the way to the providers."""
        self._services = services
        self._upstream = upstream

    async def prepare(self, calls: Mapping[str, PromptCall]) -> Sequence[BatchItem]:
        """What each call would send. Raises BadInput where its provider has no batch API."""
        if calls:
            self._api(await self._target(next(iter(calls.values()))))
        items: list[BatchItem] = []
        size = 0
        for name, call in calls.items():
            door = _Door()
            await self._caller(door, recorded=False).call(call)
            body = door.request_body
            if body is None:
                continue
            if items and (len(items) == MOST_ITEMS or size + len(body) > MOST_BYTES):
                break
            items.append(BatchItem(name, body))
            size += len(body)
        return items

    async def submit(self, call: PromptCall, items: Sequence[BatchItem], *, mark: str) -> str:
        """Hands them in."""
        target = await self._target(call)
        try:
            batch = await self._api(target).submit(items, mark=mark)
        except UpstreamRejected as error:
            if error.http_status in UNKNOWN:
                raise no_batches(target) from error
            raise
        return f"{target.name} {batch}"

    async def find(self, call: PromptCall, mark: str, *, since: str, total: int) -> str | None:
        """The ticket of a batch that was handed in, when the provider has one that may be it."""
        target = await self._target(call)
        batch = await self._api(target).find(mark, since=since, total=total)
        return None if batch is None else f"{target.name} {batch}"

    async def state(self, ticket: str) -> BatchState:
        """How far it is."""
        api, batch = self._of(ticket)
        try:
            return await api.state(batch)
        except UpstreamRejected as error:
            if error.http_status == 404:
                raise NotFound(f"the provider has no batch {batch} any more.") from error
            raise

    async def answers(self, ticket: str, calls: Mapping[str, PromptCall]) -> AsyncIterator[tuple[str, PromptAnswer]]:
        """Each answer as if its call had been made; the records say by a tag which batch it came in."""
        api, batch = self._of(ticket)
        async for result in api.results(batch):
            call = calls.get(result.id)
            if call is None:
                continue
            if not result.body:
                yield result.id, PromptAnswer("", error=result.error, code="batch")
                continue
            call = msgspec.structs.replace(call, tags={**call.tags, "batch": batch})
            answer = await self._caller(_Door(result.body), recorded=True).call(call)
            # How long it took to be read again says nothing of how long the model took.
            yield result.id, msgspec.structs.replace(answer, latency_s=None)

    def _caller(self, door: _Door, *, recorded: bool) -> InProcessCaller:
        services = self._services
        attempts = Attempts(door, RetryBudget(), services.clock, services.random)
        spool = services.spool if recorded else _Unrecorded()
        return InProcessCaller(replace(services, attempts=attempts, spool=spool, lookup=None, admission=None))

    async def _target(self, call: PromptCall) -> Target:
        """What a version's calls go to: of a route, its first target."""
        served = await self._services.prompts.find(call.prompt, call.digest)
        return self._services.targets.find(served.artifact.model).targets[0]

    def _of(self, ticket: str) -> tuple[BatchUpstream, str]:
        name, _, batch = ticket.rpartition(" ")
        return self._api(self._services.targets.find(name).targets[0]), batch

    def _api(self, target: Target) -> BatchUpstream:
        wire = _spoken(target)
        door = Door(target, wire, self._upstream)
        if target.access.host is None and target.access.signer is None:
            if wire in (openai_chat.DIALECT, openai_responses.DIALECT):
                return OpenAIBatches(door)
            if wire is anthropic.DIALECT:
                return AnthropicBatches(door)
        raise no_batches(target)


def _spoken(target: Target) -> Wire:
    """What our own calls, which are OpenAI Chat's, are told to a target in."""
    return openai_chat.DIALECT if openai_chat.DIALECT in target.dialects else target.dialects[0]
