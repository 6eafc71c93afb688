"""`tidegate gate`: the working tree against what is live, and a verdict as the exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tidegate import compose
from tidegate.cli.output import out, print_json
from tidegate.config import Project
from tidegate.core.errors import BadInput
from tidegate.core.evaluation import EXIT_CODES, GateReport, Verdict

BEST_TO_WORST: Sequence[Verdict] = ("PASS", "INCONCLUSIVE", "UNUSABLE", "FAIL")


def gate_(
    *names: str,
    against: str | None = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Compare prompts of the working tree with what is live, on the same cases, and say PASS, FAIL or INCONCLUSIVE.

    The verdict is stored with its run, and is what `tidegate deploy` asks for. Exit codes: 0 pass, 1 fail,
    2 inconclusive, 3 the run is unusable, 4 bad input; of several prompts, the worst verdict's.

    Example: `tidegate gate support/answer --against v1`

    Parameters
    ----------
    names
        The prompts; by default all that have an eval.yaml.
    against
        The baseline: `vN`, the beginning of a digest, or an environment; by default what production serves. Where
        nothing is live, only the suite's floors and `must_pass` apply.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the report as JSON; of several prompts, `{verdict, exit_code, reports}`.
    """
    reports = asyncio.run(gate_prompts(compose.project(config), names, against=against, quiet=json))
    verdict = max((report.verdict for report in reports), key=BEST_TO_WORST.index)
    if json and len(reports) == 1:
        print_json(reports[0])
    elif json:
        print_json({"verdict": verdict, "exit_code": EXIT_CODES[verdict], "reports": reports})
    sys.exit(EXIT_CODES[verdict])


async def gate_prompts(
    project: Project, names: Sequence[str], *, against: str | None = None, quiet: bool = False
) -> list[GateReport]:
    """
    Gates `names`, or every prompt with a suite, one after the other; each report is printed unless `quiet`.

    Raises: InvalidFile before the first call when any of them is malformed; BadInput, NotFound, Unusable.
    """
    from tidegate.cli.watch import TerminalWatcher, session
    from tidegate.evals.report import gate_report
    from tidegate.evals.session import read
    from tidegate.prompts.files import list_prompts, load_prompt
    from tidegate.prompts.render import render

    prompts = [load_prompt(project.prompts, name) for name in names or list_prompts(project.prompts)]
    prompts = [prompt for prompt in prompts if names or prompt.has_suite]
    if not prompts:
        raise BadInput(f"no prompt under {project.prompts} has an eval.yaml, so there is nothing to gate.")
    for prompt in prompts:
        read(prompt, render)
    registry = compose.registry(project)
    reports = []
    async with compose.caller(project, registry) as caller:
        for prompt in prompts:
            with TerminalWatcher(quiet=quiet) as watcher:
                reports.append(await session(project, registry, caller, watcher).gate(prompt, against=against))
            if not quiet:
                out.print(gate_report(reports[-1]), soft_wrap=False)
    return reports
