"""`tidegate judge`: which judges there are, and how far each agrees with people."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from tidegate import compose
from tidegate.cli import table
from tidegate.cli.output import out, print_json, usd, visible
from tidegate.config import Project
from tidegate.core.errors import BadInput, NotFound, Unusable, nearest
from tidegate.core.ids import uuid7
from tidegate.system import SystemClock, SystemRandom

if TYPE_CHECKING:
    from tidegate.core.agreement import Estimate
    from tidegate.evals.judges.calibration import Calibration, Corrected, Labels
    from tidegate.evals.judges.spec import JudgeSpec

LABELS = "labels.jsonl"


def judge_(
    action: Literal["calibrate", "list"],
    name: str | None = None,
    /,
    *,
    labels: Path | None = None,
    prompt: str | None = None,
    run: str | None = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Hold a judge against people's labels, or list all judges and what is known of them.

    A judge may gate once at least 20 labels are scored and the lower end of κ's interval reaches its `min_kappa`. A
    calibration is stored under the judge's digest: any change to its prompt, model or votes asks for a new one. Exit
    codes: 0 the judge may gate, 3 it may not.

    For example:
      tidegate judge calibrate grounded --labels labels.jsonl
      tidegate judge list

    Parameters
    ----------
    action
        What to do.
    name
        The judge, as eval.yaml calls it.
    labels
        Labelled answers, one JSON object a line: `{id, inputs, expected, output, human}`. By default labels.jsonl
        beside the judge's prompt.
    prompt
        The prompt whose suite has the judge; needed where suites mean different judges by the same name.
    run
        Also estimate what people would have said of this stored run's answers.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the calibration, or the list, as JSON.
    """
    project = compose.project(config)
    if action == "list":
        if name is not None:
            raise BadInput("`tidegate judge list` takes no name: it lists every judge.")
        _list(project, json=json)
        return
    if name is None:
        raise BadInput("`tidegate judge calibrate` needs the name of a judge.")
    judge = _find(project, name, prompt)
    try:
        found, fixed = asyncio.run(calibrated(project, judge, labels, run))
    except KeyboardInterrupt:
        raise Unusable("interrupted, so nothing is known of the judge yet: run the same command again.") from None
    if json:
        plain = msgspec.to_builtins(found)
        print_json(plain if fixed is None else {**plain, "corrected": fixed})
    else:
        _print(found, fixed)
    raise SystemExit(0 if found.gates is None else 3)


