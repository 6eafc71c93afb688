"""
Dotprompt files (`.prompt`): YAML front matter, Picoschema, and a Handlebars template with `{{role}}` marks.

Broken front matter is an error, never a part of the template. Roles are found in the template, before anything is
filled in; white space around each message is dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tidegate.core.artifact import Tool
from tidegate.core.document import Document
from tidegate.core.errors import BadInput, InvalidFile, Problem
from tidegate.prompts.importing import fields, handlebars
from tidegate.prompts.importing.outcome import Draft, Item, Items, Kind, Outcome, Spot
from tidegate.prompts.importing.picoschema import to_json_schema
from tidegate.prompts.importing.reading import Given, parse

_PARAMS = {
    "temperature": "temperature",
    "topP": "top_p",
    "maxOutputTokens": "max_output_tokens",
    "stopSequences": "stop",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
_WHY_NOT = {
    "topK": "not every provider knows it, so a prompt has no `top_k` here.",
    "apiKey": "credentials stand in tidegate.yaml, not in a prompt.",
}
_KEYS = {
    **dict.fromkeys(("model", "config", "input", "output", "tools", "toolDefs", "description"), ""),
    "name": "",  # it names the folder, see `name_of`
    "variant": "variants are prompts of their own here, or versions of one.",
    "version": "the registry numbers versions by their content.",
    "metadata": "a prompt has no free metadata here.",
    "ext": "a prompt has no extensions here.",
    "raw": "a prompt has no free fields here.",
}
_TOOL_KEYS = {
    **dict.fromkeys(("name", "description", "inputSchema"), ""),
    "outputSchema": "a tool's result has no schema here.",
}
_SKIPPED = re.compile(r"(?:#[^\n]*|[ \t]*)\n")


def name_of(given: Given) -> str:
    """What the prompt is called when nobody says: `name:`, else the file's own name."""
    document = _split(given).front
    named = document.data.get("name") if isinstance(document.data, dict) else None
    return fields.slug(named if isinstance(named, str) else given.path.name.removesuffix(".prompt"))


def read(given: Given, *, model: str | None) -> Outcome:
    """
    Args:
        model: takes the place of the file's own.
    Raises: BadInput when no model is named; InvalidFile with the line of what is wrong.
    """
    parts = _split(given)
    items = Items()
    top = Spot(parts.front, items)
    if top.value is not None and not isinstance(top.value, dict):
        raise top.invalid("the front matter must be `key: value` lines.")
    extensions = {key: "an extension of another program has no place here." for key in top.value or {} if "." in key}
    fields.unknown(top, {**_KEYS, **extensions})
    draft = Draft("", _model(top / "model", model), [], comments=parts.comments)
    draft.description = fields.description(top / "description")
    draft.params = fields.params(top / "config", _PARAMS, _WHY_NOT)
    draft.output = _output(top / "output")
    _tools(top, draft)
    schemas = _inputs(top / "input", draft)
    _messages(parts, schemas, draft, items)
    return Outcome((draft,), items.in_order())


@dataclass(frozen=True, slots=True)
class _Parts:
    """A file's licence lines, front matter, text, and the line the text begins on."""

    comments: tuple[str, ...]
    front: Document
    body: str
    body_line: int


def _split(given: Given) -> _Parts:
    text, file = given.text(), str(given.path)
    at = 0
    while skipped := _SKIPPED.match(text, at):
        at = skipped.end()
    if not re.match(r"---[ \t]*(?:\n|\Z)", text[at:]):
        return _Parts((), Document(file, None, {}), text, 1)
    comments = tuple(line for line in text[:at].split("\n") if line.startswith("#"))
    first = text.count("\n", 0, at) + 1
    lines = text[at:].split("\n")
    for index, line in enumerate(lines[1:], start=1):
        if line.rstrip() == "---":
            front = parse("\n".join(lines[1:index]) + "\n", given.path, first_line=first + 1)
            return _Parts(comments, front, "\n".join(lines[index + 1 :]), first + index + 1)
    raise InvalidFile([Problem(file, first, "", "the front matter has no closing line `---`.")])


def _model(spot: Spot, given: str | None) -> str:
    name = spot.value if given is None else given
    if name is None:
        raise BadInput(f"{spot.document.file} names no model, and a prompt here needs one: add --model provider/model.")
    if not isinstance(name, str):
        raise spot.invalid("a model is named by a text, such as `googleai/gemini-2.5-flash`.")
    if complaint := fields.model(name):
        raise spot.invalid(complaint)
    return name


def _output(spot: Spot) -> Any:
    if spot.value is None:
        return "text"
    if not isinstance(spot.value, dict):
        spot.left_out("must be a mapping of `format` and `schema`.")
        return "text"
    fields.unknown(spot, {"format": "", "schema": ""})
    form, schema = (spot / "format").value, spot / "schema"
    if form not in (None, "json", "text"):
        (spot / "format").left_out(f"{form!r} is not a format here: text, json or a schema.")
    if schema.value is None:
        return "json" if form == "json" else "text"
    if form not in (None, "json"):
        schema.left_out("a schema is for JSON alone here.")
        return "text"
    return _schema(schema) or "json"


