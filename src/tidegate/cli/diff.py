"""`tidegate diff`: two versions of a prompt, field by field."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import diff_text, out, print_json
from tidegate.config import Project
from tidegate.core.artifact import digest, short
from tidegate.core.ledger import Served


def diff_(
    name: str,
    a: str = "production",
    b: str | None = None,
    /,
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Show what turns A into B, field by field: messages, model, params, inputs, output, tools, retrieval.

    Example: `tidegate diff support/answer v1 v2`

    Parameters
    ----------
    name
        The prompt.
    a
        The older side: `v1`, the beginning of a digest, or an environment.
    b
        The newer side; by default the working tree.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print `{name, a, b, diff}`.
    """
    from tidegate.core.diff import diff

    project = compose.project(config)
    tree = _tree(project, name) if b is None else None
    with closing(compose.registry(project)) as registry:
        older = registry.served(name, a)
        newer = tree or registry.served(name, b or "")
    changes = diff(older.artifact, newer.artifact)
    if json:
        print_json(
            {
                "name": name,
                "a": {"version": older.version, "digest": older.digest},
                "b": {"version": newer.version, "digest": newer.digest},
                "diff": changes,
            }
        )
        return
    out.print(Text(f"{name}: {_shown(older)} → {_shown(newer)}", "bold"))
    out.print(diff_text(changes.lines()) if not changes.empty else Text("no difference"))


def _tree(project: Project, name: str) -> Served:
    from tidegate.prompts.files import load_prompt

    artifact = load_prompt(project.prompts, name).artifact
    return Served(name, None, digest(artifact), artifact)


def _shown(served: Served) -> str:
    return f"{f'v{served.version}' if served.version else 'working tree'} ({short(served.digest)})"
