"""
promptfoo's assertions → checks of the same meaning.

Those without a check of their own here are said by others (`contains-any` is a pattern of alternatives) or left out.
An assertion that runs code is refused. Templates in values are filled in per case, since the cases are known.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.core.errors import InvalidFile
from tidegate.prompts.importing import fields, jinja
from tidegate.prompts.importing.outcome import Spot
from tidegate.prompts.importing.reading import Given, Outside, parse

Complaint = Callable[[Any], str | None]
"""What is wrong with a check as a suite spells it, in sentences; None when it is ready."""

TYPES = (
    *("equals", "contains", "icontains", "contains-all", "contains-any", "icontains-all", "icontains-any", "regex"),
    *("starts-with", "is-json", "contains-json", "is-xml", "contains-xml", "is-html", "contains-html", "is-sql"),
    *("contains-sql", "is-refusal", "is-valid-function-call", "is-valid-openai-function-call"),
    *("is-valid-openai-tools-call", "tool-call-f1", "finish-reason", "word-count", "levenshtein", "rouge-n", "bleu"),
    *("gleu", "meteor", "cost", "latency", "perplexity", "perplexity-score", "javascript", "python", "ruby"),
    *("webhook", "guardrails", "skill-used", "trace-span-count", "trace-span-duration", "trace-error-spans"),
    *("trajectory:tool-used", "trajectory:tool-args-match", "trajectory:tool-sequence", "trajectory:step-count"),
)
MODEL_ASSISTED = (
    *("similar", "similar:cosine", "similar:dot", "similar:euclidean", "classifier", "moderation", "llm-rubric"),
    *("search-rubric", "g-eval", "factuality", "model-graded-factuality", "model-graded-closedqa"),
    *("answer-relevance", "context-faithfulness", "context-recall", "context-relevance", "conversation-relevance"),
    *("trajectory:goal-success", "pi"),
)
_COMPARE = ("select-best", "max-score", "human")
_CODE = ("javascript", "python", "ruby", "webhook")
_KEYS = {
    **dict.fromkeys(("type", "value", "assert", "$ref"), ""),
    "metric": "a check's result carries the check's own name.",
    "weight": "a case passes when every check passes: checks have no weight.",
    "threshold": "this check passes or fails: it has no threshold.",
    "provider": "no model judges this check.",
    "rubricPrompt": "no model judges this check.",
    "config": "this check has no configuration here.",
    "contextTransform": "runs code: it finds the context in an answer.",
    "transform": "runs code: the check judges another text than the answer.",
}
_WRITTEN = re.compile(
    rf"(not-)?({'|'.join(re.escape(name) for name in (*TYPES, *MODEL_ASSISTED))})(?:\((\d+(?:\.\d+)?)\))?(?::(.*))?\Z",
    re.DOTALL,
)
_PROGRAM = re.compile(r"\.(?:[cm]?[jt]s|py|rb)(?::[\w.]+)?\Z")
_FILL = jinja.filler("nunjucks")


def from_text(text: str) -> dict[str, Any]:
    """An assertion as a table spells it: `contains:refund`, `similar(0.8):…`; a bare text is equality."""
    for prefix, kind in (("javascript:", "javascript"), ("fn:", "javascript"), ("eval:", "javascript")):
        if text.startswith(prefix):
            return {"type": kind, "value": text.removeprefix(prefix)}
    for prefix, kind in (("grade:", "llm-rubric"), ("python:", "python")):
        if text.startswith(prefix):
            return {"type": kind, "value": text.removeprefix(prefix)}
    if text.startswith("file://") and _PROGRAM.search(text):
        return {"type": "python" if ".py" in text else "javascript", "value": text}
    written = _WRITTEN.match(text)
    if written is None:
        return {"type": "equals", "value": text}
    made: dict[str, Any] = {"type": (written[1] or "") + written[2]}
    if written[4] is not None:
        made["value"] = written[4]
    if written[3] is not None:
        made["threshold"] = float(written[3])
    return made


class Assertions:
    """Reads assertions, one at a time."""

    def __init__(self, given: Given, templates: Spot, check: Complaint) -> None:
        self.given = given
        self.templates = templates
        self.check = check

    def constant(self, spot: Spot) -> bool:
        """Whether an assertion is the same for every case."""
        spot = self._resolved(spot)
        listed = (spot / "assert").value
        inner = [spot / "assert" / index for index in range(len(listed) if isinstance(listed, list) else 0)]
        return all(map(self.constant, inner)) if inner else not _templated(self._value(spot))

    def read(self, spot: Spot, variables: Mapping[str, Any]) -> list[Any]:
        """The checks that say the same, as eval.yaml spells them; what can not be said becomes an item."""
        spot = self._resolved(spot)
        value = spot.value
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str):
            spot.left_out("an assertion is a mapping with a `type`.")
            return []
        if kind == "assert-set":
            return self._set(spot, variables)
        if self._set_aside(spot, kind):
            return []
        fields.unknown(spot, {**_KEYS, **({"weight": ""} if value.get("weight") == 1 else {})})
        try:
            return self._ready(_said(kind, self._filled(spot, variables)))
        except Outside as error:
            spot.refused(f"`{kind}`: {error}")
        except ValueError as error:
            spot.left_out(f"`{kind}`: {error}")
        return []

    def _set_aside(self, spot: Spot, kind: str) -> bool:
        """Whether an assertion is left out as a whole; the reason is an item then."""
        base = kind.removeprefix("not-")
        if why := _unsupported(base):
            (spot.refused if base in _CODE else spot.left_out)(f"`{kind}`: {why}")
        elif (spot / "transform").value is not None:
            (spot / "transform").refused(f"{_KEYS['transform']} `{kind}` is left out with it.")
        elif _made_by_program((spot / "value").value):
            (spot / "value").refused(f"runs code: a program makes the value of `{kind}`, which is left out with it.")
        elif (spot / "weight").value == 0:
            spot.left_out(f"`{kind}` has the weight 0: it never fails, and there is no such check here.")
        else:
            return False
        return True

    def _ready(self, checks: Iterator[Any]) -> list[Any]:
        """Raises ValueError when one of them can not be built."""
        ready = list(checks)
        for check in ready:
            if complaint := self.check(check):
                raise ValueError(complaint)
        return ready

    def _set(self, spot: Spot, variables: Mapping[str, Any]) -> list[Any]:
        inner = (spot / "assert").value
        threshold = (spot / "threshold").value
        if not isinstance(inner, list):
            (spot / "assert").left_out("must be a list.")
            return []
        if threshold not in (None, 1) and len(inner) > 1:
            spot.left_out(
                f"a set of {len(inner)} assertions of which a part is enough (threshold {threshold}):"
                " here every check has to pass."
            )
            return []
        if (spot / "weight").value == 0:
            spot.left_out("the set has the weight 0: it is measured and never fails, and there is no such check here.")
            return []
        fields.unknown(spot, {**_KEYS, "threshold": ""})
        return [check for index in range(len(inner)) for check in self.read(spot / "assert" / index, variables)]

    def _resolved(self, spot: Spot) -> Spot:
        """The template that `$ref: '#/assertionTemplates/name'` means."""
        reference = spot.value.get("$ref") if isinstance(spot.value, dict) else None
        if not isinstance(reference, str):
            return spot
        name = reference.removeprefix("#/assertionTemplates/")
        found = self.templates / name
        return found if isinstance(found.value, dict) and "$ref" not in found.value else spot

    def _value(self, spot: Spot) -> Any:
        return spot.value.get("value") if isinstance(spot.value, dict) else None

    def _filled(self, spot: Spot, variables: Mapping[str, Any]) -> Any:
        """The value with its file read and its templates filled in. Raises ValueError with one sentence."""
        value = self._value(spot)
        if isinstance(value, list):
            return [self._text(one, variables) for one in value]
        return self._text(value, variables)

    def _text(self, value: Any, variables: Mapping[str, Any]) -> Any:
        if not isinstance(value, str):
            return value
        if value.startswith("file://"):
            return self._file(value.removeprefix("file://"))
        return _FILL(value, variables) if _templated(value) else value

    def _file(self, name: str) -> Any:
        path = self.given.beside(name)[0]
        try:
            text = self.given.read(path)
            return parse(text, path).data if path.suffix.lower() in (".json", ".yaml", ".yml") else text.strip()
        except InvalidFile as error:
            raise ValueError(f"{name!r} can not be read: {error.problems[0].message}") from error


def _made_by_program(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    texts = [one for one in values if isinstance(one, str)]
    return any(one.startswith("package:") or (one.startswith("file://") and _PROGRAM.search(one)) for one in texts)


def _unsupported(base: str) -> str | None:
    if base in _CODE:
        return "runs code, or calls an address, to judge an answer."
    if base in MODEL_ASSISTED:
        return "a model judges it, which is not supported yet."
    if base in _COMPARE:
        return "it compares answers, or asks a person; a check here sees one answer."
    if base in _SAY:
        return None
    if base in TYPES:
        return "not supported yet."
    return "no assertion of this name is known."


def _said(kind: str, value: Any) -> Iterator[Any]:
    """Raises ValueError with one sentence when it can not be said here."""
    base = kind.removeprefix("not-")
    yield from _SAY[base](value, "not-" if kind != base else "")


def _equals(value: Any, no: str) -> Iterator[Any]:
    if isinstance(value, dict | list) and _templated(value):
        raise ValueError("its value holds what looks like a template.")
    yield {f"{no}equals": value if isinstance(value, dict | list) else jinja.literal(_plain(value))}


def _contains(value: Any, no: str) -> Iterator[Any]:
    yield {f"{no}contains": jinja.literal(_plain(value))}


def _icontains(value: Any, no: str) -> Iterator[Any]:
    yield {f"{no}regex": f"(?i){_pattern(_plain(value))}"}


def _starts_with(value: Any, no: str) -> Iterator[Any]:
    yield {f"{no}regex": f"^{_pattern(_plain(value))}"}


def _contains_all(value: Any, no: str) -> Iterator[Any]:
    wanted = _several(value)
    if no and len(wanted) > 1:
        raise ValueError("that not all of several texts are there can not be said here.")
    yield from ({f"{no}contains": jinja.literal(one)} for one in wanted)


def _icontains_all(value: Any, no: str) -> Iterator[Any]:
    wanted = _several(value)
    if no and len(wanted) > 1:
        raise ValueError("that not all of several texts are there can not be said here.")
    yield from ({f"{no}regex": f"(?i){_pattern(one)}"} for one in wanted)


def _contains_any(value: Any, no: str) -> Iterator[Any]:
    yield {f"{no}regex": "|".join(map(_pattern, _several(value)))}


def _icontains_any(value: Any, no: str) -> Iterator[Any]:
    yield {f"{no}regex": f"(?i)(?:{'|'.join(map(_pattern, _several(value)))})"}


def _regex(value: Any, no: str) -> Iterator[Any]:
    pattern = re.sub(r"\\u([0-9a-fA-F]{4})", r"\\x{\1}", _plain(value))
    if _templated(pattern):
        raise ValueError("the pattern holds what looks like a template.")
    yield {f"{no}regex": pattern}


def _is_json(value: Any, no: str) -> Iterator[Any]:
    if isinstance(value, str) and value.strip():
        try:
            value = parse(value, _INLINE).data
        except InvalidFile as error:
            raise ValueError(f"its schema can not be read: {error.problems[0].message}") from error
    if value in (None, ""):
        yield f"{no}is-json"
        return
    if isinstance(value, dict) and "$schema" not in value:
        value = {"$schema": "http://json-schema.org/draft-07/schema#", **value}
    if _templated(value):
        raise ValueError("its schema holds what looks like a template.")
    yield {f"{no}is-json": value}


_INLINE = Path("schema")
"""What problems of a schema inside an assertion are reported under; the assertion's own place is shown."""


