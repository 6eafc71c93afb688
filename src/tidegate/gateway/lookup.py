"""
The exact cache: the same request again gets the answer that is there, kept or still on its way.

What is kept is the provider's answer as it came, so a hit goes to the client on the very way that it came on; only a
client that wants the other form, stream or whole, gets it retold. Concurrent calls that ask the same are one flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

import msgspec

from tidegate.core.errors import TidegateError, UpstreamError
from tidegate.core.kept import KeptAnswer, answer_key, keyed_hash
from tidegate.core.keys import Access
from tidegate.dialects import openai_responses
from tidegate.gateway.attempt import Attempts, open_source
from tidegate.gateway.cache_control import CacheControl
from tidegate.gateway.flight import Flight, SharedAnswer
from tidegate.gateway.record import Record
from tidegate.gateway.replay import Replay
from tidegate.gateway.resolve import Plan
from tidegate.gateway.retold import crosses, told_as_stream, told_whole
from tidegate.gateway.source import Source, WholeSource
from tidegate.ports import AnswerCache, Clock, UpstreamAnswer
from tidegate.upstream.targets import Target

COMPLETE = frozenset({"stop", "tool_calls", "function_call"})
"""Finish reasons of answers that are all there; one that was cut off or filtered is not given again."""
STATEFUL = frozenset({"conversation", "background", "container"})
"""What refers to something of the provider's that changes: the same words do not ask the same."""
ECHOED = ("metadata", "prompt_cache_key", "safety_identifier", "user")
"""What shapes no answer, and is said again in those of the Responses API: each client's own, and nobody else's."""


class Lookup:
    """One per gateway process. Calls of routes without a cache never come here."""

    def __init__(self, answers: AnswerCache, attempts: Attempts, clock: Clock, *, secret: bytes) -> None:
        self.answers = answers
        self.attempts = attempts
        self.clock = clock
        self.flights: dict[bytes, Flight] = {}
        self.generation = 0
        """Counts purges."""
        self._keyed = keyed_hash(secret)

    def attempt(self, plan: Plan, record: Record, access: Access, wish: CacheControl) -> Part:
        """As `Attempts.attempt`; what it raises is what the flight met."""
        return Part(self, plan, record, access, wish)

    async def purge(self, prompt: str | None = None, digest: str | None = None) -> int:
        """Forgets all answers, or those of a prompt, or of one version of it; returns how many."""
        self.generation += 1
        self.flights.clear()  # they go on, but nobody joins them
        return await self.answers.purge(prompt, digest)

    def key(self, plan: Plan, project: str, access: Access) -> bytes:
        """What the answer to this call is kept under."""
        target, fields = plan.path.targets[0], plan.incoming.fields
        wire = plan.wire(target)
        echoed = [fields.get(name) for name in ECHOED] if wire is plan.client is openai_responses.DIALECT else None
        scope = (
            project,
            access.prompts,
            access.models,
            access.environments,
            plan.client.operation,
            plan.client.name,
            wire.name,
            plan.path.route,
            target.provider,
            target.model,
            None if plan.served is None else plan.served.digest,
            target.named(plan.headers),
            echoed,
        )
        return answer_key(self._keyed, scope, fields)


