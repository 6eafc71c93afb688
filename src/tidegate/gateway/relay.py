"""
From the provider to the client: one loop, whatever the dialects.

Pieces go out as they come. The record is written before the last bytes leave. A stream that breaks raises; the pipeline
ends it in an error event, never in a made-up finish.
"""

from __future__ import annotations

from tidegate.core.errors import UpstreamError
from tidegate.gateway import validity
from tidegate.gateway.attempt import name_provider
from tidegate.gateway.record import Record
from tidegate.gateway.resolve import Plan, names
from tidegate.gateway.source import Source
from tidegate.ports import Reply

DROPPED_TAG = "tidegate.dropped"
MAX_TAG_CHARS = 256
JSON_HEADERS = ("content-type", "application/json")
STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)


async def relay_whole(plan: Plan, source: Source, reply: Reply, record: Record) -> None:
    """Passes the answer on and closes the record."""
    answer = source.answer()
    record.answered(answer)
    _check_output(plan, record, answer.text, whole=answer.finish_reason != "length")
    headers = [JSON_HEADERS, *identity_headers(record), *_losses(plan, record)]
    if record.row.cost_nano_usd is not None:
        headers.append(("x-tidegate-cost-usd", f"{record.row.cost_nano_usd / 1e9:.9f}"))
    record.close("ok", status=200)
    await reply.start(200, headers, streamed=False)
    await reply.end(source.end())


async def relay_stream(plan: Plan, source: Source, reply: Reply, record: Record) -> None:
    """As `relay_whole`, piece by piece. Raises UpstreamError when the answer can not be had whole."""
    record.first_chunk()
    await reply.start(200, [*STREAM_HEADERS, *identity_headers(record), *_losses(plan, record)], streamed=True)
    try:
        while await source.pour(reply.push):
            await reply.drained()
    except UpstreamError as error:
        if record.target is not None:
            name_provider(error, record.target)
        raise
    finally:
        # Also of a stream that broke or was cancelled: what arrived is billed and kept.
        answer = source.answer()
        record.answered(answer)
    _check_output(plan, record, answer.text, whole=answer.finish_reason != "length")
    record.close("ok", status=200)
    await reply.end(source.end())
    await source.read_out()


def _check_output(plan: Plan, record: Record, text: str, *, whole: bool) -> None:
    served = plan.served
    if served is None or served.artifact.output.format == "text":
        return
    problem = validity.problem(served.artifact.output, served.digest, text)
    if problem is not None and not whole:
        problem = f"cut off at the token limit; {problem}"
    record.row.output_valid = problem is None
    record.row.output_problem = problem


def _losses(plan: Plan, record: Record) -> list[tuple[str, str]]:
    """What the target could not be told: always in the record, and for the client unless the policy is to drop it."""
    if not plan.losses:
        return []
    lost = names(plan.losses)
    record.row.tags = {**(record.row.tags or {}), DROPPED_TAG: lost[:MAX_TAG_CHARS]}
    return [("x-tidegate-dropped", lost)] if plan.path.unsupported == "warn" else []


def identity_headers(record: Record) -> list[tuple[str, str]]:
    """What every answer says about itself."""
    row = record.row
    headers = [("x-tidegate-call-id", row.id), ("x-request-id", record.request_id)]
    if row.prompt is not None and row.digest is not None:
        headers.append(("x-tidegate-prompt", row.prompt))
        headers.append(("x-tidegate-version", f"v{row.version}" if row.version else row.digest[:12]))
    if record.target is not None:
        headers.append(("x-tidegate-model", record.target.shown))
        headers.append(("x-tidegate-attempts", str(len(row.attempts))))
    if row.cache is not None:
        headers.append(("x-tidegate-cache", row.cache))
    if record.shown_headers:
        headers += record.shown_headers
    return headers
