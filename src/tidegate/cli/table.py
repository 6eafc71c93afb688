"""Tables that fit their terminal: no name, word or number is ever broken to make room for the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from rich.padding import Padding
from rich.text import Text

from tidegate.cli.output import out

GAP = 2
INDENT = 4


class Row(NamedTuple):
    """A row of a table."""

    cells: Sequence[Text | str]
    """Each of one line or more."""
    note: Text | None = None
    """Under it, as wide as the terminal."""
    style: str = ""


def show(titles: Sequence[str], rows: Sequence[Row], *, right: Collection[str] = ()) -> None:
    """
    Prints a table. The first column has what the others leave; what does not fit there gets a line of its own.

    Args:
        right: titles of the columns that are aligned to the right.
    """
    table = [[_text(cell) for cell in cells] for cells in (titles, *(row.cells for row in rows))]
    first, *widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    first = max(INDENT, min(first, out.width - sum(widths) - GAP * len(widths)))
    aligned = ["right" if title in right else "left" for title in titles]
    for cells, row in zip(table, (Row(titles, style="dim"), *rows), strict=True):
        if _width(cells[0]) > first:
            out.print(cells[0], style=row.style)
            cells[0] = Text()
        for line in _lines(cells, (first, *widths), aligned):
            out.print(line, style=row.style)
        if row.note:
            out.print(Padding(row.note, (0, 0, 0, INDENT)), style=row.style, soft_wrap=False)


def _lines(cells: Sequence[Text], widths: Sequence[int], aligned: Sequence[str]) -> Iterator[Text]:
    """Cells beside each other, in as many lines as the longest has."""
    columns = [cell.split() for cell in cells]
    for index in range(max(map(len, columns))):
        line = Text()
        for column, width, side in zip(columns, widths, aligned, strict=True):
            part = column[index] if index < len(column) else Text()
            room = " " * (width - part.cell_len)
            line.append_text(Text(room) + part if side == "right" else part + Text(room)).append(" " * GAP)
        line.rstrip()
        yield line


def _width(cell: Text) -> int:
    return max((line.cell_len for line in cell.split()), default=0)


def _text(cell: Text | str) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)
