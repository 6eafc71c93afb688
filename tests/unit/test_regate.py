"""Stored runs judged again: under other demands, against other runs, without a call and without an approval."""

# ruff: noqa: E501 – the sentences read best in one piece

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.evals import EXAMPLE, FRIENDLY, MemoryShelf, lines, load, stored, write
from tests.unit.test_eval_session import NAME, World
from tidegate.core.errors import BadInput
from tidegate.core.evaluation import GateReport, Run
from tidegate.evals.regate import Asked, asked, regate
from tidegate.prompts.files import load_prompt

CASES: list[dict[str, Any]] = [{"id": f"c{i}", "tags": ["long"] if i < 10 else [], "cluster": None} for i in range(40)]
SUITE = "checks: [is-json, {contains: x}]\ngate: {must_pass: [is-json], metrics: {pass-rate: {margin: 0.02}}}\n"


class Archive(MemoryShelf):
    """A shelf with two runs over 40 cases: v1 passes all of them, v2 fails `contains` in the first eight."""

    def __init__(self, folder: Path, *, suite: str = SUITE) -> None:
        super().__init__()
        write(folder, eval_yaml=suite, golden_jsonl=lines(*CASES))
        self.suite, self.golden = load(folder)
        self.keep(1, dict.fromkeys([case["id"] for case in CASES], "++"))
        self.keep(2, {case["id"]: "--" if i < 8 else "++" for i, case in enumerate(CASES)}, baseline="run-1")

    def keep(self, number: int, outcomes: dict[str, str], baseline: str | None = None) -> Run:
        made = stored(self.suite, self.golden, outcomes, number=number, check="contains")
        made = msgspec.structs.replace(made, baseline_run_id=baseline)
        self.save_run(made, suite=self.suite.text, golden=self.golden.text)
        self.artifacts[made.digest] = load_prompt(EXAMPLE / "prompts", NAME).artifact
        return made


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_a_stored_run_gets_the_verdict_of_its_suite_again(archive: Archive) -> None:
    report = regate(archive, "run-2")
    assert (report.verdict, report.baseline, report.candidate, report.run_id) == ("FAIL", "v1", "v2", "run-2")
    assert report.metrics[0].margin == 0.02
    assert report.cases[0].change == "broken"
    assert report.mde is not None
    assert report.cost_usd == 0
    assert report.notes == ("a stored run, judged again as its suite asks: nothing was called, and nothing is approved by it.",)  # fmt: skip
    assert {row.tag for row in report.slices} == {"long"}


def test_another_margin_gives_another_verdict(archive: Archive) -> None:
    report = regate(archive, "run-2", metrics=[asked("pass-rate.margin=0.4")])
    assert (report.verdict, report.metrics[0].margin) == ("PASS", 0.4)
    assert "under other demands than its suite's" in report.notes[0]
    floor = regate(archive, "run-2", metrics=[asked("pass-rate.margin=0.4"), asked("pass-rate.floor=0.9")])
    assert (floor.verdict, floor.reason) == ("FAIL", "The pass rate is 80%, below its floor of 90%.")


def test_another_metric_may_be_asked(archive: Archive) -> None:
    metrics = [asked("pass-rate.margin=0.4"), asked("contains.floor=0.9")]
    report = regate(archive, "run-2", metrics=metrics)
    assert [(metric.name, metric.verdict) for metric in report.metrics] == [("pass-rate", "PASS"), ("contains", "FAIL")]


def test_must_pass_stays_what_the_suite_says(tmp_path: Path) -> None:
    archive = Archive(tmp_path, suite=SUITE.replace("must_pass: [is-json]", "must_pass: [contains]"))
    report = regate(archive, "run-2", metrics=[asked("pass-rate.margin=0.4")])
    assert (report.verdict, report.reason) == (
        "FAIL",
        "contains must pass, and it fails in all 2 repeats of 'c0', which v1 always passes (and 7 more cases).",
    )


def test_clusters_and_critical_cases_are_read_from_the_stored_golden_set(tmp_path: Path) -> None:
    plain = Archive(tmp_path)
    clustered = [{**case, "cluster": "one", "critical": case["id"] == "c1"} for case in CASES]
    write(tmp_path, golden_jsonl=lines(*clustered))
    _, golden = load(tmp_path)
    for index, run in enumerate(plain.saved):
        plain.saved[index] = msgspec.structs.replace(run, golden_digest=golden.digest)
    plain.documents[golden.digest] = golden.text
    report = regate(plain, "run-2", metrics=[asked("pass-rate.margin=0.4")])
    assert report.reason.startswith(
        "contains must pass, and it fails in all 2 repeats of 'c1', which v1 always passes;"
    )
    assert report.metrics[0].verdict == "INCONCLUSIVE"


