"""The two moves of an environment: a page that says what will happen, and a form that does it and says what did."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from tidegate.console.access import Asking, check_move, who
from tidegate.console.form import Form
from tidegate.console.on_disk import versions_here
from tidegate.console.page import Pages, prompt_url
from tidegate.console.prompts import run_line, shown_diff
from tidegate.core.diff import diff
from tidegate.core.errors import BadInput, InvalidFile, NotFound, Refused, TidegateError
from tidegate.core.keys import Access
from tidegate.core.ledger import Deployment, Version
from tidegate.core.split import parse_weight, shown
from tidegate.evals.folder import measure
from tidegate.prompts.files import check_name
from tidegate.prompts.registry import Registry

Action = Literal["deploy", "rollback"]


class MovePages:
    """Deploy and roll back, each a confirmation and an action under the same address."""

    def __init__(self, pages: Pages, registry: Registry) -> None:
        self._pages = pages
        self._registry = registry

    def routes(self) -> APIRouter:
        routes = APIRouter(include_in_schema=False)
        routes.add_api_route("/rollback/{name:path}", self.confirm_rollback)
        routes.add_api_route("/rollback/{name:path}", self.rollback, methods=["POST"])
        routes.add_api_route("/deploy/{name:path}", self.confirm_deploy)
        routes.add_api_route("/deploy/{name:path}", self.deploy, methods=["POST"])
        return routes

    def confirm_rollback(
        self, request: Request, name: str, *, environment: str = "production", to: str = ""
    ) -> Response:
        return self._confirm(request, "rollback", name, {"environment": environment, "to": to})

    def confirm_deploy(
        self, request: Request, name: str, *, version: str = "", environment: str = "production", weight: str = ""
    ) -> Response:
        return self._confirm(request, "deploy", name, {"environment": environment, "to": version, "weight": weight})

    def rollback(self, request: Request, name: str, fields: Form, access: Asking) -> Response:
        return self._move(request, "rollback", name, fields, access)

    def deploy(self, request: Request, name: str, fields: Form, access: Asking) -> Response:
        return self._move(request, "deploy", name, fields, access)

    def _move(self, request: Request, action: Action, name: str, fields: Mapping[str, str], access: Access) -> Response:
        known = {move.id for move in self._registry.log(name)}
        began = time.perf_counter()
        try:
            done = self._do(action, name, fields, access)
        except (Refused, BadInput, InvalidFile, NotFound) as error:
            versions_here(self._pages.project, self._registry, name)  # an unknown prompt is a 404 of its own
            return self._confirm(request, action, name, fields, error)
        took_ms = max(1, round((time.perf_counter() - began) * 1_000))
        moved = prompt_url(name, moved=done.id, ms=None if done.id in known else took_ms)
        return RedirectResponse(moved, status_code=303)

    def _do(self, action: Action, name: str, fields: Mapping[str, str], access: Access) -> Deployment:
        environment, to = fields.get("environment") or "production", fields.get("to", "")
        reason = fields.get("reason", "").strip()
        weight = _weight(fields.get("weight", ""))
        force = fields.get("force") == "yes"
        check_move(access, name, environment, force=force)
        if action == "rollback":
            return self._registry.rollback(name, environment, who=who(access), reason=reason, to=to or None)
        if not to:
            raise BadInput("the form does not say which version to deploy.")
        check_name(name)
        project = self._pages.project
        needed = environment in project.config.gate.protects and not force
        return self._registry.deploy(
            name,
            to,
            environment,
            who=who(access),
            reason=reason,
            force=force,
            measure=measure(project.prompts / name, strict=needed),
            weight=weight,
        )

    def _confirm(
        self,
        request: Request,
        action: Action,
        name: str,
        fields: Mapping[str, str],
        error: TidegateError | None = None,
    ) -> Response:
        registry = self._registry
        versions = versions_here(self._pages.project, registry, name)
        environment, to = fields.get("environment") or "production", fields.get("to", "")
        live = next((item for item in registry.pointers(name) if item.environment == environment), None)
        if action == "deploy":
            target: Version | None = registry.resolve(name, to or versions[0].name)
        else:
            target = registry.resolve(name, to) if to else registry.rollback_target(name, environment)
        changes = None
        leaving = live.split if live and target and live.digest == target.digest else live
        if leaving and target and leaving.digest != target.digest:
            changes = shown_diff(diff(registry.artifact(leaving.digest), registry.artifact(target.digest)))
        run = next((run for run in registry.runs(name) if target and run.digest == target.digest and run.verdict), None)
        return self._pages.answer(
            request,
            "move.html",
            {
                "action": action,
                "name": name,
                "environment": environment,
                "environments": self._environments(name),
                "choices": _were_live(registry.log(name), environment, versions) if action == "rollback" else versions,
                "to": to,
                "live": live,
                "live_shown": shown(live) if live else None,
                "leaving": leaving,
                "target": target,
                "run": run_line(run) if run else None,
                "diff": changes,
                "reason": fields.get("reason", ""),
                "weight": fields.get("weight", ""),
                "error": _said_here(error) if error else None,
                "refused": error is not None and action == "deploy",
            },
            active="prompts",
            title=f"{'Deploy' if action == 'deploy' else 'Roll back'} {name}",
            status=error.http_status if error else 200,
        )

    def _environments(self, name: str) -> list[str]:
        live = [pointer.environment for pointer in self._registry.pointers(name)]
        return list(dict.fromkeys(["production", *self._pages.project.config.gate.protects, *live, "staging"]))


def _weight(text: str) -> float | None:
    """`10`, `10 %` or `10%` of an environment's calls; None for all of them. Raises BadInput."""
    text = text.strip()
    if not text or text.rstrip("% ") == "100":
        return None
    return parse_weight(text if text.endswith("%") else f"{text}%")


def _were_live(log: Sequence[Deployment], environment: str, versions: Sequence[Version]) -> list[Version]:
    """The versions that were live there before what is live now."""
    numbers = [move.to_version for move in log if move.environment == environment]
    return [version for version in versions if version.number in numbers[1:] and version.number != numbers[0]]


def _said_here(error: TidegateError) -> str:
    """An error's sentence for somebody who has a form and not a command line before them."""
    return (
        str(error)
        .replace("or overrule with --force --reason", "or overrule it below, with a reason")
        .replace("--force needs --reason", "Overruling the policy needs a reason")
        .replace("--weight", "The share")
    )
