"""
A judge against people: labels.jsonl, the run of the judge over it, and what that says about the judge.

    {"id": "a1", "inputs": {"context": "…"}, "output": "…", "human": {"ann": 4, "bob": 5}}

A line is a case with an answer (`output`, and `rival` where two are compared) and what people said of it: one score, a
list, or a map by person. A calibration is stored as a run of the judge's prompt under the judge's digest, so that any
change to the judge (prompt, model, votes, format) asks for a new one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import msgspec
import rfc8785
from pydantic import Field

from tidegate.core import agreement
from tidegate.core.agreement import Estimate
from tidegate.core.document import Document, Strict, parse_json, validate
from tidegate.core.errors import InvalidFile, NotFound, Problem
from tidegate.core.evaluation import Repeat, Run, Score
from tidegate.core.instant import iso_utc
from tidegate.core.ledger import Version
from tidegate.evals.judges.judging import Bench, judged_at_once
from tidegate.evals.judges.spec import JudgeSpec, uncalibrated
from tidegate.evals.shelf import Shelf
from tidegate.evals.spec import read_text
from tidegate.ports import Caller, Clock

MIN_LABELS = 20
"""With fewer a judge may not gate, however well it agrees."""
RUNS_SEARCHED = 100
CONCURRENCY = 4
PEOPLES_WORDS = {"pass": 1.0, "fail": 0.0, "output": 1.0, "tie": 0.5, "rival": 0.0}
"""What people may write instead of a number: binary judges' words, and of two answers the better one."""

Said = float | bool | str


class LabelLine(Strict):
    """One line as its author writes it."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    inputs: dict[str, Any] = {}
    expected: Any = None
    output: str
    rival: str | None = None
    human: Said | list[Said] | dict[str, Said]


@dataclass(frozen=True, slots=True)
class Label:
    """One answer and what people said of it, on the judge's scale."""

    id: str
    values: Mapping[str, Any]
    """`{inputs, expected, output, rival}`."""
    human: Mapping[str, float]
    """By person."""

    @property
    def consensus(self) -> float:
        return median(self.human.values())


@dataclass(frozen=True, slots=True)
class Labels:
    """Labelled answers in the file's order. `text` is their canonical form, and `digest` its sha256."""

    labels: tuple[Label, ...]
    digest: str
    text: str


class Cell(msgspec.Struct, frozen=True):
    """How often people said one thing and the judge another (or the same)."""

    human: str
    judge: str
    count: int


class Calibration(msgspec.Struct, frozen=True):
    """What is known of a judge; `judge calibrate --json` prints this."""

    judge: str
    kind: str
    digest: str
    """The judge's."""
    labels_digest: str
    run_id: str
    at: str
    labels: int
    scored: int
    unscored: int
    unscored_because: str
    """The first reason; empty where there is none."""
    not_applicable: int
    people: int
    kappa: Estimate
    """Quadratically weighted, the judge against the median of people."""
    min_kappa: float
    alpha_people: float | None
    """Krippendorff's, among people; None with fewer than two."""
    alpha_with_judge: float | None
    agreement: float | None
    """Share of answers on which both gave the same score, to the nearest that was offered."""
    constant_agreement: float | None
    """What a judge would reach that always gives people's most common score."""
    pass_at: float | None
    true_positive_rate: Estimate
    """Of the answers that people pass, those that the judge passes."""
    true_negative_rate: Estimate
    swap_consistency: Estimate
    """Of a pairwise judge's answers, those it decided alike in both orders."""
    confusion: tuple[Cell, ...]
    mean_people: float | None
    mean_judge: float | None
    cost_nano_usd: int | None
    gates: str | None
    """Why it may not gate; None when it may."""


class Corrected(msgspec.Struct, frozen=True):
    """A run's scores of one judge, and what people would have said, by what the calibration tells."""

    run_id: str
    scored: int
    mean: float | None
    prediction_powered: Estimate
    """Of the mean."""
    pass_rate: float | None
    rogan_gladen: Estimate
    """Of the pass rate; None where the judge has no `pass_at`."""


