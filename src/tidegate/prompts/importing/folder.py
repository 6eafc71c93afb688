"""
Drafts → folders of ours, all of an import or nothing of it.

Everything is written into a scratch folder beside its place, read back and checked there, and moved into place by one
rename. With `force` the new files are laid over a copy of what is there, and the two folders change places.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tidegate.core.errors import BadInput, InvalidFile, Problem, Unusable
from tidegate.prompts.files import FILE, JUDGES, SUITE, PromptFile, check_name, load_prompt
from tidegate.prompts.importing.outcome import Draft, Outcome

SCHEMA = "output.schema.json"
GOLDEN = "golden.jsonl"
UNCHECKED = "unchecked.jsonl"
"""Cases that no check carried over for: a suite refuses those, and they are too good to lose."""
WIDTH = 100

_PLAIN = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_./ -]*[A-Za-z0-9_./-])?\Z")
_NOT_TEXT = re.compile(r"(?:null|true|false)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Written:
    """One prompt's folder, or one judge's: its name, where it stands, and the paths of its files inside it."""

    name: str
    files: tuple[str, ...]
    folder: Path


Check = Callable[[PromptFile], None]
"""Reads what belongs to a prompt beside its artifact. Raises InvalidFile."""


def write(
    outcome: Outcome, name: str, into: Path, *, check: Check, force: bool = False, dry_run: bool = False
) -> tuple[Written, ...]:
    """
    Writes the drafts as `into/name` or, where there are several, as folders below it.

    Args:
        into: the project's `prompts/`.
        force: write over what is there; files that the import does not make stay.
        dry_run: check everything, write nothing.
    Raises: BadInput for an impossible name or a folder that is there already; InvalidFile when what was made can not be
        read back; Unusable when the disk refuses. Nothing is written then.
    """
    names = {draft.name: f"{name}/{draft.name}" if draft.name else name for draft in outcome.drafts}
    judges = {key: f"{JUDGES}/{name}/{draft.name}" for key, draft in outcome.judges.items()}
    for full in names.values():
        check_name(full)
    if judges and into.name != "prompts":
        raise BadInput(f"{into}: judges stand beside a folder called prompts, so --into has to end with it.")
    drafts = [(names[draft.name], draft) for draft in outcome.drafts]
    drafts += [(judges[key], draft) for key, draft in outcome.judges.items()]
    parts = [Path("prompts", name), *([Path(JUDGES, name)] if judges else [])]
    places = {part: into / name if part.parts[0] == "prompts" else into.parent / part for part in parts}
    for place in places.values():
        _guard(place, into.parent if judges else into, force=force)
    with _scratch(None if dry_run else _standing(into)) as scratch:
        for part, place in places.items():
            _guarded(partial(_stage, scratch / part, place))
        written = tuple(
            Written(full, _put(draft, _inside(scratch, full), judges), _inside(into.parent, full, into))
            for full, draft in drafts
        )
        for draft in outcome.drafts:
            _read_back(draft, names[draft.name], scratch / "prompts", check)
        if not dry_run:
            moves = [(scratch / part, place, scratch / f"before-{part.parts[0]}") for part, place in places.items()]
            _guarded(partial(_move, moves))
    return written


def _inside(root: Path, name: str, prompts: Path | None = None) -> Path:
    """The folder of a prompt, or of a judge, below a project."""
    return root / name if name.startswith(f"{JUDGES}/") else (prompts or root / "prompts") / name


def _guard(place: Path, within: Path, *, force: bool) -> None:
    if not place.parent.resolve().is_relative_to(within.resolve()) or place.is_symlink():
        raise BadInput(f"{place}: leads out of {within}. Choose another --name.")
    if place.exists() and not force:
        raise BadInput(f"{place} is there already. Choose another --name, or write over it with --force.")


def _standing(folder: Path) -> Path:
    """The nearest folder upwards that exists: on the same disk as what will be made in it."""
    return next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())


@contextmanager
def _scratch(beside: Path | None) -> Iterator[Path]:
    try:
        made = Path(tempfile.mkdtemp(prefix=".tidegate-import-", dir=beside))
    except OSError as error:
        raise Unusable(f"{beside}: can not be written: {error.strerror}.") from error
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _guarded(work: Callable[[], None]) -> None:
    try:
        work()
    except (OSError, shutil.Error) as error:
        raise Unusable(f"can not be written: {error}. Nothing was changed.") from error


def _stage(staged: Path, place: Path) -> None:
    staged.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        shutil.copytree(place, staged, symlinks=True)
    else:
        staged.mkdir()


def _move(moves: Sequence[tuple[Path, Path, Path]]) -> None:
    """Each folder into its place, what was there aside; all of them or none."""
    undo: list[tuple[Path, Path]] = []
    try:
        for staged, place, before in moves:
            place.parent.mkdir(parents=True, exist_ok=True)
            for source, target in [*([(place, before)] if place.exists() else []), (staged, place)]:
                source.rename(target)
                undo.append((target, source))
    except OSError:
        for source, target in reversed(undo):
            source.rename(target)
        raise


def _put(draft: Draft, folder: Path, judges: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    files = files_of(draft, judges)

    def work() -> None:
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # a link is replaced, not followed
            target.write_text(text, encoding="utf-8", newline="\n")

    _guarded(work)
    return tuple(files)


def _read_back(draft: Draft, name: str, root: Path, check: Check) -> None:
    try:
        prompt = load_prompt(root, name)
        if list(prompt.artifact.messages) != draft.messages:
            raise InvalidFile(
                [Problem(f"{root.name}/{name}/{FILE}", 0, "", "can not hold these messages as they are.")]
            )
        if prompt.has_suite:
            check(prompt)
    except InvalidFile as error:
        shown = [
            Problem(f"(not written) {_shown(problem.file, root)}", problem.line, problem.field, problem.message)
            for problem in error.problems
        ]
        raise InvalidFile(shown) from error


def _shown(file: str, root: Path) -> str:
    return file.removeprefix(f"{root.parent}/")


def files_of(draft: Draft, judges: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """Path inside the prompt's folder → text. `judges`: the import's judges → their names."""
    files = {FILE: _prompt(draft)}
    if isinstance(draft.output, dict):
        files[SCHEMA] = _json(draft.output)
    for tool in draft.tools:
        plain = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        files[f"tools/{tool.name}.json"] = _json({key: value for key, value in plain.items() if value not in ("", {})})
    checked = [case for case in draft.cases if draft.checks or case.get("checks") or case["id"] in draft.judged]
    if checked:
        files[SUITE] = _suite(draft, files, judges)
        files[GOLDEN] = _lines(checked)
    unchecked = [case for case in draft.cases if case not in checked]
    if unchecked:
        files[UNCHECKED] = _lines(unchecked)
    return files


def _prompt(draft: Draft) -> str:
    lines = ["---", *draft.comments]
    if draft.description:
        lines.append(f"description: {_flow(draft.description)}")
    lines.append(f"model: {_flow(draft.model)}")
    if draft.params:
        lines.append(f"params: {_flow(draft.params)}")
    lines += _inputs(draft.inputs)
    if draft.output != "text":
        lines.append(f"output: {_flow({'schema': SCHEMA}) if isinstance(draft.output, dict) else draft.output}")
    if draft.tools:
        lines.append(f"tools: {_flow([f'tools/{tool.name}.json' for tool in draft.tools])}")
    lines.append("---")
    messages = "\n\n".join(f"{message.role}:\n{message.content}" for message in draft.messages)
    return "\n".join(lines) + f"\n{messages}\n"


def _inputs(inputs: dict[str, dict[str, Any]]) -> list[str]:
    shown = {name: spec["type"] if list(spec) == ["type"] else spec for name, spec in inputs.items()}
    line = f"inputs: {_flow(shown)}"
    if not inputs or len(line) <= WIDTH:
        return [line] if inputs else []
    return ["inputs:", *(f"  {_flow(name)}: {_flow(spec)}" for name, spec in shown.items())]


def _suite(draft: Draft, files: dict[str, str], judges: Mapping[tuple[str, str], str]) -> str:
    lines = [f"golden: {GOLDEN}"]
    if draft.repeats != 1:
        lines.append(f"repeats: {draft.repeats}")
    if draft.concurrency is not None:
        lines.append(f"concurrency: {draft.concurrency}")
    if draft.threshold is not None:
        lines.append(f"threshold: {_flow(draft.threshold)}")
    if draft.checks:
        lines.append("checks:")
    for check in draft.checks:
        if isinstance(check, dict):
            said = {kind: _schema_file(kind, value, files) for kind, value in check.items()}
            lines.append(f"  - {_flow(said) if len(said) > 1 else _flow(said)[1:-1]}")
        else:
            lines.append(f"  - {check}")
    if draft.judges:
        lines.append("judges:")
    for name, use in draft.judges.items():
        said = {use.kind: judges[use.prompt], "pass_at": use.pass_at, "fields": use.fields}
        lines.append(f"  {name}: {_flow({key: value for key, value in said.items() if value is not None})}")
    return "\n".join(lines) + "\n"


def _schema_file(kind: str, value: Any, files: dict[str, str]) -> Any:
    """A schema stands in a file of its own: the output's, when it is the same."""
    if not kind.endswith(("is-json", "contains-json")) or not isinstance(value, dict):
        return value
    text = _json(value)
    same = next((path for path, other in files.items() if other == text and path.endswith(".schema.json")), None)
    path = same or f"check-{1 + sum(name.startswith('check-') for name in files)}.schema.json"
    files[path] = text
    return path


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _lines(cases: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)


def _flow(value: Any) -> str:
    """One line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(str(key))}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return value if _PLAIN.match(value) and not _NOT_TEXT.match(value) else _quoted(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    """As YAML's double quotes: every character that does not print is escaped, none is split in two."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character == "\n":
        return "\\n"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
