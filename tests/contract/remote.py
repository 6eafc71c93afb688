"""A server in this process: the console's API without a socket, for the adapters that speak to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tidegate.config import Config, Project
from tidegate.console.app import create_app
from tidegate.core.address import Address
from tidegate.prompts.registry import Registry
from tidegate.telemetry.queries import CallLog
from tidegate.upstream.server import Answer, Server

ORIGIN = "http://127.0.0.1:4001"


class NearbyServer(Server):
    """As a Server, over an application in this process."""

    def __init__(self, app: Any, key: str | None = None) -> None:
        super().__init__(Address(ORIGIN, key=key))
        self._client = TestClient(app, base_url=ORIGIN, follow_redirects=False)

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        target = target.removeprefix(self.address.path)  # as a proxy does
        answer = self._client.request(method, target, headers=dict(headers), content=body)
        return Answer(answer.status_code, dict(answer.headers), answer.content)


def console_of(registry: Registry, folder: Path, **settings: Any) -> Any:
    """The application that serves this registry; `settings` as tidegate.yaml has them."""
    project = Project(folder, Config.model_validate(settings))
    call_log = CallLog(spool=project.spool, lake=project.lake)
    return create_app(registry=registry, call_log=call_log, project=project)
