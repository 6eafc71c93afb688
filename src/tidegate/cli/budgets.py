"""`tidegate budgets`: what calls have cost, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import moment, out, print_json, usd, visible
from tidegate.core.budgets import BudgetState

NONE = "No budgets: nothing caps what calls cost. `budgets:` in tidegate.yaml does."


def budgets_(*, config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None, json: bool = False) -> None:
    """
    What calls have cost in the hour, day or month that runs now, what running ones hold, and what is left.

    It asks the running gateway; where none runs it says what the last one left. Of keys without a budget of their own
    under `each_key` only those are listed that have made calls.

    Example: `tidegate budgets`

    Parameters
    ----------
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print a list of budgets as JSON; money is in nano-dollars.
    """
    project = compose.project(config)
    states = asyncio.run(compose.budgets(project))
    if json:
        print_json(states)
    elif not states:
        out.print(Text(NONE))
    else:
        out.print(_table(states, project.config.timezone), soft_wrap=False)


def _table(states: Sequence[BudgetState], zone: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("of", overflow="fold", min_width=12)
    table.add_column("per", no_wrap=True)
    for title in ("budget", "spent", "held", "left"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("begins anew", no_wrap=True)
    for state in states:
        note = _note(state)
        table.add_row(
            Text.assemble((visible(state.scope), "bold"), (f"\n{note}" if note else "", "yellow")),
            state.period,
            usd(state.cap_nano_usd),
            usd(state.spent_nano_usd),
            usd(state.reserved_nano_usd),
            usd(state.left_nano_usd),
            moment(state.resets_at, zone)[5:],
        )
    return table


def _note(state: BudgetState) -> str:
    warning = "80 % are spent" if state.warning else ""
    note = "used up" if state.spent_nano_usd >= state.cap_nano_usd else warning
    unpriced = f"{state.unpriced_calls:,} calls without a price" if state.unpriced_calls else ""
    return "; ".join(filter(None, (note, unpriced)))