async def calibrated(
    project: Project, judge: JudgeSpec, file: Path | None, run_id: str | None
) -> tuple[Calibration, Corrected | None]:
    """Runs a judge over labels and stores the result. Raises InvalidFile, NotFound, Unusable before any call."""
    from tidegate.cli.simulated import caller as calls
    from tidegate.evals.judges.calibration import calibrate, corrected
    from tidegate.upstream.lint import require_models

    labels = _labels(judge, file)
    clock = SystemClock()
    with closing(compose.registry(project)) as registry:
        run = None if run_id is None else registry.run(run_id)
        for juror in judge.jurors:
            require_models(juror.file.front, juror.artifact, compose.serving(project, registry))
        async with calls(project, registry) as caller:
            made = uuid7(clock.now_ns() // 1_000_000, SystemRandom().bits(80))
            found = await calibrate(judge, labels, registry, caller, clock=clock, run_id=made)
        stored = registry.run(found.run_id)
        return found, None if run is None else corrected(judge, labels, stored, run)


def _labels(judge: JudgeSpec, file: Path | None) -> Labels:
    from tidegate.evals.judges.calibration import load_labels

    path = judge.jurors[0].file.folder / LABELS if file is None else file
    if not path.is_file():
        raise NotFound(f"{path}: no such file. Write what people said of answers there, or name it with --labels.")
    return load_labels(path, judge)


def _find(project: Project, name: str, prompt: str | None) -> JudgeSpec:
    found = {where: judges for where, judges in _judges(project) if prompt in (None, where)}
    meant = {where: judge for where, judges in found.items() for judge in judges if judge.name == name}
    if not meant:
        known = sorted({judge.name for judges in found.values() for judge in judges})
        raise NotFound(
            f"no suite{'' if prompt is None else f' of {prompt}'} has a judge {name!r}.{nearest(name, known)}"
        )
    if len({judge.digest for judge in meant.values()}) > 1:
        raise BadInput(f"{', '.join(meant)} mean different judges by {name!r}: choose one with --prompt.")
    return next(iter(meant.values()))


def _judges(project: Project) -> Iterator[tuple[str, tuple[JudgeSpec, ...]]]:
    """Each prompt with a suite, and its judges."""
    from tidegate.evals.suite import load_suite
    from tidegate.prompts.files import SUITE, list_prompts

    for name in list_prompts(project.prompts):
        if (project.prompts / name / SUITE).exists():
            yield name, load_suite(project.prompts / name).judges


def _list(project: Project, *, json: bool) -> None:
    from tidegate.evals.judges.calibration import find
    from tidegate.evals.judges.spec import uncalibrated

    rows: list[dict[str, Any]] = []
    with closing(compose.registry(project)) as registry:
        for prompt, judges in _judges(project):
            for judge in judges:
                known = find(registry, judge)
                rows.append(
                    {
                        "judge": judge.name,
                        "prompt": prompt,
                        "kind": judge.kind.name,
                        "prompts": [juror.name for juror in judge.jurors],
                        "digest": judge.digest,
                        "pass_at": judge.passing,
                        "min_kappa": judge.min_kappa,
                        "kappa": known[0].kappa if known else None,
                        "labels": known[0].scored if known else 0,
                        "calibrated_at": known[0].at if known else None,
                        "gates": known[0].gates if known else uncalibrated(judge.name),
                    }
                )
    if json:
        print_json(rows)
        return
    if not rows:
        out.print(Text("No suite has a judge. `judges:` in eval.yaml names them."))
        return
    lines = [
        table.Row(
            (
                Text(row["judge"], "bold"),
                row["prompt"],
                row["kind"],
                _shown(row["kappa"]),
                str(row["labels"]),
                Text("yes", "green") if row["gates"] is None else Text("no", "yellow"),
            ),
            Text(visible(row["gates"] or ""), "yellow"),
        )
        for row in rows
    ]
    table.show(("judge", "of", "kind", "κ", "labels", "may gate"), lines)


def _print(found: Calibration, fixed: Corrected | None) -> None:
    people = "one person" if found.people == 1 else f"{found.people} people"
    left = [f"{found.unscored} unscored"] * bool(found.unscored)
    left += [f"{found.not_applicable} not applicable"] * bool(found.not_applicable)
    out.print(Text.assemble((found.judge, "bold"), f" · {found.kind} · {found.scored} of {found.labels} labels scored"))
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = [
        ("labels", f"by {people}{''.join(f', {part}' for part in left)}"),
        ("κ, judge and people", f"{_shown(found.kappa)}, and the lower end has to reach {found.min_kappa:g}"),
        ("same score", _same(found)),
        ("α among people", _number(found.alpha_people)),
        ("α with the judge", _number(found.alpha_with_judge)),
        ("passes what people pass", _share(found.true_positive_rate)),
        ("fails what people fail", _share(found.true_negative_rate)),
        ("alike in both orders", _share(found.swap_consistency)),
        ("mean", f"people {_number(found.mean_people)}, judge {_number(found.mean_judge)}" if found.scored else "–"),
        ("first unscored", visible(found.unscored_because) or "–"),
        ("cost", usd(found.cost_nano_usd)),
    ]
    for title, text in rows:
        if text != "–":
            table.add_row(Text(f"  {title}", "dim"), text)
    out.print(table, soft_wrap=False)
    if found.confusion:
        out.print(_confusion(found), soft_wrap=False)
    if fixed is not None:
        out.print(Text(f"  run {fixed.run_id}: {fixed.scored} answers, mean {_number(fixed.mean)}"))
        out.print(Text(f"    people would give {_shown(fixed.prediction_powered)} (prediction-powered)"))
        if fixed.rogan_gladen.value is not None:
            passed = f"{_percent(fixed.pass_rate)} pass; people would pass {_share(fixed.rogan_gladen)}"
            out.print(Text(f"    {passed} (Rogan–Gladen)"))
    verdict = Text("✓ it may gate.", "green") if found.gates is None else Text(f"✗ {visible(found.gates)}", "yellow")
    out.print(verdict)


def _same(found: Calibration) -> str:
    if found.agreement is None:
        return "–"
    return f"{_percent(found.agreement)}; a judge that always says the same: {_percent(found.constant_agreement)}"


def _confusion(found: Calibration) -> Table:
    humans = sorted({cell.human for cell in found.confusion})
    judges = sorted({cell.judge for cell in found.confusion})
    counts = {(cell.human, cell.judge): cell.count for cell in found.confusion}
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("  people ↓ judge →", style="dim")
    for judge in judges:
        table.add_column(judge, justify="right")
    for human in humans:
        table.add_row(f"  {human}", *(str(counts.get((human, judge), 0) or "·") for judge in judges))
    return table


def _shown(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "–"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _share(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    return f"{estimate.value:.0%} ({estimate.low:.0%} to {estimate.high:.0%})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
