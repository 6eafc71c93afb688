"""
promptfoo configurations: prompts × providers become prompts of ours, tests become golden sets and checks.

A prompt here has one model, so each prompt is made once per provider. Templates are read before anything is filled in;
what needs code of the author's (functions, scripts, hooks, transforms) is refused, what needs a network is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tidegate.core.artifact import Role
from tidegate.core.document import Document
from tidegate.core.errors import BadInput, InvalidFile, Problem
from tidegate.prompts.importing import fields, jinja, promptfoo_judges
from tidegate.prompts.importing.outcome import Draft, Item, Items, Outcome, Spot
from tidegate.prompts.importing.promptfoo_checks import Complaint, of_text
from tidegate.prompts.importing.promptfoo_models import Model, models
from tidegate.prompts.importing.promptfoo_tests import Case, Suite, Tests
from tidegate.prompts.importing.reading import Given, parse

CODE = (".js", ".cjs", ".mjs", ".ts", ".cts", ".mts", ".py", ".rb", ".sh", ".exe", ".go")
_TEXT = (".txt", ".md", ".j2", ".json", ".jsonl", ".yaml", ".yml")
_REMOTE = ("langfuse://", "portkey://", "helicone://", "https://", "http://", "package:", "huggingface://")
_KEYS = {
    **dict.fromkeys(("description", "prompts", "providers", "targets", "tests", "scenarios", "defaultTest"), ""),
    **dict.fromkeys(("assertionTemplates", "evaluateOptions", "$schema"), ""),
    "extensions": "runs code: hooks of your program around every test.",
    "nunjucksFilters": "runs code: filters written in JavaScript.",
    "derivedMetrics": "scores computed from other scores have no place here.",
    "outputPath": "reports are asked for when they are made: `tidegate gate --json`.",
    "env": "the environment is not part of a prompt; nothing of this was read.",
    "redteam": "generated attacks have no place here.",
    "tags": "an evaluation has no tags here.",
    "metadata": "an evaluation has no metadata here.",
    "sharing": "nothing is shared with a service.",
    "commandLineOptions": "options of another program's command line.",
}
_OPTIONS = {
    "repeat": "",
    "maxConcurrency": "",
    "cache": "evaluations are never answered from a cache here.",
    "delay": "rates are limited per key and model here, not by waiting.",
    "showProgressBar": "an option of another program's terminal.",
}
_PROMPT_KEYS = {
    **dict.fromkeys(("id", "label", "raw", "config", "file", "prompt"), ""),
    "display": "a prompt is called by its folder's name here.",
    "function": "runs code: a function that makes the prompt.",
}


def name_of(given: Given) -> str:
    """What the prompts are called when nobody says: the file's own name, else its folder's."""
    stem = given.path.name.partition(".")[0]
    return fields.slug(given.path.resolve().parent.name if stem == "promptfooconfig" else stem)


def read(given: Given, *, model: str | None, check: Complaint, judge_model: str | None = None) -> Outcome:
    """
    Args:
        model: takes the place of the providers' models; the parameters of the first provider stay.
        judge_model: takes the place of every model that judges.
        check: says what is wrong with a check, or None (`evals/spec.py`).
    Raises: BadInput when no model is named; InvalidFile when no prompt can be made, with every reason.
    """
    items = Items()
    top = Spot(parse(given.text(), given.path), items)
    if not isinstance(top.value, dict):
        raise top.invalid("a promptfoo configuration is a mapping with `prompts`, `providers` and `tests`.")
    fields.unknown(top, _KEYS)
    sources = [source for spot in _listed(top / "prompts") for source in _Prompts(given, items).read(spot)]
    targets = models(given, top / "targets" if (top / "targets").value is not None else top / "providers", items)
    if model is not None:
        if complaint := fields.model(model):
            raise BadInput(f"--model: {complaint}")
        targets = [(targets[0] if targets else Model("", "", "")).named(model)]
    if judge_model is not None and (complaint := fields.model(judge_model)):
        raise BadInput(f"--judge-model: {complaint}")
    if not targets:
        reason = "names no model that a prompt here can have: add --model provider/model."
        raise BadInput("\n".join([f"{given.path} {reason}", *map(str, items.in_order())]))
    suite = Tests(given, top, check, judge_model).suite()
    names = _names([source.label for source in sources])
    drafts: list[Draft] = []
    for source, name in zip(sources, names, strict=True):
        allowed = [target for target in targets if target.allows(source.label)]
        for target, suffix in zip(allowed, _names([target.title for target in allowed]), strict=True):
            draft = _Maker(source, target, suite, items).draft()
            if draft is not None:
                draft.name = "/".join(part for part in (name, suffix) if part)
                draft.description = fields.description(top / "description")
                _evaluate_options(top / "evaluateOptions", draft)
                drafts.append(draft)
    if not drafts:
        why = (Problem(item.file, item.line, item.field, item.reason) for item in items.in_order())
        raise InvalidFile([top.problem("no prompt of it can be carried over."), *why])
    return Outcome(tuple(drafts), items.in_order(), promptfoo_judges.prompts(drafts))


def _names(labels: Sequence[str]) -> list[str]:
    """A name for each of several, none for a single one."""
    if len(labels) == 1:
        return [""]
    names: list[str] = []
    for index, label in enumerate(labels, start=1):
        name = fields.slug(label) or str(index)
        names.append(name if name not in names else f"{name[:60]}-{index}")
    return names


def _evaluate_options(spot: Spot, draft: Draft) -> None:
    fields.unknown(spot, _OPTIONS, "a prompt's suite has no such option here.")
    for key, most in (("repeat", 100), ("maxConcurrency", 256)):
        value = (spot / key).value
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            (spot / key).left_out(f"must be a whole number of 1 to {most} here.")
        elif key == "repeat":
            draft.repeats = value
        else:
            draft.concurrency = value


def _listed(spot: Spot) -> list[Spot]:
    if isinstance(spot.value, list):
        return [spot / index for index in range(len(spot.value))]
    return [] if spot.value is None else [spot]


@dataclass(frozen=True, slots=True)
class _Source:
    """One prompt as promptfoo has it: text, and where it stands."""

    label: str
    raw: str
    spot: Spot
    """Where it is named, or its file."""
    config: Spot | None = None


class _Prompts:
    """Finds the texts that one entry of `prompts` names."""

    def __init__(self, given: Given, items: Items) -> None:
        self.given = given
        self.items = items

    def read(self, spot: Spot) -> Iterator[_Source]:
        value = spot.value
        if isinstance(value, str):
            yield from self._text(spot, value, "", None)
        elif not isinstance(value, dict):
            spot.left_out("a prompt is a text, the name of a file, or a mapping.")
        elif not {"raw", "id", "file", "prompt", "label", "function"} & value.keys():
            for name in value:  # file: label
                yield from self._text(spot / name, name, fields.text(value[name]), None)
        else:
            fields.unknown(spot, _PROMPT_KEYS)
            label = fields.text(value.get("label"))
            texts = (value.get(key) for key in ("raw", "prompt", "file", "id"))
            text = next((one for one in texts if isinstance(one, str)), None)
            config = spot / "config" if value.get("config") is not None else None
            if text is None:
                spot.left_out("it holds no text and names no file.")
            elif "raw" in value:
                yield _Source(label or _label(spot), text, spot, config)
            else:
                yield from self._text(spot, text, label, config)

    def _text(self, spot: Spot, text: str, label: str, config: Spot | None) -> Iterator[_Source]:
        if text.startswith(("exec:", "python:", "golang:", "ruby:")):
            spot.refused("runs code: a program that makes the prompt.")
        elif text.startswith(_REMOTE):
            spot.left_out("it is kept by another service: nothing is fetched.")
        elif text.startswith("file://") or _is_path(text):
            yield from self._files(spot, text.removeprefix("file://"), label, config)
        else:
            yield _Source(label or _label(spot), text, spot, config)

    def _files(self, spot: Spot, reference: str, label: str, config: Spot | None) -> Iterator[_Source]:
        name = re.sub(r"(\.[cm]?[jt]s|\.py|\.rb):[\w.]+\Z", r"\1", reference)
        if name.lower().endswith(CODE):
            spot.refused(f"runs code: {name!r} is a program that makes the prompt.")
            return
        try:
            paths = self.given.beside(name)
        except ValueError as error:
            fields.not_read(spot, error)
            return
        for path in paths:
            if path.suffix.lower() not in _TEXT:
                spot.left_out(f"prompts in a {path.suffix or 'nameless'} file are not read.")
                continue
            yield from self._file(path, label if len(paths) == 1 else "", config)

    def _file(self, path: Path, label: str, config: Spot | None) -> Iterator[_Source]:
        text = self.given.read(path)
        pieces = [(text, 1)]
        if path.suffix.lower() == ".txt":
            pieces = [(piece.strip(), line) for piece, line in _separated(text) if piece.strip()]
        elif path.suffix.lower() in (".yaml", ".yml"):
            pieces = [(_as_json(text, path), 1)]
        elif path.suffix.lower() == ".jsonl":
            pieces = [(piece, line) for line, piece in enumerate(text.split("\n"), start=1) if piece.strip()]
        for number, (piece, line) in enumerate(pieces, start=1):
            named = label or path.name.partition(".")[0]
            spot = Spot(Document(str(path), None, {(): line}), self.items)
            yield _Source(named if len(pieces) == 1 else f"{named}-{number}", piece, spot, config)


def _as_json(text: str, path: Path) -> str:
    """YAML as promptfoo keeps it; text that is YAML only once it is filled in stays."""
    try:
        return json.dumps(parse(text, path).data, ensure_ascii=False)
    except InvalidFile:
        return text


def _separated(text: str) -> Iterator[tuple[str, int]]:
    """The pieces between lines of `---`, each with its first line."""
    piece: list[str] = []
    begin = 1
    for number, line in enumerate([*text.split("\n"), "---"], start=1):
        if line == "---":
            blank = next((index for index, one in enumerate(piece) if one.strip()), 0)
            yield "\n".join(piece), begin + blank
            piece, begin = [], number + 1
        else:
            piece.append(line)


def _is_path(text: str) -> bool:
    """promptfoo takes a text for a file's name when it looks like one."""
    return bool(re.fullmatch(r"[^\s{}]+\.\w{1,5}", text)) and text.lower().endswith((*_TEXT, *CODE, ".csv"))


