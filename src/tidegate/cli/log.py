"""`tidegate log`: what happened to a prompt: every move, every second approval, and every commit that changed it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter, validators
from rich.padding import Padding
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import diff_text, err, moment, out, print_json, visible
from tidegate.config import Project
from tidegate.core.artifact import short
from tidegate.core.diff import ArtifactDiff, diff
from tidegate.core.errors import BadInput, NotFound, Unusable
from tidegate.core.ledger import Approval, Deployment, changed
from tidegate.core.split import sides
from tidegate.ports import PromptRegistry
from tidegate.prompts.history import Commit, History, history

Count = Annotated[int, Parameter(validator=validators.Number(gte=0))]


class Move(msgspec.Struct, frozen=True):
    """A line of the ledger, and what it changed."""

    deployment: Deployment
    diff: ArtifactDiff | None
    """None for the first deployment to an environment: there was nothing before."""
    measure_changed: str
    """`suite`, `golden set` or both, when the approval before it was under another one; else empty."""


class Committed(msgspec.Struct, frozen=True):
    """A commit that changed the prompt's digest."""

    prompt: str
    commit: Commit
    version: int | None
    """The registry's number for that digest, when it has one."""


Entry = Move | Approval | Committed


def log_(
    name: str | None = None,
    /,
    *,
    diff: Annotated[bool, Parameter(name=["--diff", "-d"])] = False,
    limit: Annotated[int, Parameter(name=["--limit", "-n"], validator=validators.Number(gte=1))] = 20,
    commits: Count = 50,
    verify: bool = False,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Show what happened, newest first: who moved which environment, why, and which gate run approved it.

    Of one prompt it also shows the commits that changed its digest, from git's history, without a checkout.

    Example: `tidegate log support/answer --diff`

    Parameters
    ----------
    name
        One prompt; by default the moves of all of them.
    diff
        Show the whole field-by-field diff of each move.
    limit
        How many moves.
    commits
        How many commits of the prompt's folder to look at.
    verify
        Check the ledger's chain of hashes instead: exit code 1 when a line was edited, removed or put elsewhere.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the entries as JSON, each with its `kind`: deployment (with its `diff`), approval or commit.
    """
    project = compose.project(config)
    if verify:
        sys.exit(_verify(project, name, json=json))
    seen, note = _history(project, name, commits)
    entries = log(project, name, limit, seen)
    if json:
        print_json([_plain(entry) for entry in entries])
    else:
        _print_all(entries, name, project.config.timezone, whole=diff)
    if note:
        err.print(Text(note, "dim"))


def log(project: Project, name: str | None = None, limit: int = 20, commits: Sequence[Commit] = ()) -> list[Entry]:
    """
    The last moves and second approvals, and `commits`, newest first.

    Raises NotFound for a prompt that neither the registry nor git knows.
    """
    if not project.has_control:
        return [Committed(name or "", commit, None) for commit in commits]
    with closing(compose.registry(project)) as registry:
        if name is not None and not commits and name not in registry.prompts():
            registry.resolve(name, "production")  # says which names there are
        moves = registry.log(name)
        numbers = {version.digest: version.number for version in registry.versions(name)} if name else {}
        entries: list[Entry] = [
            Move(move, _changes(registry, move), _measure_changed(move, moves[index + 1 :]))
            for index, move in enumerate(moves[:limit])
        ]
        entries += registry.approvals(name)[:limit]
        entries += [Committed(name or "", commit, numbers.get(commit.digest or "")) for commit in commits]
    return sorted(entries, key=_at, reverse=True)


def _history(project: Project, name: str | None, limit: int) -> tuple[Sequence[Commit], str]:
    """Git's part, and a line about what is not in it."""
    if name is None:
        return (), ""
    try:
        found = history(project.prompts, name, limit)
    except (BadInput, NotFound, Unusable) as error:
        return (), f"without git's history: {error}"
    return found.commits, _cut(found, limit)


def _cut(found: History, limit: int) -> str:
    if found.cut == "shallow":
        return "this clone is shallow: older commits are not in it (`git fetch --unshallow` gets them)"
    if found.cut == "limit":
        return f"older commits were not looked at: --commits {4 * limit}"
    return ""


def _changes(registry: PromptRegistry, move: Deployment) -> ArtifactDiff | None:
    if move.from_version is None:
        return None
    before = registry.served(move.prompt, f"v{move.from_version}")
    return diff(before.artifact, registry.artifact(move.to_digest))


def _measure_changed(move: Deployment, older: Sequence[Deployment]) -> str:
    place = (move.prompt, move.environment)
    last = next((one.measure for one in older if (one.prompt, one.environment) == place and one.measure), None)
    return changed(last, move.measure) if last and move.measure else ""


def _at(entry: Entry) -> str:
    match entry:
        case Move():
            return entry.deployment.at
        case Approval():
            return entry.at
        case Committed():
            return entry.commit.at


def _plain(entry: Entry) -> dict[str, object]:
    match entry:
        case Move():
            move = msgspec.to_builtins(entry.deployment)
            return {"kind": "deployment", **move, "diff": entry.diff, "measure_changed": entry.measure_changed}
        case Approval():
            return {"kind": "approval", **msgspec.to_builtins(entry)}
        case Committed():
            return {
                "kind": "commit",
                "prompt": entry.prompt,
                **msgspec.to_builtins(entry.commit),
                "version": entry.version,
            }


def _verify(project: Project, name: str | None, *, json: bool) -> int:
    if name is not None:
        raise BadInput("--verify checks the ledger of all prompts: leave the name out.")
    faults: list[str] = []
    count = 0
    if project.has_control:
        with closing(compose.registry(project)) as registry:
            faults = [str(fault) for fault in registry.verify()]
            count = len(registry.log())
    if json:
        print_json({"intact": not faults, "moves": count, "faults": faults})
    elif faults:
        for fault in faults:
            out.print(Text(visible(fault), "red"))
    else:
        out.print(Text(f"ledger intact: {count} {'move' if count == 1 else 'moves'}"))
    return 1 if faults else 0


def _print_all(entries: Sequence[Entry], name: str | None, timezone: str, *, whole: bool) -> None:
    if not any(isinstance(entry, Move) for entry in entries):
        of = f" of {name}" if name else ""
        out.print(Text(f"Nothing{of} was deployed yet. `tidegate deploy {name or 'NAME'}` writes the first line."))
    for entry in entries:
        out.print(Text.assemble((moment(_at(entry), timezone), "dim"), "  ", _head(entry)))
        for line in _about(entry, whole=whole):
            out.print(Padding(line, (0, 0, 0, 4), expand=False), soft_wrap=False)
        out.print()


def _head(entry: Entry) -> Text:
    match entry:
        case Move(deployment=move):
            before, after = sides(move)
            head = Text.assemble(
                f"{move.prompt} · {move.environment} · {before}",
                (after, "bold green" if move.action == "deploy" else "bold yellow"),
                f"  {move.action}",
            )
            if move.forced:
                head.append("  FORCED", "bold red")
            return head
        case Approval():
            return Text(f"{entry.prompt} · {entry.environment} · v{entry.version}  approved")
        case Committed(commit=commit):
            number = f"v{entry.version} " if entry.version else ""
            became = f"{number}({short(commit.digest)})" if commit.digest else "removed"
            if commit.problem:
                became = "not a valid prompt"
            return Text.assemble(f"{entry.prompt} · git {commit.id[:10]} · ", (became, "bold"), "  commit")


def _about(entry: Entry, *, whole: bool) -> list[Text]:
    match entry:
        case Approval():
            return [Text(f"by {visible(entry.who)}{_on(entry.run_id)}"), *_quoted(entry.reason)]
        case Committed(commit=commit):
            problem = [Text(visible(commit.problem), "yellow")] if commit.problem else []
            return [Text(f"by {visible(commit.author)}"), *_quoted(commit.subject), *problem]
        case Move(deployment=move):
            return [*_by(move), *_quoted(move.reason), *_changed(entry, whole=whole)]


def _by(move: Deployment) -> list[Text]:
    text = Text(f"by {visible(move.who)}")
    if move.git_commit:
        text.append(f" at {move.git_commit[:10]}{' with uncommitted changes' if move.git_dirty else ''}")
    if move.run_id:
        text.append(f", approved by gate run {move.run_id}")
    if move.approved_by:
        text.append(f", and by {visible(move.approved_by)}")
    return [text]


def _changed(move: Move, *, whole: bool) -> list[Text]:
    lines = []
    if move.measure_changed:
        lines.append(Text(f"approved under another {move.measure_changed} than the one before", "yellow"))
    if move.diff is not None and whole:
        lines.append(diff_text(move.diff.lines()))
    elif move.diff is not None:
        fields = [message.title for message in move.diff.messages] + [change.path for change in move.diff.changes]
        lines.append(Text(f"changed: {', '.join(fields)}"))
    return lines


def _on(run_id: str | None) -> str:
    return f", on gate run {run_id}" if run_id else ""


def _quoted(text: str) -> list[Text]:
    return [Text(f"“{visible(text)}”", "italic")] if text else []