def load_labels(path: Path, judge: JudgeSpec) -> Labels:
    """Reads labels for `judge`. Raises InvalidFile with every problem, each on its line."""
    return read_labels(read_text(path), str(path), judge)


def read_labels(text: str, file: str, judge: JudgeSpec) -> Labels:
    """As `load_labels`, from the text."""
    labels: dict[str, Label] = {}
    canonical: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = parse_json(line, file, first_line=number)
            written = validate(document, LabelLine)
            if written.id in labels:
                raise InvalidFile([document.problem(("id",), f"the label {written.id!r} stands twice.")])
            labels[written.id] = _label(document, written, judge)
            canonical[written.id] = rfc8785.dumps(written.model_dump(exclude_none=True)).decode()
        except rfc8785.CanonicalizationError as error:
            problems.append(Problem(file, number, "", f"can not be written as canonical JSON: {error}."))
        except InvalidFile as error:
            problems += error.problems
    if not labels and not problems:
        problems.append(Problem(file, 0, "", "has no labels; write one JSON object a line."))
    if problems:
        raise InvalidFile(problems)
    whole = "\n".join(canonical[name] for name in sorted(canonical))
    return Labels(tuple(labels.values()), hashlib.sha256(whole.encode()).hexdigest(), whole)


def register(shelf: Shelf, judge: JudgeSpec) -> list[Version]:
    """The versions of a judge's jurors: those they have, or new ones."""
    return [
        shelf.register(
            juror.name, juror.artifact, description=juror.file.description, file_sha256=juror.file.file_sha256
        )
        for juror in judge.jurors
    ]


async def calibrate(
    judge: JudgeSpec, labels: Labels, shelf: Shelf, caller: Caller, *, clock: Clock, run_id: str
) -> Calibration:
    """Judges every labelled answer, and stores that as a run of the judge's prompt. Every judgement is made anew."""
    versions = await asyncio.to_thread(register, shelf, judge)
    started_at = iso_utc(clock.now_ns())
    answers = [(label.values, ("label", label.id)) for label in labels.labels]
    scores = await judged_at_once(Bench((judge,), caller), answers, judge, concurrency=CONCURRENCY)
    run = Run(
        id=run_id,
        prompt=judge.jurors[0].name,
        version=versions[0].number,
        digest=versions[0].digest,
        suite_digest=judge.digest,
        golden_digest=labels.digest,
        started_at=started_at,
        finished_at=iso_utc(clock.now_ns()),
        repeats=1,
        results=tuple(
            Repeat(label.id, 0, label.values["output"], scores=(score,), cost_nano_usd=score.cost_nano_usd)
            for label, score in zip(labels.labels, scores, strict=True)
        ),
    )
    await asyncio.to_thread(shelf.save_run, run, suite=judge.text, golden=labels.text)
    return measured(judge, labels, run)


def find(shelf: Shelf, judge: JudgeSpec) -> tuple[Calibration, Labels, Run] | None:
    """The newest stored calibration of exactly this judge, with its labels and its run."""
    for run in shelf.runs(judge.jurors[0].name, RUNS_SEARCHED):
        if run.suite_digest != judge.digest:
            continue
        try:
            labels = read_labels(shelf.document(run.golden_digest), "stored labels", judge)
        except (InvalidFile, NotFound):
            continue
        whole = shelf.run(run.id)
        return measured(judge, labels, whole), labels, whole
    return None


def barred(shelf: Shelf, judge: JudgeSpec) -> str | None:
    """The sentence that says why a judge may not gate; None when it may."""
    found = find(shelf, judge)
    return uncalibrated(judge.name) if found is None else found[0].gates


