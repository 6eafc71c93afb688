"""
The exact cache: the same request again gets the answer that is there, kept or still on its way.

What is kept is the provider's answer as it came, so a hit goes to the client on the very way that it came on; only a
client that wants the other form, stream or whole, gets it retold. Concurrent calls that ask the same are one flight.
"""

from __future__ import annotations

from typing import cast

from tidegate.core.errors import TidegateError, UpstreamError
from tidegate.core.kept import KeptAnswer, answer_key
from tidegate.core.keys import Access
from tidegate.gateway.attempt import Attempts, open_source
from tidegate.gateway.cache_control import CacheControl
from tidegate.gateway.flight import Flight, SharedAnswer
from tidegate.gateway.record import Record
from tidegate.gateway.replay import Replay
from tidegate.gateway.resolve import Plan, off_loop
from tidegate.gateway.retold import ToldAsStream, ToldWhole, crosses
from tidegate.gateway.source import Source
from tidegate.ports import AnswerCache, Clock, UpstreamAnswer
from tidegate.upstream.targets import Target

COMPLETE = frozenset({"stop", "tool_calls", "function_call"})
"""Finish reasons of answers that are all there; one that was cut off or filtered is not given again."""
STATEFUL = frozenset({"conversation", "background", "container"})
"""What refers to something of the provider's that changes: the same words do not ask the same."""


class Lookup:
    """One per gateway process. Calls of routes without a cache never come here."""

    def __init__(self, answers: AnswerCache, attempts: Attempts, clock: Clock, *, secret: bytes) -> None:
        self.answers = answers
        self.attempts = attempts
        self.clock = clock
        self.flights: dict[bytes, Flight] = {}
        self.generation = 0
        """Counts purges."""
        self._secret = secret

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
        target = plan.path.targets[0]
        scope = (
            project,
            access.prompts,
            access.models,
            access.environments,
            plan.client.operation,
            plan.client.name,
            plan.wire(target).name,
            plan.path.route,
            target.provider,
            target.model,
            None if plan.served is None else plan.served.digest,
            target.named(plan.headers),
        )
        return answer_key(self._secret, scope, plan.incoming.fields)