def _schema(spot: Spot) -> dict[str, Any] | None:
    try:
        schema = to_json_schema(spot.value)
    except ValueError as error:
        spot.left_out(str(error))
        return None
    if complaint := fields.schema_complaint(schema):
        spot.left_out(complaint)
        return None
    return schema


def _tools(top: Spot, draft: Draft) -> None:
    for spot in _each(top / "toolDefs"):
        if not isinstance(spot.value, dict):
            spot.left_out("a tool is a mapping of name, description and inputSchema.")
            continue
        fields.unknown(spot, _TOOL_KEYS)
        given = spot / "inputSchema"
        schema = {} if given.value is None else _schema(given)
        if schema is not None:
            name, about = fields.text((spot / "name").value), fields.text((spot / "description").value)
            fields.add_tool(spot, Tool(name, about, schema), draft.tools)
    for spot in _each(top / "tools"):
        if spot.value not in [tool.name for tool in draft.tools]:
            name = str(spot.value)[:80]
            spot.left_out(f"{name!r} is a tool that only your program knows: describe it in a file under tools/.")


def _each(spot: Spot) -> list[Spot]:
    if isinstance(spot.value, list):
        return [spot / index for index in range(len(spot.value))]
    return [] if spot.value is None else [spot]


def _inputs(spot: Spot, draft: Draft) -> dict[str, dict[str, Any]]:
    """Fills the draft's inputs from the declaration, and gives the JSON Schema of each."""
    if spot.value is None:
        return {}
    if not isinstance(spot.value, dict):
        spot.left_out("must be a mapping of `schema` and `default`.")
        return {}
    fields.unknown(spot, {"schema": "", "default": ""})
    given = spot / "schema"
    schema = (_schema(given) if given.value is not None else None) or {}
    if schema.get("additionalProperties") not in (None, False):
        given.left_out("inputs beyond the declared ones are refused here.")
    schemas: dict[str, dict[str, Any]] = {}
    for name, one in schema.get("properties", {}).items():
        at = _declaration(given, name)
        if complaint := fields.input_name(name):
            at.left_out(complaint)
            continue
        schemas[name] = one if isinstance(one, dict) else {}
        required = name in schema.get("required", [])
        draft.inputs[name] = fields.input_from_schema(at, schemas[name], required=required)
    _defaults(spot / "default", draft)
    return schemas


def _declaration(schema: Spot, name: str) -> Spot:
    """Where `name` is declared: Picoschema spells it `name`, `name?` or `name(array, …)`."""
    if isinstance((schema / "properties").value, dict):
        return schema / "properties" / name
    keys = schema.value if isinstance(schema.value, dict) else ()
    spelt = (key for key in keys if key.partition("(")[0].removesuffix("?") == name)
    return schema / next(spelt, name)


def _defaults(spot: Spot, draft: Draft) -> None:
    if spot.value is not None and not isinstance(spot.value, dict):
        spot.left_out("defaults are a mapping of inputs.")
    for name, value in spot.value.items() if isinstance(spot.value, dict) else ():
        if complaint := fields.input_name(name):
            (spot / name).left_out(complaint)
        else:
            spec = draft.inputs.get(name, {"type": fields.type_of(value)})
            draft.inputs[name] = fields.with_default(spot / name, spec, value)


def _messages(parts: _Parts, schemas: dict[str, dict[str, Any]], draft: Draft, items: Items) -> None:
    file = parts.front.file

    def add(kind: Kind, line: int, reason: str) -> None:
        items.add(Item(kind, file, line, "", reason))

    lead = parts.body[: len(parts.body) - len(parts.body.lstrip())]
    translated = handlebars.translate(
        parts.body.strip(),
        file=file,
        first_line=parts.body_line + lead.count("\n"),
        schemas=schemas,
        optional=frozenset(name for name, spec in draft.inputs.items() if spec.get("required") is False),
    )
    for found in translated.found:
        add(*found)
    role, history = "user", 0
    for part in translated.parts:
        if part.kind != "text":
            role = part.text or "model"
            history = part.line if part.kind == "history" else history
        elif part.text.strip() and role not in fields.ROLES:
            add("left out", part.line, f"the {role} message: only system, user and model speak in a prompt here.")
        elif part.text.strip():
            if history:
                add("changed", history, "`{{history}}`: a client's own messages come after all of the prompt's here.")
                history = 0
            draft.messages.append(fields.message(fields.ROLES[role], part.text.strip()))
    if not draft.messages:
        raise InvalidFile([Problem(file, parts.body_line, "", "there is no message in the template.")])
    for name, uses in translated.uses.items():
        _used(draft, name, uses)


def _used(draft: Draft, name: str, uses: set[str]) -> None:
    """Declares an input that only the template knows, or knows to be an image."""
    if "image" in uses:
        about = {key: value for key, value in draft.inputs.get(name, {}).items() if key in ("description", "required")}
        draft.inputs[name] = {"type": "image", **about}
    elif name not in draft.inputs:
        kind = next(use for use in ("list", "object", "boolean", "string") if use in uses)
        draft.inputs[name] = {"type": kind, "required": False}
