"""How commands speak: people get rich text on a terminal, programs get JSON; never both."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from rich.console import Console
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def print_json(value: Any, *, lines: bool = False) -> None:
    """Writes `value` as JSON to stdout: indented, or with `lines` one compact document per item of a sequence."""
    documents = value if lines else [value]
    for document in documents:
        # The same JSON: a job on GitHub would take `##[…]` for a command, wherever it stands.
        encoded = msgspec.json.encode(document).replace(b"##[", b"#\\u0023[")
        sys.stdout.flush()
        sys.stdout.buffer.write((encoded if lines else msgspec.json.format(encoded, indent=2)) + b"\n")  # always UTF-8
    sys.stdout.buffer.flush()


def usd(nano: int | None) -> str:
    """Nano-USD for people, in at most nine characters up to $9,999: `$0.000123`, `$12.3456`, `$0.25`; `–` for None."""
    if nano is None:
        return "–"
    dollars = nano / 1e9
    if abs(dollars) >= 100 or nano % 10_000_000 == 0:
        return f"${dollars:,.2f}"
    return f"${dollars:.4f}" if abs(dollars) >= 1 else f"${dollars:.6f}"


def moment(instant: str, timezone: str) -> str:
    """A stored instant as people read it, in the project's time zone: `2026-11-23 15:31`."""
    return f"{datetime.fromisoformat(instant).astimezone(ZoneInfo(timezone)):%Y-%m-%d %H:%M}"


def visible(text: str) -> str:
    """
    Text whose control characters are shown instead of obeyed, so that nothing stored can drive a terminal, or make a
    line read in another order than it is written in.
    """
    return text.translate(_CONTROLS)


def diff_text(lines: Sequence[str]) -> Text:
    """Lines of a unified diff, coloured."""
    styles = {"@": "cyan", "+": "green", "-": "red"}
    return Text("\n").join(Text(visible(line), style=styles.get(line[:1], "")) for line in lines)


def who() -> str:
    """Who is at this terminal, for the ledger: TIDEGATE_USER, else user@host."""
    named = os.environ.get("TIDEGATE_USER", "").strip()
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_CONTROLS |= dict.fromkeys(
    (*range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}"
)
