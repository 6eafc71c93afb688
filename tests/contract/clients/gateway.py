"""The gateway that the clients call: real edge, routes, pipeline and upstream pool, before the simulated provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from tidegate.config import Config
from tidegate.core.artifact import Artifact, Input, Message, Output, digest
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.fakes import FakePrompts, MemoryRunning, MemorySpool, as_read
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.edge import Edge
from tidegate.gateway.lookup import Lookup
from tidegate.gateway.pipeline import Services
from tidegate.gateway.routes import Routes
from tidegate.ports import Upstream
from tidegate.simulate import rules
from tidegate.simulate.embed import EMBED
from tidegate.simulate.server import Latency, Simulator
from tidegate.stores.memory import MemoryAnswers
from tidegate.stores.meter import Meter
from tidegate.system import SystemClock, SystemRandom
from tidegate.upstream.http1 import Pool
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

CLIENT_KEY = "ck-the-clients-own"
PROVIDER_KEY = "sk-canary-upstream"
SYSTEM = "Answer in JSON."
QUESTION = "Context: Shoes can be returned for 30 days. Hats can not.\n\nQuestion: How long can shoes be returned?"
VARIABLES = {
    "context": "Shoes can be returned for 30 days. Hats can not.",
    "question": "How long can shoes be returned?",
}
ANSWER = '{"answer":"Shoes can be returned for 30 days.","needs_human":false}'
INPUT_TOKENS = rules.input_tokens([rules.Message("system", SYSTEM), rules.Message("user", QUESTION)])
OUTPUT_TOKENS = len(rules.tokenize(ANSWER))
TOOL_RESULT = "17 degrees"
TOOL_ANSWER = "The tool says: 17 degrees"
LEAVES_WITHIN_S = 0.25
"""A client that leaves is noticed, up to the provider and in the record, in this time."""
NAMES = [
    *("embed", "fixed", "support", "tools", "prompt:support/answer"),
    *(f"sim/{model}" for model in sorted([rules.SUPPORT, rules.TOOLS, rules.FIXED, EMBED])),
]
"""What can be called: routes, prompts, and the models that the configuration names."""
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
"""The parameters of the tool that clients offer."""


class Reply(BaseModel):
    """What the support model answers."""

    answer: str
    needs_human: bool


REPLY = Reply.model_validate_json(ANSWER)
PROMPT = Artifact(
    messages=(Message("user", "Context: {{ context }}\n\nQuestion: {{ question }}"),),
    model=f"sim/{rules.SUPPORT}",
    params={"max_output_tokens": 300},
    inputs={"context": Input(), "question": Input()},
    output=Output(format="schema", schema={"type": "object", "required": ["answer", "needs_human"]}),
)


@dataclass
class Gateway:
    """A gateway that listens, what stands behind it, and what it wrote down."""

    origin: str
    provider: Simulator
    spool: MemorySpool = field(default_factory=MemorySpool)

    def records(self) -> list[dict[str, Any]]:
        """The records of all calls, in the order they ended."""
        return [as_read(line)["call"] for line in self.spool.lines]

    def record(self) -> dict[str, Any]:
        """The one record of the one call."""
        (record,) = self.records()
        return record

    async def left(self) -> dict[str, Any]:
        """The record of the one call whose client has just left; neither it nor the provider may take long to know."""
        async with asyncio.timeout(LEAVES_WITHIN_S):
            while not self.spool.lines or self.provider.running:  # noqa: ASYNC110  neither tells
                await asyncio.sleep(0.002)
        assert self.provider.cancelled == 1
        return self.record()


@asynccontextmanager
async def gateway(
    *faults: str,
    latency: Latency = Latency(),  # noqa: B008  a frozen value
    way_out: Callable[[Pool], Upstream] = lambda pool: pool,
    keys: Keys = Keys(),  # noqa: B008  a frozen value
    limits: Mapping[str, Any] = MappingProxyType({}),
    budgets: Mapping[str, Any] = MappingProxyType({}),
    exact_ttl_s: float | None = None,
) -> AsyncIterator[Gateway]:
    """
    A gateway with the routes `support`, `tools`, `fixed`, `embed` and the prompt `support/answer`; no retries.

    `way_out`: what stands before the pool. `keys`: those of clients; without any the gateway is open.
    `limits`, `budgets`: as in tidegate.yaml.
    `exact_ttl_s`: how long an answer is given again; None: there is no cache.
    """
    clock, random = SystemClock(), SystemRandom()
    async with Simulator(api_key=PROVIDER_KEY, script=faults, latency=latency) as provider:
        targets = {"support": rules.SUPPORT, "tools": rules.TOOLS, "fixed": rules.FIXED, "embed": EMBED}
        config = Config.model_validate(
            {
                "providers": {"sim": {"base_url": provider.url, "api_key": PROVIDER_KEY}},
                "routes": {name: {"targets": [f"sim/{model}"], "retries": 0} for name, model in targets.items()},
                "caches": {} if exact_ttl_s is None else {"exact": {"ttl_s": exact_ttl_s}},
                "limits": dict(limits),
                "budgets": dict(budgets),
                "prices": {
                    f"sim/{rules.SUPPORT}": {"input": 1, "output": 2},
                    f"sim/{EMBED}": {"input": Decimal("0.02"), "output": 0},
                },
            }
        )
        pool = Pool()
        here = Gateway("", provider)
        served = Served("support/answer", 7, digest(PROMPT), PROMPT)
        attempts = Attempts(way_out(pool), RetryBudget(), clock, random)
        answers = MemoryAnswers(max_bytes=1 << 20, clock=clock)
        services = Services(
            clock=clock,
            random=random,
            spool=here.spool,
            attempts=attempts,
            lookup=Lookup(answers, attempts, clock, secret=bytes(32)),
            targets=Targets(config, PriceList(config.prices, {})),
            prompts=FakePrompts({("support/answer", "production"): served}),
            keys=keys,
            project="default",
            content_sample=1.0,
            admission=Meter(config.limits, config.budgets, zone=ZoneInfo("UTC"), clock=clock, running=MemoryRunning()),
        )
        edge = Edge(Routes(services))
        here.origin = f"http://127.0.0.1:{await edge.start()}"
        try:
            yield here
        finally:
            await edge.close(grace_s=1)
            await pool.close()
        sent = [request.headers for request in provider.requests]
        assert not [name for headers in sent for name, value in headers.items() if CLIENT_KEY in value]
