"""
promptfoo's assertions → the checks of the same name.

An assertion that runs code is refused; one that a model judges, or that looks at the spans of a trace, is left out.
Templates in values are filled in per case, since the cases are known.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.core.errors import InvalidFile
from tidegate.prompts.importing import fields, jinja
from tidegate.prompts.importing.outcome import Spot
from tidegate.prompts.importing.promptfoo_judges import JUDGINGS, NEAREST, Judged
from tidegate.prompts.importing.promptfoo_models import grader
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
_SPANS = ("skill-used", "trace-span-count", "trace-span-duration", "trace-error-spans")
_CALLS = ("is-valid-function-call", "is-valid-openai-function-call", "is-valid-openai-tools-call")
_LIMITS = ("cost", "latency", "perplexity", "perplexity-score")
"""Whose threshold is all that they say."""
_THRESHOLD = (*_LIMITS, "tool-call-f1", "levenshtein", "rouge-n", "bleu", "gleu", "meteor")
_THRESHOLD_IN_TABLE = (
    *(*_LIMITS, "levenshtein", "rouge-n", "similar", "classifier", "answer-relevance"),
    *("context-faithfulness", "context-recall", "context-relevance"),
)
"""Whose threshold promptfoo takes from a cell such as `rouge-n(0.6):…`, and sets to 0.75 where the cell has none."""
_NOT_OF_TEXT = (
    *(*_CALLS, *_LIMITS, "tool-call-f1", "finish-reason", "is-refusal", "guardrails"),
    *(type_ for type_ in TYPES if type_.startswith("trajectory:")),
)
_NEVER_INVERTED = ("levenshtein", "finish-reason", "guardrails", *_CALLS)
"""Whose `not-` form is the same as the type itself in promptfoo."""
_KEYS = {
    **dict.fromkeys(("type", "value", "assert", "$ref"), ""),
    "metric": "a check's result carries the check's own name.",
    "threshold": "this check passes or fails: it has no threshold.",
    "provider": "no model judges this check.",
    "rubricPrompt": "no model judges this check.",
    "config": "this check has no configuration here.",
    "contextTransform": "runs code: it finds the context in an answer.",
    "transform": "runs code: the check judges another text than the answer.",
    "(threshold)": "promptfoo takes no threshold for this type from a table: the type's own holds.",
}
_WRITTEN = re.compile(
    rf"(not-)?({'|'.join(re.escape(name) for name in (*TYPES, *MODEL_ASSISTED))})(?:\((\d+(?:\.\d+)?)\))?(?::(.*))?\Z",
    re.DOTALL,
)
_IN_A_SET = "a set holds checks, and no judges."
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
        made["value"] = written[4].strip() if written[2] not in ("is-json", "contains-json") else written[4]
    if written[2] in _THRESHOLD_IN_TABLE:
        made["threshold"] = float(written[3] or (0.8 if written[2] == "similar" else 0.75))
    elif written[3] is not None:
        made["(threshold)"] = float(written[3])
    return made


@dataclass(frozen=True, slots=True)
class Grading:
    """How a test has its answers judged by a model."""

    model: str | None
    """Where an assertion names none itself; None when nothing does."""
    instead: str | None = None
    """Judges whatever is named."""
    barred: str | None = None
    """Why no judge of ours can say the same here, as a sentence."""


def of_text(check: Any) -> list[str]:
    """The types of a check, and of those in its set, that judge the text of an answer."""
    types = [check] if isinstance(check, str) else list(check)
    inner = check.get("assert-set", []) if isinstance(check, dict) else []
    named = [type_ for type_ in types if type_.removeprefix("not-") in TYPES]
    return [type_ for type_ in named if type_.removeprefix("not-") not in _NOT_OF_TEXT] + [
        type_ for one in inner for type_ in of_text(one)
    ]


class Assertions:
    """Reads assertions, one at a time."""

    def __init__(self, given: Given, templates: Spot, check: Complaint) -> None:
        self.given = given
        self.templates = templates
        self.check = check
        self.missing = 0
        """How many assertions, of all that were read, gave no check."""

    def constant(self, spot: Spot) -> bool:
        """Whether an assertion is the same for every case."""
        spot = self._resolved(spot)
        if str((spot / "type").value).removeprefix("not-") in JUDGINGS:
            return False
        listed = (spot / "assert").value
        inner = [spot / "assert" / index for index in range(len(listed) if isinstance(listed, list) else 0)]
        value = self._value(spot)
        return all(map(self.constant, inner)) if inner else isinstance(value, dict) or not _templated(value)

    def read(self, spot: Spot, variables: Mapping[str, Any], grading: Grading | None = None) -> list[Any]:
        """
        The check that says the same, as eval.yaml spells it, or a Judged; what can not be said becomes an item.

        Args:
            grading: None where no judge can stand.
        """
        made = self._read(self._resolved(spot), variables, grading or Grading(None, barred=_IN_A_SET))
        self.missing += not made
        return made

    def _read(self, spot: Spot, variables: Mapping[str, Any], grading: Grading) -> list[Any]:
        value = spot.value
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str):
            spot.left_out("an assertion is a mapping with a `type`.")
            return []
        if kind == "assert-set":
            return self._set(spot, variables)
        if kind.removeprefix("not-") in JUDGINGS:
            return self._judged(spot, kind, variables, grading)
        if self._set_aside(spot, kind):
            return []
        base = kind.removeprefix("not-")
        known = {"weight": "", **({"threshold": ""} if base in _THRESHOLD else {})}
        fields.unknown(spot, {**_KEYS, **known})
        try:
            made = _said(kind, self._filled(spot, variables), _options(spot, ("weight", *known)))
            if complaint := self.check(made):
                raise ValueError(complaint)
            if base != kind and base in _NEVER_INVERTED:
                spot.changed(f"promptfoo takes no heed of `not-` before `{base}`; here it is the opposite.")
            return [made]
        except Outside as error:
            spot.refused(f"`{kind}`: {error}")
        except ValueError as error:
            spot.left_out(f"`{kind}`: {error}")
        return []

    def _judged(self, spot: Spot, kind: str, variables: Mapping[str, Any], grading: Grading) -> list[Any]:
        """The judgement that means nearly the same."""
        context, threshold = variables.get("context"), (spot / "threshold").value
        model = grading.instead or grader(spot / "provider") or grading.model or ""
        try:
            value = self._filled(spot, variables)
            why = grading.barred or next(_no_judge(spot, kind, value, context, model), None)
        except ValueError as error:
            value, why = None, str(error)
        if why:
            spot.left_out(f"`{kind}`: {why}")
            return []
        judging = JUDGINGS[kind]
        pass_at = (0 if threshold is None else threshold) if judging.context else None
        lost = "" if judging.context or threshold is None else " It says pass or fail, so its `threshold` is gone."
        spot.changed(f"becomes the judge {kind!r}, which decides nothing until it is calibrated.{lost}")
        return [Judged(kind, model, value if judging.needs else None, pass_at, context if judging.context else None)]

    def _set_aside(self, spot: Spot, kind: str) -> bool:
        """Whether an assertion is left out as a whole; the reason is an item then."""
        base = kind.removeprefix("not-")
        if why := _unsupported(base):
            (spot.refused if base in _CODE else spot.left_out)(f"`{kind}`: {why}")
        elif (spot / "transform").value is not None:
            (spot / "transform").refused(f"{_KEYS['transform']} `{kind}` is left out with it.")
        elif _made_by_program((spot / "value").value):
            (spot / "value").refused(f"runs code: a program makes the value of `{kind}`, which is left out with it.")
        else:
            return False
        return True

    def _set(self, spot: Spot, variables: Mapping[str, Any]) -> list[Any]:
        inner = (spot / "assert").value
        if not isinstance(inner, list):
            (spot / "assert").left_out("must be a list.")
            return []
        fields.unknown(spot, {**_KEYS, "threshold": "", "weight": ""})
        checks = [check for index in range(len(inner)) for check in self.read(spot / "assert" / index, variables)]
        options = _options(spot, ("threshold", "weight"))
        if len(checks) < len(inner) and "threshold" in options:
            spot.left_out("a part of these assertions was to be enough, and not all of them could be taken over.")
            return []
        return [{"assert-set": checks, **options}] if checks else []

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


def _no_judge(spot: Spot, kind: str, value: Any, context: Any, model: str) -> Iterator[str]:
    """Why an assertion becomes no judge."""
    judging = JUDGINGS.get(kind)
    if judging is None:
        yield "a judge has no `not-` form: write the opposite as a rubric."
        return
    if (spot / "weight").value == 0:
        yield "a judge that passes or fails has no weight of 0 here."
    for key in ("rubricPrompt", "transform", "contextTransform"):
        if (spot / key).value is not None:
            yield f"its `{key}` is not carried over: write the judge yourself."
    if judging.needs and not _is_text(value):
        yield "needs a text as its value."
    if (threshold := (spot / "threshold").value) is not None and not _is_share(threshold):
        yield "its threshold is not a score from 0 to 1."
    if judging.context and not _is_text(context):
        yield "needs a variable `context` that is a text."
    if not model:
        yield "a model judges it: name one with --judge-model provider/model."


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _made_by_program(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    texts = [one for one in values if isinstance(one, str)]
    return any(one.startswith("package:") or (one.startswith("file://") and _PROGRAM.search(one)) for one in texts)


def _unsupported(base: str) -> str | None:
    if base in _CODE:
        return "runs code, or calls an address, to judge an answer."
    if base in MODEL_ASSISTED:
        return f"a model judges it as none does here; write {NEAREST.get(base, 'a judge for it')}."
    if base in _COMPARE:
        return "it compares answers, or asks a person; a check here sees one answer."
    if base in _SPANS:
        return "it looks at the spans of a trace, which are not recorded here."
    return None if base in TYPES else "no assertion of this name is known."


def _options(spot: Spot, names: Sequence[str]) -> dict[str, Any]:
    """What stands beside an assertion's type, where it says more than its absence."""
    given = {name: (spot / name).value for name in names}
    return {name: value for name, value in given.items() if value is not None and (name, value) != ("weight", 1)}


