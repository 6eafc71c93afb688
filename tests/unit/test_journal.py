"""What an unfinished run leaves behind: nothing is paid for twice, and the end is that of a run nobody interrupted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.unit.evals import MemoryShelf, ScriptedCaller, lines, version, write
from tests.unit.test_eval_session import NAME, Notes
from tidegate.core.errors import Unusable
from tidegate.core.evaluation import GateReport
from tidegate.evals.budget import Budget
from tidegate.evals.journal import KEPT_S, Journal, Journals, RunKey, identity
from tidegate.evals.paid import PaidCaller
from tidegate.evals.runs import Parts
from tidegate.evals.session import Session
from tidegate.evals.watcher import Resumed
from tidegate.fakes import FixedClock, FixedRandom
from tidegate.ports import PromptAnswer, PromptCall
from tidegate.prompts.files import load_prompt
from tidegate.prompts.render import render

KEY = RunKey(NAME, "d", "s", "g")
GOOD = PromptAnswer('{"a": 1}', call_id="c", cost_nano_usd=1_000_000, latency_s=0.5, input_tokens=7, output_tokens=3)
PROMPT = "---\nmodel: p/m\ninputs: {q: string}\n---\n{{ q }}\n"


class Killed(BaseException):
    """The process is gone."""


def call(case: str = "a", repeat: int = 0, **other: object) -> PromptCall:
    tags = {"run": "r", "case": case, "repeat": str(repeat)}
    fields = {"prompt": NAME, "digest": "d", "variables": {"q": case}, "origin": "eval", "tags": tags}
    return PromptCall(**{**fields, **other})  # type: ignore[arg-type]


def opened(folder: Path, *, clock: FixedClock | None = None, fresh: bool = False) -> tuple[Journals, Journal, Budget]:
    journals, budget = Journals(folder, clock or FixedClock(), fresh=fresh), Budget()
    return journals, journals.open(KEY, run_id="run-1", budget=budget), budget


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_what_was_paid_for_is_there_again_once(folder: Path) -> None:
    journals, journal, _ = opened(folder)
    journal.put(identity(call("a")), GOOD, own=True)
    journal.put(identity(call("a", origin="judge")), GOOD, own=False)
    journals.close()
    _, again, budget = opened(folder)
    assert (again.resumed, again.spent_nano_usd, budget.spent_nano_usd) == (1, 2_000_000, 2_000_000)
    assert again.take(identity(call("a"))) == GOOD
    assert again.take(identity(call("a"))) is None
    assert again.take(identity(call("b"))) is None


async def test_what_is_resumed_counts_repeats_not_an_agents_steps_or_judges(folder: Path) -> None:
    journals, journal, budget = opened(folder)
    paid = PaidCaller(ScriptedCaller(lambda call: GOOD), budget, journal)
    for one in (call(), call(messages=({"role": "tool", "content": "x"},)), call(origin="judge")):
        await paid.call(one)
    journals.close()
    _, again, budget = opened(folder)
    assert (again.resumed, again.waiting, budget.spent_nano_usd) == (1, 3, 3_000_000)


async def test_what_two_unfinished_runs_cost_is_counted_once(folder: Path) -> None:
    """As both sides of a gate by batches: each goes on, and what a third cost that is over counts too."""
    keys = [RunKey(NAME, digest, "s", "g") for digest in ("over", "one", "two")]
    journals, budget = Journals(folder, FixedClock()), Budget()
    for key in keys:
        journal = journals.open(key, run_id=f"run-{key.digest}", budget=budget)
        await PaidCaller(ScriptedCaller(lambda call: GOOD), budget, journal).call(call(digest=key.digest))
    journals.finished(keys[0])
    journals.open(keys[1], run_id="run-one", budget=budget)
    journals.close()
    journals, again = Journals(folder, FixedClock()), Budget()
    for key in keys[1:]:
        journals.open(key, run_id="new", budget=again)
    assert again.spent_nano_usd == budget.spent_nano_usd == 3_000_000


def test_calls_that_differ_in_anything_are_not_each_others() -> None:
    """E8, E9: repeats, cases, versions, judges and messages tell calls apart; the run's own id does not."""
    others = [
        call(repeat=1),
        call("b"),
        call(digest="e"),
        call(prompt="other"),
        call(origin="judge"),
        call(variables={"q": "z"}),
        call(messages=({"role": "user", "content": "x"},)),
        call(top_logprobs=5),
        call(tags={**call().tags, "judge": "grounded"}),
    ]
    assert len({identity(one) for one in [call(), *others]}) == len(others) + 1
    assert identity(call(tags={**call().tags, "run": "later"})) == identity(call())