def measured(judge: JudgeSpec, labels: Labels, run: Run) -> Calibration:
    """What a run of the judge over labels says about it."""
    scores = {result.case_id: result.scores[0] for result in run.results if result.scores}
    pairs = _pairs(labels, scores)
    kappa = agreement.weighted_kappa([said for said, _ in pairs], [human for _, human in pairs])
    people = {person for label in labels.labels for person in label.human}
    pass_at = judge.passing
    good = [said for said, human in pairs if pass_at is not None and human >= pass_at]
    bad = [said for said, human in pairs if pass_at is not None and human < pass_at]
    costs = [score.cost_nano_usd for score in scores.values()]
    offered = _offered(judge)
    near = [(_nearest(said, offered), _nearest(human, offered)) for said, human in pairs] if offered else []
    common = Counter(human for _, human in near).most_common(1)
    calibration = Calibration(
        judge=judge.name,
        kind=judge.kind.name,
        digest=judge.digest,
        labels_digest=labels.digest,
        run_id=run.id,
        at=run.finished_at,
        labels=len(labels.labels),
        scored=len(pairs),
        unscored=sum(map(_unscored, scores.values())),
        unscored_because=next((score.reason for score in scores.values() if _unscored(score)), ""),
        not_applicable=sum(not score.applicable for score in scores.values()),
        people=len(people),
        kappa=kappa,
        min_kappa=judge.min_kappa,
        alpha_people=_alpha(labels, people, {}),
        alpha_with_judge=_alpha(labels, people, scores, offered) if pairs else None,
        agreement=fmean(said == human for said, human in near) if near else None,
        constant_agreement=common[0][1] / len(near) if near else None,
        pass_at=pass_at,
        true_positive_rate=agreement.wilson(sum(_passes(said, pass_at) for said in good), len(good)),
        true_negative_rate=agreement.wilson(sum(not _passes(said, pass_at) for said in bad), len(bad)),
        swap_consistency=_swaps(scores.values() if judge.relative else ()),
        confusion=_confusion(judge, near, pairs),
        mean_people=fmean(human for _, human in pairs) if pairs else None,
        mean_judge=fmean(said for said, _ in pairs) if pairs else None,
        cost_nano_usd=None if None in costs else sum(cost or 0 for cost in costs),
        gates=None,
    )
    return msgspec.structs.replace(calibration, gates=_bar(judge, calibration))


def corrected(judge: JudgeSpec, labels: Labels, calibration: Run, run: Run) -> Corrected:
    """What people would have said of a run's answers. Each repeat counts as one answer."""
    scores = {result.case_id: result.scores[0] for result in calibration.results if result.scores}
    pairs = _pairs(labels, scores)
    said = [one.value for result in run.results for one in result.scores if one.name == judge.name]
    values = [value for value in said if value is not None]
    pass_at = judge.passing
    good = [value for value, human in pairs if pass_at is not None and human >= pass_at]
    bad = [value for value, human in pairs if pass_at is not None and human < pass_at]
    passed = sum(_passes(value, pass_at) for value in values)
    rate = agreement.rogan_gladen(
        (passed, len(values)),
        (sum(_passes(value, pass_at) for value in good), len(good)),
        (sum(not _passes(value, pass_at) for value in bad), len(bad)),
    )
    return Corrected(
        run_id=run.id,
        scored=len(values),
        mean=fmean(values) if values else None,
        prediction_powered=agreement.prediction_powered(
            values, [one for one, _ in pairs], [human for _, human in pairs]
        ),
        pass_rate=passed / len(values) if values and pass_at is not None else None,
        rogan_gladen=rate,
    )


def _label(document: Document, written: LabelLine, judge: JudgeSpec) -> Label:
    human = written.human
    said = human if isinstance(human, dict) else dict(enumerate(human if isinstance(human, list) else [human], start=1))
    if not said:
        raise InvalidFile([document.problem(("human",), "nobody has said anything.")])
    scores = {str(person): _score(document, one, judge) for person, one in said.items()}
    values: dict[str, Any] = {"inputs": written.inputs, "expected": written.expected, "output": written.output}
    if judge.relative:
        if written.rival is None:
            raise InvalidFile([document.problem((), "a judge that compares needs `rival`, the other answer.")])
        values["rival"] = written.rival
    return Label(written.id, values, scores)


