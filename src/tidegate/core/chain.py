"""
What an edit, a removal or a new order of lines does to the ledger's chain of hashes, and how it is found.

A line's hash covers the line and the hash before it. So it shows when somebody who can write to the database changed
the past, unless they made every later hash anew; it is not a signature. Lines missing at the very end break no hash,
but then an environment points at something that no line says: that is found too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import msgspec
import rfc8785

from tidegate.core.keys import KeyLine, seal_key
from tidegate.core.ledger import Deployment, Pointer, after, seal


class Line(msgspec.Struct, frozen=True):
    """One line of the ledger as it is stored."""

    number: int
    """Grows with every line; there may be gaps."""
    project: str
    move: Deployment
    prev_hash: str
    hash: str

    @property
    def sealed(self) -> str:
        return seal(self.move, self.project, self.prev_hash)

    def __str__(self) -> str:
        return _named(self)


class SealedKeyLine(msgspec.Struct, frozen=True):
    """One line of what happened to keys, as it is stored; a chain of its own."""

    number: int
    project: str
    line: KeyLine
    prev_hash: str
    hash: str

    @property
    def sealed(self) -> str:
        return seal_key(self.line, self.project, self.prev_hash)

    def __str__(self) -> str:
        line = self.line
        return f"key line {self.number} ({line.action} of {line.name} {line.prefix} at {line.at} by {line.who})"


class Link(Protocol):
    """A line of either chain; as text it names itself."""

    @property
    def number(self) -> int: ...
    @property
    def prev_hash(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def sealed(self) -> str:
        """The hash that it ought to have."""
        ...


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with the ledger."""

    kind: Literal["edited", "broken", "pointer"]
    """A line was changed; lines were removed, added or put in another order; an environment contradicts the lines."""
    line: int | None
    """The number of the line that does not fit; None for a pointer that no line speaks of."""
    message: str

    def __str__(self) -> str:
        return self.message


def faults(lines: Sequence[Line], pointers: Sequence[Pointer], keys: Sequence[SealedKeyLine] = ()) -> list[Fault]:
    """All that does not fit, lines being oldest first. Empty where nobody touched anything."""
    return [*_in_the_chain(lines), *_in_the_pointers(lines, pointers), *_in_the_chain(keys)]


def _in_the_chain(lines: Sequence[Link]) -> Iterator[Fault]:
    before: Link | None = None
    for line in lines:
        if line.prev_hash != (before.hash if before else ""):
            earlier = str(before) if before else "the beginning"
            yield Fault(
                "broken",
                line.number,
                f"{line} does not follow {earlier}: lines were removed, added or put in another order there.",
            )
        if not _intact(line):
            yield Fault("edited", line.number, f"{line} was edited.")
        before = line


def _in_the_pointers(lines: Sequence[Line], pointers: Sequence[Pointer]) -> Iterator[Fault]:
    last: dict[tuple[str, str], Line] = {}
    told: dict[tuple[str, str], Pointer] = {}
    for line in lines:
        place = (line.move.prompt, line.move.environment)
        last[place], told[place] = line, after(told.get(place), line.move)
    for pointer in pointers:
        place = (pointer.prompt, pointer.environment)
        says = f"{pointer.prompt} in {pointer.environment} points at v{pointer.version} since {pointer.since}"
        if pointer.split is not None:
            says += f", and gives v{pointer.split.version} a share of {pointer.split.weight}"
        spoken = last.pop(place, None)
        if spoken is None:
            yield Fault("pointer", None, f"{says}, but no line of the ledger says so.")
        elif told[place] != pointer:
            yield Fault("pointer", spoken.number, f"{says}, but the last line about it is {_named(spoken)}.")
    for line in last.values():
        yield Fault("pointer", line.number, f"{_named(line)} moved a pointer that is not there any more.")


def _intact(line: Link) -> bool:
    try:
        return line.sealed == line.hash
    except rfc8785.CanonicalizationError:  # a value that no line of ours ever held
        return False


def _named(line: Line) -> str:
    move = line.move
    share = "" if move.weight is None else f" with a share of {move.weight}"
    return (
        f"line {line.number} ({move.action} of {move.prompt} v{move.to_version} to {move.environment}{share}"
        f" at {move.at} by {move.who})"
    )
