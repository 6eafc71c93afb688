"""
Answers that came in the other form than the client asked for: a stream told whole, a whole answer told as a stream.

Both go through the canonical shape, as between dialects. `crosses` says when that shape holds all that was asked for.
"""

from __future__ import annotations

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest, StreamBroken
from tidegate.core.streamed import events_of, response_of
from tidegate.dialects.dialect import Answer, EventsOut
from tidegate.gateway.resolve import Plan
from tidegate.gateway.source import CUT, MAX_ANSWER_BYTES, Push, WholeSource, seconds, summary
from tidegate.ports import Clock, UpstreamAnswer
from tidegate.upstream.targets import Target


def crosses(plan: Plan) -> bool:
    """Whether nothing was asked for that the canonical shape, or a stream, could not tell."""
    if plan.client.operation != "chat":
        return False
    try:
        asked = plan.client.request_in(plan.incoming) if plan.prompted is None else plan.prompted
    except InvalidRequest:
        return False
    return not asked.losses and asked.logprobs is None


async def told_whole(upstream: UpstreamAnswer, plan: Plan, target: Target, clock: Clock) -> WholeSource:
    """A stream, for a client that asked for a whole answer. Raises UpstreamError."""
    wire = plan.wire(target)
    splitter, events_in = wire.splitter(), wire.events_in()
    events: list[chat.Event] = []
    async for chunk in upstream.chunks():
        for wire_event in splitter.feed(chunk):
            events += events_in.read(wire_event)
    response = response_of(events, created=seconds(clock))
    if not response.choices or any(choice.finish is None for choice in response.choices):
        raise StreamBroken(CUT)
    return WholeSource(plan.client.answer_out(response), summary(response))


async def told_as_stream(
    upstream: UpstreamAnswer, plan: Plan, target: Target, call_id: str, clock: Clock
) -> ToldAsStream:
    """A whole answer, for a client that asked for a stream. Raises UpstreamError."""
    response = plan.wire(target).answer_in(await upstream.read(MAX_ANSWER_BYTES))
    asked = plan.incoming
    out = plan.client.events_out(
        call_id=call_id, model=asked.model, created=seconds(clock), wants_usage=asked.wants_usage
    )
    shown = out.write([event for event in events_of(response) if not isinstance(event, chat.Ended)])
    return ToldAsStream(out, shown, summary(response))


class ToldAsStream:
    """A whole answer that goes out as events. Implements source.Source."""

    def __init__(self, out: EventsOut, shown: bytes, answer: Answer) -> None:
        self._out = out
        self._shown = shown
        self._answer = answer

    async def pour(self, push: Push) -> bool:
        """All but the end, at once."""
        shown, self._shown = self._shown, b""
        return bool(shown) and not push(shown)

    def end(self) -> bytes:
        """The client's dialect's own end."""
        return self._out.write([chat.Ended()])

    def answer(self) -> Answer:
        """What the record needs."""
        return self._answer

    async def read_out(self) -> None:
        """It is read out already."""
