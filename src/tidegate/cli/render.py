"""`tidegate render`: the messages a call would send."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.rule import Rule
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import out, print_json, visible
from tidegate.config import Project
from tidegate.core.artifact import Artifact, digest, short
from tidegate.core.errors import BadInput
from tidegate.core.ledger import Served


def render_(
    name: str,
    /,
    *,
    var: Annotated[list[str] | None, Parameter(name=["--var", "-v"])] = None,
    version: str | None = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Print the messages a call would send. Nothing is called, nothing is stored.

    Example: `tidegate render support/answer --var question="How do I pay?"`

    Parameters
    ----------
    name
        The prompt: its folder under prompts/.
    var
        A variable, `name=value`; once for each. Numbers, booleans, lists and objects are written as JSON.
    version
        Render a stored version (`v3`, the beginning of a digest, an environment) instead of the working tree.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print `{name, digest, version, model, params, messages, tools}`.
    """
    from tidegate.prompts.render import render

    served = _find(compose.project(config), name, version)
    artifact = served.artifact
    messages = render(artifact, _variables(artifact, var or []))
    if json:
        print_json(
            {
                "name": name,
                "digest": served.digest,
                "version": served.version,
                "model": artifact.model,
                "params": artifact.params,
                "messages": messages,
                "tools": artifact.tools,
            }
        )
        return
    for message in messages:
        out.print(Rule(Text(message["role"], "bold"), align="left", style="dim"), soft_wrap=False)
        out.print(Text(visible(_shown(message["content"]))))
    shown = f"v{served.version}" if served.version else "not registered yet"
    out.print(Rule(style="dim"), soft_wrap=False)
    out.print(Text(f"{artifact.model} · {shown} · {short(served.digest)}", "dim"))


def _shown(content: str | list[dict[str, Any]]) -> str:
    from tidegate.prompts.images import describe

    if isinstance(content, str):
        return content
    return "".join(part.get("text") or describe(part["image_url"]["url"]) for part in content)


def _find(project: Project, name: str, version: str | None) -> Served:
    """The stored version, or the working tree's prompt with the number its content has where it is registered."""
    from tidegate.prompts.files import check_name, load_prompt

    check_name(name)
    if version is not None:
        with closing(compose.registry(project)) as registry:
            return registry.served(name, version)
    artifact = load_prompt(project.prompts, name).artifact
    key = digest(artifact)
    number = None
    if project.has_control:
        with closing(compose.registry(project)) as registry:
            number = next((known.number for known in registry.versions(name) if known.digest == key), None)
    return Served(name, number, key, artifact)


def _variables(artifact: Artifact, pairs: Sequence[str]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise BadInput(f"--var {pair[:60]!r}: write it as name=value.")
        if name in variables:
            raise BadInput(f"--var {name}: given twice.")
        declared = artifact.inputs.get(name)
        if declared is None or declared.type in ("string", "enum", "image"):
            variables[name] = value
            continue
        try:
            variables[name] = jsonlib.loads(value)
        except ValueError as error:
            raise BadInput(f"--var {name}: a {declared.type} is written as JSON, and {value[:60]!r} is not.") from error
    return variables
