"""The registry's rules: numbers, approvals, rollbacks, the ledger; and that nothing is lost when many act at once."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from tests.contract.conftest import DATABASES, Sql, empty_control
from tests.contract.remote import NearbyServer, console_of
from tidegate.core.artifact import Artifact, Message, digest
from tidegate.core.errors import BadInput, NotFound, Refused
from tidegate.core.evaluation import Run, Verdict
from tidegate.core.ledger import Served
from tidegate.fakes import FixedClock, FixedRandom
from tidegate.ports import PromptRegistry
from tidegate.prompts.registry import Registry
from tidegate.prompts.remote import RemoteRegistry
from tidegate.stores import control as store
from tidegate.stores.control import open_control
from tidegate.system import SystemClock, SystemRandom

P = "support/answer"


class World:
    """A registry in which time passes, with short words for what its users do."""

    def __init__(self, control: Path | str, way: str, folder: Path) -> None:
        self.clock = FixedClock()
        self.own = Registry(open_control(control), self.clock, FixedRandom(), protects=["production"])
        self.registry: PromptRegistry = self.own
        if way == "remote":
            self.registry = RemoteRegistry(NearbyServer(console_of(self.own, folder)))
        self.run_count = 0

    def register(self, text: str) -> str:
        self.clock.move(1)
        return self.registry.register(P, artifact(text)).name

    def gated(self, text: str, verdict: Verdict | None = "PASS", reason: str = "is-json broke in 3 of 3.") -> str:
        """Registers and stores a gate run with this verdict."""
        self.clock.move(1)
        name = self.register(text)
        self.run_count += 1
        made = run(f"run{self.run_count}", text)
        gate = None if verdict is None else {"reason": reason}
        self.registry.save_run(msgspec.structs.replace(made, verdict=verdict, gate=gate), suite="s", golden="g")
        return name

    def deploy(self, selector: str, environment: str = "production", **options: object) -> tuple[int | None, int]:
        self.clock.move(1)
        move = self.registry.deploy(P, selector, environment, who="me@here", **options)  # type: ignore[arg-type]
        return move.from_version, move.to_version

    def rollback(self, to: str | None = None) -> tuple[int | None, int]:
        self.clock.move(1)
        move = self.registry.rollback(P, who="me@here", reason="chats before its JSON", to=to)
        return move.from_version, move.to_version


def artifact(text: str) -> Artifact:
    return Artifact(messages=(Message("user", text),), model="a/b")


def of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def run(run_id: str, text: str) -> Run:
    return Run(
        id=run_id,
        prompt=P,
        version=None,
        digest=digest(artifact(text)),
        suite_digest=of("s"),
        golden_digest=of("g"),
        started_at="2026-03-01T12:00:00.000000Z",
        finished_at="2026-03-01T12:01:00.000000Z",
        repeats=3,
        results=(),
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The registry itself on every database, and the one of a server on one of them."""
    if "world" in metafunc.fixturenames:
        ways = [*((database, "itself") for database in DATABASES), ("sqlite", "remote")]
        metafunc.parametrize(("control", "way"), ways, indirect=True)
    elif "control" in metafunc.fixturenames:
        metafunc.parametrize("control", DATABASES, indirect=True)


