"""How commands speak: people get rich text on a terminal, programs get JSON; never both."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def print_json(value: Any, *, lines: bool = False) -> None:
    """Writes `value` as JSON to stdout: indented, or with `lines` one compact document per item of a sequence."""
    if lines:
        for item in value:
            sys.stdout.write(msgspec.json.encode(item).decode() + "\n")
    else:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def usd(nano: int | None) -> str:
    """Nano-USD for people: `$0.000123`; `–` when the price is not known."""
    if nano is None:
        return "–"
    dollars = nano / 1e9
    return f"${dollars:,.2f}" if abs(dollars) >= 100 else f"${dollars:.6f}"
