"""What an import makes, and what it could not carry over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tidegate.core.artifact import Message, Tool
from tidegate.core.document import Document
from tidegate.core.errors import InvalidFile, Problem
from tidegate.core.place import Path

Kind = Literal["left out", "refused", "changed"]


@dataclass(frozen=True, slots=True)
class Item:
    """
    One thing that did not carry over as it stood.

    `left out`: there is no place for it here. `refused`: it would run code or read what is not the prompt's.
    `changed`: it is there, and means nearly the same; the reason says where it differs.
    """

    kind: Kind
    file: str
    line: int
    """1-based; 0 when the file as a whole is meant."""
    field: str
    """Dotted path inside the file, or an empty string."""
    reason: str
    """One sentence."""

    def __str__(self) -> str:
        return str(Problem(self.file, self.line, self.field, self.reason))


@dataclass(frozen=True, slots=True)
class JudgeUse:
    """One judge of a suite, as its eval.yaml has it."""

    kind: str
    prompt: tuple[str, str]
    """Which of the import's judges: type and model."""
    pass_at: float | None
    fields: dict[str, str]


@dataclass(slots=True)
class Draft:
    """One prompt's folder before it is written."""

    name: str
    """Below the import's own name; empty for its only prompt."""
    model: str
    messages: list[Message]
    description: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As the front matter spells them: `{"type": "string", "required": False, …}`."""
    output: Literal["text", "json"] | dict[str, Any] = "text"
    """A mapping is a JSON Schema."""
    tools: list[Tool] = field(default_factory=list)
    comments: tuple[str, ...] = ()
    """Lines of a licence, kept at the top of the front matter."""
    checks: list[Any] = field(default_factory=list)
    """Of every case, as eval.yaml spells them."""
    threshold: float | None = None
    """Of every case without one of its own."""
    cases: list[dict[str, Any]] = field(default_factory=list)
    """Lines of the golden set."""
    judges: dict[str, JudgeUse] = field(default_factory=dict)
    judged: set[str] = field(default_factory=set)
    """Ids of the cases that a judge is asked about."""
    repeats: int = 1
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All of one import."""

    drafts: tuple[Draft, ...]
    items: tuple[Item, ...]
    judges: Mapping[tuple[str, str], Draft] = field(default_factory=dict)
    """The prompts of judges that the drafts use."""


class Items:
    """Collects what did not carry over, each thing once."""

    def __init__(self) -> None:
        self._found: dict[Item, None] = {}

    def add(self, item: Item) -> None:
        self._found[item] = None

    def in_order(self) -> tuple[Item, ...]:
        """File by file in the order they were met, each from top to bottom."""
        files = list(dict.fromkeys(item.file for item in self._found))
        return tuple(sorted(self._found, key=lambda item: (files.index(item.file), item.line)))


@dataclass(frozen=True, slots=True)
class Spot:
    """One value of a user's file, and what there is to say about it."""

    document: Document
    items: Items
    path: Path = ()

    @property
    def value(self) -> Any:
        """The value here; None when nothing is."""
        found = self.document.data
        for step in self.path:
            if isinstance(found, dict):
                found = found.get(step)
            elif isinstance(found, list) and isinstance(step, int) and step < len(found):
                found = found[step]
            else:
                return None
        return found

    @property
    def line(self) -> int:
        return self.document.line(self.path)

    def __truediv__(self, step: str | int) -> Spot:
        """The value inside this one."""
        return Spot(self.document, self.items, (*self.path, step))

    def problem(self, message: str) -> Problem:
        return self.document.problem(self.path, message)

    def invalid(self, message: str) -> InvalidFile:
        """What to raise when nothing can be made of the file."""
        return InvalidFile([self.problem(message)])

    def left_out(self, reason: str) -> None:
        self._add("left out", reason)

    def refused(self, reason: str) -> None:
        self._add("refused", reason)

    def changed(self, reason: str) -> None:
        self._add("changed", reason)

    def _add(self, kind: Kind, reason: str) -> None:
        at = self.problem(reason)
        self.items.add(Item(kind, at.file, at.line, at.field, reason))
