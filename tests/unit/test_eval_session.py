"""The whole of `eval` and `gate` over a folder, a registry in memory and the simulated model's rule."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console, RenderableType

from tests.gate_schema import gate_json
from tests.unit.evals import EXAMPLE, FRIENDLY, MemoryShelf, ScriptedCaller, lines, simulated, write
from tidegate import compose
from tidegate.cli import build, main
from tidegate.cli import simulated as simulated_module
from tidegate.config import Project
from tidegate.core.errors import BadInput, InvalidFile, NotFound, Unusable
from tidegate.core.evaluation import CheckResult, GateReport, Recheck, Repeat
from tidegate.evals.regate import regate
from tidegate.evals.report import gate_report, plan_line, run_report
from tidegate.evals.runner import Progress
from tidegate.evals.runs import FIRST_RECHECK, Parts
from tidegate.evals.said import UNDECIDED
from tidegate.evals.session import Session
from tidegate.evals.summary import summarise
from tidegate.evals.watcher import Planned, Watcher
from tidegate.fakes import FixedClock, FixedRandom
from tidegate.ports import PromptAnswer, PromptCall
from tidegate.prompts.files import PromptFile, load_prompt
from tidegate.prompts.render import render

NAME = "support/answer"


class Notes(Watcher):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.plans: list[Planned] = []
        self.steps: list[Progress] = []
        self.bought: list[int] = []
        self.rechecked: list[tuple[int, int]] = []

    def planned(self, planned: Planned) -> None:
        assert not self.steps, "the plan is told before the first call"
        self.plans.append(planned)

    def progressed(self, progress: Progress) -> None:
        self.steps.append(progress)

    def rechecking(self, cases: int, repeats: int) -> None:
        self.rechecked.append((cases, repeats))

    def more_repeats(self, repeats: int) -> None:
        self.bought.append(repeats)


class World:
    """A copy of the example, its registry, its model, and what a session said."""

    def __init__(self, root: Path) -> None:
        shutil.copytree(EXAMPLE, root, dirs_exist_ok=True)
        self.root = root
        self.folder = root / "prompts" / NAME
        self.shelf = MemoryShelf()
        self.caller = simulated(self.shelf)
        self.clock = FixedClock()
        self.random = FixedRandom()
        self.notes = Notes()

    @property
    def prompt(self) -> PromptFile:
        return load_prompt(self.root / "prompts", NAME)

    @property
    def session(self) -> Session:
        self.notes = Notes()
        return Session(Parts(self.shelf, self.caller, self.clock, self.random, self.notes), render)

    async def gate(self, against: str | None = None) -> GateReport:
        return await self.session.gate(self.prompt, against=against)

    def befriend(self) -> None:
        """The Friday edit."""
        file = self.folder / "prompt.md"
        file.write_text(file.read_text().replace("\n\nuser:", f"\n{FRIENDLY}\n\nuser:"))

    def deploy(self, number: int) -> None:
        self.shelf.live[NAME, "production"] = self.shelf.versions[number - 1]

    def suite(self, text: str) -> None:
        write(self.folder, eval_yaml=text)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_the_incident_fails_the_gate(world: World) -> None:
    """DESIGN §1: v1 3/3, v2 2/3, the long password question, its raw answer, the diff, FAIL, exit code 1."""
    first = await world.gate()
    assert (first.verdict, first.passed_cases, first.total_cases, first.baseline) == ("PASS", 3, 3, None)
    world.deploy(1)
    world.befriend()
    report = await world.gate()
    assert (report.verdict, report.exit_code) == ("FAIL", 1)
    assert (report.baseline, report.baseline_passed_cases, report.candidate, report.passed_cases) == ("v1", 3, "v2", 2)
    assert report.reason == (
        "is-json must pass, and it fails in all 3 repeats of 'password-new-phone', which v1 always passes."
    )
    broken = next(case for case in report.cases if case.change == "broken")
    assert broken.id == "password-new-phone"
    assert broken.reason.startswith("is-json: not JSON at column 1: starts with 'Hi there!")
    assert broken.output.endswith("}") and broken.baseline_output is not None  # noqa: PT018
    assert f"+{FRIENDLY}" in report.diff
    assert report.mde is not None


async def test_the_verdict_is_stored_with_its_run_suite_and_cases(world: World) -> None:
    report = await world.gate()
    (run,) = world.shelf.saved
    assert (run.id, run.verdict, run.version) == (report.run_id, "PASS", 1)
    assert msgspec.convert(run.gate, GateReport) == report
    assert json.loads(world.shelf.documents[run.suite_digest])["checks"][1] == {
        "contains": "{{ expected.must_mention }}"
    }
    assert world.shelf.documents[run.golden_digest].count("\n") == 2


async def test_a_run_is_stored_with_its_figures(world: World) -> None:
    """Whoever looks at a list or a trend of hundreds of runs waits for none of them."""
    await world.gate()
    run = world.shelf.saved[-1]
    suite, golden = (world.shelf.document(digest) for digest in (run.suite_digest, run.golden_digest))
    assert world.shelf.summaries[run.id] == summarise(run, suite, golden)


async def test_a_stored_baseline_is_not_paid_for_again(world: World) -> None:
    await world.gate()
    world.deploy(1)
    world.befriend()
    before = len(world.caller.calls)
    report = await world.gate()
    assert len(world.caller.calls) - before == 9
    assert world.notes.plans[0].baseline_stored
    assert world.notes.plans[0].calls == 9
    assert report.baseline_run_id == world.shelf.saved[0].id


@pytest.mark.parametrize("why", ["old", "other suite", "other cases", "fewer repeats", "errors"])
async def test_a_baseline_that_does_not_compare_is_run_now(world: World, why: str) -> None:
    """The same digest, suite, cases and repeats, no older than a day, and usable; else it is measured again."""
    await world.gate()
    world.deploy(1)
    world.befriend()
    if why == "old":
        world.clock.move(86_401)
    elif why == "other suite":
        world.suite((world.folder / "eval.yaml").read_text().replace("max: 120", "max: 121"))
    elif why == "other cases":
        golden = world.folder / "golden.jsonl"
        golden.write_text(golden.read_text().replace("30 days of delivery", "30 days"))
    elif why == "fewer repeats":
        world.shelf.saved = [msgspec.structs.replace(run, repeats=2) for run in world.shelf.saved]
    else:
        world.shelf.saved = [
            msgspec.structs.replace(
                run, results=tuple(msgspec.structs.replace(result, error="down") for result in run.results)
            )
            for run in world.shelf.saved
        ]
    before = len(world.caller.calls)
    report = await world.gate()
    assert len(world.caller.calls) - before == 18
    assert (report.verdict, report.baseline_passed_cases) == ("FAIL", 3)
    assert {run.version for run in world.shelf.saved[1:]} == {1, 2}, "both new runs are kept"


async def test_the_baseline_can_be_named(world: World) -> None:
    await world.gate()
    world.befriend()
    assert (await world.gate()).baseline is None, "nothing is live: floors only"
    assert (await world.gate(against="v1")).baseline == "v1"
    with pytest.raises(NotFound):
        await world.gate(against="v9")


async def test_an_unchanged_prompt_passes_with_one_run(world: World) -> None:
    await world.gate()
    world.deploy(1)
    before = len(world.caller.calls)
    report = await world.gate()
    assert (report.verdict, report.reason) == ("PASS", "Nothing changed: v1 is the baseline itself.")
    assert len(world.caller.calls) - before == 9


async def test_the_smallest_visible_drop_is_told_before_the_run(world: World) -> None:
    await world.gate()
    assert world.notes.plans[0].mde is None, "nothing to compare with"
    world.deploy(1)
    world.befriend()
    await world.gate()
    (plan,) = world.notes.plans
    assert (plan.cases, plan.repeats, plan.max_cost_nano_usd) == (3, 3, 10**9)
    assert plan.mde == pytest.approx(0.450, abs=1e-3)
    assert world.notes.steps[-1].done == 9


def shaky(call: PromptCall) -> PromptAnswer:
    """Version 1 always passes; any other fails its first repeat and then passes."""
    first = call.tags["repeat"] == "0"
    return PromptAnswer("no" if first and call.tags["case"] == "c0" else "{}", cost_nano_usd=10)


MARGIN = "checks: [is-json]\nrepeats: 2\ngate: {{metrics: {{pass-rate: {{margin: 0.3}}}}, max_cost_usd: {}}}\n"


@pytest.mark.parametrize(("cap", "bought"), [("0.001", [4]), ("0.0000003", [])])
async def test_noise_buys_repeats_once_and_only_within_the_cap(world: World, cap: str, bought: list[int]) -> None:
    """20 calls of 10 nano-USD decide nothing; 20 more are affordable under the first cap, not under the second."""
    world.suite(MARGIN.format(cap))
    inputs = {"question": "q", "context": "c"}
    write(world.folder, golden_jsonl=lines(*({"id": f"c{i}", "inputs": inputs} for i in range(5))))
    world.caller = ScriptedCaller(lambda call: PromptAnswer("{}", cost_nano_usd=10))
    await world.gate()
    world.deploy(1)
    world.befriend()
    world.shelf.saved.clear()
    world.caller = ScriptedCaller(shaky)
    report = await world.gate()
    assert report.verdict == "INCONCLUSIVE"
    assert world.notes.bought == bought
    assert len(world.caller.calls) == (40 if bought else 20)
    assert report.cost_usd == pytest.approx(len(world.caller.calls) * 10 / 1e9)
    candidate = world.shelf.saved[-1]
    assert (candidate.repeats, len(candidate.results)) == ((4, 20) if bought else (2, 10))
    assert {case.repeats for case in report.cases} == {4 if bought else 2}
    assert {case.baseline_repeats for case in report.cases} == {4 if bought else 2}


async def test_nothing_is_bought_where_no_case_is_mixed(world: World) -> None:
    world.suite(MARGIN.format("1"))
    await world.gate()
    world.deploy(1)
    file = world.folder / "prompt.md"
    file.write_text(file.read_text().replace("web shop", "shop"))
    report = await world.gate()
    assert report.verdict == "INCONCLUSIVE"
    assert "add cases" in report.reason
    assert world.notes.bought == []


GUARDED = "checks: [is-json]\nrepeats: 2\ngate: {must_pass: [is-json], metrics: {pass-rate: {floor: 0.5}}}\n"


async def suspected(world: World, *, fails: Callable[[PromptCall], bool], suite: str = GUARDED) -> GateReport:
    """A gate of five cases, of which version 2 fails c0 in both repeats; `fails` says who fails it in a recheck."""
    world.suite(suite)
    inputs = {"question": "q", "context": "c"}
    write(world.folder, golden_jsonl=lines(*({"id": f"c{i}", "inputs": inputs} for i in range(5))))
    world.caller = ScriptedCaller(lambda call: PromptAnswer("{}", cost_nano_usd=10))
    await world.gate()
    world.deploy(1)
    live = world.shelf.versions[0].digest
    world.befriend()

    def answer(call: PromptCall) -> PromptAnswer:
        again = int(call.tags["repeat"]) >= FIRST_RECHECK
        bad = fails(call) if again else call.tags["case"] == "c0" and call.digest != live
        return PromptAnswer("no" if bad else "{}", cost_nano_usd=10)

    world.caller = ScriptedCaller(answer)
    return await world.gate()


async def test_a_break_that_may_be_luck_is_tried_again_on_both_sides(world: World) -> None:
    """Only that case, by 8 calls of each version, also of a baseline that is on file; in no figure but their own."""
    report = await suspected(world, fails=lambda call: call.digest != world.shelf.versions[0].digest)
    assert (report.verdict, report.reason) == (
        "FAIL",
        "is-json must pass, and it fails in all 10 repeats of 'c0', which v1 always passes.",
    )
    assert report.rechecks == (Recheck("c0", "is-json", 0, 8, 8, 8),)
    assert report.notes == ("is-json of 'c0' was tried again: v2 passes 0 of 8 more, v1 8 of 8.",)
    assert world.notes.rechecked == [(1, 8)]
    again = [call for call in world.caller.calls if int(call.tags["repeat"]) >= FIRST_RECHECK]
    assert len(again) == 16
    assert {call.tags["case"] for call in again} == {"c0"}
    assert report.cost_usd == pytest.approx((10 + 16) * 10 / 1e9)
    assert [(run.version, len(run.results)) for run in world.shelf.saved] == [(1, 10), (2, 10)]
    assert regate(world.shelf, report.run_id).verdict == "FAIL", "what was tried again is stored with the verdict"
    alone = regate(world.shelf, report.run_id, against=world.shelf.saved[0].id)
    assert alone.rechecks == report.rechecks


@pytest.mark.parametrize("who", ["nobody", "both"])
async def test_a_slip_is_no_break(world: World, who: str) -> None:
    report = await suspected(world, fails=lambda call: who == "both")
    assert (report.verdict, report.reason) == ("PASS", "The pass rate is 80%, and its floor is 50%.")
    assert "was tried again" in report.notes[0]


async def test_half_a_break_is_neither_and_buys_nothing(world: World) -> None:
    """What stays in doubt after 8 repeats more is not made clear by repeats of all the other cases."""
    live = "0" * 64

    def fails(call: PromptCall) -> bool:
        return call.digest != live and int(call.tags["repeat"]) % 4 == 0

    world.suite(GUARDED)
    await world.gate()
    live = world.shelf.versions[0].digest
    world.shelf.saved.clear()
    report = await suspected(world, fails=fails, suite=GUARDED.replace("{must", "{max_cost_usd: 1, must"))
    assert (report.verdict, world.notes.bought) == ("INCONCLUSIVE", [])
    assert report.reason == (
        "is-json must pass, and it fails in 4 of 10 repeats of 'c0', which v1 always passes: "
        "too often for a slip, and too seldom to be sure that it broke."
    )


async def test_a_cap_without_room_for_a_recheck_is_no_pass(world: World) -> None:
    capped = GUARDED.replace("{must", "{max_cost_usd: 0.0000002, must")
    report = await suspected(world, fails=lambda call: True, suite=capped)
    assert (report.verdict, report.rechecks, world.notes.rechecked) == ("INCONCLUSIVE", (), [])
    assert report.reason.endswith("; trying it again would tell a slip from a break.")
    assert report.notes == ("gate.max_cost_usd has no room to try again what must pass and failed: raise it.",)


async def test_no_more_than_ten_cases_are_tried_again(world: World) -> None:
    """Where all break, the rest stays in doubt until some of them are proof enough."""
    world.suite(GUARDED.replace("repeats: 2", "repeats: 1").replace("0.5", "0.0"))
    inputs = {"question": "q", "context": "c"}
    write(world.folder, golden_jsonl=lines(*({"id": f"c{i}", "inputs": inputs} for i in range(30))))
    world.caller = ScriptedCaller(lambda call: PromptAnswer("{}"))
    await world.gate()
    world.deploy(1)
    live = world.shelf.versions[0].digest
    world.befriend()
    world.caller = ScriptedCaller(lambda call: PromptAnswer("{}" if call.digest == live else "no"))
    report = await world.gate()
    assert (len(report.rechecks), len(world.caller.calls)) == (10, 30 + 160)
    assert (report.verdict, report.reason[-19:]) == ("FAIL", "(and 9 more cases).")


async def test_a_provider_that_is_down_stores_nothing(world: World) -> None:
    world.caller = ScriptedCaller(lambda call: PromptAnswer("", error="simulated: no connection to 127.0.0.1:4010"))
    with pytest.raises(Unusable, match="no connection"):
        await world.gate()
    assert world.shelf.saved == []


async def test_a_run_with_too_many_errors_is_unusable_and_kept(world: World) -> None:
    good = world.caller

    def answer(call: PromptCall) -> PromptAnswer:
        return PromptAnswer("", error="overloaded") if call.tags["repeat"] == "2" else good.answer(call)

    world.caller = ScriptedCaller(answer)
    report = await world.gate()
    assert (report.verdict, report.exit_code, report.metrics) == ("UNUSABLE", 3, ())
    assert world.shelf.saved[-1].verdict == "UNUSABLE"


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ({"id": "a", "inputs": {"question": "q"}}, r"golden\.jsonl:1: inputs\.context: is missing"),
        (
            {"id": "a", "inputs": {"question": 5, "context": "c"}, "expected": {"must_mention": "x"}},
            r"golden\.jsonl:1: inputs\.question: must be a string",
        ),
        (
            {"id": "a", "inputs": {"question": "q", "context": "c"}},
            r"eval\.yaml:5: checks\[1\]\.contains: .* in case 'a'",
        ),
    ],
)
async def test_bad_files_cost_nothing(world: World, case: dict[str, object], problem: str) -> None:
    write(world.folder, golden_jsonl=lines(case))
    with pytest.raises(InvalidFile, match=problem):
        await world.gate()
    assert (world.caller.calls, world.shelf.versions, world.shelf.saved) == ([], [], [])


async def test_an_eval_measures_and_stores_without_a_verdict(world: World) -> None:
    run = await world.session.evaluate(world.prompt, repeats=2)
    assert (len(run.results), run.verdict, run.version) == (6, None, 1)
    assert world.shelf.saved == [run]


def on_a_terminal(*parts: RenderableType, width: int) -> str:
    console = Console(width=width, file=StringIO(), force_terminal=True, record=True)
    console.print(*parts, sep="\n")
    return console.export_text()


async def shown(world: World, width: int) -> str:
    """The incident's report as a terminal of that width shows it."""
    await world.gate()
    world.deploy(1)
    world.befriend()
    report = await world.gate()
    return on_a_terminal(plan_line(world.notes.plans[0]), gate_report(report), width=width)


