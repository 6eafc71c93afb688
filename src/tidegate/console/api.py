"""
The admin API: what pages and commands can do with prompts, as JSON with OpenAPI.

Errors are `{"error": {"code", "message"}}`. Who may use which route stands in access.py; who moves something is the
holder of the key, never what a request says.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version as installed
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tidegate.console.access import Asking, check_move, who
from tidegate.console.json_answer import json_answer
from tidegate.console.page import Pages
from tidegate.console.prompts import known_versions
from tidegate.core.artifact import Artifact, canonical
from tidegate.core.errors import BadInput
from tidegate.core.evaluation import Run
from tidegate.core.keys import Access
from tidegate.core.ledger import Measure
from tidegate.evals.summary import summarise
from tidegate.gateway.claim import running_gateway
from tidegate.prompts.registry import Registry

Limit = Annotated[int, Query(ge=1, le=1_000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Body(BaseModel):
    """What a request sends; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Measured(Body):
    """A suite and a golden set, by digest; both empty where there is no suite."""

    suite_digest: Sha256 | Annotated[str, Field(max_length=0)]
    golden_digest: Sha256 | Annotated[str, Field(max_length=0)]

    def plain(self) -> Measure:
        """As the registry knows it."""
        return Measure(self.suite_digest, self.golden_digest)


class Move(Body):
    """What all moves take."""

    prompt: str
    environment: str = "production"
    reason: str = Field(default="", max_length=4_000)
    who: str = Field(default="", max_length=200)
    """Only without keys: who the ledger names. With keys that is the key's holder, whatever stands here."""


class Deploy(Move):
    """Points an environment at a version: `v3`, a digest prefix, or an environment."""

    version: str
    weight: float | None = Field(default=None, gt=0, lt=1)
    """The share of the calls it gets while what is live keeps the rest; by default all of them."""
    force: bool = False
    git_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")] | None = None
    git_dirty: bool | None = None
    measure: Measured | None = None
    """Only a verdict and an approval under just these count; by default the last verdict under any."""


class Rollback(Move):
    """Points an environment back."""

    to: str | None = None


class Approve(Move):
    """A second person's yes to a version."""

    version: str
    measure: Measured | None = None


class NewVersion(Body):
    """An artifact to be known under a number."""

    prompt: str
    artifact: dict[str, Any]
    description: str = Field(default="", max_length=4_000)
    file_sha256: Sha256 | Annotated[str, Field(max_length=0)] = ""


class NewRun(Body):
    """A run with its results and perhaps a verdict, and the texts of what it was measured by."""

    run: dict[str, Any]
    suite: str
    golden: str


