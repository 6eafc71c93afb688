"""`tidegate status`: what is live where, and what traffic was served by."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter, validators
from rich.table import Table
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import moment, out, print_json
from tidegate.config import Project
from tidegate.core.errors import NotFound, nearest
from tidegate.core.ledger import Deployment, Pointer, approving_move

SETTLED_S = 2.0
"""After a move, calls of the version before may still be under way."""

Counts = Mapping[tuple[str, int], int]


class Live(msgspec.Struct, frozen=True):
    """One environment of one prompt: what the pointer says, and what traffic says."""

    prompt: str
    environment: str
    version: int
    digest: str
    since: str
    by: str
    served: dict[str, float]
    """Version → its share of the prompt's live calls in the window, over all environments; empty without calls."""
    stray: tuple[str, ...]
    """Versions that served calls after the pointers had moved away from them: some gateway did not follow."""
    measure_changed: str | None = None
    """A sentence when the suite or golden set in the folder is not the one the live version was approved under."""


def status_(
    name: str | None = None,
    /,
    *,
    minutes: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=44_640))] = 15,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Show what every environment points at, and which versions the last minutes of calls were served by.

    Example: `tidegate status`

    Parameters
    ----------
    name
        One prompt; by default all of them.
    minutes
        How far back to look at traffic.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print `[{prompt, environment, version, digest, since, by, served, stray, measure_changed}]`.
    """
    project = compose.project(config)
    rows = status(project, name, window_s=minutes * 60)
    if json:
        print_json(rows)
    elif rows:
        _print(rows, project.config.timezone, minutes)
    else:
        out.print(Text(_nothing(project, name)))


def status(project: Project, name: str | None = None, *, window_s: float = 900.0) -> list[Live]:
    """What is live in each environment, by prompt and environment."""
    if not project.has_control:
        return []
    with closing(compose.registry(project)) as registry:
        pointers = registry.pointers(name)
        moves: defaultdict[str, list[Deployment]] = defaultdict(list)
        for move in registry.log(name):
            moves[move.prompt].append(move)
    if not pointers:
        return []
    calls = compose.call_log(project)
    served: Counts = calls.served(window_s)
    rows = []
    for pointer in pointers:
        shares = _shares(served, pointer.prompt)
        meant = {f"v{other.version}" for other in pointers if other.prompt == pointer.prompt}
        stray: tuple[str, ...] = ()
        if shares.keys() - meant:
            age_s = _age_s(pointers, pointer.prompt) - SETTLED_S
            since = _shares(calls.served(min(window_s, age_s)), pointer.prompt) if age_s > 0 else {}
            stray = tuple(sorted(since.keys() - meant))
        rows.append(
            Live(
                **{key: getattr(pointer, key) for key in Pointer.__struct_fields__},
                served=shares,
                stray=stray,
                measure_changed=_measure_changed(project, pointer, moves[pointer.prompt]),
            )
        )
    return rows


def _measure_changed(project: Project, pointer: Pointer, moves: Sequence[Deployment]) -> str | None:
    approving = approving_move(moves, pointer.environment)
    if approving is None:
        return None
    from tidegate.evals.session import measure, measured_otherwise

    now = measure(project.prompts / pointer.prompt, strict=False)
    return measured_otherwise(approving, now) if now else None


def _shares(counts: Counts, prompt: str) -> dict[str, float]:
    of_prompt = {f"v{version}": count for (name, version), count in sorted(counts.items()) if name == prompt}
    total = sum(of_prompt.values())
    return {version: round(count / total, 4) for version, count in of_prompt.items()}


def _age_s(pointers: list[Pointer], prompt: str) -> float:
    """Seconds since the prompt's last move."""
    last = max(pointer.since for pointer in pointers if pointer.prompt == prompt)
    return time.time() - datetime.fromisoformat(last).timestamp()


def _print(rows: list[Live], timezone: str, minutes: int) -> None:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in ("prompt", "environment", "live", "since", "by", "served"):
        table.add_column(title, overflow="fold", no_wrap=title in ("live", "since"))
    for row in rows:
        table.add_row(
            Text(row.prompt, "bold"),
            row.environment,
            Text(f"v{row.version}", "bold green"),
            moment(row.since, timezone),
            Text(row.by),
            Text(", ".join(f"{version} {share:.0%}" for version, share in row.served.items()) or "no calls"),
        )
    out.print(table, soft_wrap=False)
    out.print(Text(f"served: what answered each prompt's calls of the last {minutes} min", "dim"))
    for row in rows:
        if row.measure_changed:
            out.print(Text(f"{row.prompt}: {row.measure_changed}", "yellow"))
        if row.stray:
            out.print(
                Text(
                    f"{row.prompt}: {', '.join(row.stray)} still served calls after {row.environment} moved to"
                    f" v{row.version}: a gateway does not follow. Is it using this project's .tidegate/ folder?",
                    "yellow",
                )
            )


def _nothing(project: Project, name: str | None) -> str:
    from tidegate.prompts.files import list_prompts

    names = list_prompts(project.prompts)
    if name is not None and name not in names:
        raise NotFound(f"no prompt named {name!r}.{nearest(name, names)}")
    if not names:
        return f"Nothing is deployed yet, and there is no prompt under {project.prompts}."
    first = name or names[0]
    return (
        f"Nothing{f' of {name}' if name else ''} is deployed yet."
        f" `tidegate gate {first}`, then `tidegate deploy {first}`."
    )