@pytest.mark.parametrize("width", [80, 120])
async def test_the_report_shows_everything_at_any_width(world: World, width: int) -> None:
    text = await shown(world, width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for part in (
        "v1 3/3 → v2 2/3",
        "✗ password-new-phone",
        "broken",
        "Hi there! I am so glad you asked.",
        f"+{FRIENDLY}",
        "FAIL",
        "exit 1",
        "sees a drop of 45 points or more",
        "3 cases × 3 = 9 calls (v1 is on file)",
    ):
        assert part in flat, part


async def test_a_broken_case_shows_both_answers_beside_one_another_where_there_is_room(world: World) -> None:
    wide = await shown(world, 140)
    heads = next(line for line in wide.splitlines() if "v1 answered password-new-phone" in line)
    assert "v2 answered password-new-phone" in heads
    report = msgspec.convert(world.shelf.saved[-1].gate, GateReport)
    narrow = on_a_terminal(gate_report(report), width=80).splitlines()
    first, second = (next(i for i, line in enumerate(narrow) if f"{v} answered" in line) for v in ("v1", "v2"))
    assert first < second


async def test_what_a_model_says_stays_text(world: World) -> None:
    """Escapes, markup and overrides of direction in an answer are spelt out, never obeyed."""
    world.caller = ScriptedCaller(
        lambda call: PromptAnswer("\x1b[2J[bold]x[/bold]\u202e\r\x07" + "long " * 900 + "\n" * 40, cost_nano_usd=1)
    )
    report = await world.gate()
    text = on_a_terminal(gate_report(report), width=100)
    assert "\\x1b[2J[bold]x[/bold]\\u202e\\x0d\\x07" in text
    assert not set("\x1b\u202e\r\x07") & set(text)
    assert len(text.splitlines()) < 80, "an answer does not push the verdict off the screen"


@pytest.mark.parametrize(
    ("weights", "sentence", "rows"),
    [
        ((0, 0), UNDECIDED, ["– a –", "– b –"]),
        ((0, 1), "1 of 1 cases pass in every repeat, and nothing decides about 1.", ["– a –", "✓ b 1/1"]),
        ((1, 1), "2 of 2 cases pass in every repeat.", ["✓ a 1/1", "✓ b 1/1"]),
    ],
)
async def test_a_run_report_says_where_nothing_decides(
    world: World, weights: tuple[float, float], sentence: str, rows: list[str]
) -> None:
    run = await world.session.evaluate(world.prompt)
    results = [
        Repeat(case, 0, "x", (CheckResult("contains", True, "", weight=weight),))
        for case, weight in zip("ab", weights, strict=True)
    ]
    text = " ".join(on_a_terminal(run_report(msgspec.structs.replace(run, results=results)), width=80).split())
    assert f"v1 {sentence}" in text
    assert all(row in text for row in rows)


async def test_a_run_report_tells_each_case(world: World) -> None:
    world.befriend()
    run = await world.session.evaluate(world.prompt)
    text = " ".join(on_a_terminal(run_report(run), width=80).split())
    assert "v1 2 of 3 cases pass in every repeat." in text
    assert "✗ password-new-phone 0/3 is-json: not JSON at column 1" in text


@pytest.fixture
def commands(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The real commands over the fakes."""

    @asynccontextmanager
    async def caller(project: Project, registry: MemoryShelf) -> AsyncIterator[ScriptedCaller]:
        yield world.caller

    monkeypatch.setattr(compose, "registry", lambda project: world.shelf)
    monkeypatch.setattr(compose, "caller", caller)
    monkeypatch.setattr(simulated_module, "unstarted", lambda config: {})
    return world


def command(world: World, *arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        build()([*arguments, "--config", str(world.root / "tidegate.yaml")])
    assert world.shelf.closed
    return ended.value.code


def test_the_verdict_is_the_exit_code(commands: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(commands, "gate") == 0
    commands.deploy(1)
    commands.befriend()
    capsys.readouterr()
    assert command(commands, "gate", NAME, "--json") == 1
    said = capsys.readouterr()
    report = gate_json(said.out)
    assert (report["verdict"], report["exit_code"], report["passed_cases"], report["baseline_passed_cases"]) == (
        "FAIL", 1, 2, 3
    )  # fmt: skip
    assert said.err == "", "no progress bar where nobody watches"
    assert command(commands, "gate") == 1
    assert "v1 3/3" in capsys.readouterr().out


def test_a_stored_run_is_judged_again_by_its_id(commands: World, capsys: pytest.CaptureFixture[str]) -> None:
    command(commands, "gate")
    commands.deploy(1)
    commands.befriend()
    command(commands, "gate")
    run, calls, saved = commands.shelf.saved[-1], len(commands.caller.calls), len(commands.shelf.saved)
    capsys.readouterr()
    assert command(commands, "gate", "--run", run.id, "--json", "--metric", "pass-rate.floor=0.5") == 1
    report = gate_json(capsys.readouterr().out)
    assert (report["run_id"], report["metrics"][0]["floor"], report["metrics"][0]["verdict"]) == (run.id, 0.5, "PASS")
    assert command(commands, "gate", "--run", run.id, "--against", commands.shelf.saved[0].id) == 1
    assert "nothing is approved by it" in " ".join(capsys.readouterr().out.split())
    assert (len(commands.caller.calls), len(commands.shelf.saved)) == (calls, saved)


def test_a_stored_run_can_be_the_baseline_of_the_command(commands: World, capsys: pytest.CaptureFixture[str]) -> None:
    command(commands, "gate")
    commands.befriend()
    first = commands.shelf.saved[0]
    capsys.readouterr()
    assert command(commands, "gate", "--json", "--against", first.id) == 1
    assert gate_json(capsys.readouterr().out)["baseline_run_id"] == first.id


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([NAME, "--run", "x"], "--run says by itself"),
        (["--metric", "pass-rate.margin=1"], "--metric is for a stored run"),
        (["--run", "x", "--metric", "pass-rate"], r"write NAME\.margin=AMOUNT"),
    ],
)
def test_options_of_a_stored_run_that_make_no_sense_are_bad_input(world: World, arguments: list[str], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        build()(["gate", *arguments, "--config", str(world.root / "tidegate.yaml")])


def test_several_prompts_give_the_worst_verdict(commands: World, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(commands.folder, commands.root / "prompts/other")
    (commands.root / "prompts/other/eval.yaml").write_text("checks: [not-is-json]\n")
    shutil.copytree(commands.folder, commands.root / "prompts/unguarded")
    (commands.root / "prompts/unguarded/eval.yaml").unlink()
    assert command(commands, "gate", "--json") == 1
    said = gate_json(capsys.readouterr().out)
    assert (said["verdict"], said["exit_code"]) == ("FAIL", 1)
    assert {report["prompt"]: report["verdict"] for report in said["reports"]} == {"other": "FAIL", NAME: "PASS"}


def test_the_reports_of_a_gate_say_what_it_said(commands: World, monkeypatch: pytest.MonkeyPatch) -> None:
    summary, folder = commands.root / "summary.md", commands.root / "report"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setattr("sys.argv", ["tidegate", "gate", "--github"])
    assert command(commands, "gate") == 0
    commands.deploy(1)
    commands.befriend()
    names = {"--html": "gate.html", "--junit": "gate.xml", "--markdown": "gate.md"}
    options = [word for option, name in names.items() for word in (option, str(folder / name))]
    assert command(commands, "gate", "--github", *options) == 1
    page, xml, comment = ((folder / name).read_text("utf-8") for name in names.values())
    assert "golden.jsonl:3" in page
    assert "v1 answered" in page
    assert "Repeats 1, 2, 3" in page, "every repeat of the stored run is there"
    assert xml.count("<failure") == 2
    assert "❌ FAIL" in comment
    assert summary.read_text("utf-8").strip() == comment.strip()


def test_the_annotations_of_a_gate_stand_on_their_lines(
    commands: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(commands.root))
    assert command(commands, "gate") == 0
    commands.deploy(1)
    commands.befriend()
    capsys.readouterr()
    assert command(commands, "gate", "--github") == 1
    lines = capsys.readouterr().out.splitlines()
    token = next(line for line in lines if line.startswith("::stop-commands::")).removeprefix("::stop-commands::")
    obeyed = [line for line in lines[lines.index(f"::{token}::") + 1 :] if line.startswith("::")]
    assert [line.split("::")[1] for line in obeyed] == [
        f"error file=prompts/{NAME}/prompt.md,line=1,title=FAIL%3A {NAME}",
        f"error file=prompts/{NAME}/golden.jsonl,line=3,title=broken%3A password-new-phone",
    ]


def test_what_eval_prints_is_no_command_either(
    commands: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert command(commands, "eval", NAME) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("::stop-commands::"))
    assert "cases pass" in "".join(lines[start:])
    assert lines[-1] == f"::{lines[start].removeprefix('::stop-commands::')}::"


def test_a_report_that_can_not_be_written_costs_no_call(commands: World) -> None:
    for name in ("gate", "eval"):
        words = [name, *([NAME] if name == "eval" else []), "--html", str(commands.root)]
        with pytest.raises(BadInput, match=r"^--html: .* is a folder"):
            build()([*words, "--config", str(commands.root / "tidegate.yaml")])
    assert commands.caller.calls == []


def test_json_and_annotations_do_not_mix(commands: World) -> None:
    with pytest.raises(BadInput, match=r"^--json and --github both write"):
        build()(["gate", "--json", "--github", "--config", str(commands.root / "tidegate.yaml")])


def test_eval_writes_reports_too(commands: World) -> None:
    page, xml = commands.root / "a.html", commands.root / "a.xml"
    assert command(commands, "eval", NAME, "--html", str(page), "--junit", str(xml)) == 0
    assert "MEASURED" in page.read_text("utf-8")
    assert 'failures="0" errors="0"' in xml.read_text("utf-8")


def test_one_bad_suite_stops_all_before_the_first_call(commands: World) -> None:
    shutil.copytree(commands.folder, commands.root / "prompts/zebra")
    (commands.root / "prompts/zebra/eval.yaml").write_text("checks: [is-jsn]\n")
    with pytest.raises(InvalidFile, match=r"zebra/eval\.yaml:1: checks\[0\]"):
        build()(["gate", "--config", str(commands.root / "tidegate.yaml")])
    assert commands.caller.calls == []


def test_a_project_without_a_suite_has_nothing_to_gate(commands: World) -> None:
    (commands.folder / "eval.yaml").unlink()
    with pytest.raises(BadInput, match=r"no prompt .* has an eval\.yaml"):
        build()(["gate", "--config", str(commands.root / "tidegate.yaml")])


def test_eval_prints_the_run(commands: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(commands, "eval", NAME, "--repeats", "2", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 6
    assert command(commands, "eval", NAME) == 0
    assert "3 of 3 cases pass in every repeat." in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--agains", "v1"], ["--json=maybe"]])
def test_wrong_arguments_are_bad_input_and_no_verdict(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 means INCONCLUSIVE, so a slip of the pen must not give it."""
    monkeypatch.setattr("sys.argv", ["tidegate", "gate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 4
    assert capsys.readouterr().err.startswith("tidegate: ")
