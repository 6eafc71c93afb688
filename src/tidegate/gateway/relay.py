"""
From the provider to the client: one loop for streams, one step for whole answers.

Events go out as they come, those of one read in one write. Until the first content nothing is sent, so that a failure
still has a status of its own. The record is written before the last bytes leave. A stream that breaks raises; the
pipeline ends it in an error event, never in a made-up finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from tidegate.core.errors import StreamBroken, UpstreamError
from tidegate.dialects import openai_chat
from tidegate.dialects.openai_chat import StreamReader
from tidegate.dialects.sse import EventSplitter, data_of
from tidegate.gateway import validity
from tidegate.gateway.record import Record
from tidegate.gateway.resolve import Plan
from tidegate.ports import Reply, UpstreamAnswer

MAX_ANSWER_BYTES = 64 << 20
READ_OUT_S = 0.5
JSON_HEADERS = ("content-type", "application/json")
STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)


async def relay(plan: Plan, source: UpstreamAnswer, reply: Reply, record: Record) -> None:
    """Passes the answer on and closes the record. Raises UpstreamError when the answer can not be had whole."""
    if plan.request.stream:
        await _relay_stream(plan, source, reply, record)
    else:
        await _relay_whole(plan, source, reply, record)


async def _relay_whole(plan: Plan, source: UpstreamAnswer, reply: Reply, record: Record) -> None:
    body = await source.read(MAX_ANSWER_BYTES)
    answer = openai_chat.parse_answer(body)
    record.answered(answer)
    _check_output(plan, record, answer.text, whole=answer.finish_reason != "length")
    headers = [JSON_HEADERS, *identity_headers(record)]
    if record.row.cost_nano_usd is not None:
        headers.append(("x-tidegate-cost-usd", f"{record.row.cost_nano_usd / 1e9:.9f}"))
    record.close("ok", status=200)
    await reply.start(200, headers, streamed=False)
    await reply.end(body)


async def _relay_stream(plan: Plan, source: UpstreamAnswer, reply: Reply, record: Record) -> None:
    reader = StreamReader(wants_usage=plan.request.wants_usage)
    splitter = EventSplitter()
    chunks = source.chunks()
    held = b""
    try:
        async for chunk in chunks:
            visible, content = _visible(splitter.feed(chunk), reader)
            if content and not reply.started:
                record.first_chunk()
                await reply.start(200, [*STREAM_HEADERS, *identity_headers(record)], streamed=True)
            if reply.started:
                if held or visible:
                    await reply.send(held + visible)
                held = b""
            else:
                held += visible
            if reader.done:
                break
        if not reader.done and reader.answer.finish_reason is None:
            raise StreamBroken("the provider's stream ended before its answer was complete")
    finally:
        # Also of a stream that broke or was cancelled: what arrived is billed and kept.
        answer = reader.finish()
        record.answered(answer)
    _check_output(plan, record, answer.text, whole=answer.finish_reason != "length")
    record.close("ok", status=200)
    if not reply.started:
        await reply.start(200, [*STREAM_HEADERS, *identity_headers(record)], streamed=True)
    await reply.end(held + openai_chat.DONE)
    await _read_out(chunks)


async def _read_out(chunks: AsyncIterator[bytes]) -> None:
    """Takes in what follows `[DONE]` – the end of the body – so that the connection can serve another call."""
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(READ_OUT_S):
            async for _ in chunks:
                pass


def _visible(events: list[bytes], reader: StreamReader) -> tuple[bytes, bool]:
    """The events a client should see, as one piece of bytes, and whether any of them carries content."""
    shown: list[bytes] = []
    any_content = False
    for event in events:
        data = data_of(event)
        if data is None:
            continue
        show, content = reader.read(data)
        any_content = any_content or content
        if show:
            shown.append(event)
    return (b"\n\n".join(shown) + b"\n\n" if shown else b""), any_content


def _check_output(plan: Plan, record: Record, text: str, *, whole: bool) -> None:
    served = plan.served
    if served is None or served.artifact.output.format == "text":
        return
    problem = validity.problem(served.artifact.output, served.digest, text)
    if problem is not None and not whole:
        problem = f"cut off at the token limit; {problem}"
    record.row.output_valid = problem is None
    record.row.output_problem = problem


def identity_headers(record: Record) -> list[tuple[str, str]]:
    """What every answer says about itself."""
    row = record.row
    headers = [("x-tidegate-call-id", row.id)]
    if row.prompt is not None and row.digest is not None:
        headers.append(("x-tidegate-prompt", row.prompt))
        headers.append(("x-tidegate-version", f"v{row.version}" if row.version else row.digest[:12]))
    if record.target is not None:
        headers.append(("x-tidegate-model", record.target.name))
        headers.append(("x-tidegate-attempts", str(len(row.attempts))))
    return headers
