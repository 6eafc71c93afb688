"""`tidegate gate`: the working tree against what is live, and a verdict as the exit code."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tidegate import compose
from tidegate.cli.github import no_commands
from tidegate.cli.output import out, print_json
from tidegate.cli.reports import Reports
from tidegate.config import Project
from tidegate.core.errors import BadInput
from tidegate.core.evaluation import EXIT_CODES, GateReport, GateReports, Run, Verdict

if TYPE_CHECKING:
    from tidegate.evals.session import Reference
    from tidegate.ports import PromptRegistry
    from tidegate.prompts.files import PromptFile
    from tidegate.prompts.sides import Side, Sides

LIVE = "production"
RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BEST_TO_WORST: Sequence[Verdict] = ("PASS", "INCONCLUSIVE", "UNUSABLE", "FAIL")


def gate_(
    *names: str,
    against: str | None = None,
    version: str | None = None,
    run: str | None = None,
    metric: Sequence[str] = (),
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
    html: Path | None = None,
    junit: Path | None = None,
    markdown: Path | None = None,
    github: bool = False,
    fresh: bool = False,
    batch: bool = False,
) -> None:
    """
    Compare prompts of the working tree with what is live, on the same cases, and say PASS, FAIL or INCONCLUSIVE.

    The verdict is stored with its run, and is what `tidegate deploy` asks for. Exit codes: 0 pass, 1 fail,
    2 inconclusive, 3 the run is unusable, 4 bad input; of several prompts, the worst verdict's. A gate that was
    interrupted goes on where it stopped, for 3 days, and pays for no call twice.

    Example: `tidegate gate support/answer --against origin/main --html gate.html`

    Parameters
    ----------
    names
        The prompts; by default all that have an eval.yaml.
    against
        The baseline: `vN`, the beginning of a digest, an environment, the id of a stored run, which is not run again,
        or a git ref (`git:NAME` is always one), which needs no checkout. By default what production serves, else where
        this branch left the default branch. A prompt that has neither is judged by its suite's floors and `must_pass`
        alone.
    version
        Judge a stored version, `vN` or the beginning of a digest, by the suite in the folder, instead of the files.
    run
        Judge a stored run again, without a call: by its own suite and against its own baseline, or `--against` another
        stored run. Nothing is stored, so nothing is approved.
    metric
        With --run, ask something else of a metric: `pass-rate.margin=0.05`, `grounded.floor=4`. May be repeated.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the report as JSON; of several prompts, `{verdict, exit_code, reports}`.
    html
        Write the report as one HTML file that opens from disk.
    junit
        Write it as JUnit XML: a failure or an error stands in it exactly when the exit code is not 0.
    markdown
        Write it as Markdown, one screen, for a comment on a pull request.
    github
        Print GitHub's annotations too, and add the Markdown to the job's summary.
    fresh
        Make every call, also those that an interrupted run has paid for.
    batch
        Send the cases through the provider's batch API (OpenAI's or Anthropic's), at half the price: the answers come
        within a day. Stop waiting with Ctrl-C; the same command waits on.
    """
    from tidegate.cli.watch import finish

    if version is not None and len(names) != 1:
        raise BadInput("--version needs the name of one prompt.")
    if run is not None and (names or version is not None):
        raise BadInput("--run says by itself which prompt and version to judge.")
    if metric and run is None:
        raise BadInput("--metric is for a stored run: name it with --run, or write the metric into eval.yaml.")
    if json and github:
        raise BadInput("--json and --github both write to the standard output: choose one.")
    project = compose.project(config)
    files = Reports(html=html, junit=junit, markdown=markdown, github=github)
    with files.or_say_why_not(project):
        with no_commands() if not json else nullcontext():
            if run is None:
                work = gate_prompts(
                    project, names, against=against, version=version, quiet=json, fresh=fresh, batch=batch
                )
                reports = finish(work)
            else:
                reports = [gate_again(project, run, against=against, metrics=metric, quiet=json)]
        if files.any:
            with closing(compose.registry(project)) as registry:
                files.write(project, registry, reports)
    verdict = max((report.verdict for report in reports), key=BEST_TO_WORST.index)
    if json and len(reports) == 1:
        print_json(reports[0])
    elif json:
        print_json(GateReports(verdict, EXIT_CODES[verdict], tuple(reports)))
    sys.exit(EXIT_CODES[verdict])


async def gate_prompts(
    project: Project,
    names: Sequence[str],
    *,
    against: str | None = None,
    version: str | None = None,
    quiet: bool = False,
    fresh: bool = False,
    batch: bool = False,
) -> list[GateReport]:
    """
    Gates `names`, or every prompt with a suite, one after the other; each report is printed unless `quiet`.

    Raises: InvalidFile before the first call when any of them is malformed; BadInput, NotFound, Unusable.
    """
    from tidegate.cli.watch import TerminalWatcher, calling, require_judges, session
    from tidegate.evals.folder import read
    from tidegate.evals.report import gate_report
    from tidegate.prompts.files import list_prompts, load_prompt
    from tidegate.prompts.render import render
    from tidegate.prompts.sides import Sides
    from tidegate.upstream.lint import require_models

    prompts = [load_prompt(project.prompts, name) for name in names or list_prompts(project.prompts)]
    prompts = [prompt for prompt in prompts if names or prompt.has_suite]
    if not prompts:
        raise BadInput(f"no prompt under {project.prompts} has an eval.yaml, so there is nothing to gate.")
    with closing(compose.registry(project)) as registry:
        if version is None:
            for prompt in prompts:
                require_models(prompt.front, prompt.artifact, compose.serving(project, registry))
        sides = Sides(registry, project.prompts, environments=registry.policy.protects)
        if version is not None:
            prompts = [stored(prompt, sides.find(prompt.name, version)) for prompt in prompts]
        for prompt in prompts:
            suite, _ = read(prompt, render)
            require_judges(suite, compose.serving(project, registry))
        rivals = [baseline(sides, registry, prompt.name, against) for prompt in prompts]
        reports = []
        async with calling(project, registry, batch=batch) as (caller, batches):
            for prompt, (rival, notes) in zip(prompts, rivals, strict=True):
                with TerminalWatcher(quiet=quiet) as watcher:
                    gating = session(project, registry, caller, watcher, fresh=fresh, batches=batches)
                    reports.append(await gating.gate(prompt, against=rival, notes=notes))
                if not quiet:
                    out.print(gate_report(reports[-1]), soft_wrap=False)
    return reports


def gate_again(
    project: Project, run_id: str, *, against: str | None = None, metrics: Sequence[str] = (), quiet: bool = False
) -> GateReport:
    """Judges a stored run again, under `metrics` too. Raises BadInput, NotFound."""
    from tidegate.evals.regate import asked, known_judges, regate
    from tidegate.evals.report import gate_report

    demands = [asked(text) for text in metrics]
    with closing(compose.registry(project)) as registry:
        judges = known_judges(registry, project.prompts / registry.run(run_id).prompt)
        report = regate(registry, run_id, against=against, metrics=demands, judges=judges)
    if not quiet:
        out.print(gate_report(report), soft_wrap=False)
    return report


def stored(prompt: PromptFile, side: Side) -> PromptFile:
    """A stored version with the suite of its prompt's folder."""
    return replace(prompt, artifact=side.artifact, description=side.description, file_sha256=side.file_sha256)


def baseline(
    sides: Sides, registry: PromptRegistry, name: str, against: str | None
) -> tuple[str | Reference | Run | None, Sequence[str]]:
    """What a gate compares with, and what its reader should know about that. Raises as Sides.find."""
    from tidegate.evals.session import Reference

    if against is None:
        if any(pointer.environment == LIVE for pointer in registry.pointers(name)):
            return LIVE, ()
        side, why = sides.fork(name)
        if side is None:
            return None, (f"{why}: the suite's floors and must_pass decide alone.",)
    elif RUN_ID.fullmatch(against):
        return registry.run(against), ()
    elif sides.is_git(name, against):
        side = sides.at(name, against)
        if side is None:
            return None, (f"{against} does not hold this prompt: the suite's floors and must_pass decide alone.",)
    else:
        side = sides.find(name, against)
    if side.kind in ("version", "digest", "environment"):
        return against, ()
    return Reference(side.artifact, side.description, side.file_sha256, side.origin), ()
