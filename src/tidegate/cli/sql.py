"""`tidegate sql`: read-only SQL over the records, for people (a table) and programs (JSON, CSV)."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import err, out, print_json, visible
from tidegate.core.errors import BadInput

if TYPE_CHECKING:
    from tidegate.core.table import Table

MAX_CELL = 60


def sql_(
    query: str,
    /,
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
    csv: bool = False,
) -> None:
    """
    Run one SELECT (DuckDB's SQL) over the tables `calls` and `content`. It can read nothing else and change nothing.

    Example: `tidegate sql "select version, avg(latency_s) from calls group by all"`

    Parameters
    ----------
    query
        The SELECT.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print an array of objects.
    csv
        Print CSV with a header.
    """
    if json and csv:
        raise BadInput("--json and --csv: choose one.")
    table = compose.call_log(compose.project(config)).sql(query)
    if json:
        print_json([dict(zip(table.columns, row, strict=True)) for row in table.rows])
    elif csv:
        write_csv(table)
    else:
        show(table, width=out.width if out.is_terminal else None)
    if table.more:
        err.print(Text(f"There are more; these are the first {len(table.rows):,} rows."))


def write_csv(table: Table) -> None:
    """The table on stdout as RFC 4180 CSV; instants in ISO 8601."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_plain(value) for value in row] for row in table.rows)


def show(table: Table, *, width: int | None = None) -> None:
    """
    The table in aligned columns: numbers to the right, long cells cut, control characters shown.

    Args:
        width: what is wider than that has a line for each value instead, row by row.
    """
    rows = [[_cell(value) for value in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip([_cell(name) for name in table.columns], *rows, strict=True)]
    numbers = [
        all(isinstance(row[index], int | float) or row[index] is None for row in table.rows)
        for index in range(len(widths))
    ]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        _show_values(table)
        return
    out.print(Text(_aligned(table.columns, widths, numbers), style="bold"))
    for row in rows:
        out.print(Text(_aligned(row, widths, numbers)))


def _show_values(table: Table) -> None:
    names = [_cell(name) for name in table.columns]
    for number, row in enumerate(table.rows, 1):
        out.print(Text(f"row {number}", style="bold"))
        for name, value in zip(names, row, strict=True):
            out.print(Text.assemble((f"  {name:<{max(map(len, names))}}  ", "dim"), _cell(value)))


def _aligned(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    return "  ".join(
        _cell(cell).rjust(width) if right else _cell(cell).ljust(width)
        for cell, width, right in zip(cells, widths, numbers, strict=True)
    ).rstrip()


def _cell(value: Any) -> str:
    text = visible("–" if value is None else _text(value)).replace("\n", "␊").replace("\t", " ")
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(_plain(value))


def _plain(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
