"""Folders for what was said in calls: nobody but their owner looks in."""

from __future__ import annotations

from pathlib import Path


def make_private(folder: Path) -> None:
    """
    Makes the folder and those above it that are missing, for their owner alone. One that is there stays as it is: who
    lets others in has a reason. Raises OSError; FileExistsError where a file stands.
    """
    if not folder.parent.exists():
        make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
