"""
Deterministic checks of one answer, in promptfoo's names and with its meaning.

A probe states a fact about an answer and whether the check's condition holds; `not-NAME` is the same probe with the
opposite wish. So a check's reason is always the fact that was not wanted. Nothing here reads a file or runs user code;
patterns are RE2 (linear time), schemas never fetch anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jsonschema_rs
import re2

from tidegate.core.errors import nearest
from tidegate.core.evaluation import CheckResult
from tidegate.core.usage import estimate_tokens
from tidegate.ports import PromptAnswer

NOT = "not-"
MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether the condition holds, and the fact that says so, as the rest of a sentence about the answer."""

    holds: bool
    fact: str


Probe = Callable[[PromptAnswer], Finding]


@dataclass(frozen=True, slots=True)
class Check:
    """One ready check. `name` is what results carry, `type` what the user wrote (`not-contains`)."""

    name: str
    type: str
    probe: Probe

    def judge(self, answer: PromptAnswer) -> CheckResult:
        finding = self.probe(answer)
        passed = finding.holds != self.type.startswith(NOT)
        return CheckResult(self.name, passed, "" if passed else clip(finding.fact, MAX_REASON))


def build(name: str, type: str, value: Any) -> Check:  # noqa: A002 – the users' word
    """The check `type` with its `value`. Raises ValueError with one sentence when the value does not fit."""
    return Check(name, type, _KINDS[type.removeprefix(NOT)](value))


def known(type: str) -> str | None:  # noqa: A002
    """None when `type` names a check; else what is wrong with it, with the nearest name."""
    if type.removeprefix(NOT) in _KINDS:
        return None
    return f"no check is called {type!r}.{nearest(type, [*_KINDS, *(NOT + kind for kind in _KINDS)])}"


def complaint(type: str, value: Any) -> str | None:  # noqa: A002
    """What is wrong with the check `{type: value}`, as a sentence; None when it is ready."""
    wrong = known(type)
    if wrong:
        return wrong
    try:
        build(type, type, value)
    except ValueError as error:
        return f"{error}."
    return None


def clip(text: str, limit: int) -> str:
    """On one line and at most `limit` characters long, the cut marked by `…`."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


def _quoted(text: str, limit: int = 60) -> str:
    return f"'{clip(text, limit)}'"


def _text(value: Any) -> str:
    """A scalar as JSON would write it, a string as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ValueError("needs a text to look for")


def _is_json(value: Any) -> Probe:
    if value is not None and not isinstance(value, dict | bool):
        raise ValueError("takes a JSON Schema, or the name of its file, or nothing")
    validator = None if value is None else _validator(value)

    def probe(answer: PromptAnswer) -> Finding:
        try:
            document = json.loads(answer.output, parse_constant=_not_json)
        except json.JSONDecodeError as error:
            return Finding(False, _not_json_because(answer.output, error))
        except (ValueError, RecursionError) as error:
            return Finding(False, f"not JSON that can be read: {error}")
        if validator is None:
            return Finding(True, f"is JSON: {_quoted(answer.output)}")
        return _under_schema(validator, document, answer.output)

    return probe


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")


def _not_json_because(output: str, error: json.JSONDecodeError) -> str:
    if not output.strip():
        return "not JSON: the answer is empty"
    place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
    if error.pos == 0:
        return f"not JSON at {place}: starts with {_quoted(output, 40)}"
    return f"not JSON at {place}: {error.msg.lower()}, near {_quoted(output[error.pos :], 40)}"


def _validator(schema: dict[str, Any] | bool) -> Any:
    def retrieve(uri: str) -> NoReturn:
        raise ValueError(f"schemas are not fetched from {uri}")

    try:
        return jsonschema_rs.validator_for(schema, retriever=retrieve)
    except jsonschema_rs.ValidationError as error:
        path = _json_path(error.instance_path)
        raise ValueError(f"not a valid JSON Schema at {path}: {clip(error.message, 200)}") from error


