"""
Prompty files (`.prompty`): version 2, and what is left of version 1.

References are resolved without ever reading the environment: `${env:NAME}` is reported, and stands for nothing or for
its own default; `${file:PATH}` is read where PATH stays beside the prompt. What `connection` (v1: `configuration`)
holds is never looked at: credentials and addresses belong into tidegate.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.core.artifact import Tool
from tidegate.core.document import Document
from tidegate.core.errors import BadInput, InvalidFile, Problem
from tidegate.core.place import Path
from tidegate.prompts.importing import fields, handlebars, jinja
from tidegate.prompts.importing.outcome import Draft, Item, Items, Kind, Outcome, Spot
from tidegate.prompts.importing.reading import Given, parse

_PARAMS = {
    "temperature": "temperature",
    "maxOutputTokens": "max_output_tokens",
    "topP": "top_p",
    "frequencyPenalty": "frequency_penalty",
    "presencePenalty": "presence_penalty",
    "seed": "seed",
    "stopSequences": "stop",
}
_V1_PARAMS = {
    "temperature": "temperature",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop": "stop",
}
_WHY_NOT = {
    "topK": "not every provider knows it, so a prompt has no `top_k` here.",
    "allowMultipleToolCalls": "whether tools are called in parallel is decided per call here.",
    "additionalProperties": "options of one provider have no place in a prompt here.",
    **dict.fromkeys(("tools", "response_format"), ""),  # read on their own
}
_CONNECTION = "addresses and credentials stand in tidegate.yaml, under `providers`; nothing of this was read."
_KEYS = {
    **dict.fromkeys(("name", "description", "model", "inputs", "outputs", "tools", "template", "sample"), ""),
    "displayName": "a prompt is called by its folder's name here.",
    "metadata": "a prompt has no free metadata here.",
    "authors": "git knows the authors.",
    "tags": "a prompt has no tags here.",
    "version": "the registry numbers versions by their content.",
    "base": "a prompt is one file here: write what it inherits into it.",
}
_STRICT = "whether a provider is asked to keep to a schema is not a property's to say here."
_ABOUT = dict.fromkeys(("name", "kind", "type", "description", "required", "example"), "")
_CARRIED = dict.fromkeys(("enumValues", "enum", "items", "properties"), "")
_KINDS = {
    "string": "string",
    "integer": "integer",
    "float": "number",
    "number": "number",
    "boolean": "boolean",
    "array": "array",
    "object": "object",
}
_JSON_TYPES = {
    "string": "string",
    "number": "number",
    "boolean": "boolean",
    "list": "array",
    "object": "object",
}
_ROLE = re.compile(r"#?[ \t]*(system|user|assistant)(\[[^\]]*\])?[ \t]*:\Z", re.IGNORECASE)
"""A role line, less the white space around it."""
_REFERENCE = re.compile(r"\$\{(\w+):([^}]*)\}\Z")
_SECRET_PARTS = ("connection", "configuration")


def name_of(given: Given) -> str:
    """What the prompt is called when nobody says: `name:`, else the file's own name."""
    front = _split(given).front
    named = front.data.get("name") if isinstance(front.data, dict) else None
    return fields.slug(named if isinstance(named, str) else given.path.name.removesuffix(".prompty"))


def read(given: Given, *, model: str | None) -> Outcome:
    """
    Args:
        model: takes the place of the file's own.
    Raises: BadInput when no model is named; InvalidFile with the line of what is wrong.
    """
    parts, items = _split(given), Items()
    front = Document(
        parts.front.file, _Resolved(given, parts.front, items).value((), parts.front.data), parts.front.lines
    )
    top = Spot(front, items)
    fields.unknown(top, _KEYS)
    draft = Draft("", _model(top / "model", model), [])
    draft.description = fields.description(top / "description")
    _options(top / "model", draft)
    schemas = _inputs(top / "inputs", draft)
    _outputs(top / "outputs", draft)
    for tool in _listed(top / "tools"):
        _tool(tool, draft)
    _samples(top, draft)
    _Messages(parts.front.file, draft, schemas, items).read(parts, _engine(top / "template"))
    return Outcome((draft,), items.in_order())


@dataclass(frozen=True, slots=True)
class _Parts:
    """A file's front matter, text, and the line the text begins on."""

    front: Document
    body: str
    body_line: int