def test_a_torn_last_line_is_cut_off_and_nothing_else_is_lost(folder: Path) -> None:
    journals, journal, _ = opened(folder)
    for case in "ab":
        journal.put(identity(call(case)), GOOD, own=True)
    journals.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"call":"torn')
    journals, again, _ = opened(folder)
    assert again.resumed == 2
    again.put(identity(call("c")), GOOD, own=True)
    journals.close()
    assert opened(folder)[1].resumed == 3


def test_a_line_that_is_no_line_costs_one_answer(folder: Path) -> None:
    journals, journal, _ = opened(folder)
    for case in "abc":
        journal.put(identity(call(case)), GOOD, own=True)
    journals.close()
    head, first, *rest = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([head, b"\xff" + first, *rest]))
    assert opened(folder)[1].resumed == 2


def test_two_at_once_do_not_share_one(folder: Path) -> None:
    _, journal, _ = opened(folder)
    journal.put(identity(call()), GOOD, own=True)
    other = Journals(folder, FixedClock()).open(KEY, run_id="other", budget=Budget())
    assert (other.path != journal.path, other.resumed) == (True, 0)


@pytest.mark.parametrize(
    "key", [RunKey("other", "d", "s", "g"), RunKey(NAME, "d", "s2", "g"), RunKey(NAME, "d2", "s", "g")]
)
def test_only_the_same_measurement_is_gone_on_with(folder: Path, key: RunKey) -> None:
    journals, journal, _ = opened(folder)
    journal.put(identity(call()), GOOD, own=True)
    journals.close()
    assert Journals(folder, FixedClock()).open(key, run_id="other", budget=Budget()).resumed == 0


def test_fresh_forgets_it_and_time_does_too(folder: Path) -> None:
    for clock, fresh, left in ((FixedClock(), True, 0), (FixedClock(), False, 1)):
        journals, journal, _ = opened(folder)
        journal.put(identity(call()), GOOD, own=True)
        journals.close()
        again, found, _ = opened(folder, clock=clock, fresh=fresh)
        assert found.resumed == left
        again.close()
    late = FixedClock()
    late.move(KEPT_S + 1)
    journals, journal, budget = opened(folder, clock=late)
    assert (journal.resumed, budget.spent_nano_usd) == (0, 0)
    assert [path.name for path in folder.iterdir()] == [journal.path.name]
    journals.close()
    assert not folder.exists(), "one that nothing was paid for goes"


