"""Prompts: what is live where, what traffic says it was served by, and what changed between two versions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from tidegate.console import format as human
from tidegate.console.next_step import NextStep, first_version
from tidegate.console.on_disk import UNREGISTERED, file_of, first_gate, unregistered, versions_here
from tidegate.console.page import Pages, wants_json
from tidegate.console.run_lines import run_lines, shown_line
from tidegate.core.artifact import Artifact
from tidegate.core.diff import ArtifactDiff, diff
from tidegate.core.errors import InvalidFile, NotFound, nearest
from tidegate.core.evaluation import Run
from tidegate.core.ledger import Deployment, Pointer, Version
from tidegate.core.run_lines import RunFilter
from tidegate.core.split import percent, shown
from tidegate.prompts.files import JUDGES
from tidegate.prompts.registry import Registry
from tidegate.prompts.sides import Side, Sides
from tidegate.telemetry.find import ServedBy, served_by, strays
from tidegate.telemetry.queries import CallLog

RECENT = timedelta(minutes=15)
RUNS_SHOWN = 20
LOG_SHOWN = 50
COLORS = 8


class Part(msgspec.Struct, frozen=True):
    """One version's share of traffic, as a piece of a bar."""

    label: str
    calls: int
    share: float
    offset: float
    color: int


class PromptPages:
    """The list, and a prompt's page."""

    def __init__(self, pages: Pages, registry: Registry, call_log: CallLog) -> None:
        self._pages = pages
        self._registry = registry
        self._call_log = call_log

    def routes(self) -> APIRouter:
        routes = APIRouter(include_in_schema=False)
        routes.add_api_route("/prompts", self.index)
        routes.add_api_route("/prompts/{name:path}", self.detail)
        return routes

    def index(self, request: Request) -> Response:
        served = served_by_now(self._call_log, self._pages.now() - RECENT)
        pointers, log, names = self._registry.pointers(), self._registry.log(), self._registry.prompts()
        return self._pages.answer(
            request,
            "prompts.html",
            {
                "prompts": [_summary(name, self._registry.versions(name), pointers, served, log) for name in names],
                "unregistered": unregistered(self._pages.project, names),
                "next_step": first_version(self._pages.project, self._registry),
                "served_minutes": int(RECENT.total_seconds() // 60),
            },
            active="prompts",
            title="Prompts",
        )

    def detail(
        self, request: Request, name: str, *, a: str = "", b: str = "", moved: str = "", ms: int | None = None
    ) -> Response:
        registry = self._registry
        if wants_json(request) and f"{name}.json" in registry.prompts():
            request.scope["json"], name = False, f"{name}.json"
        if not registry.versions(name) and (answer := self._unregistered(request, name)):
            return answer
        versions = versions_here(self._pages.project, registry, name)
        log, pointers = registry.log(name), registry.pointers(name)
        served = served_by_now(self._call_log, self._pages.now() - RECENT, name)
        older, newer = self._sides(versions, pointers, a, b)
        runs = registry.runs(name, RUNS_SHOWN)
        return self._pages.answer(
            request,
            "prompt.html",
            {
                "name": name,
                "is_judge": name.startswith(f"{JUDGES}/"),
                "description": versions[0].description,
                "versions": [_version(version, pointers, log, runs) for version in versions],
                "pointers": [
                    _pointer(pointer, served, versions, runs)
                    | {"back": registry.rollback_target(name, pointer.environment)}
                    for pointer in pointers
                ],
                "served_minutes": int(RECENT.total_seconds() // 60),
                "diff_a": _side(older) if older else None,
                "diff_b": _side(newer),
                "request_a": a,
                "request_b": b,
                "diff": shown_diff(diff(older.artifact, newer.artifact)) if older else None,
                "artifact": shown_artifact(newer.artifact),
                "log": log[:LOG_SHOWN],
                "runs": [shown_line(*line) for line in run_lines(registry, RunFilter(prompt=name), limit=RUNS_SHOWN)],
                "moved": _moved(log, moved, ms),
            },
            active="prompts",
            title=name,
        )

    def _unregistered(self, request: Request, name: str) -> Response | None:
        """The page of a prompt that is only on disk; None where it is not."""
        problems: list[str] = []
        try:
            file = file_of(self._pages.project, name)
        except InvalidFile as error:
            file, problems = None, [str(problem) for problem in error.problems]
        if file is None and not problems:
            return None
        next_step = first_gate(name, has_suite=file.has_suite) if file else NextStep("", "tidegate lint")
        return self._pages.answer(
            request,
            "prompt_file.html",
            {
                "name": name,
                "description": file.description if file else "",
                "artifact": shown_artifact(file.artifact) if file else None,
                "problems": problems,
                "unregistered": UNREGISTERED,
                "next_step": next_step,
            },
            active="prompts",
            title=name,
        )

    def _sides(
        self, versions: Sequence[Version], pointers: Sequence[Pointer], a: str, b: str
    ) -> tuple[Side | None, Side]:
        """What is compared: what was asked for, else the newest version with what is live, else with the one before."""
        name, project = versions[0].prompt, self._pages.project
        sides = Sides(self._registry, project.prompts, environments=project.config.gate.protects)
        newer = sides.find(name, b or versions[0].name)
        if a:
            return sides.find(name, a), newer
        live = {pointer.version for pointer in pointers if pointer.environment == "production"}
        number = newer.version or versions[0].number + 1
        earlier = [version for version in versions if version.number < number]
        older = next((version for version in earlier if version.number in live), next(iter(earlier), None))
        return sides.find(name, older.name) if older else None, newer


def served_by_now(call_log: CallLog, since: datetime, prompt: str | None = None) -> list[ServedBy]:
    """Live traffic since then, from the files that can hold it."""
    with call_log.snapshot(since) as rows:
        return served_by(rows, since, prompt)


def parts_of(served: Sequence[ServedBy], versions: Sequence[int]) -> list[Part]:
    """Shares of traffic, older versions first; a version has the colour that it has on the Overview's charts."""
    calls: dict[int, int] = {}
    for item in served:
        calls[item.version] = calls.get(item.version, 0) + item.calls
    whole = sum(calls.values())
    parts: list[Part] = []
    offset = 0.0
    for version, count in sorted(calls.items()):
        color = sorted(versions).index(version) if version in versions else len(parts)
        parts.append(Part(f"v{version}", count, count / whole, offset, color % COLORS))
        offset += count / whole
    return parts


def disagreement(pointer: Pointer, served: Sequence[ServedBy]) -> str | None:
    """Says so when calls that began after the last move were served by another version than the pointer names."""
    wrong = strays(pointer, served)
    if not wrong:
        return None
    names = ", ".join(f"v{version}" for version in wrong)
    return f"{pointer.environment} points at {shown(pointer)}, but {names} served calls after that."


def shown_diff(found: ArtifactDiff) -> dict[str, Any]:
    """A diff for a template: values as text, None for an absent side."""
    return {
        "messages": [{"title": message.title, "words": message.words} for message in found.messages],
        "changes": [
            {"path": change.path, "before": _value(change.before), "after": _value(change.after)}
            for change in found.changes
        ],
    }


def shown_artifact(artifact: Artifact) -> dict[str, Any]:
    """An artifact for a template: its messages, and each other field that is set as text."""
    plain = msgspec.to_builtins(artifact)
    return {
        "model": artifact.model,
        "messages": plain["messages"],
        "fields": [(name, _value(plain[name])) for name in plain if name != "messages"],
    }


def run_line(run: Run) -> dict[str, Any]:
    """A run for a list of runs."""
    gate = run.gate or {}
    total = gate.get("total_cases") or 0
    return {
        "id": run.id,
        "prompt": run.prompt,
        "version": run.version,
        "digest": run.digest,
        "verdict": run.verdict,
        "started_at": run.started_at,
        "took_s": (human.instant(run.finished_at) - human.instant(run.started_at)).total_seconds(),
        "passed": f"{gate.get('passed_cases', 0)}/{total}" if total else "",
        "reason": gate.get("reason") or ("" if run.verdict else "evaluated, not gated"),
        "cost_nano_usd": round(gate["cost_usd"] * 1e9) if gate.get("cost_usd") is not None else None,
    }


def _value(value: Any) -> str | None:
    if value is msgspec.UNSET:
        return None
    return value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def known_versions(registry: Registry, name: str) -> list[Version]:
    """Newest first. Raises NotFound with the nearest name."""
    versions = registry.versions(name)
    if not versions:
        raise NotFound(f"There is no prompt named {name!r}.{nearest(name, registry.prompts())}")
    return versions


def _side(side: Side) -> dict[str, Any]:
    return {
        "kind": side.kind,
        "label": side.label if side.version is None or side.kind == "version" else f"{side.label} (v{side.version})",
        "version": side.version,
        "digest": side.digest,
        "commit": side.commit,
    }


def _summary(
    name: str,
    versions: Sequence[Version],
    pointers: Sequence[Pointer],
    served: Sequence[ServedBy],
    log: Sequence[Deployment],
) -> dict[str, Any]:
    own = [pointer for pointer in pointers if pointer.prompt == name]
    mine = [item for item in served if item.prompt == name]
    return {
        "name": name,
        "description": versions[0].description,
        "pointers": [msgspec.to_builtins(pointer) | {"shown": shown(pointer)} for pointer in own],
        "versions": len(versions),
        "served": parts_of(mine, [version.number for version in versions]),
        "warnings": [warning for pointer in own if (warning := disagreement(pointer, mine))],
        "last": next((move for move in log if move.prompt == name), None),
    }


def _version(
    version: Version, pointers: Sequence[Pointer], log: Sequence[Deployment], runs: Sequence[Run]
) -> dict[str, Any]:
    run = next((run for run in runs if run.digest == version.digest and run.verdict), None)
    # The newest move that names a version says whether it was taken back.
    move = next((move for move in log if version.number in (move.to_version, move.from_version)), None)
    rolled_back = move is not None and move.action == "rollback" and move.from_version == version.number
    return {
        "number": version.number,
        "digest": version.digest,
        "description": version.description,
        "created_at": version.created_at,
        "live": [
            pointer.environment if share == 1 else f"{pointer.environment} {percent(share)}"
            for pointer in pointers
            if (share := pointer.shares.get(version.number))
        ],
        "verdict": run.verdict if run else None,
        "run_id": run.id if run else None,
        "rolled_back": rolled_back,
    }


def _pointer(
    pointer: Pointer, served: Sequence[ServedBy], versions: Sequence[Version], runs: Sequence[Run]
) -> dict[str, Any]:
    mine = [item for item in served if item.environment == pointer.environment]
    newest = pointer.split or pointer
    run = next((run for run in runs if run.digest == newest.digest and run.verdict), None)
    return {
        "environment": pointer.environment,
        "version": pointer.version,
        "digest": pointer.digest,
        "since": pointer.since,
        "by": pointer.by,
        "split": pointer.split,
        "shown": shown(pointer),
        "served": parts_of(mine, [version.number for version in versions]),
        "warning": disagreement(pointer, served),
        "alarm": run is not None and run.verdict == "FAIL",
    }


def _moved(log: Sequence[Deployment], move_id: str, ms: int | None) -> dict[str, str] | None:
    """What the last move did, in words; only of a move that stands in the ledger."""
    move = next((move for move in log if move.id == move_id), None)
    if move is None:
        return None
    if ms is None:
        return {
            "said": f"{move.environment} serves v{move.to_version} already",
            "detail": "Nothing was changed.",
        }
    if move.weight is not None:
        return {
            "said": f"v{move.to_version} takes {percent(move.weight)} of {move.environment}'s calls",
            "detail": f"v{move.from_version} keeps the rest. Gateways follow within a quarter of a second.",
        }
    origin = f"from v{move.from_version} " if move.from_version is not None else ""
    verb = "Rolled back" if move.action == "rollback" else "Deployed"
    return {
        "said": f"{verb} {move.environment} {origin}to v{move.to_version} in {human.duration(ms / 1_000)}",
        "detail": "Gateways serve it within a quarter of a second; no restart is needed.",
    }