def test_another_run_can_be_the_baseline(archive: Archive) -> None:
    archive.keep(3, {case["id"]: "--" if i < 8 else "++" for i, case in enumerate(CASES)})
    report = regate(archive, "run-2", against="run-3", metrics=[asked("pass-rate.margin=0.4")])
    assert (report.verdict, report.baseline, report.metrics[0].delta) == ("PASS", "v3", 0.0)
    assert regate(archive, "run-1").baseline is None, "a run that was compared with nothing"


@pytest.mark.parametrize("text", ["pass-rate", "pass-rate=1", "pass-rate.ceiling=1", "a.margin=x", "a.margin=-1", "a.floor=nan", ".margin=1"])  # fmt: skip
def test_a_demand_that_can_not_be_read_says_how_to_write_one(text: str) -> None:
    with pytest.raises(BadInput, match=r"write NAME\.margin=AMOUNT"):
        asked(text)


def test_a_demand_on_something_unknown_is_bad_input(archive: Archive) -> None:
    assert asked("judge.a.margin=0.1") == Asked("judge.a", "margin", 0.1)
    with pytest.raises(BadInput, match=r"no metric 'passrate'.*pass-rate"):
        regate(archive, "run-2", metrics=[asked("passrate.margin=0.1")])


def test_runs_that_do_not_compare_are_refused(archive: Archive, tmp_path: Path) -> None:
    for change, why in (
        ({"prompt": "other"}, "is of other, not of"),
        ({"golden_digest": "0" * 64}, "of another golden set"),
        ({"suite_digest": "0" * 64}, "checked by another suite"),
    ):
        archive.documents["0" * 64] = '{"checks": [], "repeats": 1}'
        archive.saved[0] = msgspec.structs.replace(archive.saved[0], **change)
        with pytest.raises(BadInput, match=why):
            regate(archive, "run-2")
        archive.saved[0] = Archive(tmp_path).saved[0]


def test_only_margins_differ_then_runs_compare(archive: Archive) -> None:
    archive.documents["1" * 64] = archive.suite.text.replace("0.02", "0.03")
    assert archive.documents["1" * 64] != archive.suite.text
    archive.saved[0] = msgspec.structs.replace(archive.saved[0], suite_digest="1" * 64)
    assert regate(archive, "run-2").baseline == "v1"


def test_a_calibration_is_no_run_to_gate(archive: Archive) -> None:
    archive.documents[archive.suite.digest] = '{"kind": "rubric"}'
    with pytest.raises(BadInput, match="a judge's calibration"):
        regate(archive, "run-2")


async def test_a_gate_against_a_stored_run_calls_only_the_candidate(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.gate()
    world.befriend()
    world.clock.move(10 * 86_400)
    before = len(world.caller.calls)
    report = await world.session.gate(world.prompt, against=world.shelf.saved[0])
    assert len(world.caller.calls) - before == 9
    assert (report.verdict, report.baseline_run_id) == ("FAIL", world.shelf.saved[0].id)
    assert report.notes[0] == f"the baseline v1 is the stored run {world.shelf.saved[0].id} of 2026-03-01."


async def test_a_gate_against_a_run_of_other_cases_is_refused_before_any_call(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.gate()
    golden = world.folder / "golden.jsonl"
    golden.write_text(golden.read_text().replace("30 days of delivery", "30 days"))
    before = len(world.caller.calls)
    with pytest.raises(BadInput, match="another golden set"):
        await world.session.gate(world.prompt, against=world.shelf.saved[0])
    assert len(world.caller.calls) == before


async def test_a_regate_of_a_real_gate_is_the_same_and_is_not_stored(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.gate()
    world.deploy(1)
    world.befriend()
    report = await world.gate()
    saved = list(world.shelf.saved)
    again = regate(world.shelf, report.run_id)
    assert world.shelf.saved == saved
    same = {name: getattr(again, name) for name in GateReport.__struct_fields__ if name not in ("notes", "cost_usd")}
    assert same == {name: getattr(report, name) for name in same}
    assert FRIENDLY in "".join(again.diff)
    assert again.prompt == NAME
