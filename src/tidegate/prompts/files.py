"""
A prompt's folder becomes a PromptFile. This hides the layout of `prompt.md`:

    ---
    YAML front matter
    ---
    system:
    text of the message

    user:
    text of the message

Role lines are found in the template, before anything is filled in. A message is the lines between its role line and the
next one, less one blank line in front of that next one; at the end of the file one final newline is dropped. Blank
lines before the first message do not count. Without a role line the whole text is one user message. Line ends become
LF, a byte order mark is dropped, and nothing else is normalised.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tidegate.core.artifact import Artifact, Message, Output, Role, Tool
from tidegate.core.document import Document, parse_json, parse_yaml, validate
from tidegate.core.errors import BadInput, InvalidFile, NotFound, Problem, nearest
from tidegate.core.json_schema import NotASchema, validator
from tidegate.core.place import Path as FieldPath
from tidegate.core.yaml_values import MAX_DEPTH
from tidegate.prompts import template
from tidegate.prompts.front_matter import MAX_WHOLE, FrontMatter, ToolFile
from tidegate.prompts.source import Folder, Source, leads_out

FILE = "prompt.md"
SUITE = "eval.yaml"
JUDGES = "judges"
"""Prompts that judge stand in a folder of this name beside `prompts/`: `judges/tone` is the name of one."""
RESERVED = f"names that begin with {JUDGES}/ are those of judges: their folder stands beside prompts/, not in it."

_PART = r"[a-z0-9][a-z0-9._-]{0,63}"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*\Z")
_ROLE_LINE = re.compile(rf"({'|'.join(get_args(Role))}):[ \t]*\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt as its files say it, wherever they are kept."""

    artifact: Artifact
    description: str
    file_sha256: str
    """Of prompt.md's own bytes: comments and layout are in here, not in the digest."""
    source: str
    """The text of prompt.md."""
    front: Document
    """Its front matter as written."""


@dataclass(frozen=True, slots=True)
class PromptFile:
    """What stands in one prompt's folder."""

    name: str
    artifact: Artifact
    description: str
    file_sha256: str
    """Of prompt.md's own bytes: comments and layout are in here, not in the digest."""
    folder: Path
    source: str
    """The text of prompt.md."""
    has_suite: bool
    front: Document
    """Its front matter as written, with the line of each value."""


def is_name(name: str) -> bool:
    """Whether `name` can be a prompt's."""
    return len(name) <= 255 and _NAME.match(name) is not None


def check_name(name: str) -> None:
    """Raises BadInput when `name` can not be a prompt's name."""
    if not is_name(name):
        raise BadInput(
            f"{name[:100]!r} can not be a prompt's name. Name it as its folder under prompts/, such as support/answer:"
            " a-z, 0-9, '.', '_' and '-', each part at most 64 long and beginning with a letter or a digit."
        )


def shelf(root: Path, name: str) -> tuple[Path, str]:
    """The folder that holds a prompt's, and its path in it: `judges/tone` stands beside `root`."""
    if name.startswith(f"{JUDGES}/"):
        return root.parent / JUDGES, name.removeprefix(f"{JUDGES}/")
    return root, name


def place(root: Path, name: str) -> str:
    """A prompt's folder as seen from its project."""
    top, inside = shelf(root, name)
    return f"{top.name}/{inside}"


def list_prompts(root: Path) -> list[str]:
    """The names of all prompts under `root`, sorted. Raises InvalidFile when a folder's name can not be a prompt's."""
    names = sorted(_names(root))
    bad = [name for name in names if not is_name(name)]
    if any(name.startswith(f"{JUDGES}/") for name in names):
        raise InvalidFile([Problem(f"{root.name}/{JUDGES}", 0, "", RESERVED)])
    if bad:
        raise InvalidFile(
            Problem(
                f"{root.name}/{name}",
                0,
                "",
                "a prompt's folder is named with a-z, 0-9, '.', '_' and '-' only: rename it.",
            )
            for name in bad
        )
    return names


def load_prompt(root: Path, name: str) -> PromptFile:
    """
    Reads, checks and resolves the prompt `name` under `root` (`<project>/prompts`), or the judge beside it.

    Raises: BadInput for an impossible name, NotFound with the nearest one, InvalidFile with every problem that was
    found. Problems name files as seen from the project: `prompts/support/answer/prompt.md:7`.
    """
    check_name(name)
    root, inside = shelf(root, name)
    folder = root / inside
    if not os.path.lexists(folder / FILE):
        known = [f"{name.removesuffix(inside)}{one}" for one in _names(root)]
        if not known:
            raise NotFound(f"no prompt named {name!r}: there is no {FILE} under {root} yet.")
        raise NotFound(f"no prompt named {name!r} under {root}.{nearest(name, known)}")
    label = f"{root.name}/{inside}"
    if leads_out(root.parent, root.name):
        raise InvalidFile([Problem(root.name, 0, "", "is a link that leads out of the project.")])
    if leads_out(root, inside):
        raise InvalidFile([Problem(label, 0, "", f"leads out of {root.name}/.")])
    written = read_prompt(Folder(folder, label))
    return PromptFile(
        name=name,
        artifact=written.artifact,
        description=written.description,
        file_sha256=written.file_sha256,
        folder=folder,
        source=written.source,
        has_suite=os.path.lexists(folder / SUITE),
        front=written.front,
    )


