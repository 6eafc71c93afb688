"""
One upstream call that several clients take part in.

There is no task: whoever needs the next piece first waits for it, on behalf of all. So a slow client holds up nobody,
and when one leaves in the middle the next one goes on waiting where it stopped. The exchange is left by the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from tidegate.core import chat
from tidegate.core.errors import TidegateError, UpstreamError
from tidegate.gateway.source import MAX_ANSWER_BYTES
from tidegate.ports import Pieces, UpstreamAnswer, UpstreamExchange
from tidegate.upstream.targets import Target


class SharedAnswer:
    """A streamed answer that any number of readers follow. Implements ports.UpstreamExchange and -Answer."""

    def __init__(self, exchange: UpstreamExchange) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.limit = MAX_ANSWER_BYTES
        """More bytes are not kept while there is only one reader."""
        self.readers = 1
        self.size = 0
        self.ended = False
        self._exchange = exchange
        self._answer: UpstreamAnswer
        self._chunks: Pieces
        self._failure: UpstreamError | None = None
        self._pieces: list[bytes] = []
        self._gone = 0
        """How many pieces came before the first that is kept."""
        self._pulling = False
        self._waiting: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> SharedAnswer:
        self._answer = await self._exchange.__aenter__()
        self._chunks = self._answer.chunks()
        self.status, self.headers = self._answer.status, self._answer.headers
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exchange.__aexit__(*exc)

    @property
    def open(self) -> bool:
        """A further reader would get all of it, and it is still to end."""
        return not self.ended and self._failure is None and self.size <= self.limit

    @property
    def whole(self) -> bytes | None:
        """All that has come; None when some of it was not kept."""
        return None if self._gone else b"".join(self._pieces)

    async def read(self, limit: int) -> bytes:
        """The whole body of what is no answer but a refusal; nobody shares that."""
        return await self._answer.read(limit)

    def chunks(self) -> _Pieces:
        """The pieces from the first on."""
        return _Pieces(self)

    async def piece(self, at: int) -> bytes | None:
        """Piece number `at`, None at the end; to be asked for in order. Raises as the answer itself does."""
        while True:
            if at < self._gone + len(self._pieces):
                return self._pieces[at - self._gone]
            if self._failure is not None:
                raise self._failure
            if self.ended:
                return None
            if not self._pulling:
                return await self._pull()
            await self._turn()

    async def _pull(self) -> bytes | None:
        self._pulling = True
        try:
            piece = await self._chunks.__anext__()
        except StopAsyncIteration:
            self.ended = True
            return None
        except UpstreamError as error:
            self._failure = error
            raise
        finally:  # a cancel too: the next in line goes on
            self._pulling = False
            if self._waiting:
                _wake(self._waiting)
        self._take(piece)
        return piece

    async def pump(self, at: int, sink: Callable[[bytes], bool]) -> tuple[int, bool]:
        """
        Hands on the pieces from number `at` until `sink` says False: the number it came to, and whether it is the end.
        """
        while True:
            while at < self._gone + len(self._pieces):
                piece = self._pieces[at - self._gone]
                at += 1
                if not sink(piece):
                    return at, False
            if self._failure is not None:
                raise self._failure
            if self.ended:
                return at, True
            if self._pulling:
                await self._turn()
            else:
                at, refused = await self._pump(at, sink)
                if refused:
                    return at, False

    async def _pump(self, at: int, sink: Callable[[bytes], bool]) -> tuple[int, bool]:
        """Pulls for all; only what the provider does wrong concerns the others too."""
        mishap: list[Exception] = []

        def take(piece: bytes) -> bool:
            nonlocal at
            self._take(piece)
            at += 1
            if self._waiting:
                _wake(self._waiting)
            try:
                return sink(piece)
            except Exception as error:  # noqa: BLE001  whatever it is
                mishap.append(error)
                return False

        self._pulling = True
        try:
            self.ended = await self._chunks.pump(take)
        except UpstreamError as error:
            self._failure = error
            raise
        finally:
            self._pulling = False
            _wake(self._waiting)
        if mishap:
            raise mishap[0]
        return at, not self.ended  # it stopped before the end: the reader had it stop

    def _take(self, piece: bytes) -> None:
        self.size += len(piece)
        self._pieces.append(piece)
        if self.readers == 1 and self.size > self.limit:  # its only reader has it all
            self._gone += len(self._pieces)
            self._pieces.clear()

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn


class _Pieces(Pieces):
    """One reader's place."""

    def __init__(self, answer: SharedAnswer) -> None:
        self._answer = answer
        self._at = 0

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._answer.piece(self._at)
        if piece is None:
            raise StopAsyncIteration
        self._at += 1
        return piece

    async def pump(self, sink: Callable[[bytes], bool]) -> bool:
        self._at, ended = await self._answer.pump(self._at, sink)
        return ended


class Flight(msgspec.Struct, eq=False):
    """Who takes part in one call, and who pays for it. Made by its leader, who makes the call."""

    streamed: bool
    keeps: bool
    """Its answer may be kept; not any more once it is."""
    generation: int
    """Of the cache, when it began: a purge in between is not undone by what was asked before."""
    answer: SharedAnswer | bytes | None = None
    """Once it has begun well: a stream, or all of what is none."""
    exchange: UpstreamExchange | None = None
    """With the answer: what the last one has to leave."""
    target: Target | None = None
    losses: tuple[chat.Loss, ...] = ()
    failure: TidegateError | None = None
    parties: int = 1
    paid: bool = False
    waiting: list[asyncio.Future[None]] = []

    @property
    def open(self) -> bool:
        """Others may still join."""
        return self.answer is None or (isinstance(self.answer, SharedAnswer) and self.answer.open)

    @property
    def whole(self) -> bytes | None:
        """All of the answer that has come; None when some of it was not kept."""
        return self.answer.whole if isinstance(self.answer, SharedAnswer) else self.answer

    def begun(self, answer: SharedAnswer | bytes, exchange: UpstreamExchange, limit: int) -> None:
        """The leader has an answer; of a stream more than `limit` bytes are not kept while nobody else takes part."""
        self.answer, self.exchange = answer, exchange
        if isinstance(answer, SharedAnswer):
            answer.limit, answer.readers = limit, self.parties
        if self.waiting:
            _wake(self.waiting)

    def failed(self, error: TidegateError | None) -> None:
        """The leader has none: all who wait fail alike; without an error it has just left, and they go on."""
        self.failure = error
        _wake(self.waiting)

    async def join(self) -> None:
        """Takes part, cancelled or not; returns once there is an answer, a failure, or no leader any more."""
        self._count(1)
        if self.answer is None:
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            await turn

    async def leave(self, *exc: object) -> None:
        """Takes no more part. The last one leaves the exchange, which cancels an answer that is not whole."""
        self._count(-1)
        if not self.parties and self.exchange is not None:
            await self.exchange.__aexit__(*exc)

    def charge(self, whole: bool) -> bool:
        """Whether one who has an answer, whole or not, pays for it: the first who has all of it, or else the last."""
        pays = not self.paid and (whole or self.parties == 1)
        self.paid = self.paid or pays
        return pays

    def _count(self, change: int) -> None:
        self.parties += change
        if isinstance(self.answer, SharedAnswer):
            self.answer.readers = self.parties


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for turn in waiting:
        if not turn.done():
            turn.set_result(None)
    waiting.clear()
