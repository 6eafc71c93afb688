"""Imports for tests: the readers with the parts that the command gives them, and everything one import makes."""

from __future__ import annotations

from pathlib import Path

from tidegate.evals import folder, spec
from tidegate.prompts.files import PromptFile
from tidegate.prompts.importing import dotprompt, promptfoo, prompty
from tidegate.prompts.importing.folder import Written, write
from tidegate.prompts.importing.outcome import Outcome
from tidegate.prompts.importing.reading import Given
from tidegate.prompts.render import render


def read(kind: str, file: Path, model: str | None = None, judge_model: str | None = None) -> Outcome:
    given = Given(file)
    if kind == "promptfoo":
        return promptfoo.read(given, model=model, check=spec.complaint, judge_model=judge_model)
    return dotprompt.read(given, model=model) if kind == "dotprompt" else prompty.read(given, model=model)


def name_of(kind: str, file: Path) -> str:
    given = Given(file)
    if kind == "promptfoo":
        return promptfoo.name_of(given)
    return dotprompt.name_of(given) if kind == "dotprompt" else prompty.name_of(given)


def suite_check(prompt: PromptFile) -> None:
    folder.read(prompt, render)


def put(outcome: Outcome, name: str, into: Path, *, force: bool = False, dry_run: bool = False) -> tuple[Written, ...]:
    return write(outcome, name, into, check=suite_check, force=force, dry_run=dry_run)


def made_by(command: list[str], into: Path) -> dict[str, str]:
    """
    `made PATH` → text of everything `FORMAT FILE [--model M] [--judge-model M] [--name N]` writes, and `listed` → the
    items.
    """
    kind, file, *rest = command
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    outcome = read(kind, Path(file), options.get("--model"), options.get("--judge-model"))
    written = put(outcome, options.get("--name") or name_of(kind, Path(file)), into)
    files = sorted(folder.folder / name for folder in written for name in folder.files)
    made = {f"made {path.as_posix()}": path.read_text("utf-8") for path in files}
    listed = "".join(f"{item.kind}  {item}\n" for item in outcome.items)
    return made | ({"listed": listed} if listed else {})
