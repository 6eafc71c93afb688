"""
Fakes of the ports, for tests: ours and yours. Contract suites run on them too, so they behave like the real thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tidegate.core.errors import NotFound, UpstreamProtocol
from tidegate.core.ledger import Freshness, Served
from tidegate.ports import Pieces, UpstreamAnswer, UpstreamExchange, UpstreamRequest
from tidegate.telemetry.record import Entry


@dataclass
class FixedClock:
    """Implements ports.Clock: stands still until it is moved."""

    unix_ns: int = 1_772_366_400_000_000_000
    """2026-03-01T12:00:00Z."""
    seconds: float = 0.0

    def now_ns(self) -> int:
        """The instant it was set to."""
        return self.unix_ns

    def monotonic(self) -> float:
        """The seconds it was set to."""
        return self.seconds

    def move(self, seconds: float) -> None:
        """Lets time pass."""
        self.seconds += seconds
        self.unix_ns += int(seconds * 1e9)


@dataclass
class FixedRandom:
    """Implements ports.Random: ids count up, every draw is the same."""

    draw: float = 0.0
    count: int = 0

    def bits(self, count: int) -> int:
        """1, 2, 3 …"""
        self.count += 1
        return self.count % (1 << count)

    def uniform(self) -> float:
        """The draw it was set to."""
        return self.draw


def as_read(line: bytes) -> dict[str, Any]:
    """A spool line as plain values, with all that it leaves out filled in."""
    entry = msgspec.json.decode(line, type=Entry)
    call = {**msgspec.structs.asdict(entry.call), "attempts": msgspec.to_builtins(entry.call.attempts)}
    return {"call": call, "content": entry.content and msgspec.structs.asdict(entry.content)}


@dataclass
class MemorySpool:
    """Implements ports.Spool in memory."""

    lines: list[bytes] = field(default_factory=list)
    full: bool = False

    def append(self, line: bytes) -> bool:
        """Keeps the line, unless the disk is said to be full."""
        if self.full:
            return False
        self.lines.append(line)
        return True


@dataclass
class MemoryRunning:
    """Implements ports.Running in memory."""

    begun: list[bytes] = field(default_factory=list)
    standing: set[int] = field(default_factory=set)
    full: bool = False

    def begin(self, said: bytes) -> int | None:
        """Keeps what was said, unless the disk is said to be full."""
        if self.full:
            return None
        self.begun.append(said)
        self.standing.add(len(self.begun))
        return len(self.begun)

    def end(self, place: int | None, *, recorded: bool) -> None:
        """It stands no more."""
        self.standing -= {place}


@dataclass
class FakePrompts:
    """Implements ports.PromptSource over what it is given."""

    served: dict[tuple[str, str], Served] = field(default_factory=dict)

    def live(self, prompt: str, environment: str) -> Served | None:
        """What stands under (prompt, environment)."""
        return self.served.get((prompt, environment))

    def names(self) -> Sequence[str]:
        """The prompts it has."""
        return sorted({prompt for prompt, _ in self.served})

    def freshness(self) -> Freshness:
        """Always fresh."""
        return Freshness(following=True, source="store", read_at="2026-03-01T12:00:00.000000Z")

    async def find(self, prompt: str, selector: str) -> Served:
        """By `vN` or digest prefix."""
        known = [served for (name, _), served in self.served.items() if name == prompt]
        for served in [*known, *(served.split.served for served in known if served.split)]:
            if selector == f"v{served.version}" or served.digest.startswith(selector):
                return msgspec.structs.replace(served, split=None)
        raise NotFound(f"prompt {prompt!r} has no version or environment {selector!r}.")


@dataclass
class ScriptedAnswer:
    """What a FakeUpstream does with one request: answer, break off, or fail."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[bytes] = (b"",)
    """Chunks, in order."""
    fails: BaseException | None = None
    """Raised before the head."""
    breaks: Exception | None = None
    """Raised after the chunks."""
    stalls: bool = False
    """Never ends: waits to be cancelled after the chunks."""
    read_out: bool = False
    """The body was read to its end."""

    def chunks(self) -> Pieces:
        """The body as it arrives."""
        return _Chunks(self)

    async def read(self, limit: int) -> bytes:
        """The whole body."""
        whole = b"".join([chunk async for chunk in self.chunks()])
        if len(whole) > limit:
            raise UpstreamProtocol(f"the answer is longer than {limit} bytes")
        return whole


class _Chunks(Pieces):
    """No generator: a wait that was cancelled may be taken up again."""

    def __init__(self, answer: ScriptedAnswer) -> None:
        self._answer = answer
        self._at = 0

    async def __anext__(self) -> bytes:
        answer = self._answer
        if self._at:
            await asyncio.sleep(0)
        if self._at < len(answer.body):
            self._at += 1
            return answer.body[self._at - 1]
        if answer.stalls:
            await asyncio.Event().wait()
        if answer.breaks is not None:
            raise answer.breaks
        answer.read_out = True
        raise StopAsyncIteration


class FakeUpstream:
    """Implements ports.Upstream: plays its script, one answer per request, and remembers the requests."""

    def __init__(self, *script: ScriptedAnswer) -> None:
        self._script = list(script)
        self.requests: list[UpstreamRequest] = []
        self.open = 0
        """Exchanges entered and not left: 0 when nothing leaks."""

    def request(self, request: UpstreamRequest) -> UpstreamExchange:
        """The next answer of the script."""
        self.requests.append(request)
        return _FakeExchange(self, self._script.pop(0))

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class _FakeExchange:
    upstream: FakeUpstream
    answer: ScriptedAnswer

    async def __aenter__(self) -> UpstreamAnswer:
        if self.answer.fails is not None:
            raise self.answer.fails
        self.upstream.open += 1
        return self.answer

    async def __aexit__(self, *exc: object) -> None:
        self.upstream.open -= 1
