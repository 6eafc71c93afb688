"""`tidegate status`: what is live where, and what traffic was served by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter, validators
from rich.text import Text

from tidegate import compose
from tidegate.cli import table
from tidegate.cli.output import moment, out, print_json, visible
from tidegate.config import Project
from tidegate.core.errors import NotFound, nearest
from tidegate.core.ledger import Deployment, Pointer, approving_move
from tidegate.core.split import shown
from tidegate.telemetry.find import SETTLE, ServedBy, idle, strays

if TYPE_CHECKING:
    from tidegate.telemetry.queries import CallLog
    from tidegate.telemetry.remote import RemoteCallLog


class Live(Pointer, frozen=True, kw_only=True):
    """One environment of one prompt: what the pointer says, and what traffic says. What is unset is not printed."""

    served: dict[str, float]
    """Version → its share of the environment's live calls in the window; empty without calls."""
    stray: list[str] | msgspec.UnsetType = msgspec.UNSET
    """Versions that served calls after the pointer had moved away from them: some gateway did not follow."""
    idle: list[str] | msgspec.UnsetType = msgspec.UNSET
    """Versions of the split that served none of many calls since it became what it is."""
    measure_changed: str | msgspec.UnsetType = msgspec.UNSET
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
        Print `[{prompt, environment, version, digest, since, by, served, split}]`, and `stray`, `idle` and
        `measure_changed` where there is something to say.
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
    since = datetime.now(UTC) - timedelta(seconds=window_s)
    log = compose.call_log(project)
    served = log.served_by(since, name)
    return [
        Live(
            **msgspec.structs.asdict(pointer),
            served=_shares(pointer, served),
            stray=_names(strays(pointer, served)),
            idle=_names(_idle(log, pointer, since)),
            measure_changed=_measure_changed(project, pointer, moves[pointer.prompt]) or msgspec.UNSET,
        )
        for pointer in pointers
    ]


def _idle(log: CallLog | RemoteCallLog, pointer: Pointer, since: datetime) -> list[int]:
    if pointer.split is None:
        return []
    settled = datetime.fromisoformat(pointer.settled) + SETTLE
    return idle(pointer, log.served_by(max(since, settled), pointer.prompt))


def _measure_changed(project: Project, pointer: Pointer, moves: Sequence[Deployment]) -> str | None:
    approving = approving_move(moves, pointer)
    if approving is None:
        return None
    from tidegate.evals.folder import measure, measured_otherwise

    now = measure(project.prompts / pointer.prompt, strict=False)
    return measured_otherwise(approving, now) if now else None


def _shares(pointer: Pointer, served: Sequence[ServedBy]) -> dict[str, float]:
    place = (pointer.prompt, pointer.environment)
    mine = {item.version: item.calls for item in served if (item.prompt, item.environment) == place}
    return {f"v{version}": round(mine[version] / sum(mine.values()), 4) for version in sorted(mine)}


def _names(versions: Sequence[int]) -> list[str] | msgspec.UnsetType:
    return [f"v{version}" for version in versions] or msgspec.UNSET


def _print(rows: list[Live], timezone: str, minutes: int) -> None:
    lines = [
        table.Row(
            (
                Text(row.prompt, "bold"),
                row.environment,
                Text(shown(row).replace(" / ", "\n"), "bold green"),  # a split takes two lines, and no more columns
                moment((row.split or row).since, timezone),
                visible((row.split or row).by),
                ", ".join(f"{version} {share:.0%}" for version, share in row.served.items()) or "no calls",
            )
        )
        for row in rows
    ]
    table.show(("prompt", "environment", "live", "since", "by", "served"), lines)
    out.print(Text(f"served: what answered each environment's calls of the last {minutes} min", "dim"))
    for row in rows:
        if row.measure_changed:
            out.print(Text(f"{row.prompt}: {row.measure_changed}", "yellow"))
        if row.stray:
            out.print(
                Text(
                    f"{row.prompt}: {', '.join(row.stray)} still served calls after {row.environment} moved to"
                    f" {shown(row)}: a gateway does not follow. Is it using this project's .tidegate/ folder?",
                    "yellow",
                )
            )
        if row.idle:
            out.print(
                Text(
                    f"{row.prompt}: {', '.join(row.idle)} served none of {row.environment}'s calls since it became"
                    f" {shown(row)}: a gateway does not follow, or very few callers make all the calls.",
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
