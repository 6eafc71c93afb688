"""What to type next, for pages that have nothing to show yet: a command that works here, as it is."""

from __future__ import annotations

import json
import shlex

import msgspec

from tidegate.config import Project
from tidegate.core.errors import TidegateError
from tidegate.gateway.claim import running_gateway
from tidegate.prompts.files import list_prompts
from tidegate.prompts.registry import Registry


class NextStep(msgspec.Struct, frozen=True):
    """A sentence and its command."""

    said: str
    command: str


def first_call(project: Project, registry: Registry) -> NextStep:
    """How to get a first call: write a prompt, deploy it, start the gateway, or send one."""
    pointer = next((item for item in registry.pointers() if item.environment == "production"), None)
    if pointer is None:
        return first_version(project, registry)
    gateway = running_gateway(project.lock)
    if gateway is None:
        return NextStep(f"{pointer.prompt} is live, and no gateway runs here. Start it:", "tidegate serve")
    variables = {name: f"a {name}" for name in registry.artifact(pointer.digest).inputs}
    body = json.dumps({"model": f"prompt:{pointer.prompt}", "variables": variables})
    url = shlex.quote(f"{gateway.url}/v1/chat/completions")
    return NextStep(
        "Every call through the gateway shows up here within a second. Send one:",
        f"curl {url} -H 'content-type: application/json' -d {shlex.quote(body)}",
    )


def first_version(project: Project, registry: Registry) -> NextStep:
    """How to get a first version live."""
    registered = registry.prompts()
    if registered:
        return NextStep("Nothing is live yet. Pass the gate, then deploy:", f"tidegate deploy {registered[0]}")
    files = _files(project)
    if files:
        return NextStep("No prompt has a version yet. Run its gate, and it gets one:", f"tidegate gate {files[0]}")
    return NextStep(
        "There is no prompt in prompts/ yet. See a whole project at work, without an API key:", "tidegate demo"
    )


def _files(project: Project) -> list[str]:
    try:
        return list_prompts(project.prompts)
    except TidegateError:
        return []
