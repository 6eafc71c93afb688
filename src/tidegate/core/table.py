"""The answer of a query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """Names of columns, rows of plain values, and whether more rows were cut off."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    more: bool = False
