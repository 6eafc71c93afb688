"""`tidegate init`: a project that works, to start from."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from tidegate.cli.output import out, print_json
from tidegate.core.errors import BadInput

EXAMPLE = "support-bot"
YOURS = frozenset({"README.md", ".gitignore"})
"""A repository has its own: they are left alone, and the rest is made."""
WORKFLOW = ".github/workflows/tidegate.yml"


def init_(
    folder: Annotated[Path, Parameter(name="DIR")] = Path(),
    /,
    *,
    json: bool = False,
) -> None:
    """
    Make a starter project: a prompt, its suite and golden set, tidegate.yaml, and a workflow that gates pull requests.

    It works at once, with no API key: its provider is simulated. No file is overwritten; when one is in the way nothing
    is made at all, but for a README.md and a .gitignore, which are kept as they are.

    Example: `tidegate init my-bot`

    Parameters
    ----------
    folder
        The folder to fill, made when it is missing; by default the one you are in.
    json
        Print `{folder, files, kept}`.
    """
    made, kept = make(folder)
    if json:
        print_json({"folder": str(folder.resolve()), "files": made, "kept": kept})
        return
    out.print(Text.assemble("made ", (f"{folder.resolve().name}/", "bold"), f" with {len(made)} files"))
    for name in made:
        out.print(Text(f"  {name}", "dim"))
    for name in kept:
        out.print(Text(f"  {name} is yours already, and stays as it is", "dim"))
    out.print()
    if folder.resolve() != Path.cwd():
        out.print(f"  cd {shlex.quote(str(folder))}")
    out.print('  tidegate gate\n  tidegate deploy support/answer --reason "first version"\n  tidegate serve')
    top = _repository(folder.resolve())
    if top is not None and top != folder.resolve():
        out.print(Text(f"\nGitHub reads workflows at the top of a repository: move {WORKFLOW} to {top}.", "yellow"))


def make(folder: Path) -> tuple[list[str], list[str]]:
    """
    Makes the project's files; returns the names of those made, and of those that were there and stay.

    Raises: BadInput when a file is in the way or one can not be written; then nothing is left behind.
    """
    from tidegate.simulate.stage import example, files_of

    texts = {name: path.read_bytes() for name, path in files_of(example(EXAMPLE)).items()}
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is not a folder. Name another.")
    there = [name for name in texts if _is_there(folder / name)]
    in_the_way = [name for name in there if name not in YOURS]
    if in_the_way:
        more = f" and {len(in_the_way) - 1} more" if len(in_the_way) > 1 else ""
        raise BadInput(f"{folder / in_the_way[0]} is there already{more}; nothing was made. Name another folder.")
    made: list[Path] = []
    try:
        for name, body in texts.items():
            if name not in there:
                _write(folder / name, body, made)
    except BaseException as error:
        for path in reversed(made):
            with suppress(OSError):  # a folder somebody has put something in meanwhile stays
                path.rmdir() if path.is_dir() else path.unlink()
        if isinstance(error, OSError):
            why = f"{error.filename or folder} can not be written: {error.strerror}"
            raise BadInput(f"{why}. Nothing was made.") from error
        raise
    return [name for name in texts if name not in there], there


def _is_there(path: Path) -> bool:
    """Also a link that leads nowhere is in the way, and so is a file where a folder would be."""
    return path.exists() or path.is_symlink() or any(parent.is_file() for parent in path.parents)


def _write(path: Path, body: bytes, made: list[Path]) -> None:
    for parent in [*reversed(path.parents)]:
        if not parent.exists():
            parent.mkdir()
            made.append(parent)
    with path.open("xb") as file:  # never over a file that came between the look and the writing
        made.append(path)
        file.write(body)


def _repository(folder: Path) -> Path | None:
    """The top of the git work tree that `folder` is in."""
    return next((at for at in (folder, *folder.parents) if (at / ".git").exists()), None)
