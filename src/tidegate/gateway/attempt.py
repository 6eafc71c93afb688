"""
Attempts: retries of one target nest inside the fallback over targets, one deadline over both.

This is the only retry layer. Retries wait with full jitter, honour Retry-After, and spend a budget of 20 % of the
calls, so that an outage upstream is never made worse by us. A target that asks for patience (429, Retry-After) is left
for the next one; the last is waited for, unless that would take over 30 s or longer than the call may.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable

from tidegate.core.errors import InvalidRequest, TidegateError, UpstreamError, UpstreamRejected, UpstreamUnavailable
from tidegate.core.retries import MAX_WAIT_S, RetryBudget, backoff_s, retry_after_s
from tidegate.dialects.reason import reason
from tidegate.gateway.flight import SharedAnswer
from tidegate.gateway.outages import Outages
from tidegate.gateway.record import Record
from tidegate.gateway.resolve import Plan
from tidegate.gateway.source import Source, StreamSource, read_whole
from tidegate.ports import Clock, Random, Upstream, UpstreamAnswer, UpstreamExchange, UpstreamRequest
from tidegate.upstream.targets import Target

MAX_ERROR_BYTES = 64 << 10
ERROR_BODY_S = 2.0
CREDENTIAL_REFUSED = (401, 402, 403, 407)
THIS_TARGETS_FAULT = (*CREDENTIAL_REFUSED, 404)
"""
A refused credential or a model it does not have: another target may do better, as for a redirect, which is not
followed. A bad request is bad everywhere.
"""
_KIND = re.compile(r"[A-Za-z]{1,64}")


class Attempts:
    """Tries a plan's targets. One per gateway process: the retry budget spans its calls."""

    def __init__(
        self, upstream: Upstream, budget: RetryBudget, clock: Clock, random: Random, outages: Outages | None = None
    ) -> None:
        """`outages`: where a log says that a provider fails; a command says itself what came of its calls."""
        self._upstream = upstream
        self._budget = budget
        self._clock = clock
        self._random = random
        self._outages = outages

    def attempt(self, plan: Plan, record: Record) -> Attempt:
        """
        `async with` it: the first answer that has begun well; leaving the block early cancels upstream.

        Raises the last UpstreamError when every target and every retry is spent, and InvalidRequest when no target can
        be told what the client said.
        """
        return Attempt(self, plan, record)

    async def try_targets(self, plan: Plan, record: Record) -> tuple[Source, UpstreamExchange]:
        """
        The answer, and the exchange that whoever takes it has to leave: a SharedAnswer where streams are kept.

        Raises as `attempt` does.
        """
        self._budget.call()
        last: TidegateError = UpstreamUnavailable("the route has no targets")
        failed = False
        for target in plan.path.targets:
            record.use(target)
            try:
                return await self._try_target(plan, target, record)
            except InvalidRequest as error:
                # Another target may be told what this one can not; that a target failed is still the better reason.
                last = last if failed else error
            except UpstreamError as error:
                last, failed = error, True
                if not error.retryable and error.http_status >= 400 and error.http_status not in THIS_TARGETS_FAULT:
                    break
        raise last

    async def _try_target(self, plan: Plan, target: Target, record: Record) -> tuple[Source, UpstreamExchange]:
        request = await asyncio.to_thread(_request, plan, target) if plan.large else _request(plan, target)
        retry = 0
        while True:
            began = self._clock.monotonic()
            try:
                answer = await self._call_once(request, plan, target, record)
            except asyncio.CancelledError:
                record.attempted(target, began, None)
                raise
            except UpstreamError as error:
                name_provider(error, target)
                record.attempted(target, began, error)
                if self._outages is not None:
                    self._outages.failed(target.provider, error)
                wait_s = self._wait_s(error, retry, plan, target, record)
                if wait_s is None or not self._budget.spend():
                    raise
                await asyncio.sleep(wait_s)
                retry += 1
            else:
                record.attempted(target, began, None, 200)
                if self._outages is not None and self._outages.running:
                    self._outages.answered(target.provider)
                return answer

    def _wait_s(self, error: UpstreamError, retry: int, plan: Plan, target: Target, record: Record) -> float | None:
        """How long until this target is tried again; None: it is not, as nobody has that much time or patience."""
        path = plan.path
        if not error.retryable or retry == path.retries:
            return None
        asked_s = None
        if isinstance(error, UpstreamRejected):
            if error.final:
                return None
            asked_s = error.retry_after_s
        if (asked_s or error.http_status == 429) and target is not path.targets[-1]:
            return None  # it wants to be left alone, and there is another
        wait_s = backoff_s(retry, self._random.uniform(), asked_s)
        return wait_s if wait_s <= min(MAX_WAIT_S, path.timeouts.total_s - record.elapsed_s) else None

    async def _call_once(
        self, request: UpstreamRequest, plan: Plan, target: Target, record: Record
    ) -> tuple[Source, UpstreamExchange]:
        signer = target.access.signer
        if signer is not None:
            request = await signer.sign(request, self._upstream, self._clock)
        exchange = self._upstream.request(request)
        if plan.path.exact_ttl_s is not None and plan.incoming.stream:
            exchange = SharedAnswer(exchange)
        answer = await exchange.__aenter__()
        try:
            if target.returned:
                record.shown_headers = target.shown_headers(answer.headers)
            if answer.status >= 300:
                if signer is not None and answer.status in CREDENTIAL_REFUSED:
                    signer.refused()
                raise _rejected(target, answer, await _error_body(answer))
            source = await open_source(answer, plan, target, record.id, self._clock)
        except BaseException:
            # A failed try gives its connection back before the next one waits or asks.
            await exchange.__aexit__(*sys.exc_info())
            raise
        return source, exchange