def _label(spot: Spot) -> str:
    last = spot.path[-1] if spot.path else 0
    return f"prompt-{last + 1}" if isinstance(last, int) else "prompt-1"


@dataclass(slots=True)
class _Text:
    """One message before its template is read."""

    role: Role
    content: str
    images: set[str] = field(default_factory=set)


class _Maker:
    """Makes one draft of one prompt and one model."""

    def __init__(self, source: _Source, target: Model, suite: Suite, items: Items) -> None:
        self.source = source
        self.target = target
        self.suite = suite
        self.items = items

    def draft(self) -> Draft | None:
        """None when the prompt can not be carried over; the items say why."""
        messages = _chat(self.source)
        if messages is None:
            return None
        cases = [case for case in self.suite.cases if case.concerns(self.source.label, self.target.label)]
        types = _types(cases)
        draft = Draft("", self.target.name, [])
        used: set[str] = set()
        images = {name for text in messages for name in text.images}
        for text in messages:
            translated = jinja.translate(text.content, "nunjucks", types=types)
            if not self._usable(translated):
                return None
            used |= translated.variables
            draft.messages.append(fields.message(text.role, translated.text))
        target = self.target if self.source.config is None else self.target.under(self.source.config)
        draft.params, draft.output, draft.tools = dict(target.params), target.output, list(target.tools)
        for name in sorted(used, key=lambda name: _order(messages, name)):
            draft.inputs[name] = _declared(name, cases)
            if name in images:
                cases = [_with_image(case, name) for case in cases]
                draft.inputs[name] = {**_declared(name, cases), "type": "image"}
        draft.checks, draft.threshold = list(self.suite.checks), self.suite.threshold
        draft.judges, needs = promptfoo_judges.seat(cases, draft.inputs)
        draft.judged = {case.id for case in cases if case.judged}
        for case, needed in zip(cases, needs, strict=True):
            draft.cases.append(case.line(draft.inputs, needed))
        self._unchecked(cases)
        if draft.tools:
            self._calls_as_text(cases)
        return draft

    def _usable(self, translated: jinja.Translated) -> bool:
        spot = self.source.spot
        for line, why in (*translated.fatal, *translated.omitted):
            self._at("left out", line, f"the prompt {self.source.label!r}: {why}")
        for line, why in translated.changed:
            self._at("changed", line, f"the prompt {self.source.label!r}: {why}")
        for name in ("env", "_conversation"):
            if name in translated.variables:
                what = {"env": "the environment is no input of a prompt"}.get(name, "a prompt sees no earlier tests")
                spot.left_out(f"the prompt {self.source.label!r} uses `{name}`: {what}.")
                return False
        return not translated.fatal and not translated.omitted

    def _at(self, kind: Any, line: int, reason: str) -> None:
        """A template in a file of its own is found by its line; one inside the configuration by its entry."""
        spot = self.source.spot
        own = spot.line + line - 1 if not spot.path else spot.line
        self.items.add(Item(kind, spot.document.file, own, spot.problem("").field, reason))

    def _calls_as_text(self, cases: Sequence[Case]) -> None:
        checks = [*self.suite.checks, *(check for case in cases for check in case.checks)]
        types = dict.fromkeys(type_ for check in checks for type_ in of_text(check))
        if types:
            named = ", ".join(f"`{type_}`" for type_ in types)
            why = "an answer that calls tools is its calls as JSON in promptfoo, and its text here"
            self.source.spot.changed(f"the prompt {self.source.label!r} has tools, and {named} to judge texts: {why}.")

    def _unchecked(self, cases: Sequence[Case]) -> None:
        for case in cases:
            if not self.suite.checks and not case.checks and not case.judged:
                case.spot.left_out(
                    "nothing checks this test here: it is kept in unchecked.jsonl, apart from the golden set."
                )