def read_prompt(source: Source) -> Written:
    """Reads, checks and resolves the prompt that a folder holds. Raises InvalidFile with every problem."""
    body = source.read(FILE)
    text = _text(body, f"{source.label}/{FILE}")
    artifact, description, front = _Reader(source).read(text)
    return Written(artifact, description, hashlib.sha256(body).hexdigest(), text, front)


@dataclass(frozen=True, slots=True)
class _Block:
    role: Role
    content: str
    role_line: int
    first_line: int


class _Reader:
    """Reads one prompt.md and what it refers to; collects problems so that an author sees all of them at once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.file = f"{source.label}/{FILE}"
        self.found: list[Problem] = []

    def read(self, source: str) -> tuple[Artifact, str, Document]:
        front, body, body_line = self._split(source)
        document = parse_yaml(front, self.file, first_line=2)
        if document.data is not None and not isinstance(document.data, dict):
            raise InvalidFile([Problem(self.file, 2, "", "the front matter must be `key: value` lines.")])
        blocks = self._blocks(body, body_line)
        matter = self._front_matter(document)
        if matter is None:
            raise self._invalid()
        for name in matter.inputs:
            if not _IDENTIFIER.match(name):
                self._add(document, ("inputs", name), "an input is named with letters, digits and '_' only.")
        output = self._output(document, matter.output)
        tools = self._tools(document, matter.tools)
        self._templates(matter, blocks)
        if self.found:
            raise self._invalid()
        artifact = Artifact(
            messages=tuple(Message(block.role, block.content) for block in blocks),
            model=matter.model,
            params=matter.params.model_dump(exclude_none=True),
            inputs={name: spec.declared for name, spec in matter.inputs.items()},
            output=output,
            tools=tools,
            retrieval=matter.retrieval,
            fallbacks=tuple(matter.fallbacks),
            overridable=tuple(matter.overridable),
        )
        return artifact, matter.description, document

    def _split(self, source: str) -> tuple[str, str, int]:
        """Front matter, text, and the line on which the text begins."""
        lines = source.split("\n")
        if lines[0].rstrip() != "---":
            raise InvalidFile([Problem(self.file, 1, "", "a prompt begins with a line `---` and its front matter.")])
        for index, line in enumerate(lines[1:], start=1):
            if line.rstrip() == "---":
                return "\n".join(lines[1:index]) + "\n", "\n".join(lines[index + 1 :]), index + 2
        raise InvalidFile([Problem(self.file, 1, "", "the front matter has no closing line `---`.")])

    def _front_matter(self, document: Document) -> FrontMatter | None:
        for path, complaint in _not_portable(document.data, ()):
            self._add(document, path, complaint)
        try:
            return validate(document, FrontMatter)
        except InvalidFile as error:
            self.found += error.problems
            return None

    def _blocks(self, body: str, body_line: int) -> list[_Block]:
        lines = body.split("\n")
        if lines[-1] == "":  # the one final newline
            lines.pop()
        marks = [(index, match[1]) for index, line in enumerate(lines) if (match := _ROLE_LINE.match(line))]
        first = next((index for index, line in enumerate(lines) if line.strip()), None)
        if first is None:
            self.found.append(Problem(self.file, body_line, "", "there is no message after the front matter."))
            return []
        if not marks:
            return [_Block("user", "\n".join(lines[first:]), body_line + first, body_line + first)]
        if first != marks[0][0]:
            self.found.append(
                Problem(
                    self.file,
                    body_line + first,
                    "",
                    f"this text belongs to no message: put a role line above it, such as `system:`"
                    f" (the first one, `{marks[0][1]}:`, is on line {body_line + marks[0][0]}).",
                )
            )
        ends = [index for index, _ in marks[1:]] + [len(lines)]
        blocks = []
        for (start, role), end in zip(marks, ends, strict=True):
            block = _block(role, lines[start + 1 : end], body_line + start, last=end == len(lines))
            if not block.content.strip():
                self.found.append(Problem(self.file, block.role_line, "", f"the {role} message is empty."))
            blocks.append(block)
        return blocks

    def _templates(self, matter: FrontMatter, blocks: list[_Block]) -> None:
        images = {name for name, spec in matter.inputs.items() if spec.type == "image"}
        for block in blocks:
            for line, message in template.problems(block.content, matter.inputs, images):
                self.found.append(Problem(self.file, block.first_line + line - 1, "", message))
            for name in images & template.used(block.content) if block.role != "user" else ():
                message = f"the image {name!r} can not stand in the {block.role} message, only in a user message."
                self.found.append(Problem(self.file, block.role_line, "", message))

    def _output(self, document: Document, value: Any) -> Output:
        at: FieldPath = ("output",)
        if value in ("text", "json"):
            return Output(format=value)
        if not isinstance(value, dict):
            self._add(document, at, f"must be `text`, `json` or `{{schema: FILE}}` (it is {value!r}).")
            return Output()
        for key in value:
            if key not in ("schema", "constrain"):
                self._add(document, (*at, key), f"unknown key {key!r}.{nearest(key, ['schema', 'constrain'])}")
        if not isinstance(value.get("constrain", False), bool):
            self._add(document, (*at, "constrain"), f"must be true or false (it is {value['constrain']!r}).")
        if not isinstance(value.get("schema"), str):
            self._add(document, (*at, "schema"), "must name a JSON Schema file in the prompt's folder.")
            return Output()
        file = self._referenced(document, (*at, "schema"), value["schema"])
        if file is None:
            return Output()
        if not isinstance(file.data, dict):
            self._add(file, (), "a JSON Schema must be an object.")
            return Output()
        self._check_schema(file, (), file.data)
        return Output(format="schema", schema=file.data, constrain=value.get("constrain", False))

    def _tools(self, document: Document, names: list[str]) -> tuple[Tool, ...]:
        tools: list[Tool] = []
        for index, name in enumerate(names):
            file = self._referenced(document, ("tools", index), name)
            if file is None:
                continue
            if not isinstance(file.data, dict):
                self._add(file, (), "a tool must be an object: {name, description, parameters}.")
                continue
            try:
                spec = validate(file, ToolFile)
            except InvalidFile as error:
                self.found += error.problems
                continue
            if not _TOOL_NAME.match(spec.name):
                self._add(file, ("name",), "a tool is named with 1 to 64 letters, digits, '_' and '-'.")
            if spec.name in [tool.name for tool in tools]:
                self._add(document, ("tools", index), f"the tool {spec.name!r} stands twice.")
            self._check_schema(file, ("parameters",), spec.parameters)
            tools.append(Tool(spec.name, spec.description, spec.parameters))
        return tuple(tools)

    def _referenced(self, document: Document, path: FieldPath, name: str) -> Document | None:
        """The JSON file `name`, or None after noting why it can not be used."""
        complaint = self.source.complaint(name)
        if complaint is None and not self.source.has(name):
            complaint = f"there is no file {name!r} in the prompt's folder.{self._nearest_file(name)}"
        if complaint:
            self._add(document, path, complaint)
            return None
        label = f"{self.source.label}/{name}"
        try:
            file = parse_json(_text(self.source.read(name), label), label)
        except InvalidFile as error:
            self.found += error.problems
            return None
        problems = [file.problem(at, complaint) for at, complaint in _not_portable(file.data, ())]
        self.found += problems
        return None if problems else file

    def _nearest_file(self, name: str) -> str:
        return nearest(name, [file for file in self.source.files() if file.endswith(".json")])

    def _check_schema(self, file: Document, at: FieldPath, schema: dict[str, Any]) -> None:
        try:
            validator(schema)
        except NotASchema as error:
            self._add(file, (*at, *error.path), f"not a valid JSON Schema: {error}.")

    def _invalid(self) -> InvalidFile:
        return InvalidFile(sorted(dict.fromkeys(self.found), key=lambda problem: (problem.file, problem.line)))

    def _add(self, document: Document, path: FieldPath, message: str) -> None:
        self.found.append(document.problem(path, message))


def _block(role: str, lines: list[str], role_line: int, *, last: bool) -> _Block:
    if not last and lines and not lines[-1].strip():
        lines = lines[:-1]
    return _Block(role, "\n".join(lines), role_line, role_line + 1)  # type: ignore[arg-type]  # the pattern is made of Role


def _names(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob(FILE)):
        parts = path.parent.relative_to(root).parts
        if parts and path.is_file() and not any(part.startswith(".") for part in parts):
            yield "/".join(parts)


def _text(body: bytes, label: str) -> str:
    nul = body.find(b"\0")
    if nul >= 0:
        line = body.count(b"\n", 0, nul) + 1
        raise InvalidFile([Problem(label, line, "", "holds a NUL byte: save the file as UTF-8.")])
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise InvalidFile([Problem(label, line, "", "not valid UTF-8.")]) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _not_portable(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    """Values that RFC 8785 JSON can not carry unchanged."""
    if _portable(value, MAX_DEPTH - len(path)):
        return
    if len(path) > MAX_DEPTH:
        yield path[:8], f"nested more than {MAX_DEPTH} levels deep."
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_portable(key, path)
            yield from _not_portable(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_portable(item, (*path, index))
    elif isinstance(value, str):
        if _SURROGATE.search(value):
            yield path, "holds half of a surrogate pair."
    elif isinstance(value, int) and abs(value) > MAX_WHOLE:
        yield path, f"{value} is beyond ±(2^53 − 1): write it as a string."


def _portable(value: Any, levels: int) -> bool:
    """Whether `_not_portable` has nothing to say: nearly always, and quicker to know."""
    if isinstance(value, str):
        return value.isascii() or not _SURROGATE.search(value)
    if isinstance(value, dict):
        return levels > 0 and all(_portable(key, 1) and _portable(item, levels - 1) for key, item in value.items())
    if isinstance(value, list):
        return levels > 0 and all(_portable(item, levels - 1) for item in value)
    return not isinstance(value, int) or abs(value) <= MAX_WHOLE
