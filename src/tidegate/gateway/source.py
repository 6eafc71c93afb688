"""
An answer on its way from a provider to a client: passed through, or carried from one dialect into another.

A source begins inside an attempt: a whole answer is read and understood, a stream is read up to its first content. So
everything that goes wrong before the client has seen anything may still be tried again, or elsewhere. Afterwards the
relay has it `pour`ed, ready for the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from tidegate.core import chat
from tidegate.core.errors import StreamBroken, UpstreamError, UpstreamProtocol
from tidegate.dialects.dialect import Answer, Dialect, Incoming, Wire
from tidegate.ports import Clock, UpstreamAnswer

MAX_ANSWER_BYTES = 64 << 20
HELD_BYTES = 1 << 20
"""What comes before the first content is held, no more than this: a stream without any would fill the memory."""
NO_STREAMS = ("application/json", "text/html")
READ_OUT_S = 0.5
CUT = "the provider's stream ended before its answer was complete"
Push = Callable[[bytes], bool]
"""Takes a piece for the client; False when the next one should wait."""
CONTENT = (chat.TextDelta, chat.ThinkingDelta, chat.RefusalDelta, chat.ToolCallStarted, chat.ToolCallDelta)


class Source(Protocol):
    """One answer that has begun well."""

    async def pour(self, push: Push) -> bool:
        """
        Pushes what the client sees, as it comes, until only `end` is left.

        True when `push` said to wait: there may be more, so ask again. Raises UpstreamError when the stream breaks off.
        """
        ...

    def end(self) -> bytes:
        """The client's last bytes."""
        ...

    def answer(self) -> Answer:
        """What the record needs, of all that has come so far."""
        ...

    async def read_out(self) -> None:
        """Takes in what follows the end, so that the connection can serve another call."""
        ...


class WholeSource(msgspec.Struct):
    """A unary answer, all of it."""

    body: bytes
    read: Answer
    raw: bytes = b""
    """As the provider sent it, where that was whole too."""

    async def pour(self, push: Push) -> bool:
        """Nothing: a whole answer is its own end."""
        return False

    def end(self) -> bytes:
        """The body."""
        return self.body

    def answer(self) -> Answer:
        """What the record needs."""
        return self.read

    async def read_out(self) -> None:
        """It is read out already."""


async def read_whole(
    upstream: UpstreamAnswer, wire: Wire, client: Dialect, incoming: Incoming, *, call_id: str, clock: Clock
) -> WholeSource:
    """Reads and understands a unary answer. Raises UpstreamError."""
    body = await upstream.read(MAX_ANSWER_BYTES)
    if wire is client:
        return WholeSource(body, client.read_answer(body), body)
    response = wire.answer_in(body)
    read = summary(response)
    if not response.id or not response.model or not response.created:  # Bedrock says none of them
        said = {"id": response.id or call_id, "model": response.model or incoming.model}
        response = msgspec.structs.replace(response, **said, created=response.created or seconds(clock))
    return WholeSource(client.answer_out(response), read, body)


class _Follower(Protocol):
    """Reads wire events, and says what the client sees of them."""

    @property
    def done(self) -> bool: ...
    def follow(self, events: list[bytes]) -> tuple[bytes, bool]: ...
    def end(self) -> bytes: ...
    def answer(self) -> Answer: ...


class StreamSource:
    """A streamed answer."""

    def __init__(
        self, upstream: UpstreamAnswer, wire: Wire, client: Dialect, incoming: Incoming, *, call_id: str, clock: Clock
    ) -> None:
        self._upstream = upstream
        self._chunks = upstream.chunks()
        self._splitter = wire.splitter()
        self._follower: _Follower = (
            _Same(client, incoming)
            if wire is client
            else _Crossing(wire, client, incoming, call_id=call_id, created=seconds(clock))
        )
        self._held = b""
        self._push: Push
        self._full = False

    async def begin(self) -> StreamSource:
        """Reads up to the first content; what came before it is held. Raises UpstreamError."""
        async for chunk in self._chunks:
            visible, content = self._follower.follow(self._splitter.feed(chunk))
            self._held += visible
            if content or len(self._held) > HELD_BYTES:
                return self
            if self._follower.done:
                break
        try:
            self._check_finished()
        except StreamBroken:
            kind = self._upstream.headers.get("content-type", "").partition(";")[0]
            if kind not in NO_STREAMS:
                raise
            raise UpstreamProtocol(f"the provider answered with {kind}, which is no stream") from None
        return self

    async def pour(self, push: Push) -> bool:
        """What was held, then the rest in the moment it comes; the events of one read are one piece."""
        held, self._held = self._held, b""
        if held and not push(held):
            return True
        if self._follower.done:
            return False
        self._push, self._full = push, False
        if await self._chunks.pump(self._pass_on):
            self._check_end()
        return self._full

    def _pass_on(self, chunk: bytes) -> bool:
        visible, _ = self._follower.follow(self._splitter.feed(chunk))
        if visible and not self._push(visible):
            self._full = True
        return not (self._full or self._follower.done)

    def end(self) -> bytes:
        """The client's dialect's own end."""
        return self._follower.end()

    def answer(self) -> Answer:
        """What has come so far."""
        return self._follower.answer()

    async def read_out(self) -> None:
        """The end of the body follows the dialect's end at once, or the connection is not worth waiting for."""
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(READ_OUT_S):
                async for _ in self._chunks:
                    pass

    def _check_end(self) -> None:
        """The body is over, after some content: the dialect's own end makes it complete, or a reason to finish."""
        if not self._follower.done:
            self._check_finished()

    def _check_finished(self) -> None:
        if self._follower.answer().finish_reason is None:
            raise StreamBroken(CUT)