class Part(msgspec.Struct, eq=False):
    """One call's part, as a block: a kept answer, a flight of its own, or a share in another's."""

    lookup: Lookup
    plan: Plan
    record: Record
    access: Access
    wish: CacheControl
    key: bytes = b""
    crosses: bool | None = None
    """Whether the other form of an answer will do; None: nobody has looked."""
    flight: Flight | None = None

    async def __aenter__(self) -> Source:
        lookup, plan, row, wish = self.lookup, self.plan, self.record.row, self.wish
        row.cache = "bypass"
        if row.origin != "live" or not (wish.read or wish.write) or not repeatable(plan):
            return await self._lead(keeps=False)
        asked = (plan, row.project, self.access)
        self.key = await asyncio.to_thread(lookup.key, *asked) if plan.large else lookup.key(*asked)
        if not wish.read:
            return await self._lead(keeps=True)
        while True:
            kept = await lookup.answers.get(self.key)
            if kept is not None and (source := await self._replay(kept)) is not None:
                row.cache = "hit"
                return source
            flight = lookup.flights.get(self.key)
            if flight is None or not flight.open:
                row.cache = "miss"
                return await self._lead(keeps=wish.write, shared=wish.write)
            if flight.streamed != plan.incoming.stream:
                if self.crosses is None:
                    await self._see_if_it_crosses()
                    continue
                if not self.crosses:
                    row.cache = "miss"
                    return await self._lead(keeps=wish.write)
            row.cache = "shared"
            if (source := await self._follow(flight)) is not None:
                return source

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        flight = self.flight
        if flight is None:
            return
        try:
            if kind is None and flight.keeps and (kept := self._kept(flight)) is not None:
                flight.keeps = False
                await self.lookup.answers.put(self.key, kept, self.plan.path.exact_ttl_s or 0)
        finally:
            await self._leave(flight, kind, *exc)

    async def _lead(self, *, keeps: bool, shared: bool = False) -> Source:
        """Makes the call."""
        lookup, plan, record = self.lookup, self.plan, self.record
        flight = Flight(streamed=plan.incoming.stream, keeps=keeps, generation=lookup.generation)
        if shared:
            lookup.flights[self.key] = flight
        try:
            source, exchange = await lookup.attempts.try_targets(plan, record)
        except BaseException as error:
            self._forget(flight)
            flight.target = record.target
            flight.failed(error if isinstance(error, TidegateError) else None)
            raise
        if record.target is not plan.path.targets[0]:
            flight.keeps = False  # what another model says is not this one's answer
        flight.target, flight.losses = record.target, tuple(plan.losses)
        answer = exchange if isinstance(exchange, SharedAnswer) else cast("WholeSource", source).raw
        flight.begun(answer, exchange, lookup.answers.largest if flight.keeps else 0)
        record.charge = flight.charge
        self.flight = flight
        return source

    async def _follow(self, flight: Flight) -> Source | None:
        """Takes part in another's call; None when that came to nothing for reasons of the other's own."""
        try:
            await flight.join()
        except BaseException:
            await self._leave(flight)
            raise
        if flight.target is not None:
            self.record.use(flight.target)
        if flight.failure is not None:
            raise flight.failure
        if flight.answer is None or flight.target is None:
            return None
        self.plan.losses[:] = flight.losses
        try:
            answer = flight.answer if isinstance(flight.answer, SharedAnswer) else Replay(flight.answer)
            source = await self._open(answer, flight.target, streamed=flight.streamed)
        except BaseException as error:
            await self._leave(flight)
            if isinstance(error, UpstreamError):  # it broke before this client saw any of it
                self._forget(flight)
                return None
            raise
        self.record.charge = flight.charge
        self.flight = flight
        return source

    async def _replay(self, kept: KeptAnswer) -> Source | None:
        """A kept answer; None when it is too old, or in the wrong form, or can not be read."""
        plan, record, age = self.plan, self.record, self.wish.max_age_s
        if age is not None and self.lookup.clock.now_ns() - kept.kept_ns > age * 1_000_000_000:
            return None
        if kept.streamed != plan.incoming.stream and not await self._see_if_it_crosses():
            return None
        target = plan.path.targets[0]
        try:
            source = await self._open(Replay(kept.body), target, streamed=kept.streamed)
        except UpstreamError:
            return None
        plan.losses[:] = kept.losses
        record.use(target)
        record.charge = _nobody
        return source

    async def _see_if_it_crosses(self) -> bool:
        plan = self.plan
        if self.crosses is None:
            self.crosses = await asyncio.to_thread(crosses, plan) if plan.large else crosses(plan)
        return self.crosses

    def _open(self, answer: UpstreamAnswer, target: Target, *, streamed: bool) -> Awaitable[Source]:
        plan, call_id, clock = self.plan, self.record.id, self.lookup.clock
        if streamed == plan.incoming.stream:
            return open_source(answer, plan, target, call_id, clock)
        if streamed:
            return told_whole(answer, plan, target, clock)
        return told_as_stream(answer, plan, target, call_id, clock)

    def _kept(self, flight: Flight) -> KeptAnswer | None:
        """What is kept of an answer that its client has already; None when it may not be given again."""
        lookup, row, body = self.lookup, self.record.row, flight.whole
        finished = row.finish_reason in COMPLETE or row.operation == "embeddings"
        if not finished or row.output_valid is False or body is None or flight.generation != lookup.generation:
            return None
        return KeptAnswer(body, flight.streamed, lookup.clock.now_ns(), row.prompt, row.digest, flight.losses)

    async def _leave(self, flight: Flight, *exc: object) -> None:
        """Takes no more part. What all have left is nobody's to join."""
        if flight.parties == 1:
            self._forget(flight)
        await flight.leave(*exc)

    def _forget(self, flight: Flight) -> None:
        """Nobody joins it any more."""
        flights = self.lookup.flights
        if flights.get(self.key) is flight:
            del flights[self.key]


def repeatable(plan: Plan) -> bool:
    """Whether the same words ask the same, and one answer is asked for: of several only the first is looked at."""
    fields = plan.incoming.fields
    if not STATEFUL.isdisjoint(fields):
        return False
    if ("n" in fields and bytes(fields["n"]) not in (b"1", b"null")) or (
        plan.prompted is not None and plan.prompted.count is not None
    ):
        return False
    settings = fields.get("generationConfig") or fields.get("generation_config")
    return settings is None or b"andidate" not in bytes(settings)


def _nobody(_: bool) -> bool:
    """What is kept was paid for."""
    return False
