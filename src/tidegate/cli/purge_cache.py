"""`tidegate purge-cache`: forget the answers that the gateway gives again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tidegate import compose
from tidegate.cli.output import out, print_json


def purge_cache_(
    name: str | None = None,
    /,
    *,
    version: Annotated[str | None, Parameter(name=["--version", "-v"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Forget the answers that the running gateway gives again: of a prompt, of one version of it, or all.

    Calls under way end as they would, but their answers are not kept either. On a server this takes the role deployer
    or admin.

    Example: `tidegate purge-cache support/answer --version v3`

    Parameters
    ----------
    name
        A prompt; without one, everything is forgotten.
    version
        One version of it: `v3`, a digest, or the environment that points at it.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print `{"purged": 12}`.
    """
    purged = asyncio.run(compose.purge_cache(compose.project(config), name, version))
    if json:
        print_json({"purged": purged})
    else:
        out.print(f"{purged:,} answer{'' if purged == 1 else 's'} forgotten")
