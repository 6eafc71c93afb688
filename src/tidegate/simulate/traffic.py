"""
Simulated customers: mixed calls to a support prompt through a gateway, as an application would make them.

About one question in six is long; a third of the calls stream. Deterministic for a seed, but for the order in which
concurrent calls end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.core.errors import TidegateError
from tidegate.ports import UpstreamRequest
from tidegate.upstream.http1 import Pool

CONTEXT = (
    "Orders can be returned within 30 days of delivery. "
    "A password is reset from the sign-in page with the link Forgot password, which is valid for one hour. "
    "Standard delivery takes three to five working days. "
    "Invoices are in your account under Billing. "
    "Support answers by e-mail within one working day."
)
SHORT = (
    "How long do I have to return an order?",
    "How do I reset my password?",
    "When will my delivery arrive?",
    "Where do I find my invoices?",
    "How fast does support answer an e-mail?",
)
LONG = (
    (
        "I have tried to sign in since yesterday evening from my phone and from my laptop, both say that the password "
        "is wrong although I am sure it is the right one; how do I reset my password without losing my saved orders?"
    ),
    (
        "My sister ordered three sweaters for me as a birthday present, two of them are too small and one has a hole "
        "in the left sleeve, and the box is already in the paper bin; until when can the order be returned?"
    ),
)
LONG_SHARE = 1 / 6
STREAM_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Sent:
    """One call as its client saw it."""

    status: int
    version: str | None
    call_id: str | None
    complete: bool
    """The whole answer came: this call is acknowledged."""


class Customers:
    """Calls one prompt through the gateway at `url`. Used as `async with`."""

    def __init__(self, url: str, prompt: str, *, seed: int) -> None:
        self._url = url
        self._prompt = prompt
        self._random = random.Random(seed)
        self._pool = Pool()

    async def __aenter__(self) -> Customers:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pool.close()

    async def send(self, count: int, *, concurrency: int, done: Callable[[Sent], None]) -> None:
        """Makes `count` calls, at most `concurrency` at a time."""
        questions = iter([self._question() for _ in range(count)])

        async def customer() -> None:
            for question, stream in questions:
                done(await self._call(question, stream))

        await asyncio.gather(*(customer() for _ in range(concurrency)))

    async def one(self) -> Sent:
        """One short, unary call; a probe, not a customer of the shop."""
        return await self._call(SHORT[0], False, service="probe")

    def _question(self) -> tuple[str, bool]:
        questions = LONG if self._random.random() < LONG_SHARE else SHORT
        return self._random.choice(questions), self._random.random() < STREAM_SHARE

    async def _call(self, question: str, stream: bool, *, service: str = "shop") -> Sent:
        body: dict[str, Any] = {
            "model": f"prompt:{self._prompt}",
            "variables": {"question": question, "context": CONTEXT},
        }
        if stream:
            body["stream"] = True
        request = UpstreamRequest(
            origin=self._url,
            method="POST",
            path="/v1/chat/completions",
            headers=(("content-type", "application/json"), ("x-tidegate-service", service)),
            body=msgspec.json.encode(body),
            connect_s=5,
            first_byte_s=30,
            idle_s=30,
        )
        try:
            async with self._pool.request(request) as answer:
                raw = await answer.read(1 << 20)
                headers = answer.headers
                complete = answer.status == 200 and (not stream or raw.endswith(b"data: [DONE]\n\n"))
                version, call_id = headers.get("x-tidegate-version"), headers.get("x-tidegate-call-id")
                return Sent(answer.status, version, call_id, complete)
        except TidegateError:
            return Sent(0, None, None, False)
