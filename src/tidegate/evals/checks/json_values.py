"""Checks of JSON: the answer is JSON, holds an object, fits a schema, or is what its prompt promises."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from tidegate.core import json_schema
from tidegate.evals.checks.check import Answer, Finding, Kind, Probe, clip, not_json, parse, quoted, unknowable

MAX_SEARCH = 4 << 20
"""Characters looked at, again and again, in search of an object: broken JSON can not make it take for ever."""


def _is_json(value: Any) -> Probe:
    fits = None if value is None else validator(_schema(value))

    def probe(answer: Answer) -> Finding:
        try:
            document = parse(answer.text)
        except json.JSONDecodeError as error:
            return Finding(False, _not_json_because(answer.text, error))
        except (ValueError, RecursionError) as error:
            return Finding(False, f"not JSON that can be read: {error}")
        if fits is None:
            return Finding(True, f"is JSON: {quoted(answer.text)}")
        broken = first_error(fits, document)
        if broken:
            return Finding(False, f"JSON, but {broken}")
        return Finding(True, f"is JSON that fits the schema: {quoted(answer.text)}")

    return probe


def _contains_json(value: Any) -> Probe:
    fits = None if value is None else validator(_schema(value))

    def probe(answer: Answer) -> Finding:
        broken = ""
        for found in _objects(answer.text):
            problem = fits and first_error(fits, found)
            if not problem:
                shown = quoted(json.dumps(found, ensure_ascii=False))
                return Finding(True, f"contains {shown}{', which fits the schema' if fits else ''}")
            broken = broken or problem
        if broken:
            return Finding(False, f"contains JSON, but {broken}")
        return Finding(False, f"contains no JSON object: {quoted(answer.text)}")

    return probe


def _output_valid(value: Any) -> Probe:
    if value is not None:
        raise ValueError("takes nothing: what an answer must be is said in the prompt, under `output`")

    def probe(answer: Answer) -> Finding:
        if answer.artifact is None:
            return unknowable("what the prompt promises is not known here")
        output = answer.artifact.output
        if output.format == "text":
            return Finding(True, "the prompt promises no more than a text")
        return _promised(None if output.schema is None else json.dumps(output.schema))(answer)

    return probe


@lru_cache(maxsize=64)
def _promised(schema: str | None) -> Probe:
    return _is_json(None if schema is None else json.loads(schema))


def validator(schema: dict[str, Any] | bool) -> Any:
    """A validator of JSON Schema, 2020-12 unless `$schema` says otherwise. Raises ValueError."""
    try:
        return json_schema.validator(schema)
    except json_schema.NotASchema as error:
        raise ValueError(f"not a valid JSON Schema at {_path(error.path)}: {clip(str(error), 200)}") from error


def first_error(validator: Any, document: Any) -> str:
    """Where a value breaks a schema; empty when it does not."""
    found = json_schema.flaws(validator, document)
    if not found:
        return ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{_path(found[0].path)} breaks the schema: {clip(found[0].message, 160)}{more}"


def _schema(value: Any) -> dict[str, Any] | bool:
    if not isinstance(value, dict | bool):
        raise ValueError("takes a JSON Schema, or the name of its file, or nothing")
    return value


def _not_json_because(output: str, error: json.JSONDecodeError) -> str:
    if not output.strip():
        return "not JSON: the answer is empty"
    place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
    if error.pos == 0:
        return f"not JSON at {place}: starts with {quoted(output, 40)}"
    return f"not JSON at {place}: {error.msg.lower()}, near {quoted(output[error.pos :], 40)}"


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every outermost JSON object in a text."""
    decoder = json.JSONDecoder(parse_constant=not_json)
    at, left = text.find("{"), MAX_SEARCH
    while at >= 0 and left > 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            left -= max(error.pos - at, 400)
            end = at + 1
        except (ValueError, RecursionError):
            left -= 1_000
            end = at + 1
        else:
            yield found
        at = text.find("{", end)


def _path(path: list[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


KINDS: Mapping[str, Kind] = {
    "is-json": Kind(
        _is_json,
        "The whole answer is JSON; with a JSON Schema (2020-12), or the name of its file, it fits that too.",
        {"is-json": {"type": "object", "required": ["answer"]}},
    ),
    "contains-json": Kind(
        _contains_json,
        "A JSON object stands somewhere in the answer, and fits the schema if one is given.",
        "contains-json",
    ),
    "output-valid": Kind(
        _output_valid,
        "The answer is what its prompt promises under `output`: any JSON, or JSON that fits the prompt's schema.",
        "output-valid",
    ),
}
