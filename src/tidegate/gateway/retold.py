"""
Answers that came in the other form than the client asked for: a stream told whole, a whole answer told as a stream.

Both go through the canonical shape, as between dialects. `crosses` says when that shape holds all that was asked for.
"""

from __future__ import annotations

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest
from tidegate.core.streamed import events_of, response_of
from tidegate.dialects.dialect import Answer
from tidegate.gateway.resolve import Plan
from tidegate.gateway.source import MAX_ANSWER_BYTES, Push, summary
from tidegate.ports import UpstreamAnswer
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


class ToldWhole:
    """A stream, for a client that asked for a whole answer. Implements source.Source."""

    def __init__(self, upstream: UpstreamAnswer, plan: Plan, target: Target, *, created: int) -> None:
        self._upstream = upstream
        self._wire = plan.wire(target)
        self._client = plan.client
        self._created = created
        self._body = b""
        self._answer = Answer()

    async def begin(self) -> None:
        """Reads and understands all of the stream. Raises UpstreamError."""
        splitter, events_in = self._wire.splitter(), self._wire.events_in()
        events: list[chat.Event] = []
        async for chunk in self._upstream.chunks():
            for wire_event in splitter.feed(chunk):
                events += events_in.read(wire_event)
        response = response_of(events, created=self._created)
        self._answer, self._body = summary(response), self._client.answer_out(response)

    async def pour(self, push: Push) -> bool:
        """Nothing: a whole answer is its own end."""
        return False

    def end(self) -> bytes:
        """The body."""
        return self._body

    def answer(self) -> Answer:
        """What the record needs."""
        return self._answer

    async def read_out(self) -> None:
        """It is read out already."""


class ToldAsStream:
    """A whole answer, for a client that asked for a stream. Implements source.Source."""

    def __init__(self, upstream: UpstreamAnswer, plan: Plan, target: Target, *, call_id: str, created: int) -> None:
        self._upstream = upstream
        self._wire = plan.wire(target)
        asked = plan.incoming
        self._out = plan.client.events_out(
            call_id=call_id, model=asked.model, created=created, wants_usage=asked.wants_usage
        )
        self._shown = b""
        self._answer = Answer()

    async def begin(self) -> None:
        """Reads and understands the whole answer. Raises UpstreamError."""
        response = self._wire.answer_in(await self._upstream.read(MAX_ANSWER_BYTES))
        self._answer = summary(response)
        self._shown = self._out.write([event for event in events_of(response) if not isinstance(event, chat.Ended)])

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