def test_a_folder_that_can_not_be_written_is_said_before_the_first_call(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(Unusable, match="runs: what a run pays for can not be written down"):
        opened(tmp_path / "runs")


def test_half_an_emoji_is_written_all_the_same(folder: Path) -> None:
    journals, journal, _ = opened(folder)
    journal.put(identity(call(variables={"q": "\ud83d"})), PromptAnswer("\ud83d", cost_nano_usd=1), own=True)
    journals.close()
    found = opened(folder)[1].take(identity(call(variables={"q": "\ud83d"})))
    assert found is not None
    assert found.output == "\ufffd"


class World:
    """A prompt with twelve calls to a gate, and a process that can die at any of them."""

    def __init__(self, root: Path, *, eval_yaml: str) -> None:
        self.root = root
        folder = root / "prompts" / "support" / "answer"
        folder.mkdir(parents=True)
        (folder / "prompt.md").write_text(PROMPT)
        write(folder, eval_yaml=eval_yaml, golden_jsonl=lines(*({"id": n, "inputs": {"q": n}} for n in "abcd")))
        self.shelf = MemoryShelf()
        self.clock = FixedClock()
        self.notes: list[Resumed] = []
        self.answered: list[str] = []
        self.dies_after = 10**9
        self.outage = False
        self.random = FixedRandom()
        self.shaky = ""

    def answer(self, call: PromptCall) -> PromptAnswer:
        if len(self.answered) >= self.dies_after:
            raise Killed
        if self.outage:
            return PromptAnswer("", error="the provider is down", status=503)
        self.answered.append(identity(call))
        good = call.variables["q"] != "d" or call.tags["repeat"] != "1" or call.digest == self.shaky
        return GOOD if good else PromptAnswer("no", cost_nano_usd=1_000_000)

    async def gate(self, *, fresh: bool = False) -> GateReport:
        notes = self.notes

        class Told(Notes):
            def resumed(self, resumed: Resumed) -> None:
                notes.append(resumed)

        journals = Journals(self.root / "runs", self.clock, fresh=fresh)
        parts = Parts(self.shelf, ScriptedCaller(self.answer), self.clock, self.random, Told(), journals=journals)
        return await Session(parts, render).gate(load_prompt(self.root / "prompts", NAME))


def plain(report: GateReport) -> dict[str, object]:
    """A report without what names a run, and what was expected of it beforehand."""
    return {
        name: value for name, value in msgspec.to_builtins(report).items() if "run_id" not in name and name != "mde"
    }


@pytest.mark.parametrize("dies_after", [1, 5, 11])
async def test_a_run_that_went_on_ends_as_one_that_never_stopped(tmp_path: Path, dies_after: int) -> None:
    suite = "checks: [is-json]\nrepeats: 3\nconcurrency: 1\ngate: {metrics: {pass-rate: {floor: 0.5}}}\n"
    never = World(tmp_path / "never", eval_yaml=suite)
    expected = await never.gate()
    world = World(tmp_path / "died", eval_yaml=suite)
    world.dies_after = dies_after
    with pytest.raises(BaseExceptionGroup):
        await world.gate()
    assert world.shelf.saved == []
    world.dies_after = 10**9
    report = await world.gate()
    assert (len(world.answered), len(set(world.answered))) == (12, 12), "no call was paid for twice"
    assert [(note.calls, note.total, note.cost_nano_usd) for note in world.notes] == [
        (dies_after, 12, dies_after * 1_000_000)
    ]
    assert plain(report) == plain(expected)
    assert world.shelf.saved[0].results == never.shelf.saved[0].results
    assert not (tmp_path / "died" / "runs").exists(), "a finished run leaves no journal"


async def test_the_cap_holds_over_an_interruption(tmp_path: Path) -> None:
    """E12: what was spent before the kill is spent."""
    world = World(tmp_path, eval_yaml="checks: [is-json]\nrepeats: 3\nconcurrency: 1\ngate: {max_cost_usd: 0.008}\n")
    world.dies_after = 5
    with pytest.raises(BaseExceptionGroup):
        await world.gate()
    world.dies_after = 10**9
    for _ in range(3):
        with pytest.raises(Unusable, match=r"stopped after 8 of 12 calls and \$0\.008000"):
            await world.gate()
    assert len(world.answered) == 8


async def test_a_cap_that_was_raised_goes_on_where_it_stopped(tmp_path: Path) -> None:
    world = World(tmp_path, eval_yaml="checks: [is-json]\nrepeats: 3\ngate: {max_cost_usd: 0.008}\n")
    with pytest.raises(Unusable, match=r"gate\.max_cost_usd"):
        await world.gate()
    suite = world.root / "prompts" / NAME / "eval.yaml"
    suite.write_text(suite.read_text().replace("0.008", "1"))
    await world.gate()
    assert len(set(world.answered)) == 12 or len(set(world.answered)) == 24, "the second look may have been taken"
    assert len(world.answered) == len(set(world.answered))


async def test_a_provider_that_died_half_way_is_asked_only_for_what_is_missing(tmp_path: Path) -> None:
    suite = "checks: [is-json]\nrepeats: 3\nconcurrency: 1\ngate: {metrics: {pass-rate: {floor: 0.5}}}\n"
    world = World(tmp_path, eval_yaml=suite)
    whole = world.answer

    def dying(call: PromptCall) -> PromptAnswer:
        world.outage = len(world.answered) >= 7
        return whole(call)

    world.answer = dying  # type: ignore[method-assign]
    report = await world.gate()
    assert (report.verdict, report.exit_code) == ("UNUSABLE", 3)
    world.answer = whole  # type: ignore[method-assign]
    world.outage = False
    report = await world.gate()
    assert report.verdict == "PASS"
    assert (len(world.answered), len(set(world.answered))) == (12, 12)
    assert [run.verdict for run in world.shelf.saved] == ["UNUSABLE", "PASS"]


async def test_fresh_pays_again(tmp_path: Path) -> None:
    world = World(tmp_path, eval_yaml="checks: [is-json]\nrepeats: 3\nconcurrency: 1\n")
    world.dies_after = 5
    with pytest.raises(BaseExceptionGroup):
        await world.gate()
    world.dies_after = 10**9
    await world.gate(fresh=True)
    assert (len(world.answered), world.notes) == (17, [])


SECOND = """
checks: [is-json]
repeats: 2
concurrency: 1
gate: {max_cost_usd: 1, metrics: {pass-rate: {margin: 0.3}}}
"""


async def challenger(root: Path) -> World:
    """Version 1 is live, and passes all; version 2 is not as sure."""
    world = World(root, eval_yaml=SECOND)
    world.shaky = "none"
    file = root / "prompts" / NAME / "prompt.md"
    await world.gate()
    (live,) = world.shelf.versions
    world.shaky = live.digest
    world.shelf.live[NAME, "production"] = live
    world.shelf.saved.clear()
    world.answered.clear()
    file.write_text(file.read_text() + "Hm.\n")
    return world


@pytest.mark.parametrize("dies_after", [3, 8, 9, 15, 16, 17, 24, 31])
async def test_a_second_look_that_was_begun_is_taken(tmp_path: Path, dies_after: int) -> None:
    """Who was killed while it bought repeats does not get a verdict from the first look after all."""
    never = await challenger(tmp_path / "never")
    expected = await never.gate()
    assert len(never.answered) == 32, "both sides, twice"
    world = await challenger(tmp_path / "died")
    world.dies_after = dies_after
    with pytest.raises(BaseExceptionGroup):
        await world.gate()
    world.dies_after = 10**9
    assert plain(await world.gate()) == plain(expected)
    assert (len(world.answered), len(set(world.answered))) == (32, 32)


def test_the_version_is_in_the_key() -> None:
    assert RunKey(NAME, version(1).digest, "s", "g") != RunKey(NAME, version(2).digest, "s", "g")


GUARDED = """
checks: [is-json]
repeats: 2
concurrency: 1
gate: {must_pass: [is-json], metrics: {pass-rate: {floor: 0.5}}}
"""


async def breaker(root: Path) -> World:
    """Version 1 is live, and on file; version 2 fails case d, whenever it is asked."""
    world = World(root, eval_yaml=GUARDED)
    whole, live = world.answer, ""

    def answer(call: PromptCall) -> PromptAnswer:
        whole(call)
        broken = call.variables["q"] == "d" and live not in ("", call.digest)
        return PromptAnswer("no", cost_nano_usd=1_000_000) if broken else GOOD

    world.answer = answer  # type: ignore[method-assign]
    await world.gate()
    (version_1,) = world.shelf.versions
    live = version_1.digest
    world.shelf.live[NAME, "production"] = version_1
    world.answered.clear()
    file = root / "prompts" / NAME / "prompt.md"
    file.write_text(file.read_text() + "Hm.\n")
    return world


@pytest.mark.parametrize("dies_after", [7, 8, 9, 15, 16, 17, 23])
async def test_a_recheck_is_paid_for_once(tmp_path: Path, dies_after: int) -> None:
    """8 calls of version 2, then 8 more of each side about the case that broke; the baseline's run is on file."""
    never = await breaker(tmp_path / "never")
    expected = await never.gate()
    assert (expected.verdict, len(expected.rechecks), len(never.answered)) == ("FAIL", 1, 24)
    world = await breaker(tmp_path / "died")
    world.dies_after = dies_after
    with pytest.raises(BaseExceptionGroup):
        await world.gate()
    world.dies_after = 10**9
    assert plain(await world.gate()) == plain(expected)
    assert (len(world.answered), len(set(world.answered))) == (24, 24)
    assert not (tmp_path / "died" / "runs").exists(), "no journal is left, of the baseline neither"