@pytest.fixture
def control(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    return empty_control(request, tmp_path)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def world(control: Path | str, way: str, tmp_path: Path) -> Iterator[World]:
    made = World(control, way, tmp_path)
    yield made
    made.own.close()


def test_the_same_content_is_the_same_version(world: World) -> None:
    first = world.registry.register(P, artifact("a"), description="First.", file_sha256="1" * 64)
    assert (first.number, first.digest, first.description) == (1, digest(artifact("a")), "First.")
    assert world.register("b") == "v2"
    world.clock.move(60)
    assert world.registry.register(P, artifact("a"), description="Other words.") == first
    assert [version.name for version in world.registry.versions(P)] == ["v2", "v1"]
    assert world.registry.register("other", artifact("a")).number == 1
    assert world.registry.prompts() == ["other", P]


def test_an_impossible_name_is_not_registered(world: World) -> None:
    with pytest.raises(BadInput, match="can not be a prompt's name"):
        world.registry.register("../x", artifact("a"))


def test_a_version_is_found_by_number_digest_or_environment(world: World) -> None:
    world.gated("a")
    world.register("b")
    world.deploy("v1")
    key = digest(artifact("b"))
    for selector, name in [("v1", "v1"), ("v2", "v2"), (key, "v2"), (key[:6], "v2"), ("production", "v1")]:
        assert world.registry.resolve(P, selector).name == name
    assert world.registry.served(P, key[:8]) == Served(P, 2, key, artifact("b"))
    assert world.registry.artifact(key) == artifact("b")


@pytest.mark.parametrize(
    ("prompt", "selector", "message"),
    [
        ("suport/answer", "v1", "no registered prompt is named 'suport/answer'. Did you mean 'support/answer'?"),
        (P, "v11", "support/answer has no version 'v11', and nothing is deployed to an environment of that name."),
        (P, "prodution", "Did you mean 'production'?"),
        (P, "abcdef", "Known: production, v1."),
        (P, "abcde", "Known: production, v1."),
        (P, "v01", "Did you mean 'v1'?"),
        (P, "", "Known: production, v1."),
    ],
)
def test_what_is_not_there_names_the_nearest(world: World, prompt: str, selector: str, message: str) -> None:
    world.gated("a")
    world.deploy("v1")
    with pytest.raises(NotFound) as caught:
        world.registry.resolve(prompt, selector)
    assert message in str(caught.value)


def test_an_empty_registry_says_so(world: World) -> None:
    with pytest.raises(NotFound, match="nothing is registered yet"):
        world.registry.resolve(P, "v1")
    assert world.registry.prompts() == []
    assert world.registry.log() == []
    assert world.own.snapshot().live == {}


def test_a_digest_prefix_of_two_versions_is_refused(world: World) -> None:
    digests: dict[str, str] = {}
    texts = (f"text {number}" for number in itertools.count())
    text = next(texts)
    while (key := digest(artifact(text))[:6]) not in digests:  # some 5,000 texts until two share 6 digits
        digests[key] = text
        text = next(texts)
    world.register(digests[key])
    world.register(text)
    with pytest.raises(
        BadInput, match=rf"the digest prefix '{key}' means v2 \({key}.*, v1 \({key}.*: give more digits"
    ):
        world.registry.resolve(P, key)


def test_a_protected_environment_takes_what_passed_its_gate(world: World) -> None:
    world.gated("a")
    move = world.registry.deploy(P, "v1", who="me@here", git_commit="c" * 40, git_dirty=True)
    assert (move.from_version, move.to_version, move.forced, move.run_id) == (None, 1, False, "run1")
    assert (move.git_commit, move.git_dirty, move.who, move.action) == ("c" * 40, True, "me@here", "deploy")
    (pointer,) = world.registry.pointers(P)
    assert (pointer.environment, pointer.version, pointer.since, pointer.by) == ("production", 1, move.at, "me@here")


def test_a_version_without_a_gate_run_is_refused_with_the_next_step(world: World) -> None:
    world.gated("a", None)  # a mere eval approves nothing
    with pytest.raises(Refused) as caught:
        world.deploy("v1")
    assert str(caught.value) == (
        f"support/answer v1 ({digest(artifact('a'))[:12]}) has no gate run, and production takes only what passed one."
        " Run `tidegate gate support/answer`, or overrule with --force --reason."
    )
    assert world.registry.pointers() == []
    assert world.registry.log() == []


def test_a_version_that_failed_its_gate_is_refused_with_the_reason(world: World) -> None:
    world.gated("a", "PASS")
    world.gated("a", "FAIL")
    with pytest.raises(Refused) as caught:
        world.deploy("v1")
    assert "its gate said FAIL at 2026-03-01 12:01:00 UTC: is-json broke in 3 of 3. Mend it" in str(caught.value)


@pytest.mark.parametrize("verdict", ["INCONCLUSIVE", "UNUSABLE"])
def test_a_gate_without_a_decision_neither_approves_nor_revokes(world: World, verdict: Verdict) -> None:
    world.gated("a", verdict)
    with pytest.raises(Refused, match=f"its gate said {verdict}"):
        world.deploy("v1")
    world.gated("a", "PASS")
    world.gated("a", verdict)
    assert world.deploy("v1") == (None, 1)


def test_an_approval_is_of_one_digest_only(world: World) -> None:
    world.gated("a")
    world.register("b")
    with pytest.raises(Refused):
        world.deploy("v2")


def test_an_environment_that_is_not_protected_takes_anything(world: World) -> None:
    world.register("a")
    assert world.deploy("v1", "staging") == (None, 1)
    assert not world.registry.log()[0].forced


def test_force_overrules_with_a_reason_and_is_written_down(world: World) -> None:
    world.register("a")
    with pytest.raises(BadInput, match="--force needs --reason"):
        world.deploy("v1", force=True, reason="  ")
    world.deploy("v1", force=True, reason="the customer\nwaits")
    (move,) = world.registry.log()
    assert (move.forced, move.reason, move.run_id) == (True, "the customer waits", None)


def test_force_that_overruled_nothing_is_not_marked(world: World) -> None:
    world.gated("a")
    world.deploy("v1", force=True, reason="to be sure")
    assert not world.registry.log()[0].forced


def test_deploying_what_is_live_changes_nothing(world: World) -> None:
    world.gated("a")
    world.deploy("v1")
    before = world.registry.log()
    world.deploy("v1")
    assert world.registry.log() == before


@pytest.mark.parametrize("environment", ["", "Production", "a b", "v2", "abcdef12", "x" * 33, "prod\n"])
def test_an_impossible_environment_is_refused(world: World, environment: str) -> None:
    world.register("a")
    with pytest.raises(BadInput, match="can not be an environment's name"):
        world.deploy("v1", environment)


def test_a_rollback_goes_to_the_last_good_version(world: World) -> None:
    for text in "abc":
        world.gated(text)
    for name in ("v1", "v2", "v3"):
        world.deploy(name)
    assert world.rollback() == (3, 2)
    assert world.rollback() == (2, 1)
    with pytest.raises(NotFound, match="has no earlier version in production that was not rolled back: v1 stays live"):
        world.rollback()
    assert world.registry.resolve(P, "production").name == "v1"
    world.gated("d")
    world.deploy("v4")
    assert world.rollback() == (4, 1)
    assert [move.action for move in world.registry.log()][:3] == ["rollback", "deploy", "rollback"]


def test_a_rolled_back_version_stays_out_until_it_is_forced(world: World) -> None:
    for text in "ab":
        world.gated(text)
    world.deploy("v1")
    world.deploy("v2")
    world.rollback()
    with pytest.raises(Refused) as caught:
        world.deploy("v2")
    assert "v2 was rolled back from production by me@here at 2026-03-01T12:00:" in str(caught.value)
    assert '("chats before its JSON")' in str(caught.value)
    assert world.deploy("v2", force=True, reason="the parser was mended") == (1, 2)
    assert world.registry.log()[0].forced
    assert world.rollback() == (2, 1)


def test_a_version_that_was_put_back_on_purpose_is_good_again(world: World) -> None:
    for text in "abc":
        world.gated(text)
    world.deploy("v1")
    world.deploy("v2")
    world.rollback()
    world.deploy("v2", force=True, reason="the parser was mended")
    world.deploy("v3")
    assert world.rollback() == (3, 2)


def test_a_rollback_to_a_named_version(world: World) -> None:
    for text in "abcd":
        world.gated(text)
    for name in ("v1", "v2", "v3"):
        world.deploy(name)
    assert world.rollback("v1") == (3, 1)
    with pytest.raises(BadInput, match="v1 is what production serves already"):
        world.rollback("v1")
    with pytest.raises(Refused, match="v3 was rolled back"):
        world.rollback("v3")
    with pytest.raises(Refused, match="v4 was never live in production"):
        world.rollback("v4")
    assert world.rollback("v2") == (1, 2)


def test_a_rollback_of_nothing_says_so(world: World) -> None:
    world.register("a")
    with pytest.raises(NotFound, match="was never deployed to production: there is nothing to roll back"):
        world.rollback()
    with pytest.raises(NotFound, match="Did you mean"):
        world.registry.rollback("suport/answer", who="me")


def test_environments_do_not_touch_one_another(world: World) -> None:
    for text in "ab":
        world.gated(text)
    world.deploy("v1")
    world.deploy("v2", "staging")
    world.deploy("v2")
    world.rollback()
    assert world.deploy("v1", "staging") == (2, 1)
    assert world.deploy("v2", "staging") == (1, 2)
    live = world.own.snapshot().live
    assert {key: served.version for key, served in live.items()} == {(P, "production"): 1, (P, "staging"): 2}


def test_a_snapshot_holds_all_that_is_live_and_its_generation(world: World) -> None:
    world.gated("a")
    world.deploy("v1")
    snapshot = world.own.snapshot()
    assert snapshot.live == {(P, "production"): Served(P, 1, digest(artifact("a")), artifact("a"))}
    assert snapshot.generation == world.own.generation()
    world.register("b")
    assert snapshot.generation != world.own.generation()


def test_registering_what_is_known_does_not_disturb_gateways(world: World) -> None:
    world.register("a")
    before = world.own.generation()
    world.register("a")
    assert world.own.generation() == before


def test_a_run_gets_its_version_and_keeps_its_texts(world: World) -> None:
    world.register("a")
    suite, golden = "checks: []", '{"id": "1"}'
    digests = {"suite_digest": of(suite), "golden_digest": of(golden)}
    world.registry.save_run(msgspec.structs.replace(run("r1", "a"), **digests), suite=suite, golden=golden)
    assert world.registry.run("r1").version == 1
    assert [found.id for found in world.registry.runs(P)] == ["r1"]
    assert world.registry.document(of(suite)) == suite
    assert world.registry.document(of(golden)) == golden
    with pytest.raises(NotFound, match="no run 'r2'"):
        world.registry.run("r2")


def test_what_people_write_into_the_ledger_is_one_clean_line(world: World) -> None:
    """An escape sequence in a reason would drive the terminal of whoever reads the log."""
    world.register("a")
    world.registry.deploy(P, "v1", "staging", who="me\udcff@here", reason="red\x1b[31m\r\nalert\0" + "x" * 9_000)
    (move,) = world.registry.log()
    assert move.who == "me?@here"
    assert move.reason.startswith("red [31m  alert x")
    assert len(move.reason) == 4_000


def test_a_snapshot_reads_only_what_moved(world: World) -> None:
    """What stayed is the same object; what moved, what is new and a rolled back environment are not."""
    for name in ("one", "two"):
        world.registry.deploy(name, world.registry.register(name, artifact(name)).name, "staging", who="me")
    before = world.own.snapshot()
    world.registry.deploy("two", world.registry.register("two", artifact("2")).name, "staging", who="me")
    world.registry.deploy("new", world.registry.register("new", artifact("new")).name, "staging", who="me")
    after = world.own.snapshot(before)
    assert after == msgspec.structs.replace(world.own.snapshot(), generation=after.generation)
    assert {name: served.version for (name, _), served in after.live.items()} == {"one": 1, "two": 2, "new": 1}
    assert after.live["one", "staging"] is before.live["one", "staging"]
    assert set(after.texts) == {served.digest for served in after.live.values()}
    assert not after.anew
    world.registry.rollback("two", "staging", who="me")
    assert world.own.snapshot(after).live["two", "staging"] == before.live["two", "staging"]


def test_a_snapshot_after_a_change_that_moved_nothing_is_the_same_one(world: World) -> None:
    world.register("a")
    world.deploy("v1", "staging")
    before = world.own.snapshot()
    world.register("b")
    after = world.own.snapshot(before)
    assert after.live is before.live
    assert after.generation == world.own.generation() != before.generation


def test_more_moves_than_are_looked_up_one_by_one_are_all_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MANY", 3)
    before = world.own.snapshot()
    for number in range(5):
        name = f"p{number}"
        world.registry.deploy(name, world.registry.register(name, artifact(name)).name, "staging", who="me")
        if number in (0, 4):
            snapshot = world.own.snapshot(before)
            assert snapshot == world.own.snapshot()
            before = snapshot
    assert len(before.live) == 5


def test_a_ledger_that_does_not_hold_the_last_snapshot_is_read_anew(world: World, raw: Sql) -> None:
    """A database put back from a backup: its numbers may be taken again by other moves."""
    world.register("a")
    world.register("b")
    world.deploy("v1", "staging")
    world.deploy("v2", "staging")
    before = world.own.snapshot()
    raw("UPDATE deployments SET hash = 'another past' WHERE to_version = 2")
    raw("UPDATE pointers SET version = 1")
    after = world.own.snapshot(before)
    assert after.anew
    assert after.live[P, "staging"].version == 1


@pytest.mark.parametrize(
    ("edit", "line", "words"),
    [
        ("UPDATE deployments SET who = 'nobody' WHERE to_version = 2", 2, "was edited"),
        ("UPDATE deployments SET approved_by = 'the boss' WHERE to_version = 2", 2, "was edited"),
        ("UPDATE deployments SET git_dirty = NULL, reason = 'better' WHERE to_version = 1", 1, "was edited"),
        ("UPDATE deployments SET action = 'x' WHERE to_version = 3", 3, "line 3 (x of support/answer v3 to staging"),
        ("DELETE FROM deployments WHERE to_version = 2", 3, "does not follow line 1 (deploy of support/answer v1"),
        ("DELETE FROM deployments WHERE to_version = 1", 2, "does not follow the beginning"),
        ("DELETE FROM deployments WHERE to_version = 3", 2, "points at v3"),
        ("DELETE FROM deployments", None, "points at v3 since 2026-03-01T12:00:06.000000Z, but no line"),
        ("UPDATE deployments SET seq = 99 WHERE seq = 2", 3, "does not follow line 1"),
        ("UPDATE deployments SET seq = -seq", -3, "line -3 (deploy of support/answer v3 to staging at"),
        ("UPDATE pointers SET version = 1", 3, "points at v1"),
        ("DELETE FROM pointers", 3, "moved a pointer that is not there any more"),
    ],
)
def test_every_change_of_the_past_is_found_and_named(
    world: World, raw: Sql, edit: str, line: int | None, words: str
) -> None:
    for number, text in enumerate("abc", 1):
        world.register(text)
        world.deploy(f"v{number}", "staging")
    assert world.registry.verify() == []
    for statement in edit.split(";"):
        raw(statement)
    found = world.registry.verify()
    assert (line, True) in {(fault.line, words in str(fault)) for fault in found}


def test_the_ledger_of_another_project_breaks_no_chain(control: Path | str) -> None:
    """Both write lines into one table, in turns."""
    ours, theirs = (
        Registry(open_control(control, project=name), FixedClock(), FixedRandom(count=count), protects=[])
        for name, count in (("ours", 0), ("theirs", 1_000))
    )
    with closing(ours), closing(theirs):
        for text in "ab":
            for registry in (ours, theirs):
                registry.deploy(P, registry.register(P, artifact(text)).name, who="me")
        assert ours.verify() == theirs.verify() == []
        assert len(ours.log()) == len(theirs.log()) == 2


def _act(control: Path | str, seed: int) -> int:
    """Registers ten contents, the same in every process, each in its own order; deploys and rolls back between."""
    done = 0
    with closing(Registry(open_control(control), SystemClock(), SystemRandom(), protects=[])) as registry:
        for step in range(10):
            version = registry.register(P, artifact(f"text {(step * 3 + seed) % 10}"))
            try:
                if step % 3 == 2:
                    registry.rollback(P, who=f"process {seed}")
                else:
                    registry.deploy(P, version.name, who=f"process {seed}", force=True, reason=f"{seed} {step}")
                done += 1
            except (NotFound, Refused):
                pass
    return done


def test_many_processes_lose_no_event_and_number_no_version_twice(control: Path | str) -> None:
    with ProcessPoolExecutor(8, multiprocessing.get_context("spawn")) as pool:
        done = sum(pool.map(_act, [control] * 8, range(8)))
    with closing(Registry(open_control(control), SystemClock(), SystemRandom(), protects=[])) as registry:
        versions = registry.versions(P)
        log = registry.log(P)[::-1]
        assert registry.verify() == []
    assert sorted(version.number for version in versions) == list(range(1, 11))
    assert len({version.digest for version in versions}) == 10
    assert 0 < len(log) <= done  # deploying what is live already writes nothing
    assert len({move.id for move in log}) == len(log)
    for before, after in itertools.pairwise(log):
        assert after.from_version == before.to_version
        assert after.from_version != after.to_version
