"""What the repository's self-checks look at: tracked files, source modules and their syntax trees."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tidegate"


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that belongs to the repository: what git tracks, or would offer to."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(path for name in sorted(filter(None, listing.split("\0"))) if (path := ROOT / name).is_file())


def texts() -> Iterator[tuple[Path, str]]:
    """Every tracked text file and its content."""
    for path in tracked():
        body = path.read_bytes()
        if b"\0" not in body:
            yield path, body.decode("utf-8")


def named(path: Path) -> str:
    """A path as messages show it: from the repository's root."""
    return path.relative_to(ROOT).as_posix()


@cache
def modules() -> dict[str, ast.Module]:
    """Every module under src/, by its path from the repository's root."""
    return {named(path): ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


def markdown() -> list[Path]:
    """Every tracked Markdown page that people read as documentation (example projects' prompts are not)."""
    return [path for path in tracked() if path.suffix == ".md" and "prompts" not in path.parts]
