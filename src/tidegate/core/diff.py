"""
What changed between two artifacts, field by field.

Messages are matched in order and compared line by line and word by word; everything else is a path with its value
before and after. Two artifacts have an empty diff exactly when they have the same digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal

import msgspec
import rfc8785

from tidegate.core.artifact import Artifact, Input, Message

Op = Literal["same", "del", "add"]
CONTEXT_LINES = 3
_WORD = re.compile(r"\w+|\s+|[^\w\s]")
_WORD_PAIRS = 4_000_000
"""Above this product of words, a changed block is shown as a whole: comparing words is quadratic."""


class MessageDiff(msgspec.Struct, frozen=True):
    """One message that changed. A side without a role has no such message."""

    index: int
    """Its place in the newer artifact, or in the older when it is gone."""
    before_role: str | None
    after_role: str | None
    lines: tuple[str, ...]
    """Unified: `@@ … @@` before each hunk, then lines led by a space, `-` or `+`."""
    words: tuple[tuple[Op, str], ...]
    """The whole text in pieces; `same` and `del` make the older one, `same` and `add` the newer."""

    @property
    def title(self) -> str:
        """`system message`, `user → assistant message`."""
        roles = [role for role in (self.before_role, self.after_role) if role]
        return f"{' → '.join(dict.fromkeys(roles))} message"


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value that changed. An absent side did not have it."""

    path: str
    """`params.temperature`, `output.schema.properties.answer.type`."""
    before: Any = msgspec.UNSET
    after: Any = msgspec.UNSET


class ArtifactDiff(msgspec.Struct, frozen=True):
    """All that differs between two artifacts."""

    messages: tuple[MessageDiff, ...]
    changes: tuple[Change, ...]

    @property
    def empty(self) -> bool:
        return not self.messages and not self.changes

    def lines(self) -> list[str]:
        """The whole diff as lines of a unified diff: each begins with `@@`, a space, `-` or `+`."""
        shown: list[str] = []
        for message in self.messages:
            shown += message.lines
        for change in self.changes:
            shown.append(f"@@ {change.path} @@")
            plain = all(isinstance(side, str | msgspec.UnsetType) for side in (change.before, change.after))
            shown += [f"-{line}" for line in _shown(change.before, plain=plain)]
            shown += [f"+{line}" for line in _shown(change.after, plain=plain)]
        return shown


def diff(a: Artifact, b: Artifact) -> ArtifactDiff:
    """What turns `a` into `b`."""
    before, after = _fields(a), _fields(b)
    changes: list[Change] = []
    for name in ("model", "fallbacks", "params", "overridable", "inputs", "output", "tools", "retrieval"):
        changes += _changes(name, before[name], after[name])
    # Tools are compared by name; their order is part of the digest too.
    if before["tools"].keys() == after["tools"].keys() and list(before["tools"]) != list(after["tools"]):
        changes.append(Change("tools", list(before["tools"]), list(after["tools"])))
    return ArtifactDiff(tuple(_messages(a.messages, b.messages)), tuple(changes))


def diff_words(before: str, after: str, *, most_pairs: int = _WORD_PAIRS) -> tuple[tuple[Op, str], ...]:
    """
    Two texts in pieces, as `MessageDiff.words`.

    Args:
        most_pairs: above this product of their words a changed block is shown as a whole.
    """
    old, new = before.split("\n"), after.split("\n")
    matcher = SequenceMatcher(None, old, new, autojunk=len(old) + len(new) > 2_000)
    return tuple(_merged(_words(matcher, old, new, most_pairs)))


def _fields(artifact: Artifact) -> dict[str, Any]:
    """Everything but the messages as plain values, keyed by what people call it."""
    tools: dict[str, Any] = {}
    for tool in artifact.tools:
        name = tool.name
        while name in tools:
            name += " (again)"
        tools[name] = {"description": tool.description, "parameters": tool.parameters}
    output: dict[str, Any] = {"format": artifact.output.format}
    if artifact.output.schema is not None:
        output["schema"] = artifact.output.schema
    if artifact.output.constrain:
        output["constrain"] = True
    return {
        "model": artifact.model,
        "fallbacks": list(artifact.fallbacks),
        "params": artifact.params,
        "overridable": list(artifact.overridable),
        "inputs": {name: _input(declared) for name, declared in artifact.inputs.items()},
        "output": output,
        "tools": tools,
        "retrieval": msgspec.UNSET if artifact.retrieval is None else artifact.retrieval,
    }


