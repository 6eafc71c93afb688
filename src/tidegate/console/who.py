"""Who the ledger says it was: the console has no sign-in, so it is whoever runs it."""

from __future__ import annotations

import getpass


def who() -> str:
    """`ada (console)`."""
    try:
        return f"{getpass.getuser()} (console)"
    except (OSError, KeyError):
        return "console"
