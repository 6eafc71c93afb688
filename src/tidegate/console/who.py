"""Who runs the console: where nobody signs in, the ledger says that it was them."""

from __future__ import annotations

import getpass


def who_runs_it() -> str:
    """`ada (console)`."""
    try:
        return f"{getpass.getuser()} (console)"
    except (OSError, KeyError):
        return "console"
