"""
What `tidegate lint` finds under prompts/: everything that keeps a prompt from being read, and what is worth a look.

One walk finds the prompts and the files that belong to each; links are reported, and never walked through.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tidegate.config import Config
from tidegate.core.artifact import Tool
from tidegate.core.document import Document, parse_json
from tidegate.core.errors import InvalidFile, nearest
from tidegate.core.notice import Notice, from_problem
from tidegate.core.place import Path as FieldPath
from tidegate.core.place import dotted
from tidegate.core.secrets import find_secrets
from tidegate.core.usage import estimate_tokens
from tidegate.prompts import template
from tidegate.prompts.files import FILE, JUDGES, RESERVED, PromptFile, is_name, load_prompt, shelf
from tidegate.prompts.source import leads_out, read_regular
from tidegate.upstream.lint import lint_model

LARGE_BYTES = 32 << 10
_SCANNED_BYTES = 8 << 20
_SUITE = "eval.yaml"
_ALMOST_A_ROLE = re.compile(r"(system|developer|user|assistant)[ \t]*:[ \t]*", re.IGNORECASE)
_SEPARATORS = str.maketrans("._", "--")

Files = Mapping[str, list[str]]
"""Prompt → the regular files of its folder, and of folders below it that are no prompts, as seen from prompts/."""


def survey(root: Path) -> tuple[Files, list[Notice]]:
    """Walks `root` (`<project>/prompts`): the prompts it holds, and what is wrong with how they are laid out."""
    if leads_out(root.parent, root.name):
        return {}, [_error(root.name, "link", "is a link that leads out of the project.")]
    found: dict[str, list[str]] = {}
    notices: list[Notice] = []
    todo: list[tuple[str, list[str]]] = [("", [])]
    while todo and root.exists():
        name, files = todo.pop()
        entries = _entries(root, name, notices)
        if any(entry.name == FILE for entry in entries):
            files = found[name] = []
        elif any(entry.name == _SUITE for entry in entries):
            near = nearest(FILE, [entry.name for entry in entries if entry.name.endswith(".md")])
            message = f"there is no {FILE} beside it, so nothing is evaluated.{near}"
            notices.append(_error(_label(root, f"{name}/{_SUITE}".lstrip("/")), "no-prompt", message))
        for entry in entries:
            below = f"{name}/{entry.name}".lstrip("/")
            if entry.is_symlink():
                notices += _link(root, below)
            elif entry.is_dir():
                todo.append((below, files))
            elif entry.is_file():
                files.append(below)
    if found.pop("", None):
        message = "a prompt stands in a folder of its own, such as prompts/support/answer/."
        notices.append(_error(_label(root, FILE), "bad-name", message))
    notices += _names(root, list(found))
    usable = [name for name in sorted(found) if is_name(name) and not name.startswith(f"{JUDGES}/")]
    return {name: found[name] for name in usable}, notices


def lint_prompt(
    root: Path, name: str, files: Iterable[str], config: Config | None
) -> tuple[PromptFile | None, list[Notice]]:
    """
    The prompt, when it can be read, and all that is to be said about it.

    Args:
        files: those that `survey` found for it; they are searched for secrets.
        config: the project's, to know its models by; None when it can not be read.
    """
    notices: list[Notice] = []
    prompt = None
    try:
        prompt = load_prompt(root, name)
    except InvalidFile as error:
        notices += [from_problem(problem, "invalid-prompt") for problem in error.problems]
    else:
        notices += _about(prompt, config)
    top, _ = shelf(root, name)
    return prompt, [*notices, *lint_secrets({f"{top.name}/{file}": f"{top}/{file}" for file in files})]


def lint_secrets(files: Mapping[str, str]) -> Iterator[Notice]:
    """The keys that files (name → path) hold, by line and kind; never the key."""
    texts = {name: _text(path) for name, path in files.items()}
    if next(find_secrets("\n".join(texts.values())), None) is None:
        return
    for name, text in texts.items():
        for secret in find_secrets(text):
            line = text.count("\n", 0, secret.start) + 1
            message = f"holds what looks like {secret.kind}. Take it out and renew it: who has the file has the key."
            yield Notice("warning", name, line, "", "secret", message)


def _text(path: str) -> str:
    try:
        return (read_regular(path, _SCANNED_BYTES) or b"").decode("utf-8", "replace")
    except OSError:
        return ""  # whoever needs the file says so


def _entries(root: Path, name: str, notices: list[Notice]) -> list[os.DirEntry[str]]:
    """What a folder holds, hidden things left out, by name; nothing, and a notice, when it can not be read."""
    try:
        with os.scandir(root / name) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        notices.append(_error(_label(root, name), "unreadable", f"can not be read: {error.strerror}."))
        return []
    return sorted(entries, key=lambda entry: entry.name)


def _about(prompt: PromptFile, config: Config | None) -> Iterator[Notice]:
    front, artifact = prompt.front, prompt.artifact
    if not prompt.description.strip():
        yield _warning(front, ("description",), "no-description", "is missing: say in one line what the prompt is for.")
    yield from lint_model(front, ("model",), artifact.model, config)
    for index, model in enumerate(artifact.fallbacks):
        yield from lint_model(front, ("fallbacks", index), model, config)
    used = {name for message in artifact.messages for name in template.used(message.content)}
    for name in artifact.inputs:
        if name not in used:
            yield _warning(front, ("inputs", name), "unused-input", "no message uses this input.")
    yield from _almost_roles(prompt)
    for index, tool in enumerate(artifact.tools):
        yield from _tool(prompt, front.data["tools"][index], tool)
    if artifact.output.constrain and (loose := _loose(artifact.output.schema, ())):
        message = f"providers that constrain need `additionalProperties: false` and every property required ({loose})."
        yield _warning(front, ("output", "constrain"), "loose-schema", message)
    size = len(prompt.source.encode())
    if size > LARGE_BYTES:
        tokens = estimate_tokens(len(prompt.source))
        message = f"is {size >> 10:,} KiB, some {tokens:,} tokens (estimated) in every call before any input."
        yield Notice("warning", front.file, 0, "", "oversize", message)


def _almost_roles(prompt: PromptFile) -> Iterator[Notice]:
    """Lines meant to open the one message of a role, that are text of the message above: all that a user says, too."""
    written = {message.role for message in prompt.artifact.messages}
    for number, line in enumerate(prompt.source.split("\n"), 1):
        match = _ALMOST_A_ROLE.fullmatch(line.rstrip())
        if match and (role := match[1].lower()) not in written:
            message = f"{line.strip()!r} opens no message, and is text of the one above. Write `{role}:` to open one."
            yield Notice("warning", prompt.front.file, number, "", "role-line", message)


def _tool(prompt: PromptFile, name: str, tool: Tool) -> Iterator[Notice]:
    silent = [at for at, schema in _properties(tool.parameters, ("parameters",)) if not _described(schema)]
    if tool.description.strip() and not silent:
        return
    label = prompt.front.file.removesuffix(FILE) + name
    document = parse_json((prompt.folder / name).read_text("utf-8-sig"), label)
    if not tool.description.strip():
        message = f"is missing: the model chooses {tool.name!r} by it."
        yield _warning(document, ("description",), "tool-without-description", message)
    for at in silent:
        message = "has no description: the model fills it in by its name alone."
        yield _warning(document, at, "parameter-without-description", message)


def _properties(schema: Any, at: FieldPath) -> Iterator[tuple[FieldPath, Any]]:
    """Every property that a schema declares, at any depth, with its path."""
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    for name, below in properties.items() if isinstance(properties, dict) else ():
        yield (*at, "properties", name), below
        yield from _properties(below, (*at, "properties", name))
    yield from _properties(schema.get("items"), (*at, "items"))


def _described(schema: Any) -> bool:
    return not isinstance(schema, dict) or "$ref" in schema or bool(str(schema.get("description", "")).strip())


def _loose(schema: Any, at: FieldPath) -> str | None:
    """The first object of a schema that strict structured output does not take, as a path; None without one."""
    if not isinstance(schema, dict):
        return None
    properties = schema.get("properties")
    if isinstance(properties, dict):
        required = schema.get("required")
        if schema.get("additionalProperties") is not False or set(properties) - set(required or ()):
            return dotted(at) or "the top level"
        for name, below in properties.items():
            if loose := _loose(below, (*at, "properties", name)):
                return loose
    return _loose(schema.get("items"), (*at, "items"))


def _names(root: Path, names: list[str]) -> Iterator[Notice]:
    seen: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (not is_name(name), name)):
        file = _label(root, f"{name}/{FILE}")
        if not is_name(name):
            message = "a prompt's folder is named with a-z, 0-9, '.', '_' and '-' only: rename it."
            yield _error(file, "bad-name", message)
        if name.startswith(f"{JUDGES}/"):
            yield _error(file, "bad-name", RESERVED)
        folded = unicodedata.normalize("NFKC", name).casefold()
        first = seen.setdefault(folded.translate(_SEPARATORS), name)
        if first == name:
            continue
        if unicodedata.normalize("NFKC", first).casefold() == folded:
            message = f"the name is {first!r} in other letters: some file systems take both for one folder."
            yield _error(file, "name-collision", message)
        else:
            message = f"the name is easily taken for {first!r}: only '.', '_' and '-' differ."
            yield Notice("warning", file, 0, "", "name-collision", message)


def _link(root: Path, name: str) -> Iterator[Notice]:
    """A link to a folder hides prompts; a link to a file is looked at by whoever reads it."""
    if not (root / name).is_dir():
        return
    if leads_out(root, name):
        yield _error(_label(root, name), "link", f"is a link that leads out of {root.name}/.")
    else:
        message = "is a link to a folder: what it holds is not looked at under this name."
        yield Notice("warning", _label(root, name), 0, "", "link", message)


def _label(root: Path, name: str) -> str:
    return f"{root.name}/{name}".rstrip("/")


def _error(file: str, rule: str, message: str) -> Notice:
    return Notice("error", file, 0, "", rule, message)


def _warning(document: Document, at: FieldPath, rule: str, message: str) -> Notice:
    return Notice("warning", document.file, document.line(at), dotted(at), rule, message)