def _under_schema(validator: Any, document: Any, output: str) -> Finding:
    errors = list(validator.iter_errors(document))
    if not errors:
        return Finding(True, f"is JSON that fits the schema: {_quoted(output)}")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    path = _json_path(errors[0].instance_path)
    return Finding(False, f"JSON, but {path} breaks the schema: {clip(errors[0].message, 160)}{more}")


def _json_path(path: list[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _contains(value: Any) -> Probe:
    wanted = _text(value)
    if not wanted:
        raise ValueError("an empty text is in every answer; say what to look for")

    def probe(answer: PromptAnswer) -> Finding:
        at = answer.output.find(wanted)
        if at < 0:
            return Finding(False, f"does not contain {_quoted(wanted)}: {_quoted(answer.output)}")
        return Finding(True, f"contains {_quoted(wanted)} at character {at + 1}")

    return probe


def _regex(value: Any) -> Probe:
    pattern = _text(value)
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        detail = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ValueError(f"not a pattern RE2 can use: {detail}") from error

    def probe(answer: PromptAnswer) -> Finding:
        match = compiled.search(answer.output)
        if match is None:
            return Finding(False, f"nothing in it matches /{clip(pattern, 80)}/: {_quoted(answer.output)}")
        return Finding(True, f"{_quoted(match.group())} matches /{clip(pattern, 80)}/")

    return probe


def _equals(value: Any) -> Probe:
    if isinstance(value, dict | list):
        return _equals_json(value)
    wanted = _text(value)

    def probe(answer: PromptAnswer) -> Finding:
        if answer.output == wanted:
            return Finding(True, f"equals {_quoted(wanted)}")
        if answer.output.split() == wanted.split():
            return Finding(False, f"differs from {_quoted(wanted)} in white space alone")
        return Finding(False, f"is {_quoted(answer.output)}, not {_quoted(wanted)}")

    return probe


def _equals_json(wanted: dict[str, Any] | list[Any]) -> Probe:
    shown = json.dumps(wanted, ensure_ascii=False)

    def probe(answer: PromptAnswer) -> Finding:
        try:
            same = _same(json.loads(answer.output, parse_constant=_not_json), wanted)
        except (ValueError, RecursionError):
            return Finding(False, f"is not JSON, so it does not equal {_quoted(shown)}: {_quoted(answer.output)}")
        if same:
            return Finding(True, f"equals {_quoted(shown)}")
        return Finding(False, f"is {_quoted(answer.output)}, not {_quoted(shown)}")

    return probe


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0, but true does not equal 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _output_tokens(value: Any) -> Probe:
    if not isinstance(value, dict) or not value:
        raise ValueError("takes {max: N}, {min: N} or both")
    for key, bound in value.items():
        if key not in ("max", "min"):
            raise ValueError(f"takes max and min, not {key!r}.{nearest(key, ['max', 'min'])}")
        if not isinstance(bound, int) or isinstance(bound, bool) or bound < 0:
            raise ValueError(f"{key} is a whole number of tokens, 0 or more, not {bound!r}")
    least, most = value.get("min", 0), value.get("max")
    if most is not None and least > most:
        raise ValueError(f"min {least} is above max {most}")

    def probe(answer: PromptAnswer) -> Finding:
        counted = answer.output_tokens
        tokens = estimate_tokens(len(answer.output)) if counted is None else counted
        said = f"is {'about ' if counted is None else ''}{tokens} tokens long"
        if most is not None and tokens > most:
            return Finding(False, f"{said}, over the {most} allowed")
        if tokens < least:
            return Finding(False, f"{said}, under the {least} asked for")
        return Finding(True, f"{said}, within {least} to {'any' if most is None else most}")

    return probe


_KINDS: Mapping[str, Callable[[Any], Probe]] = {
    "is-json": _is_json,
    "contains": _contains,
    "regex": _regex,
    "equals": _equals,
    "output-tokens": _output_tokens,
}
