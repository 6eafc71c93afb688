"""What `tidegate lint` says about one place in a user's file."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidegate.core.errors import Problem
from tidegate.core.secrets import redact

Level = Literal["error", "warning"]


class Notice(msgspec.Struct, frozen=True):
    """An error keeps tidegate from using the file; a warning is worth a look."""

    level: Level
    file: str
    line: int
    """1-based; 0 when the file as a whole is meant."""
    field: str
    """Dotted path inside the file, or an empty string."""
    rule: str
    message: str


def from_problem(problem: Problem, rule: str, level: Level = "error") -> Notice:
    """A problem as a notice; a key that a file's value happens to hold is not passed on."""
    message, field = redact(problem.message), redact(problem.field)
    return Notice(level, problem.file, problem.line, field, rule, message)