class Attempt:
    """One call's tries, as a block. By hand, because two exit stacks and a generator cost a tenth of a call."""

    __slots__ = ("_attempts", "_exchange", "_plan", "_record")

    def __init__(self, attempts: Attempts, plan: Plan, record: Record) -> None:
        self._attempts = attempts
        self._plan = plan
        self._record = record

    async def __aenter__(self) -> Source:
        source, self._exchange = await self._attempts.try_targets(self._plan, self._record)
        return source

    async def __aexit__(self, *exc: object) -> None:
        await self._exchange.__aexit__(*exc)


def open_source(answer: UpstreamAnswer, plan: Plan, target: Target, call_id: str, clock: Clock) -> Awaitable[Source]:
    """An answer that has begun well, in the form that the client asked for, stream or whole. Raises UpstreamError."""
    wire = plan.wire(target)
    if plan.incoming.stream:
        return StreamSource(answer, wire, plan.client, plan.incoming, call_id=call_id, clock=clock).begin()
    return read_whole(answer, wire, plan.client, plan.incoming, call_id=call_id, clock=clock)


def name_provider(error: UpstreamError, target: Target) -> None:
    """Who reads an error knows the provider by its name."""
    if not str(error).startswith(target.name):  # what it answered begins so
        error.provider = target.provider


def _rejected(target: Target, answer: UpstreamAnswer, body: bytes) -> UpstreamRejected:
    status = answer.status
    redacted = target.redact(body.decode("utf-8", "replace")).encode()
    # Providers quote parts of a key that they refuse; AWS also names the kind of refusal, which tells no key.
    kind = answer.headers.get("x-amzn-errortype", "").partition(":")[0]
    why = (kind if _KIND.fullmatch(kind) else "") if status in CREDENTIAL_REFUSED else reason(redacted)
    error = UpstreamRejected(
        f"{target.name} answered {status}{f': {why}' if why else ''}",
        status=status,
        body=redacted,
        retry_after_s=retry_after_s(answer.headers),
    )
    error.final = answer.headers.get("x-should-retry") == "false"
    return error


async def _error_body(answer: UpstreamAnswer) -> bytes:
    """What the provider says about its refusal; its status counts also where that is too long, late or broken off."""
    try:
        async with asyncio.timeout(ERROR_BODY_S):
            return await answer.read(MAX_ERROR_BYTES)
    except (UpstreamError, TimeoutError):
        return b""


def _request(plan: Plan, target: Target) -> UpstreamRequest:
    timeouts = plan.path.timeouts
    wire, host = plan.wire(target), target.access.host
    path, headers = target.head(wire, stream=plan.incoming.stream)
    return UpstreamRequest(
        origin=target.origin,
        method="POST",
        path=path,
        headers=headers,
        body=plan.body(target) if host is None else host.body(wire, plan.body(target)),
        connect_s=timeouts.connect_s,
        first_byte_s=timeouts.first_byte_s,
        idle_s=timeouts.idle_s,
        passed=target.passed(plan.headers),
    )