def _pattern(text: str) -> str:
    """A pattern of RE2 that matches exactly `text`."""
    return re.sub(r"[^\w\s]", lambda found: f"\\{found[0]}" if found[0].isascii() else found[0], text, flags=re.ASCII)


def _plain(value: Any) -> str:
    """A value as JavaScript writes it into a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ValueError("needs a text.")


def _several(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        value = next(csv.reader([value], skipinitialspace=True), [])
        value = [one.strip() for one in value]
    if not isinstance(value, list) or not value:
        raise ValueError("needs a list of texts.")
    texts = [_plain(one) for one in value]
    if "" in texts:
        raise ValueError("an empty text is in every answer.")
    return texts


def _templated(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_templated, value.values()))
    if isinstance(value, list):
        return any(map(_templated, value))
    return isinstance(value, str) and bool(re.search(r"\{[{%#]", value)) and not value.startswith("file://")


_SAY: Mapping[str, Callable[[Any, str], Iterator[Any]]] = {
    "equals": _equals,
    "contains": _contains,
    "icontains": _icontains,
    "starts-with": _starts_with,
    "contains-all": _contains_all,
    "contains-any": _contains_any,
    "icontains-all": _icontains_all,
    "icontains-any": _icontains_any,
    "regex": _regex,
    "is-json": _is_json,
}