def _chat(source: _Source) -> list[_Text] | None:
    """A prompt's messages: a list in JSON or YAML, or one message of the user."""
    text = source.raw
    begins = text.lstrip()[:1]
    listed = begins in ("[", "{") and not re.match(r"\s*\{[{%#]", text)
    if not listed and not re.match(r"\s*- role:", text):
        if text.strip():
            return [_Text("user", text)]
        source.spot.left_out(f"the prompt {source.label!r} is empty.")
        return None
    try:
        document = parse(text, Path("prompt.json" if listed else "prompt.yaml"))
    except InvalidFile as error:
        why = error.problems[0].message
        source.spot.left_out(f"the prompt {source.label!r} is a list of messages only once it is filled in: {why}")
        return None
    if not isinstance(document.data, list) or not document.data:
        source.spot.left_out(f"the prompt {source.label!r} is no list of messages.")
        return None
    texts = [_one(source, one, index) for index, one in enumerate(document.data, start=1)]
    return [text for text in texts if text] or None


def _one(source: _Source, given: Any, number: int) -> _Text | None:
    where = f"message {number} of the prompt {source.label!r}"
    role = fields.ROLES.get(str(given.get("role"))) if isinstance(given, dict) else None
    if not isinstance(given, dict) or role is None:
        source.spot.left_out(f"{where}: only system, developer, user and assistant speak in a prompt here.")
        return None
    for key in given.keys() - {"role", "content"}:
        source.spot.left_out(f"{where}: `{key}` has no place in a message here.")
    content = given.get("content")
    if isinstance(content, list):
        return _parts(source, role, content, where)
    if not isinstance(content, str) or not content.strip():
        source.spot.left_out(f"{where}: it has no text.")
        return None
    return _Text(role, content)