class _Same:
    """Client and provider speak one dialect: events pass through as they came."""

    def __init__(self, wire: Dialect, incoming: Incoming) -> None:
        self._wire = wire
        self._reader = wire.reader(wants_usage=incoming.wants_usage)
        self._last = b""

    @property
    def done(self) -> bool:
        return self._reader.done

    def follow(self, events: list[bytes]) -> tuple[bytes, bool]:
        shown: list[bytes] = []
        content = False
        for event in events:
            seen = self._reader.read(event)
            content = content or seen.content
            if self._reader.done:
                if seen.show:
                    self._last = event + b"\n\n"  # an end that is shown goes out as the end: after the record
                break  # nothing comes behind it
            if seen.show:
                shown.append(event)
        return (b"\n\n".join(shown) + b"\n\n" if shown else b""), content

    def end(self) -> bytes:
        return self._last or self._wire.end()

    def answer(self) -> Answer:
        return self._reader.finish()


class _Crossing:
    """Client and provider speak two dialects: events go through the canonical shape."""

    def __init__(self, wire: Wire, client: Dialect, incoming: Incoming, *, call_id: str, created: int) -> None:
        self.done = False
        self._in = wire.events_in()
        self._out = client.events_out(
            call_id=call_id, model=incoming.model, created=created, wants_usage=incoming.wants_usage
        )
        self._answer = Answer()
        self._texts: list[str] = []
        self._open: set[int] = set()
        """Choices that are known to have begun, and have not finished."""

    def follow(self, events: list[bytes]) -> tuple[bytes, bool]:
        content = False
        shown: list[chat.Event] = []
        for event in (event for wire_event in events for event in self._in.read(wire_event)):  # none behind the end
            if isinstance(event, chat.Ended):
                self.done = True
                break
            content = content or isinstance(event, CONTENT)
            self._note(event)
            shown.append(event)
        return (self._out.write(shown) if shown else b""), content

    def end(self) -> bytes:
        return self._out.write([chat.Ended()])

    def answer(self) -> Answer:
        answer = self._answer
        answer.text = "".join(self._texts)
        if self._open and not self.done:
            answer.finish_reason = None
        return answer

    def _note(self, event: chat.Event) -> None:
        answer = self._answer
        match event:
            case chat.Started():
                answer.model, answer.system_fingerprint = event.model or None, event.fingerprint
                answer.usage = event.usage
            case chat.TextDelta(choice=0) | chat.RefusalDelta(choice=0):
                self._texts.append(event.text)
            case chat.TextDelta() | chat.RefusalDelta() | chat.ThinkingDelta():
                answer.unseen_chars += len(event.text)
                self._open.add(event.choice)
            case chat.ToolCallStarted():
                answer.tool_calls = True
                self._open.add(event.choice)
            case chat.ToolCallDelta():
                answer.unseen_chars += len(event.arguments)
            case chat.Finished():
                self._open.discard(event.choice)
                if event.choice == 0:
                    answer.finish_reason = event.reason
            case chat.UsageReported():
                answer.usage = event.usage


def seconds(clock: Clock) -> int:
    """Since 1970, as providers say when they made an answer."""
    return clock.now_ns() // 1_000_000_000


def summary(response: chat.Response) -> Answer:
    """What the record needs of a canonical answer."""
    first = response.choices[0] if response.choices else chat.Choice((), None)
    return Answer(
        text="".join([part.text for part in first.parts if isinstance(part, chat.Text | chat.Refusal)]),
        finish_reason=first.finish,
        model=response.model or None,
        system_fingerprint=response.fingerprint,
        usage=response.usage,
        tool_calls=any(isinstance(part, chat.ToolCall) for part in first.parts),
        unseen_chars=sum([_unseen(part) for choice in response.choices for part in choice.parts])
        + sum([_spoken(part) for choice in response.choices[1:] for part in choice.parts]),
    )


def _unseen(part: chat.Part) -> int:
    """Of reasoning and of what tools are called with."""
    if isinstance(part, chat.Thinking):
        return len(part.text)
    return len(part.arguments) if isinstance(part, chat.ToolCall) else 0


def _spoken(part: chat.Part) -> int:
    return len(part.text) if isinstance(part, chat.Text | chat.Refusal) else 0
