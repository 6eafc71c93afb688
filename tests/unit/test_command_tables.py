"""Tables of commands: in every terminal names, words and numbers stay whole."""

from __future__ import annotations

import pytest
from rich.text import Text

from tidegate.cli import table
from tidegate.cli.output import out, usd

LONG = "key nightly-import-of-the-help-centre"
ROWS = [
    table.Row((Text("total", "bold"), "day", "$1,500.00")),
    table.Row((LONG, "month", "$0.25"), Text("used up")),
    table.Row(("a\nb", "hour", "$9.99")),
]


def shown(width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(out, "width", width)
    table.show(("of", "per", "cap"), ROWS, right=("cap",))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_wide_terminal_has_a_row_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(60, capsys, monkeypatch) == [
        "of                                     per          cap",
        "total                                  day    $1,500.00",
        "key nightly-import-of-the-help-centre  month      $0.25",
        "    used up",
        "a                                      hour       $9.99",
        "b",
    ]


def test_a_name_that_does_not_fit_has_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(40, capsys, monkeypatch) == [
        "of                      per          cap",
        "total                   day    $1,500.00",
        "key nightly-import-of-the-help-centre",
        "                        month      $0.25",
        "    used up",
        "a                       hour       $9.99",
        "b",
    ]


@pytest.mark.parametrize("width", [1, 10, 20])
def test_a_terminal_without_room_gets_whole_cells_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    assert "      month      $0.25" in shown(width, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("nano", "expected"),
    [
        (None, "–"),
        (0, "$0.00"),
        (123_000, "$0.000123"),
        (250_000_000, "$0.25"),
        (12_345_678_901, "$12.3457"),
        (99_997_354_000, "$99.9974"),
        (1_500_123_456_789, "$1,500.12"),
        (40_000_000_000, "$40.00"),
    ],
)
def test_money_is_as_exact_as_it_is_short(nano: int | None, expected: str) -> None:
    assert usd(nano) == expected