def _input(declared: Input) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": declared.type}
    if declared.values:
        shown["values"] = list(declared.values)
    for limit in ("max_chars", "max_tokens", "default"):
        if (value := getattr(declared, limit)) is not None:
            shown[limit] = value
    if not declared.required:
        shown["required"] = False
    return shown


def _changes(path: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _changes(f"{path}.{key}", before.get(key, msgspec.UNSET), after.get(key, msgspec.UNSET))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _changes(f"{path}[{index}]", old, new)
    elif not _same(before, after):
        yield Change(path, before, after)


def _same(before: Any, after: Any) -> bool:
    """Equality as the digest sees it: 1 and 1.0 are one number, 1 and true are not."""
    if before is msgspec.UNSET or after is msgspec.UNSET:
        return before is after
    return rfc8785.dumps(before) == rfc8785.dumps(after)


def _messages(before: Sequence[Message], after: Sequence[Message]) -> Iterator[MessageDiff]:
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for op, i1, i2, j1, j2 in matcher.get_opcodes():
        if op == "equal":
            continue
        for offset in range(max(i2 - i1, j2 - j1)):
            old = before[i1 + offset] if i1 + offset < i2 else None
            new = after[j1 + offset] if j1 + offset < j2 else None
            yield _message(j1 + offset if new else i1 + offset, old, new)


def _message(index: int, old: Message | None, new: Message | None) -> MessageDiff:
    before = old.content.split("\n") if old else []
    after = new.content.split("\n") if new else []
    opcodes = SequenceMatcher(None, before, after, autojunk=len(before) + len(after) > 2_000)
    # The words first: grouping the opcodes cuts the matcher's own list down to the hunks' context.
    words = tuple(_merged(_words(opcodes, before, after)))
    found = MessageDiff(index, old.role if old else None, new.role if new else None, (), words)
    return msgspec.structs.replace(found, lines=tuple(_unified(found.title, opcodes, before, after)))


def _unified(title: str, matcher: SequenceMatcher[str], before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    groups = list(matcher.get_grouped_opcodes(CONTEXT_LINES))
    if not groups:  # the role alone changed
        yield f"@@ {title} @@"
    for group in groups:
        start = group[0][3] + 1
        yield f"@@ {title} @@" if start == 1 else f"@@ {title}, line {start} @@"
        for op, i1, i2, j1, j2 in group:
            if op == "equal":
                yield from (f" {line}" for line in before[i1:i2])
            else:
                yield from (f"-{line}" for line in before[i1:i2])
                yield from (f"+{line}" for line in after[j1:j2])


def _words(
    matcher: SequenceMatcher[str], before: Sequence[str], after: Sequence[str], most_pairs: int = _WORD_PAIRS
) -> Iterator[tuple[Op, str]]:
    # Each line carries the line break in front of it, so that joined pieces are the text again.
    old = [line if index == 0 else "\n" + line for index, line in enumerate(before)]
    new = [line if index == 0 else "\n" + line for index, line in enumerate(after)]
    for op, i1, i2, j1, j2 in matcher.get_opcodes():
        gone, come = "".join(old[i1:i2]), "".join(new[j1:j2])
        if op == "equal" and gone == come:
            yield "same", gone
        else:
            yield from _word_pairs(gone, come, most_pairs)


def _word_pairs(gone: str, come: str, most_pairs: int) -> Iterator[tuple[Op, str]]:
    before, after = _WORD.findall(gone), _WORD.findall(come)
    if len(before) * len(after) > most_pairs:
        yield "del", gone
        yield "add", come
        return
    for op, i1, i2, j1, j2 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if op == "equal":
            yield "same", "".join(before[i1:i2])
        else:
            yield "del", "".join(before[i1:i2])
            yield "add", "".join(after[j1:j2])


def _merged(pieces: Iterator[tuple[Op, str]]) -> Iterator[tuple[Op, str]]:
    """Drops empty pieces and joins neighbours of one kind."""
    held: tuple[Op, str] | None = None
    for op, text in pieces:
        if not text:
            continue
        if held and held[0] == op:
            held = (op, held[1] + text)
        else:
            if held:
                yield held
            held = (op, text)
    if held:
        yield held


def _shown(value: Any, *, plain: bool) -> list[str]:
    if value is msgspec.UNSET:
        return []
    if plain and isinstance(value, str):
        return value.split("\n")
    compact = json.dumps(value, ensure_ascii=False)
    return [compact] if len(compact) <= 100 else json.dumps(value, ensure_ascii=False, indent=2).split("\n")
