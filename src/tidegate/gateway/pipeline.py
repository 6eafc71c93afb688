"""
One call, from request to record. Read this page first: a call happens top to bottom.

The order is the security model. Whatever happens below `open`, exactly one record is written, and it is written before
the last byte of the answer leaves. `serve` knows no server: it takes a call and a reply to push into, so the HTTP edge,
evals and everything else that makes calls go through the same page.
"""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from dataclasses import dataclass, field

from tidegate.core.errors import (
    InternalError,
    Saturated,
    TidegateError,
    Unusable,
    UpstreamError,
    UpstreamRejected,
)
from tidegate.dialects.dialect import Dialect
from tidegate.dialects.reason import well_put
from tidegate.gateway.admit import admit
from tidegate.gateway.attempt import CREDENTIAL_REFUSED, Attempts
from tidegate.gateway.auth import Keys, authenticate
from tidegate.gateway.call import Call
from tidegate.gateway.deadline import Deadlines
from tidegate.gateway.lookup import Lookup
from tidegate.gateway.record import Record
from tidegate.gateway.relay import JSON_HEADERS, identity_headers, relay_stream, relay_whole
from tidegate.gateway.resolve import resolve
from tidegate.ports import SERVER_CLOSING, Admission, Clock, PromptSource, Random, Reply, Spool
from tidegate.upstream.targets import Targets

CLIENT_CLOSED = 499
LARGE_BODY_BYTES = 256 << 10
log = logging.getLogger("tidegate.gateway")


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a call needs; built once in compose.py."""

    clock: Clock
    random: Random
    spool: Spool
    attempts: Attempts
    targets: Targets
    prompts: PromptSource
    keys: Keys
    project: str
    content_sample: float
    admission: Admission | None = None
    """None where there are no limits and no budgets."""
    unbounded_output_tokens: int = 4_096
    """Reserved where a call sets no bound."""
    lookup: Lookup | None = None
    deadlines: Deadlines = field(default_factory=Deadlines)


async def serve(call: Call, reply: Reply, s: Services) -> None:
    """Serves one call into `reply`. Raises only CancelledError, when the client is gone; that is recorded too."""
    record = Record(call, s.project, s.clock, s.random, s.spool)
    record.keep_content = s.random.uniform() < s.content_sample
    try:
        # Before anything that costs money or tells what exists.
        access = authenticate(call, record, s.keys, s.clock)
        if call.wrong is not None:
            raise call.wrong
        incoming = call.dialect.parse_request(call.body, model=call.model, stream=call.stream)
        large = len(call.body) > LARGE_BODY_BYTES
        plan = await resolve(
            call.dialect,
            incoming,
            record,
            s.prompts,
            s.targets,
            access=access,
            random=s.random,
            headers=call.headers,
            large=large,
        )
        if s.admission is not None:
            admit(call, plan, record, s.admission, unbounded=s.unbounded_output_tokens)
        with s.deadlines.within(plan.path.timeouts.total_s):  # over every attempt and the whole answer
            async with (
                s.attempts.attempt(plan, record)
                if s.lookup is None or plan.path.exact_ttl_s is None
                else s.lookup.attempt(plan, record, access, call.cache)
            ) as source:
                await (relay_stream if incoming.stream else relay_whole)(plan, source, reply, record)
    except asyncio.CancelledError as cancelled:
        if str(cancelled) == SERVER_CLOSING:
            closing = Unusable("the gateway is shutting down; call again")
            closing.retryable = True
            await _refuse(closing, call.dialect, record, reply)
        record.close("client_closed", status=CLIENT_CLOSED)
        raise
    except TidegateError as error:
        await _refuse(error, call.dialect, record, reply)
    except Exception as error:  # noqa: BLE001  whatever it is; its own words may quote the call, so they are not logged
        place = "".join(traceback.format_tb(error.__traceback__))
        log.error("a bug in the pipeline, call %s: %s\n%s", record.id, type(error).__name__, place)
        bug = InternalError(f"an internal error; the log of call {record.id} has the rest")
        await _refuse(bug, call.dialect, record, reply)
    finally:
        record.close()


async def _refuse(error: TidegateError, client: Dialect, record: Record, reply: Reply) -> None:
    """Ends a call that has no (whole) answer: in the dialect's error shape, or its error event once a stream runs."""
    if isinstance(error, UpstreamRejected) and (
        not 400 <= error.http_status < 600 or error.http_status in CREDENTIAL_REFUSED
    ):
        # Our credential was refused, our address is wrong, or it is no status of HTTP's: to the client this is a broken
        # gateway, not its own key.
        error = UpstreamRejected(str(error), status=502, body=b"")
    record.failed(error)
    record.close()
    if reply.started:
        await reply.end(client.error_event(error, call_id=record.id))
        return
    body = b""
    if isinstance(error, UpstreamRejected) and record.target is not None and record.target.refuses_in(client):
        body = error.body if well_put(error.body) else b""
    headers = [JSON_HEADERS, *identity_headers(record)]
    if isinstance(error, UpstreamError) or not error.retryable:  # it was tried again here, or it would change nothing
        headers.append(("x-should-retry", "false"))
    if isinstance(error, UpstreamRejected | Saturated) and error.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after_s)))))
    await reply.start(error.http_status, headers, streamed=False)
    await reply.end(body or client.error_body(error, call_id=record.id))
