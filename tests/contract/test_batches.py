"""
`--batch` over both adapters of BatchUpstream: BatchCaller is asked by the real commands, and the simulated provider
answers over real HTTP.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tidegate import compose
from tidegate.cli.eval import evaluate
from tidegate.cli.gate import gate_prompts
from tidegate.cli.init import make
from tidegate.config import Project
from tidegate.core.errors import BadInput, Unusable
from tidegate.core.evaluation import GateReport, Run
from tidegate.evals import batch as batch_module
from tidegate.simulate.server import Simulator

NAME = "support/answer"
CALLS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
MAKING = {"openai": "/v1/batches", "anthropic": "/v1/messages/batches"}


class World:
    """A project whose provider is the simulated one, spoken to as OpenAI or as Anthropic."""

    def __init__(self, folder: Path, provider: Simulator, dialect: str) -> None:
        self.folder = folder
        self.provider = provider
        self.dialect = dialect
        make(folder)
        config = folder / "tidegate.yaml"
        text = config.read_text()
        url = provider.origin if dialect == "anthropic" else provider.url
        ours = f'{{dialect: {dialect}, base_url: "{url}"}}'
        config.write_text(text.replace('{simulated: true, base_url: "http://127.0.0.1:4010/v1"}', ours))
        assert ours in config.read_text()

    @property
    def project(self) -> Project:
        return compose.project(self.folder / "tidegate.yaml")

    def suite(self, old: str, new: str) -> None:
        file = self.folder / "prompts" / NAME / "eval.yaml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    async def gate(self, **options: Any) -> GateReport:
        (report,) = await gate_prompts(self.project, [NAME], quiet=True, **options)
        return report

    async def eval(self, **options: Any) -> Run:
        return await evaluate(self.project, NAME, quiet=True, **options)

    def asked(self, path: str, method: str = "POST") -> list[bytes]:
        """Bodies of the requests that the provider got."""
        return [one.body for one in self.provider.requests if (one.path, one.method) == (path, method)]

    @property
    def alone(self) -> list[bytes]:
        """Requests of calls that were not in a batch."""
        return self.asked(CALLS[self.dialect])

    @property
    def batches(self) -> int:
        return len(self.asked(MAKING[self.dialect]))

    def records(self) -> list[dict[str, Any]]:
        return compose.own_call_log(self.project).rows("SELECT * FROM calls")


@pytest.fixture(params=["openai", "anthropic"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with Simulator() as provider:
        made = World(tmp_path / "bot", provider, request.param)
        made.suite("  max_cost_usd: 1\n", "")
        yield made


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "FIRST_WAIT_S", 0.02)


async def test_a_run_is_answered_by_a_batch_at_half_the_price(world: World) -> None:
    run = await world.eval(batch=True)
    assert [result.passed for result in run.results] == [True] * 9
    assert (world.provider.batches.answered, world.alone, world.batches) == (9, [], 1)
    dear = await world.eval()
    assert len(world.alone) == 9
    costs = [sum(result.cost_nano_usd or 0 for result in one.results) for one in (run, dear)]
    assert costs[0] * 2 == costs[1] > 0
    outputs = [[(result.case_id, result.repeat, result.output) for result in one.results] for one in (run, dear)]
    assert outputs[0] == outputs[1]
    assert {result.latency_s for result in run.results} == {None}


async def test_every_answer_of_a_batch_is_a_recorded_call(world: World) -> None:
    run = await world.eval(batch=True)
    records = world.records()
    assert {record["id"] for record in records} == {result.call_id for result in run.results}
    assert {(record["origin"], record["service_tier"], record["outcome"]) for record in records} == {
        ("eval", "batch", "ok")
    }
    assert sum(record["cost_nano_usd"] for record in records) == sum(
        result.cost_nano_usd or 0 for result in run.results
    )
    tags = [dict(record["tags"]) for record in records]
    assert {tag["batch"] for tag in tags} <= {"batch_2", "msgbatch_1"}
    assert {(tag["case"], tag["repeat"]) for tag in tags} == {(one.case_id, str(one.repeat)) for one in run.results}


async def test_a_batch_asks_just_what_the_calls_would_ask(world: World) -> None:
    await world.eval(batch=True)
    await world.eval()
    if world.dialect == "openai":
        (form,) = world.asked("/v1/files")
        lines = [json.loads(line) for line in form.split(b"\r\n\r\n")[2].splitlines() if line.startswith(b"{")]
        assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
        inside = [line["body"] for line in lines]
    else:
        (body,) = world.asked("/v1/messages/batches")
        lines = json.loads(body)["requests"]
        inside = [line["params"] for line in lines]
    assert sorted(map(json.dumps, inside)) == sorted(json.dumps(json.loads(body)) for body in world.alone)
    assert len({line["custom_id"] for line in lines}) == 9


@pytest.mark.parametrize(("fault", "alone"), [("errored", 4), ("expired", 4), ("cancelled", 4)])
async def test_what_got_no_answer_is_called_alone(world: World, fault: str, alone: int) -> None:
    world.provider.set_script([f"batch={fault}; times=1"] if world.dialect == "anthropic" else [])
    if world.dialect == "openai":  # the upload comes first, and must not use the fault up
        world.provider.set_script([f"batch={fault}; times=2"])
    run = await world.eval(batch=True)
    assert [result.passed for result in run.results] == [True] * 9
    assert (world.provider.batches.answered, len(world.alone), world.batches) == (9 - alone, alone, 1)


async def test_a_provider_that_fails_in_between_is_asked_again(world: World) -> None:
    world.provider.batches.batch_s = 0.1
    run = asyncio.create_task(world.eval(batch=True))
    while not world.batches:  # noqa: ASYNC110 - it waits for a request
        await asyncio.sleep(0.01)
    world.provider.set_script(["status=503; times=3"])
    assert len((await run).results) == 9
    assert (world.batches, world.alone) == (1, [])


async def test_both_sides_of_a_gate_wait_at_the_same_time(world: World) -> None:
    assert (await world.gate(batch=True)).verdict == "PASS"
    with closing(compose.registry(world.project)) as registry:
        registry.deploy(NAME, "v1", who="test", force=True, reason="test")
    prompt = world.folder / "prompts" / NAME / "prompt.md"
    prompt.write_text(prompt.read_text().replace("web shop", "bookshop"))
    world.suite("repeats: 3", "repeats: 2")
    world.provider.batches.batch_s = 0.2
    gate = asyncio.create_task(world.gate(batch=True))
    while world.batches < 3:  # noqa: ASYNC110 - both of them, before one has ended
        await asyncio.sleep(0.01)
    assert (await gate).verdict in ("PASS", "INCONCLUSIVE")
    assert (world.batches, world.alone) == (3, [])


async def test_a_second_process_waits_for_the_same_batch(world: World) -> None:
    """Ctrl-C or a kill while it waits: the batch is found again, not handed in again."""
    world.provider.batches.batch_s = 3600
    first = asyncio.create_task(world.eval(batch=True))
    while not list((world.folder / ".tidegate" / "runs").glob("*")) or not _ticket(world):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    with pytest.raises(BadInput, match=r"a batch of v1 is at the provider.*--batch"):
        await world.eval()
    world.provider.batches.batch_s = 0
    run = await world.eval(batch=True)
    assert len(run.results) == 9
    assert (world.batches, world.provider.batches.answered, world.alone) == (1, 9, [])
    assert not (world.folder / ".tidegate" / "runs").exists()


def _ticket(world: World) -> bool:
    text = b"".join(file.read_bytes() for file in (world.folder / ".tidegate" / "runs").glob("*"))
    return b"ticket" in text


async def test_a_kill_between_handing_in_and_hearing_of_it_pays_once(world: World) -> None:
    """The journal knows only that a batch was about to be handed in: the provider is asked for it."""
    world.provider.batches.batch_s = 3600
    first = asyncio.create_task(world.eval(batch=True))
    while not _ticket(world):  # noqa: ASYNC110 - it waits for a file
        await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    (journal,) = (world.folder / ".tidegate" / "runs").iterdir()
    journal.write_bytes(b"".join(line for line in journal.read_bytes().splitlines(True) if b"ticket" not in line))
    world.provider.batches.batch_s = 0
    run = await world.eval(batch=True)
    assert len(run.results) == 9
    assert (world.batches, world.provider.batches.answered, world.alone) == (1, 9, [])


async def test_a_batch_that_the_provider_forgot_is_called_alone_or_again(world: World) -> None:
    world.provider.batches.batch_s = 3600
    first = asyncio.create_task(world.eval(batch=True))
    while not _ticket(world):  # noqa: ASYNC110 - it waits for a file
        await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.provider.batches = type(world.provider.batches)(0)
    run = await world.eval(batch=True)
    assert [result.passed for result in run.results] == [True] * 9
    assert world.provider.batches.answered + len(world.alone) == 9


async def test_the_cap_holds_for_batches_too(world: World) -> None:
    """The first call is made alone, to know a price; only so many go into a batch as fit."""
    dear = await world.eval()
    most = max(result.cost_nano_usd or 0 for result in dear.results)
    world.suite("gate:\n", f"gate:\n  max_cost_usd: {4.2 * most / 1e9:.9f}\n")
    before = len(world.alone)
    with pytest.raises(Unusable, match=r"gate\.max_cost_usd"):
        await world.eval(batch=True)
    spent = sum(record["cost_nano_usd"] for record in world.records()) - sum(
        result.cost_nano_usd or 0 for result in dear.results
    )
    assert world.provider.batches.answered >= 3
    assert len(world.alone) - before >= 1
    assert spent <= 4.2 * most


async def test_a_server_without_batches_is_said(world: World) -> None:
    world.provider.set_script(["status=404"])
    with pytest.raises(BadInput, match=r"simulated/support-2026-03-01 has no batch API.*Leave out --batch"):
        await world.eval(batch=True)
    world.provider.set_script([])
    assert len((await world.eval()).results) == 9, "nothing is left behind that would be in the way"


async def test_a_refused_batch_stops_the_run_and_can_be_tried_again(tmp_path: Path) -> None:
    async with Simulator(script=["batch=failed"]) as provider:
        world = World(tmp_path / "bot", provider, "openai")
        world.suite("  max_cost_usd: 1\n", "")
        with pytest.raises(Unusable, match="the provider refuses the batch: A simulated refusal"):
            await world.eval(batch=True)
        provider.set_script([])
        assert len((await world.eval(batch=True)).results) == 9
        assert (world.batches, provider.batches.answered, world.alone) == (2, 9, [])


@pytest.mark.parametrize("dialect", ["gemini", "azure"])
async def test_a_provider_of_another_kind_is_refused_before_anything_is_sent(tmp_path: Path, dialect: str) -> None:
    async with Simulator() as provider:
        world = World(tmp_path / "bot", provider, "openai")
        config = world.folder / "tidegate.yaml"
        key = ", api_key: sk-1" if dialect == "azure" else ""
        config.write_text(config.read_text().replace("dialect: openai", f"dialect: {dialect}{key}"))
        with pytest.raises(BadInput, match="has no batch API that tidegate speaks"):
            await world.eval(batch=True)
        assert not provider.requests


def test_a_server_keeps_its_keys(tmp_path: Path) -> None:
    """With TIDEGATE_URL the provider's key is not here: said before the first request."""

    async def ask() -> None:
        async with compose.batches(compose.project(tmp_path / "bot" / "tidegate.yaml"), object()):  # type: ignore[arg-type]
            pass

    make(tmp_path / "bot")
    with pytest.raises(BadInput, match="the server keeps the provider's key"):
        asyncio.run(ask())