class Api:
    """Prompts, what is live, moves and runs."""

    def __init__(self, pages: Pages, registry: Registry) -> None:
        self._pages = pages
        self._registry = registry

    def routes(self) -> APIRouter:
        routes = APIRouter(prefix="/api/v1")
        for path, endpoint, summary in (
            ("/server", self.server, "What this server is, where its gateway is, and what your key may do"),
            ("/prompts", self.prompts, "Names of all prompts"),
            ("/versions/{prompt:path}", self.versions, "Versions of a prompt, newest first"),
            ("/version", self.version, "The version that `v3`, a digest prefix or an environment means"),
            ("/artifacts/{digest}", self.artifact, "A stored artifact in canonical form, by its whole digest"),
            ("/pointers", self.pointers, "What every environment points at"),
            ("/deployments", self.deployments, "The ledger, newest first"),
            ("/rollbacks/target", self.rollback_target, "Where a rollback would go; null when there is nowhere"),
            ("/approvals", self.approvals, "What second approvers said, newest first"),
            ("/faults", self.faults, "What does not fit in the ledger's chain of hashes; empty when it is intact"),
            ("/runs", self.runs, "Stored eval runs without their results, newest first"),
            ("/runs/{run_id}", self.run, "One run with its results and the gate's verdict"),
            ("/documents/{digest}", self.document, "The text of a stored suite or golden set"),
        ):
            routes.add_api_route(path, endpoint, summary=summary)
        post: dict[str, Any] = {"methods": ["POST"], "status_code": 201}
        routes.add_api_route("/versions", self.register, summary="Register an artifact", **post)
        routes.add_api_route("/deployments", self.deploy, summary="Point an environment at a version", **post)
        routes.add_api_route("/rollbacks", self.rollback, summary="Point an environment back", **post)
        routes.add_api_route("/approvals", self.approve, summary="Approve a version as the second person", **post)
        routes.add_api_route("/runs", self.save_run, summary="Store a run", **post)
        return routes

    def server(self, access: Asking) -> Response:
        project = self._pages.project
        config, policy = project.config, self._registry.policy
        serving = running_gateway(project.lock)
        port = urlsplit(serving.url).port if serving else config.gateway.port
        key = None
        if access.name:
            key = {"name": access.name, "prefix": access.prefix, "rights": sorted(access.rights)}
        return json_answer(
            {
                "tidegate": installed("tidegate"),
                "project": config.project,
                "gateway": {"url": config.gateway.public_url, "port": port},
                "gate": {"protects": sorted(policy.protects), "second_approver": sorted(policy.second_approver)},
                "serving": {"routes": sorted(config.routes), "providers": sorted(config.providers)},
                "key": key,
            }
        )

    def prompts(self) -> list[str]:
        return self._registry.prompts()

    def versions(self, prompt: str) -> Response:
        return json_answer(known_versions(self._registry, prompt))

    def version(self, prompt: str, selector: str) -> Response:
        return json_answer(self._registry.resolve(prompt, selector))

    def artifact(self, digest: str) -> Response:
        return Response(canonical(self._registry.artifact(digest)), media_type="application/json")

    def register(self, new: NewVersion, access: Asking) -> Response:
        access.require_prompt(new.prompt)
        try:
            artifact = msgspec.convert(new.artifact, Artifact)
        except msgspec.ValidationError as error:
            raise BadInput(f"artifact: {error}.") from error
        registered = self._registry.register(
            new.prompt, artifact, description=new.description, file_sha256=new.file_sha256
        )
        return json_answer(registered, 201)

    def pointers(self, prompt: str | None = None) -> Response:
        return json_answer(self._registry.pointers(prompt))

    def deployments(self, prompt: str | None = None) -> Response:
        return json_answer(self._registry.log(prompt))

    def deploy(self, move: Deploy, access: Asking) -> Response:
        check_move(access, move.prompt, move.environment, force=move.force)
        done = self._registry.deploy(
            move.prompt,
            move.version,
            move.environment,
            who=_who(access, move),
            reason=move.reason,
            force=move.force,
            git_commit=move.git_commit,
            git_dirty=move.git_dirty,
            measure=move.measure.plain() if move.measure else None,
            weight=move.weight,
        )
        return json_answer(done, 201)

    def rollback(self, move: Rollback, access: Asking) -> Response:
        check_move(access, move.prompt, move.environment)
        done = self._registry.rollback(
            move.prompt, move.environment, who=_who(access, move), reason=move.reason, to=move.to
        )
        return json_answer(done, 201)

    def rollback_target(self, prompt: str, environment: str = "production") -> Response:
        return json_answer({"target": self._registry.rollback_target(prompt, environment)})

    def approve(self, move: Approve, access: Asking) -> Response:
        check_move(access, move.prompt, move.environment)
        given = self._registry.approve(
            move.prompt,
            move.version,
            move.environment,
            who=_who(access, move),
            reason=move.reason,
            measure=move.measure.plain() if move.measure else None,
        )
        return json_answer(given, 201)

    def approvals(self, prompt: str | None = None) -> Response:
        return json_answer(self._registry.approvals(prompt))

    def faults(self) -> Response:
        return json_answer(self._registry.verify())

    def runs(self, prompt: str | None = None, limit: Limit = 100) -> Response:
        return json_answer(self._registry.runs(prompt, limit))

    def run(self, run_id: str) -> Response:
        return json_answer(self._registry.run(run_id))

    def save_run(self, new: NewRun, access: Asking) -> Response:
        try:
            run = msgspec.convert(new.run, Run)
        except msgspec.ValidationError as error:
            raise BadInput(f"run: {error}.") from error
        access.require_prompt(run.prompt)
        if all(version.digest != run.digest for version in self._registry.versions(run.prompt)):
            raise BadInput(f"{run.prompt} has no version with the digest {run.digest[:80]!r}: register it first.")
        for name, text, digest in (("suite", new.suite, run.suite_digest), ("golden", new.golden, run.golden_digest)):
            if hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() != digest:
                raise BadInput(f"{name}: the run's {name}_digest is not that of this text.")
        # A version is a number that this store gives, never one that a client says.
        run = msgspec.structs.replace(run, version=None)
        summary = summarise(run, new.suite, new.golden)
        self._registry.save_run(run, suite=new.suite, golden=new.golden, summary=summary)
        return json_answer({"id": run.id}, 201)

    def document(self, digest: str) -> Response:
        return json_answer({"text": self._registry.document(digest)})


def _who(access: Access, move: Move) -> str:
    return who(access) if access.name or not move.who.strip() else move.who
