"""`tidegate budgets`: what calls have cost, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from tidegate import compose
from tidegate.cli import table
from tidegate.cli.output import moment, out, print_json, usd, visible
from tidegate.core.budgets import BudgetState

MONEY = ("budget", "spent", "held", "left")
TITLES = ("of", "per", *MONEY, "begins anew")
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
        table.show(TITLES, _rows(states, project.config.timezone), right=MONEY)


def _rows(states: Sequence[BudgetState], zone: str) -> list[table.Row]:
    return [
        table.Row(
            (
                Text(visible(state.scope), "bold"),
                state.period,
                usd(state.cap_nano_usd),
                usd(state.spent_nano_usd),
                usd(state.reserved_nano_usd),
                usd(state.left_nano_usd),
                moment(state.resets_at, zone)[5:],
            ),
            Text(_note(state), "yellow"),
        )
        for state in states
    ]


def _note(state: BudgetState) -> str:
    warning = "80 % are spent" if state.warning else ""
    note = "used up" if state.spent_nano_usd >= state.cap_nano_usd else warning
    unpriced = f"{state.unpriced_calls:,} calls without a price" if state.unpriced_calls else ""
    return "; ".join(filter(None, (note, unpriced)))
