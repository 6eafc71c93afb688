"""Splits in the registry and in a gateway's snapshot, on every control store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.conftest import Sql
from tidegate.core.artifact import Artifact, Message, digest
from tidegate.core.errors import BadInput, NotFound, Refused, Unusable
from tidegate.core.evaluation import Run
from tidegate.core.ledger import Deployment, Pointer, Served, Share
from tidegate.fakes import FixedClock, FixedRandom
from tidegate.prompts.live import LivePrompts
from tidegate.prompts.registry import Registry
from tidegate.prompts.snapshot_file import SnapshotFile
from tidegate.stores.control import open_control
from tidegate.system import SystemClock

P = "support/answer"


class World:
    """A registry with v1 … v4, of which v1 is live, and in which time passes."""

    def __init__(self, registry: Registry, clock: FixedClock) -> None:
        self.registry = registry
        self.clock = clock
        self.runs = itertools.count(1)
        for number in range(1, 5):
            registry.register(P, artifact(number))
        for number in (1, 2, 3):
            self.gate(number)
        self.deploy(1)

    def gate(self, number: int, verdict: str = "PASS") -> None:
        now = "2026-03-01T12:00:00.000000Z"
        made = Run(
            id=f"r{next(self.runs)}",
            prompt=P,
            version=number,
            digest=digest(artifact(number)),
            suite_digest="s",
            golden_digest="g",
            started_at=now,
            finished_at=now,
            repeats=1,
            results=(),
            verdict=verdict,  # type: ignore[arg-type]
        )
        self.registry.save_run(made, suite="s", golden="g")

    def deploy(self, number: int, weight: float | None = None, **options: object) -> Deployment:
        self.clock.move(1)
        options.setdefault("who", "anna")
        return self.registry.deploy(P, f"v{number}", weight=weight, **options)  # type: ignore[arg-type]

    def rollback(self, to: str | None = None) -> Deployment:
        self.clock.move(1)
        return self.registry.rollback(P, who="ben", reason="chats", to=to)

    @property
    def pointer(self) -> Pointer:
        (found,) = self.registry.pointers(P)
        return found

    @property
    def shares(self) -> dict[int, float]:
        return self.pointer.shares

    @property
    def live(self) -> Served:
        return self.registry.snapshot().live[P, "production"]


def artifact(number: int) -> Artifact:
    return Artifact(messages=(Message("user", f"text {number}"),), model="a/b")


def served(number: int) -> Served:
    return Served(P, number, digest(artifact(number)), artifact(number))


@pytest.fixture
def world(control: Path | str) -> Iterator[World]:
    clock = FixedClock()
    with closing(Registry(open_control(control), clock, FixedRandom(), protects=["production"])) as registry:
        yield World(registry, clock)


def test_a_deploy_with_a_weight_keeps_the_rest_on_what_is_live(world: World) -> None:
    before = world.pointer
    move = world.deploy(2, 0.1)
    assert (move.action, move.from_version, move.to_version, move.weight) == ("deploy", 1, 2, 0.1)
    assert (move.run_id, move.suite_digest) == ("r2", "s"), "approved like any other"
    assert world.shares == {1: 0.9, 2: 0.1}
    assert (world.pointer.version, world.pointer.since) == (1, before.since)
    split = world.pointer.split
    assert split is not None
    assert (split.id, split.since, split.by) == (move.id, move.at, "anna")
    live = world.live
    assert (live.version, live.split) == (1, Share(move.id, 0.1, served(2)))
    assert world.registry.resolve(P, "production").number == 1


def test_the_weight_moves_and_callers_stay(world: World) -> None:
    first = world.deploy(2, 0.1)
    second = world.deploy(2, 0.2)
    assert (second.from_version, second.to_version) == (1, 2)
    assert world.shares == {1: 0.8, 2: 0.2}
    assert world.live.split == Share(first.id, 0.2, served(2))


def test_the_same_again_writes_nothing(world: World) -> None:
    move = world.deploy(2, 0.1)
    assert world.deploy(2, 0.1) == move
    assert len(world.registry.log()) == 2


def test_a_deploy_without_a_weight_ends_the_split(world: World) -> None:
    world.deploy(2, 0.1)
    move = world.deploy(2)
    assert (move.from_version, move.to_version, move.weight) == (1, 2, None)
    assert world.shares == {2: 1.0}
    assert world.live == served(2)


def test_deploying_what_serves_the_rest_ends_the_split_and_asks_for_no_approval(world: World) -> None:
    """Nothing goes live by it, whatever the gate says of it by now; and the other version may come back."""
    world.deploy(2, 0.1)
    world.gate(1, "FAIL")
    move = world.deploy(1)
    assert (move.from_version, move.to_version, move.forced) == (2, 1, False)
    assert world.shares == {1: 1.0}
    assert world.deploy(2, 0.1).weight == 0.1


def test_a_rollback_ends_the_split_in_favour_of_the_last_good_version(world: World) -> None:
    world.deploy(2, 0.1)
    target = world.registry.rollback_target(P)
    assert target is not None
    assert target.number == 1
    move = world.rollback()
    assert (move.action, move.from_version, move.to_version) == ("rollback", 2, 1)
    assert world.shares == {1: 1.0}
    for weight in (None, 0.1):
        with pytest.raises(Refused, match="v2 was rolled back from production by ben"):
            world.deploy(2, weight)
    assert world.deploy(2, 0.1, force=True, reason="mended elsewhere").forced


def test_a_rollback_names_either_side(world: World) -> None:
    world.deploy(2)
    world.deploy(3, 0.5)
    with pytest.raises(BadInput, match=r"v3 is what production serves already \(v2 50 % / v3 50 %\)"):
        world.rollback("v3")
    assert world.rollback("v2").from_version == 3
    world.deploy(3, 0.5, force=True, reason="again")
    move = world.rollback("v1")
    assert (move.from_version, world.shares) == (2, {1: 1.0})
    for number in (2, 3):
        with pytest.raises(Refused, match=f"v{number} was rolled back"):
            world.deploy(number)
    with pytest.raises(NotFound, match="v1 stays live"):
        world.rollback()


def test_what_only_had_a_share_is_not_what_a_rollback_goes_back_to(world: World) -> None:
    world.deploy(2, 0.1)
    world.deploy(3)
    assert world.rollback().to_version == 1


def test_a_third_version_takes_the_place_of_the_second(world: World) -> None:
    world.deploy(2, 0.1)
    move = world.deploy(3, 0.3)
    assert (move.from_version, move.to_version) == (1, 3)
    assert world.shares == {1: 0.7, 3: 0.3}
    assert world.live.split is not None
    assert world.live.split.id == move.id


def test_a_share_asks_for_the_same_approval_as_all_calls(world: World) -> None:
    with pytest.raises(Refused, match=r"v4 .* has no gate run"):
        world.deploy(4, 0.01)
    world.gate(2, "FAIL")
    with pytest.raises(Refused, match=r"v2 .* its gate said FAIL"):
        world.deploy(2, 0.01)
    with pytest.raises(BadInput, match="--force needs --reason"):
        world.deploy(4, 0.01, force=True)
    assert world.deploy(4, 0.01, force=True, reason="the customer waits").forced
    assert world.shares == {1: 0.99, 4: 0.01}


def test_a_share_needs_a_rest(world: World) -> None:
    with pytest.raises(BadInput, match="nothing of support/answer is live in staging"):
        world.deploy(2, 0.1, environment="staging")
    with pytest.raises(BadInput, match="v1 is what production serves already"):
        world.deploy(1, 0.1)
    world.deploy(2, 0.1)
    with pytest.raises(BadInput, match=r"\(v1 90 % / v2 10 %\): give the weight of the other version"):
        world.deploy(1, 0.8)
    for weight in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(BadInput, match="a weight is a share"):
            world.deploy(2, weight)
    assert len(world.registry.log()) == 2


def test_the_chain_of_hashes_covers_a_weight(world: World, raw: Sql) -> None:
    world.deploy(2, 0.1)
    world.deploy(2, 0.2)
    assert world.registry.verify() == []
    raw("UPDATE deployments SET weight = 0.3 WHERE weight = 0.2")
    faults = [str(fault) for fault in world.registry.verify()]
    assert len(faults) == 2
    assert "line 3 (deploy of support/answer v2 to production with a share of 0.3" in faults[0]
    assert faults[0].endswith("was edited.")
    assert "gives v2 a share of 0.2, but the last line about it is line 3" in faults[1]


@pytest.mark.parametrize(
    "edit",
    ["UPDATE pointers SET split = NULL", "UPDATE pointers SET split = replace(split, '0.1', '0.9')"],
)
def test_a_pointer_that_no_line_speaks_of_is_found(world: World, raw: Sql, edit: str) -> None:
    world.deploy(2, 0.1)
    raw(edit)
    assert [fault.kind for fault in world.registry.verify()] == ["pointer"]


def test_a_damaged_pointer_is_one_clear_sentence(world: World, raw: Sql) -> None:
    world.deploy(2, 0.1)
    raw("UPDATE pointers SET split = '{'")
    with pytest.raises(Unusable, match="what production of support/answer points at is damaged"):
        world.registry.snapshot()


def test_a_snapshot_follows_a_split_by_what_has_moved(world: World) -> None:
    before = world.registry.snapshot()
    moves: list[Callable[[], Deployment]] = [lambda: world.deploy(2, 0.1), lambda: world.deploy(3, 0.2), world.rollback]
    for move in moves:
        move()
        after = world.registry.snapshot(before)
        assert after.live == world.registry.snapshot().live
        assert after.texts.keys() == {one.digest for one in after.versions()}
        before = after
    assert len(before.texts) == 1


async def test_a_gateway_takes_up_a_split_keeps_it_in_its_file_and_serves_it_without_the_store(
    world: World, tmp_path: Path
) -> None:
    file = SnapshotFile(tmp_path / "snapshot.json", "default")
    prompts = LivePrompts(world.registry, SystemClock(), file)
    await prompts.refresh()
    run = asyncio.create_task(prompts.run())
    try:
        move = await asyncio.to_thread(world.deploy, 2, 0.1)
        live = world.live
        assert live.split == Share(move.id, 0.1, served(2))
        await within_a_second(lambda: prompts.live(P, "production") == live)
        await within_a_second(lambda: (kept := file.read()) is not None and kept[0].live[P, "production"] == live)
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    gone = Registry(open_control(tmp_path / "gone.db", lazy=True, make=False), FixedClock(), FixedRandom(), protects=[])
    with closing(gone):
        alone = LivePrompts(gone, SystemClock(), file)
        await alone.refresh()
        assert alone.live(P, "production") == live
        assert await alone.find(P, "v1") == served(1)
        assert await alone.find(P, "v2") == served(2), "each side can be asked for by its name"


async def within_a_second(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it took longer")