def _said(kind: str, value: Any, options: Mapping[str, Any]) -> Any:
    """Raises ValueError with one sentence when it can not be said here."""
    base = kind.removeprefix("not-")
    value = _SAY.get(base, _literal)(value)
    if base in _LIMITS and "threshold" in options:
        value, options = options["threshold"], {key: one for key, one in options.items() if key != "threshold"}
    if base == "levenshtein" and isinstance(options.get("threshold"), float):
        options = {**options, "threshold": math.floor(options["threshold"])}
    return kind if value is None and not options else {kind: value, **options}


def _literal(value: Any) -> Any:
    """The value with what looks like a template in it standing for itself."""
    if isinstance(value, dict):
        return {key: _literal(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_literal(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return jinja.literal(value) if isinstance(value, str) else value


def _regex(value: Any) -> str:
    pattern = re.sub(r"\\u([0-9a-fA-F]{4})", r"\\x{\1}", _plain(value))
    if _templated(pattern):
        raise ValueError("the pattern holds what looks like a template.")
    return pattern


def _schema(value: Any) -> Any:
    if isinstance(value, str) and value.strip():
        try:
            value = parse(value, _INLINE).data
        except InvalidFile as error:
            raise ValueError(f"its schema can not be read: {error.problems[0].message}") from error
    if value in (None, ""):
        return None
    if isinstance(value, dict) and "$schema" not in value:
        value = {"$schema": "http://json-schema.org/draft-07/schema#", **value}
    if _templated(value):
        raise ValueError("its schema holds what looks like a template.")
    return value


_INLINE = Path("schema")
"""What problems of a schema inside an assertion are reported under; the assertion's own place is shown."""


def _plain(value: Any) -> str:
    """A value as JavaScript writes it into a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ValueError("needs a text.")


def _templated(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_templated, value.values()))
    if isinstance(value, list):
        return any(map(_templated, value))
    return isinstance(value, str) and bool(re.search(r"\{[{%#]", value)) and not value.startswith("file://")


def _text_or_none(value: Any) -> Any:
    return None if value == "" else _literal(value)


_SAY: Mapping[str, Callable[[Any], Any]] = {
    "equals": lambda value: _literal(value if isinstance(value, dict | list) else _plain(value)),
    "contains": lambda value: _literal(_plain(value)),
    "icontains": lambda value: _literal(_plain(value)),
    "regex": _regex,
    "is-json": _schema,
    "contains-json": _schema,
    **dict.fromkeys(("is-html", "contains-html", "is-refusal", "guardrails"), lambda _: None),
    **dict.fromkeys(_CALLS, lambda _: None),
    **dict.fromkeys(("is-xml", "contains-xml", "is-sql", "contains-sql"), _text_or_none),
    **dict.fromkeys(_LIMITS, lambda _: None),
}
"""How a type's value is said here, where that is not simply as it stands."""
