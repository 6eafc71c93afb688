"""Approvals: what a gate run approves, what voids it, and the second approver; over a real control store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tidegate.core.artifact import Artifact, Message, digest
from tidegate.core.errors import BadInput, NotFound, Refused
from tidegate.core.evaluation import Run, Verdict
from tidegate.core.ledger import Deployment, Measure
from tidegate.fakes import FixedClock, FixedRandom
from tidegate.prompts.registry import Registry
from tidegate.stores.control import open_control

P = "support/answer"
SUITE, GOLDEN = "5" * 64, "6" * 64
OTHER = "7" * 64
HERE = Measure(SUITE, GOLDEN)


class World:
    """Two protected environments, of which `vault` also asks for a second person."""

    def __init__(self, path: Path) -> None:
        self.clock = FixedClock()
        self.registry = Registry(
            open_control(path),
            self.clock,
            FixedRandom(),
            protects=["production", "vault"],
            second_approver=["vault", "open"],
        )
        self.runs = 0

    def gated(self, text: str = "a", verdict: Verdict | None = "PASS", measure: Measure = HERE) -> str:
        """Registers a text, stores a gate run of it, and gives the run's id."""
        self.clock.move(1)
        version = self.registry.register(P, artifact(text))
        self.runs += 1
        run = Run(
            id=f"run{self.runs}",
            prompt=P,
            version=version.number,
            digest=version.digest,
            suite_digest=measure.suite_digest,
            golden_digest=measure.golden_digest,
            started_at="2026-03-01T12:00:00.000000Z",
            finished_at="2026-03-01T12:01:00.000000Z",
            repeats=3,
            results=(),
            gate={"reason": "is-json broke."},
            verdict=verdict,
        )
        self.registry.save_run(run, suite="s", golden="g")
        return run.id

    def deploy(
        self, version: str = "v1", environment: str = "production", who: str = "anna", **o: object
    ) -> Deployment:
        self.clock.move(1)
        return self.registry.deploy(P, version, environment, who=who, **o)  # type: ignore[arg-type]

    def approve(self, who: str, version: str = "v1", environment: str = "vault", measure: Measure = HERE) -> None:
        self.clock.move(1)
        self.registry.approve(P, version, environment, who=who, measure=measure)


def artifact(text: str) -> Artifact:
    return Artifact(messages=(Message("user", text),), model="a/b")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "control.db")
    with closing(made.registry):
        yield made


def test_the_ledger_keeps_the_run_and_what_it_was_measured_by(world: World) -> None:
    run = world.gated()
    move = world.deploy(measure=HERE)
    assert (move.run_id, move.suite_digest, move.golden_digest, move.forced) == (run, SUITE, GOLDEN, False)
    assert world.registry.log(P) == [move]


@pytest.mark.parametrize(
    ("text", "measure", "complaint"),
    [
        ("a", HERE, None),
        ("a", None, None),
        ("b", HERE, "has no gate run"),
        ("b", None, "has no gate run"),
        ("a", Measure(OTHER, GOLDEN), "run run1) before its suite changed"),
        ("a", Measure(SUITE, OTHER), "run run1) before its golden set changed"),
        ("a", Measure(OTHER, OTHER), "run run1) before its suite and golden set changed"),
    ],
)
def test_another_digest_of_any_of_the_three_voids_an_approval(
    world: World, text: str, measure: Measure | None, complaint: str | None
) -> None:
    world.gated("a")
    version = world.registry.register(P, artifact(text)).name
    if complaint is None:
        assert world.deploy(version, measure=measure).run_id == "run1"
        return
    with pytest.raises(Refused) as caught:
        world.deploy(version, measure=measure)
    assert complaint in str(caught.value)
    assert f"`tidegate gate {P}" in str(caught.value)
    assert world.registry.log() == []
    forced = world.deploy(version, measure=measure, force=True, reason="the customer waits")
    assert (forced.forced, forced.run_id, forced.suite_digest) == (True, None, None)


def test_a_refusal_for_another_suite_names_the_command_for_that_version(world: World) -> None:
    world.gated()
    with pytest.raises(Refused, match=r"Run `tidegate gate support/answer --version v1`, or overrule with --force"):
        world.deploy(measure=Measure(SUITE, OTHER))


def test_an_approval_counts_again_when_its_suite_is_back(world: World) -> None:
    """A verdict is about one measure; another measure's verdict neither gives nor takes it."""
    world.gated()
    world.gated(verdict="FAIL", measure=Measure(SUITE, OTHER))
    assert world.deploy(measure=HERE).run_id == "run1"


