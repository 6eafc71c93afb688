"""`tidegate eval`: one run of a prompt's suite, stored."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from tidegate import compose
from tidegate.cli.github import no_commands
from tidegate.cli.output import out, print_json
from tidegate.cli.reports import Reports
from tidegate.config import Project
from tidegate.core.evaluation import EXIT_CODES, Run


def eval_(
    name: str,
    /,
    *,
    repeats: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=100))] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
    html: Path | None = None,
    junit: Path | None = None,
    fresh: bool = False,
    batch: bool = False,
) -> None:
    """
    Run a prompt's suite on the working tree, and store the run.

    It measures and does not judge: the exit code is 0 when the run is usable, 3 when more than 2 % of its calls ended
    in errors. `tidegate gate` gives a verdict. A run that was interrupted goes on where it stopped, for 3 days.

    Example: `tidegate eval support/answer --repeats 5`

    Parameters
    ----------
    name
        The prompt: its folder under prompts/.
    repeats
        How often each case is called, 1 to 100; by default what eval.yaml says.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the run as JSON.
    html
        Write the report as one HTML file that opens from disk.
    junit
        Write it as JUnit XML: every case that does not pass is a failure.
    fresh
        Make every call, also those that an interrupted run has paid for.
    batch
        Send the cases through the provider's batch API (OpenAI's or Anthropic's), at half the price: the answers come
        within a day. Stop waiting with Ctrl-C; the same command waits on.
    """
    from tidegate.cli.watch import finish
    from tidegate.evals.report import run_report
    from tidegate.evals.said import usable

    project = compose.project(config)
    files = Reports(html=html, junit=junit)
    with files.or_say_why_not(project):
        run = finish(evaluate(project, name, repeats=repeats, quiet=json, fresh=fresh, batch=batch))
        files.write_run(project, run)
    if json:
        print_json(run)
    else:
        with no_commands():
            out.print(run_report(run), soft_wrap=False)
    sys.exit(0 if usable(run) else EXIT_CODES["UNUSABLE"])


async def evaluate(
    project: Project,
    name: str,
    *,
    repeats: int | None = None,
    quiet: bool = False,
    fresh: bool = False,
    batch: bool = False,
) -> Run:
    """Runs the suite of one prompt of `project`. Raises InvalidFile, NotFound, Unusable."""
    from tidegate.cli.watch import TerminalWatcher, calling, require_judges, session
    from tidegate.evals.folder import read
    from tidegate.prompts.files import load_prompt
    from tidegate.prompts.render import render
    from tidegate.upstream.lint import require_models

    prompt = load_prompt(project.prompts, name)
    with closing(compose.registry(project)) as registry:
        serving = compose.serving(project, registry)
        require_models(prompt.front, prompt.artifact, serving)
        suite, _ = read(prompt, render)
        require_judges(suite, serving)
        with TerminalWatcher(quiet=quiet) as watcher:
            async with calling(project, registry, batch=batch) as (caller, batches):
                return await session(project, registry, caller, watcher, fresh=fresh, batches=batches).evaluate(
                    prompt, repeats=repeats
                )