def _split(given: Given) -> _Parts:
    text, file = given.text(), str(given.path)
    skipped = len(text) - len(text.lstrip())
    lines = text[skipped:].split("\n")
    first = text.count("\n", 0, skipped) + 1
    if lines[0].rstrip() not in ("---", "+++"):
        if lines[0].startswith(("---", "+++")):
            raise InvalidFile([Problem(file, first, "", f"`{lines[0][:3]}` stands alone on its line.")])
        return _Parts(Document(file, {}, {}), text, 1)
    for index, line in enumerate(lines[1:], start=1):
        if line.rstrip() in ("---", "+++"):
            front = parse("\n".join(lines[1:index]) + "\n", given.path, first_line=first + 1)
            if front.data is not None and not isinstance(front.data, dict):
                raise InvalidFile([front.problem((), "the front matter must be `key: value` lines.")])
            return _Parts(front, "\n".join(lines[index + 1 :]), first + index + 1)
    raise InvalidFile([Problem(file, first, "", f"the front matter has no closing line `{lines[0].rstrip()}`.")])


class _Resolved:
    """Front matter with its references resolved, or reported and gone."""

    def __init__(self, given: Given, document: Document, items: Items) -> None:
        self.given = given
        self.document = document
        self.items = items

    def value(self, path: Path, value: Any) -> Any:
        if path and path[-1] in _SECRET_PARTS:
            return value
        if isinstance(value, dict):
            return {key: self.value((*path, key), item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value((*path, index), item) for index, item in enumerate(value)]
        found = _REFERENCE.match(value) if isinstance(value, str) else None
        if found is None:
            if isinstance(value, str) and re.search(r"\$\{(?:env|file):", value):
                self._spot(path).left_out(
                    "a reference in the middle of a text is not resolved; the text stands as it is."
                )
            return value
        if found[1].lower() == "env":
            return self._environment(path, found[2])
        return self._file(path, found[2]) if found[1].lower() == "file" else value

    def _environment(self, path: Path, reference: str) -> Any:
        name, _, default = reference.partition(":")
        if not default:
            self._spot(path).left_out(f"the environment ({name}) is not read: a prompt is the same everywhere.")
            return None
        self._spot(path).changed(f"the environment ({name}) is not read: its default {default!r} stands here now.")
        return default

    def _file(self, path: Path, reference: str) -> Any:
        try:
            file = self.given.beside(reference)[0]
        except ValueError as error:
            fields.not_read(self._spot(path), error)
            return None
        text = self.given.read(file)
        return parse(text, file).data if file.suffix.lower() in (".json", ".yaml", ".yml") else text

    def _spot(self, path: Path) -> Spot:
        return Spot(self.document, self.items, path)


def _model(spot: Spot, given: str | None) -> str:
    value = spot.value
    named = value if isinstance(value, str) else (spot / "id").value
    configuration = (spot / "configuration").value
    configuration = configuration if isinstance(configuration, dict) else {}
    provider = (spot / "provider").value
    if not isinstance(value, str) and named is None and configuration:  # version 1
        named = next(
            (configuration[key] for key in ("azure_deployment", "name", "model") if configuration.get(key)), None
        )
        provider = {"azure_openai": "azure", "azure": "azure", "openai": "openai"}.get(str(configuration.get("type")))
    _only_chat(spot)
    if isinstance(named, str) and not named.startswith("${") and given is None:
        name = f"{provider}/{named}" if isinstance(provider, str) and provider else named
        if complaint := fields.model(name):
            raise spot.invalid(complaint)
        if "/" not in name:
            spot.changed(f"no provider is named, so {name!r} is read as the name of a route.")
        return name
    if given is None:
        raise BadInput(f"{spot.document.file} names no model, and a prompt here needs one: add --model provider/model.")
    if complaint := fields.model(given):
        raise BadInput(f"--model: {complaint}")
    return given


def _only_chat(spot: Spot) -> None:
    for key in ("apiType", "api"):
        kind = (spot / key).value
        if kind == "responses":
            (spot / key).changed("the messages are what a prompt is here, whichever interface they are sent by.")
        elif kind not in (None, "chat"):
            raise (spot / key).invalid(f"{kind!r} is not a chat: only chats are prompts here.")


def _options(spot: Spot, draft: Draft) -> None:
    if not isinstance(spot.value, dict):
        return
    carried = dict.fromkeys(("id", "provider", "apiType", "api", "options", "parameters"), "")
    fields.unknown(spot, {**carried, **dict.fromkeys(_SECRET_PARTS, _CONNECTION)})
    draft.params = fields.params(spot / "options", _PARAMS, {**_WHY_NOT, "tools": "tools stand beside `model`."})
    version_1 = spot / "parameters"
    draft.params |= fields.params(version_1, _V1_PARAMS, _WHY_NOT)
    for tool in _listed(version_1 / "tools"):
        _function(tool, draft)
    response = version_1 / "response_format"
    if response.value == {"type": "json_object"}:
        draft.output = "json"
    elif response.value is not None and response.value != {"type": "text"}:
        _response_schema(response, draft)


def _response_schema(spot: Spot, draft: Draft) -> None:
    schema = (spot / "json_schema" / "schema").value
    if complaint := fields.schema_complaint(schema):
        spot.left_out(complaint)
    else:
        draft.output = schema


def _function(spot: Spot, draft: Draft) -> None:
    """A tool as OpenAI's chat API spells it."""
    function = spot / "function"
    if (spot / "type").value != "function" or not isinstance(function.value, dict):
        spot.left_out("a tool is a function here.")
        return
    fields.unknown(function, {**dict.fromkeys(("name", "description", "parameters"), ""), "strict": _STRICT})
    name, about = fields.text((function / "name").value), fields.text((function / "description").value)
    fields.add_tool(spot, Tool(name, about, (function / "parameters").value or {}), draft.tools)


def _properties(spot: Spot) -> Iterator[tuple[str, Spot]]:
    """Inputs, outputs and parameters: a list of `{name, …}`, a mapping, or either under `properties`."""
    inner = (spot / "properties").value if isinstance(spot.value, dict) else None
    if isinstance(inner, list) or (isinstance(inner, dict) and "kind" not in inner and "default" not in inner):
        spot = spot / "properties"
    if isinstance(spot.value, dict):
        yield from ((name, spot / name) for name in spot.value)
    for one in _listed(spot) if isinstance(spot.value, list) else ():
        name = (one / "name").value
        if isinstance(name, str):
            yield name, one
        else:
            one.left_out("it has no name.")


def _listed(spot: Spot) -> list[Spot]:
    if isinstance(spot.value, list):
        return [spot / index for index in range(len(spot.value))]
    if isinstance(spot.value, dict):  # by name
        return [spot / name for name in spot.value]
    if spot.value is not None:
        spot.left_out("must be a list.")
    return []


def _schema(spot: Spot, reasons: Mapping[str, str]) -> dict[str, Any]:
    """The JSON Schema of one property."""
    value = spot.value
    if not isinstance(value, dict):
        return {"type": _JSON_TYPES[fields.type_of(value)]} if value is not None else {}
    fields.unknown(
        spot, {**dict.fromkeys(("name", "kind", "type", "description", "required", "example"), ""), **reasons}
    )
    kind = value.get("kind", value.get("type"))
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    schema: dict[str, Any] = {"type": known} if known else {}
    if kind is not None and not known:
        (spot / "kind").left_out(f"{str(kind)[:40]!r} is not a type of JSON.")
    if fields.text(value.get("description")):
        schema["description"] = fields.text(value["description"])
    for key in ("enumValues", "enum"):
        if isinstance(value.get(key), list):
            schema["enum"] = value[key]
    if isinstance(value.get("items"), dict):
        schema["items"] = _schema(spot / "items", reasons)
    if value.get("properties"):
        schema |= _object(spot, reasons)
    return schema


def _object(spot: Spot, reasons: Mapping[str, str]) -> dict[str, Any]:
    made = {name: (one, _schema(one, reasons)) for name, one in _properties(spot)}
    schema: dict[str, Any] = {"type": "object", "properties": {name: one for name, (_, one) in made.items()}}
    required = [name for name, (one, _) in made.items() if isinstance(one.value, dict) and one.value.get("required")]
    return {**schema, "required": required} if required else schema


def _inputs(spot: Spot, draft: Draft) -> dict[str, dict[str, Any]]:
    """Fills the draft's inputs from the declaration, and gives the JSON Schema of each."""
    schemas: dict[str, dict[str, Any]] = {}
    for name, one in _properties(spot):
        value = one.value
        kind = value.get("kind", value.get("type")) if isinstance(value, dict) else None
        if complaint := fields.input_name(name):
            one.left_out(complaint)
        elif kind == "thread":
            one.changed("a client sends a conversation as messages of its own here: they come after the prompt's.")
        elif kind in ("file", "audio"):
            one.left_out(f"an input of the kind {kind!r} can not be sent here.")
        else:
            draft.inputs[name], schemas[name] = _input(one, str(kind))
    return schemas


def _input(spot: Spot, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    value = spot.value
    if not isinstance(value, dict):  # the shorthand: a default
        kind = fields.type_of(value)
        spec: dict[str, Any] = {"type": kind, "required": False}
        return fields.with_default(spot, spec, value), {"type": _JSON_TYPES[kind]}
    required = value.get("required") is True
    if kind == "image":
        fields.unknown(spot, _ABOUT)
        about = fields.text(value.get("description"))
        spec = {"type": "image", "description": about, "required": required}
        return {key: item for key, item in spec.items() if item not in ("", True)}, {"type": "string"}
    why_not = {"default": "", "sample": "", "strict": "every value is inert here: it can never open a message."}
    schema = _schema(spot, {**_CARRIED, **why_not})
    default = {"default": value["default"]} if "default" in value else {}
    return fields.input_from_schema(spot, {**schema, **default}, required=required), schema


def _outputs(spot: Spot, draft: Draft) -> None:
    if not spot.value:
        return
    schema = {**_object(spot, {**_CARRIED, "default": "an answer has no defaults.", "strict": _STRICT})}
    if complaint := fields.schema_complaint(schema):
        spot.left_out(complaint)
    else:
        draft.output = schema


def _tool(spot: Spot, draft: Draft) -> None:
    if not isinstance(spot.value, dict):
        spot.left_out("a tool is a mapping.")
        return
    kind, name = (spot / "kind").value, (spot / "name").value
    if kind != "function":
        what = (
            "it starts or calls another program"
            if kind in ("mcp", "openapi", "prompty")
            else "only your program knows it"
        )
        spot.refused(f"a tool of the kind {str(kind)[:40]!r}: {what}; describe its functions in files under tools/.")
        return
    carried = dict.fromkeys(("kind", "name", "description", "parameters"), "")
    bound = "values your program adds to a call; the model is not shown these parameters."
    fields.unknown(spot, {**carried, "strict": _STRICT, "bindings": bound})
    parameters = spot / "parameters"
    schema = _object(parameters, {**_CARRIED, "default": "", "strict": _STRICT}) if parameters.value else {}
    bindings = (spot / "bindings").value
    for hidden in bindings if isinstance(bindings, dict) else ():
        schema.get("properties", {}).pop(hidden, None)
        if hidden in schema.get("required", []):
            schema["required"].remove(hidden)
    name = fields.text(name) or (str(spot.path[-1]) if isinstance(spot.path[-1], str) else "")
    fields.add_tool(spot, Tool(name, fields.text((spot / "description").value), schema), draft.tools)


def _samples(top: Spot, draft: Draft) -> None:
    """Examples of inputs, kept as a case that nothing checks yet."""
    given: dict[str, tuple[Spot, Any]] = {}
    for name, one in _properties(top / "inputs"):
        for key in ("example", "sample"):
            if isinstance(one.value, dict) and one.value.get(key) is not None:
                given[name] = (one / key, one.value[key])
    if isinstance((top / "sample").value, dict):
        given |= {name: (top / "sample" / name, value) for name, value in (top / "sample").value.items()}
    elif (top / "sample").value is not None:
        (top / "sample").left_out("a sample is a mapping of inputs.")
    if not draft.inputs:  # version 1 declared its inputs by its sample
        for name, (spot, value) in given.items():
            if complaint := fields.input_name(name):
                spot.left_out(complaint)
            else:
                draft.inputs[name] = {"type": fields.type_of(value), "required": False}
    inputs = {name: value for name, (spot, value) in given.items() if _fits(spot, draft.inputs.get(name), value)}
    if inputs:
        draft.cases.append({"id": "sample", "inputs": inputs})


def _fits(spot: Spot, spec: dict[str, Any] | None, value: Any) -> bool:
    if spec is None:
        spot.left_out("no such input is declared.")
        return False
    return "default" in fields.with_default(spot, {"type": spec["type"], **_values(spec)}, value)


def _values(spec: dict[str, Any]) -> dict[str, Any]:
    return {"values": spec["values"]} if "values" in spec else {}


def _engine(spot: Spot) -> str:
    value = spot.value
    if isinstance(value, dict):
        form, parser = value.get("format", value.get("type", "jinja2")), value.get("parser", "prompty")
        if (parser.get("kind") if isinstance(parser, dict) else parser) != "prompty":
            raise (spot / "parser").invalid("only the parser `prompty` is known here.")
        value = form.get("kind", "jinja2") if isinstance(form, dict) else form
    if value not in (None, "jinja2", "mustache"):
        raise spot.invalid(f"{str(value)[:40]!r} is not a template language known here: jinja2 or mustache.")
    return value or "jinja2"


class _Messages:
    """Fills a draft's messages from the text below the front matter."""

    def __init__(self, file: str, draft: Draft, schemas: dict[str, dict[str, Any]], items: Items) -> None:
        self.file = file
        self.draft = draft
        self.schemas = schemas
        self.items = items
        self.fatal: list[Problem] = []

    def read(self, parts: _Parts, engine: str) -> None:
        for block in _blocks(parts):
            if block.marked:
                self.add("left out", block.marked, "a message has no attributes here.")
            if not block.text.strip():
                self.add("left out", block.line, f"the {block.role} message is empty.")
                continue
            content = self.mustache(block) if engine == "mustache" else self.jinja(block)
            self.draft.messages.append(fields.message(fields.ROLES[block.role], content))
        if self.fatal:
            raise InvalidFile(self.fatal)
        if not self.draft.messages:
            raise InvalidFile([Problem(self.file, parts.body_line, "", "there is no message after the front matter.")])

    def add(self, kind: Kind, line: int, reason: str) -> None:
        self.items.add(Item(kind, self.file, line, "", reason))

    def jinja(self, block: _Block) -> str:
        types = {name: jinja.Type(spec["type"]) for name, spec in self.draft.inputs.items()}
        translated = jinja.translate(block.text, "jinja2", types=types)
        for line, why in translated.fatal:
            self.fatal.append(Problem(self.file, block.line + line - 1, "", why))
        for line, why in translated.omitted:
            self.add("left out", block.line + line - 1, why)
        for line, why in translated.changed:
            self.add("changed", block.line + line - 1, why)
        for name in sorted(translated.variables):
            kinds = {"list": translated.iterated, "object": translated.opened}
            self.declare(name, next((kind for kind, names in kinds.items() if name in names), "string"))
        return translated.text

    def mustache(self, block: _Block) -> str:
        inputs = self.draft.inputs
        translated = handlebars.translate(
            block.text,
            file=self.file,
            first_line=block.line,
            schemas=self.schemas,
            optional=frozenset(name for name, spec in inputs.items() if spec.get("required") is False),
            mustache=True,
        )
        for found in translated.found:
            self.add(*found)
        for name, uses in translated.uses.items():
            self.declare(name, next((use for use in ("list", "object", "boolean") if use in uses), "string"))
        return "".join(part.text for part in translated.parts)

    def declare(self, name: str, kind: str) -> None:
        """An input that only the template knows."""
        self.draft.inputs.setdefault(name, {"type": kind, "required": False})


@dataclass(frozen=True, slots=True)
class _Block:
    """One message's text, its first line, and the line of a role mark with attributes or 0."""

    role: str
    text: str
    line: int
    marked: int


def _blocks(parts: _Parts) -> Iterator[_Block]:
    role, line, marked = "", parts.body_line, 0
    kept: list[str] = []
    for number, text in enumerate([*parts.body.split("\n"), ""], start=parts.body_line):
        last = number == parts.body_line + parts.body.count("\n") + 1
        mark = _ROLE.match(text.strip(" \t"))
        if mark is None and not last:
            kept.append(text)
            continue
        blank = next((index for index, one in enumerate(kept) if one.strip()), None)
        if role or blank is not None:  # text above the first mark is the system's
            yield _Block(role or "system", fields.without_blank_ends("\n".join(kept)), line + (blank or 0), marked)
        if mark is not None:
            role, line, marked = mark[1].lower(), number + 1, number if mark[2] else 0
            kept = []
