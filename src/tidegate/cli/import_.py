"""`tidegate import`: prompts of other tools, as folders of ours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import err, out, print_json, visible
from tidegate.core.errors import BadInput

if TYPE_CHECKING:
    from tidegate.prompts.files import PromptFile
    from tidegate.prompts.importing.outcome import Item, Outcome
    from tidegate.prompts.importing.reading import Given

STYLES = {"left out": "yellow", "refused": "red", "changed": "cyan"}


def import_(
    format: Literal["promptfoo", "dotprompt", "prompty"],  # noqa: A002 – the word of the command line
    file: Path,
    /,
    *,
    name: str | None = None,
    into: Path | None = None,
    model: str | None = None,
    judge_model: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Turn a promptfoo config, a Dotprompt file or a Prompty file into prompt folders.

    Nothing is run, fetched or read from the environment. What can not carry over is listed, each thing with file and
    line; nothing is dropped silently. Exit codes: 0 everything carried over, 1 something is listed, 4 nothing could
    be made of the file; then nothing is written.

    Example: `tidegate import dotprompt greet.prompt --name support/greet`

    Parameters
    ----------
    format
        What wrote the file.
    file
        The file. What it names must stand in the same folder, or below it.
    name
        The prompt's name; several prompts become NAME/…. By default as the file says or is called.
    into
        The folder to write to; by default the project's prompts/.
    model
        `provider/model` or a route, instead of the file's own.
    judge_model
        Of promptfoo: `provider/model` that judges where a model is to judge, instead of the file's own. Each kind of
        judging becomes a prompt under judges/.
    force
        Write over a folder that is there; files the import does not make stay.
    dry_run
        Check everything, write nothing.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print `{prompts: [{name, folder, files}], items: [{kind, file, line, field, reason}], written}`.
    """
    from tidegate.prompts.importing.folder import write
    from tidegate.prompts.importing.reading import Given

    given = Given(file)
    outcome, called = _read(format, given, model, judge_model)
    name = name or called
    if not name:
        raise BadInput(f"{file}: nothing in it can be a prompt's name: add --name.")
    folder = into if into is not None else compose.project(config).prompts
    written = write(outcome, name, folder, check=_check, force=force, dry_run=dry_run)
    if json:
        print_json(
            {
                "prompts": [{"name": one.name, "folder": str(one.folder), "files": list(one.files)} for one in written],
                "items": outcome.items,
                "written": not dry_run,
            }
        )
    else:
        for one in written:
            out.print(Text(f"{'would write ' if dry_run else ''}{one.folder}/", "bold"))
            out.print(Text("  " + "  ".join(one.files)))
        _show(outcome.items)
    sys.exit(1 if outcome.items else 0)


def _read(kind: str, given: Given, model: str | None, judge_model: str | None) -> tuple[Outcome, str]:
    """What the file holds, and the name it gives itself."""
    from tidegate.evals import spec
    from tidegate.prompts.importing import dotprompt, promptfoo, prompty

    if judge_model is not None and kind != "promptfoo":
        raise BadInput(f"--judge-model is for promptfoo's configurations: nothing judges in a {kind} file.")
    if kind == "dotprompt":
        return dotprompt.read(given, model=model), dotprompt.name_of(given)
    if kind == "prompty":
        return prompty.read(given, model=model), prompty.name_of(given)
    return promptfoo.read(given, model=model, check=spec.complaint, judge_model=judge_model), promptfoo.name_of(given)


def _check(prompt: PromptFile) -> None:
    from tidegate.evals.folder import read
    from tidegate.prompts.render import render

    read(prompt, render)


def _show(items: tuple[Item, ...]) -> None:
    for item in items:
        line = Text(f"{item.kind:8} ", STYLES[item.kind])
        err.print(line.append(visible(str(item)), "default"))
    if items:
        counted = ", ".join(
            f"{number} {kind}" for kind in STYLES if (number := sum(item.kind == kind for item in items))
        )
        err.print(Text(f"{counted}: look at each before you use the prompt.", "bold"))