class Part:
    """One call's part, as a block: a kept answer, a flight of its own, or a share in another's."""

    __slots__ = ("_access", "_crosses", "_flight", "_key", "_lookup", "_plan", "_record", "_wish")

    def __init__(self, lookup: Lookup, plan: Plan, record: Record, access: Access, wish: CacheControl) -> None:
        self._lookup = lookup
        self._plan = plan
        self._record = record
        self._access = access
        self._wish = wish
        self._key = b""
        self._crosses: bool | None = None
        """Whether the other form of an answer will do; None: nobody has looked."""
        self._flight: Flight | None = None

    async def __aenter__(self) -> Source:
        lookup, plan, row, wish = self._lookup, self._plan, self._record.row, self._wish
        row.cache = "bypass"
        if row.origin != "live" or not (wish.read or wish.write) or not repeatable(plan):
            return await self._lead(keeps=False)
        self._key = await off_loop(plan.large, lookup.key, plan, row.project, self._access)
        if not wish.read:
            return await self._lead(keeps=True)
        while True:
            kept = await lookup.answers.get(self._key)
            if kept is not None and (source := await self._replay(kept)) is not None:
                row.cache = "hit"
                return source
            flight = lookup.flights.get(self._key)
            if flight is None or not flight.open:
                row.cache = "miss"
                return await self._lead(keeps=wish.write, shared=wish.write)
            if flight.streamed != plan.incoming.stream:
                if self._crosses is None:
                    await self._see_if_it_crosses()
                    continue
                if not self._crosses:
                    row.cache = "miss"
                    return await self._lead(keeps=wish.write)
            row.cache = "shared"
            if (source := await self._follow(flight)) is not None:
                return source

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        flight = self._flight
        if flight is None:
            return
        try:
            if kind is None and flight.keeps:
                await self._keep(flight)
        finally:
            if flight.last:
                self._forget(flight)
            await flight.leave(kind, *exc)

    async def _lead(self, *, keeps: bool, shared: bool = False) -> Source:
        """Makes the call."""
        lookup, plan, record = self._lookup, self._plan, self._record
        flight = Flight(streamed=plan.incoming.stream, keeps=keeps, generation=lookup.generation)
        if shared:
            lookup.flights[self._key] = flight
        try:
            source, exchange = await lookup.attempts.try_targets(plan, record)
        except BaseException as error:
            self._forget(flight)
            flight.failed(error if isinstance(error, TidegateError) else None, record.target)
            raise
        if record.target is not plan.path.targets[0]:
            flight.keeps = False  # what another model says is not this one's answer
        flight.begun(cast("SharedAnswer", exchange), record.target, tuple(plan.losses), lookup.answers.largest)
        record.charge = flight.charge
        self._flight = flight
        return source

    async def _follow(self, flight: Flight) -> Source | None:
        """Takes part in another's call; None when that came to nothing for reasons of the other's own."""
        await flight.join()
        if flight.target is not None:
            self._record.use(flight.target)
        if flight.failure is not None:
            raise flight.failure
        if flight.answer is None or flight.target is None:
            return None
        self._plan.losses[:] = flight.losses
        source = self._open(flight.answer, flight.target, streamed=flight.streamed)
        try:
            await source.begin()
        except BaseException as error:
            await flight.leave()
            if isinstance(error, UpstreamError):  # it broke before this client saw any of it
                self._forget(flight)
                return None
            raise
        self._record.charge = flight.charge
        self._flight = flight
        return source

    async def _replay(self, kept: KeptAnswer) -> Source | None:
        """A kept answer; None when it is too old, or in the wrong form, or can not be read."""
        plan, record, age = self._plan, self._record, self._wish.max_age_s
        if age is not None and self._lookup.clock.now_ns() - kept.kept_ns > age * 1_000_000_000:
            return None
        if kept.streamed != plan.incoming.stream and not await self._see_if_it_crosses():
            return None
        target = plan.path.targets[0]
        source = self._open(Replay(kept.body), target, streamed=kept.streamed)
        try:
            await source.begin()
        except UpstreamError:
            return None
        plan.losses[:] = kept.losses
        record.use(target)
        record.charge = _nobody
        return source

    async def _see_if_it_crosses(self) -> bool:
        plan = self._plan
        if self._crosses is None:
            self._crosses = await off_loop(plan.large, crosses, plan)
        return self._crosses

    def _open(self, answer: UpstreamAnswer, target: Target, *, streamed: bool) -> Source:
        plan, call_id, created = self._plan, self._record.id, self._lookup.clock.now_ns() // 1_000_000_000
        if streamed == plan.incoming.stream:
            return open_source(answer, plan, target, call_id, created)
        if streamed:
            return ToldWhole(answer, plan, target, created=created)
        return ToldAsStream(answer, plan, target, call_id=call_id, created=created)

    async def _keep(self, flight: Flight) -> None:
        """Keeps a whole answer that may be given again; its client has it already."""
        lookup, plan, row = self._lookup, self._plan, self._record.row
        finished = row.finish_reason in COMPLETE or row.operation == "embeddings"
        body = flight.answer.whole if flight.answer is not None else None
        if not finished or row.output_valid is False or body is None or flight.generation != lookup.generation:
            return
        flight.keeps = False
        kept = KeptAnswer(
            body=body,
            streamed=flight.streamed,
            kept_ns=lookup.clock.now_ns(),
            prompt=row.prompt,
            digest=row.digest,
            losses=flight.losses,
        )
        await lookup.answers.put(self._key, kept, plan.path.exact_ttl_s or 0)

    def _forget(self, flight: Flight) -> None:
        """Nobody joins it any more."""
        flights = self._lookup.flights
        if flights.get(self._key) is flight:
            del flights[self._key]


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