def test_without_a_folder_the_newest_verdict_under_any_suite_counts(world: World) -> None:
    world.gated()
    world.gated(verdict="FAIL", measure=Measure(SUITE, OTHER))
    with pytest.raises(Refused, match="its gate said FAIL"):
        world.deploy()


def test_a_later_failure_under_the_same_measure_takes_the_approval_back(world: World) -> None:
    world.gated()
    world.gated(verdict="FAIL")
    with pytest.raises(Refused, match="its gate said FAIL"):
        world.deploy(measure=HERE)


def test_an_open_gate_under_the_new_suite_is_named_as_such(world: World) -> None:
    world.gated()
    world.gated(verdict="INCONCLUSIVE", measure=Measure(SUITE, OTHER))
    with pytest.raises(Refused, match="its gate said INCONCLUSIVE"):
        world.deploy(measure=Measure(SUITE, OTHER))


def test_force_works_without_any_gate_run(world: World) -> None:
    world.registry.register(P, artifact("a"))
    move = world.deploy(environment="vault", force=True, reason="first")
    assert (move.forced, move.run_id, move.approved_by) == (True, None, None)


def test_a_second_person_must_say_yes(world: World) -> None:
    world.gated()
    with pytest.raises(Refused) as caught:
        world.deploy(environment="vault", measure=HERE)
    assert "has no second approver yet, and vault asks for one. Somebody other than anna runs" in str(caught.value)
    assert "`tidegate approve support/answer --version v1 --env vault`" in str(caught.value)
    world.approve("bert")
    assert world.deploy(environment="vault", measure=HERE).approved_by == "bert"
    assert not world.registry.log()[0].forced


@pytest.mark.parametrize("myself", ["anna", "ANNA "])
def test_nobody_is_their_own_second_person(world: World, myself: str) -> None:
    world.gated()
    world.approve(myself)
    with pytest.raises(Refused, match="alone, who deploys it; vault asks for a second person"):
        world.deploy(environment="vault", measure=HERE)
    world.approve("bert")
    assert world.deploy(environment="vault", measure=HERE).approved_by == "bert"


@pytest.mark.parametrize("measure", [Measure(OTHER, GOLDEN), Measure(SUITE, OTHER)])
def test_a_second_approval_is_void_under_another_suite(world: World, measure: Measure) -> None:
    world.gated()
    world.approve("bert")
    world.gated(measure=measure)
    with pytest.raises(Refused, match="was approved by bert under another suite or golden set"):
        world.deploy(environment="vault", measure=measure)
    world.approve("bert", measure=measure)
    assert world.deploy(environment="vault", measure=measure).approved_by == "bert"


def test_a_second_approval_is_of_one_version_in_one_environment(world: World) -> None:
    world.gated("a")
    world.gated("b")
    world.approve("bert")
    with pytest.raises(Refused, match="has no second approver yet"):
        world.deploy("v2", "vault", measure=HERE)
    with pytest.raises(Refused, match="open asks for one"):
        world.deploy("v1", "open")


def test_only_what_passed_its_gate_can_be_approved(world: World) -> None:
    world.gated(verdict="FAIL")
    with pytest.raises(Refused, match="is not approved for vault: its gate said FAIL"):
        world.approve("bert")
    with pytest.raises(NotFound):
        world.approve("bert", "v7")
    assert world.registry.approvals() == []


def test_where_no_second_person_is_asked_for_there_is_nothing_to_approve(world: World) -> None:
    world.gated()
    with pytest.raises(BadInput, match="production asks for no second approver"):
        world.approve("bert", environment="production")


def test_an_environment_may_ask_for_a_second_person_without_a_gate(world: World) -> None:
    world.registry.register(P, artifact("a"))
    world.approve("bert", environment="open")
    assert world.deploy("v1", "open").approved_by == "bert"


def test_saying_yes_twice_writes_one_line(world: World) -> None:
    world.gated()
    world.approve("bert")
    world.approve("bert")
    (said,) = world.registry.approvals(P)
    assert (said.who, said.run_id, said.digest) == ("bert", "run1", digest(artifact("a")))
    world.approve("carl")
    assert [one.who for one in world.registry.approvals()] == ["carl", "bert"]


def test_a_rolled_back_version_stays_blocked_whoever_approved_it(world: World) -> None:
    for text in "ab":
        world.gated(text)
    for name in ("v1", "v2"):
        world.approve("bert", name)
        world.deploy(name, "vault", measure=HERE)
    world.registry.rollback(P, "vault", who="anna")
    with pytest.raises(Refused, match="was rolled back"):
        world.deploy("v2", "vault", measure=HERE)
    assert world.deploy("v2", "vault", measure=HERE, force=True, reason="mended").approved_by == "bert"