def _parts(source: _Source, role: Role, parts: list[Any], where: str) -> _Text | None:
    """Text and images of one message; an image is an input of its own."""
    text = _Text(role, "")
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            if text.content and not text.content.endswith("}}"):
                source.spot.changed(f"{where}: its texts are one text here.")
                text.content += "\n"
            text.content += part["text"]
            continue
        image = part.get("image_url") if kind == "image_url" else None
        url = image.get("url") if isinstance(image, dict) else image
        found = re.fullmatch(r"\s*\{\{\s*([A-Za-z_]\w*)\s*\}\}\s*", url) if isinstance(url, str) else None
        if found and role == "user":
            text.images.add(found[1])
            text.content += f"{{{{ {found[1]} }}}}"
        else:
            source.spot.left_out(
                f"{where}: of its parts, only texts and images like `{{{{ name }}}}` of a user carry over."
            )
    return text if text.content.strip() else None


def _with_image(case: Case, name: str) -> Case:
    """The case, without a value that can not be an image."""
    given = case.variables.get(name)
    spec = fields.with_default(case.spot / "vars" / name, {"type": "image"}, given)
    return case if given is None or "default" in spec else replace(case, variables={**case.variables, name: None})


def _order(messages: Sequence[_Text], name: str) -> tuple[int, str]:
    whole = "\n".join(text.content for text in messages)
    found = re.search(rf"\b{re.escape(name)}\b", whole)
    return (found.start() if found else len(whole), name)


def _types(cases: Sequence[Case]) -> dict[str, jinja.Type]:
    """Variables that are of one type wherever they are set, and no texts."""
    found: dict[str, jinja.Type] = {}
    for name in {name for case in cases for name in case.variables}:
        spec = _declared(name, cases)
        if spec["type"] in ("boolean", "list", "object"):
            found[name] = jinja.Type(spec["type"], optional="required" in spec)
    return found


def _declared(name: str, cases: Sequence[Case]) -> dict[str, Any]:
    """An input as the tests use it: missing somewhere means it may be left out."""
    values = [case.variables[name] for case in cases if case.variables.get(name) is not None]
    kinds = {fields.type_of(value) for value in values}
    spec: dict[str, Any] = {"type": kinds.pop() if len(kinds) == 1 else "string"}
    return spec if len(values) == len(cases) else {**spec, "required": False}