def _score(document: Document, said: Said, judge: JudgeSpec) -> float:
    low, high = judge.scale
    value = PEOPLES_WORDS.get(said.strip().casefold()) if isinstance(said, str) else float(said)
    if value is None or not low <= value <= high or (isinstance(said, bool) and judge.kind.name != "binary"):
        words = {"binary": " (or pass, fail)", "pairwise": " (or output, rival, tie)"}.get(judge.kind.name, "")
        message = f"a {judge.kind.name} score is a number from {low:g} to {high:g}{words}, and {said!r} is none."
        raise InvalidFile([document.problem(("human",), message)])
    return value


def _pairs(labels: Labels, scores: Mapping[str, Score]) -> list[tuple[float, float]]:
    """(judge, people) of every answer that the judge scored."""
    found = []
    for label in labels.labels:
        score = scores.get(label.id)
        if score is not None and score.value is not None:
            found.append((score.value, label.consensus))
    return found


def _alpha(
    labels: Labels, people: set[str], scores: Mapping[str, Score], offered: Sequence[float] = ()
) -> float | None:
    """Among people, and with `scores` the judge as one more of them."""
    if len(people) < 2 and not scores:
        return None
    rows: list[list[float | None]] = []
    for label in labels.labels:
        row: list[float | None] = [label.human.get(person) for person in sorted(people)]
        if scores:
            said = scores[label.id].value if label.id in scores else None
            row.append(said if said is None or not offered else _nearest(said, offered))
        rows.append(row)
    return agreement.krippendorff(rows)


def _unscored(score: Score) -> bool:
    return score.value is None and score.applicable


def _offered(judge: JudgeSpec) -> list[float]:
    return sorted(judge.kind.menu.values()) if judge.kind.menu else []


def _nearest(value: float, offered: Sequence[float]) -> float:
    return min(offered, key=lambda one: abs(one - value))


def _passes(value: float, pass_at: float | None) -> bool:
    return pass_at is not None and value >= pass_at - 1e-9


def _swaps(scores: Any) -> Estimate:
    kept, n = 0, 0
    for score in scores:
        for first, second in zip(score.parts[::2], score.parts[1::2], strict=True):
            if first is not None and second is not None:
                n += 1
                kept += first == second
    return agreement.wilson(kept, n)


def _confusion(
    judge: JudgeSpec, near: Sequence[tuple[float, float]], pairs: Sequence[tuple[float, float]]
) -> tuple[Cell, ...]:
    """By score where there are few; else by pass and fail."""
    if near:
        counts = Counter((f"{human:g}", f"{said:g}") for said, human in near)
    elif judge.passing is not None:
        words = {True: "pass", False: "fail"}
        passed = [(_passes(human, judge.passing), _passes(said, judge.passing)) for said, human in pairs]
        counts = Counter((words[human], words[said]) for human, said in passed)
    else:
        counts = Counter()
    return tuple(Cell(human, said, count) for (human, said), count in sorted(counts.items()))


def _bar(judge: JudgeSpec, found: Calibration) -> str | None:
    kappa = found.kappa
    if found.scored < MIN_LABELS:
        return (
            f"the judge {judge.name!r} is calibrated on {found.scored} scored labels, and {MIN_LABELS} are the least "
            "with which it may gate."
        )
    if kappa.value is None or kappa.low is None or kappa.high is None:
        return f"the judge {judge.name!r} can not be told from one that always says the same: label other answers too."
    if kappa.low < judge.min_kappa:
        return (
            f"the judge {judge.name!r} agrees with people at κ = {kappa.value:.2f} ({kappa.low:.2f} to "
            f"{kappa.high:.2f}), and the lower end has to reach {judge.min_kappa:g}."
        )
    return None
