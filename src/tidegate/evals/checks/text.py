"""Checks of an answer's wording: equal to, containing, beginning with, matching."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from typing import Any

import re2

from tidegate.evals.checks.check import Answer, Finding, Kind, Probe, as_text, clip, listed, parse, quoted, same


def _equals(value: Any) -> Probe:
    if isinstance(value, dict | list):
        return _equals_json(value)
    wanted = as_text(value)

    def probe(answer: Answer) -> Finding:
        if answer.text == wanted:
            return Finding(True, f"equals {quoted(wanted)}")
        if answer.text.split() == wanted.split():
            return Finding(False, f"differs from {quoted(wanted)} in white space alone")
        return Finding(False, f"is {quoted(answer.text)}, not {quoted(wanted)}")

    return probe


def _equals_json(wanted: dict[str, Any] | list[Any]) -> Probe:
    shown = json.dumps(wanted, ensure_ascii=False)

    def probe(answer: Answer) -> Finding:
        try:
            equal = same(parse(answer.text), wanted)
        except (ValueError, RecursionError):
            return Finding(False, f"is not JSON, so it does not equal {quoted(shown)}: {quoted(answer.text)}")
        if equal:
            return Finding(True, f"equals {quoted(shown)}")
        return Finding(False, f"is {quoted(answer.text)}, not {quoted(shown)}")

    return probe


def _one_of(value: Any) -> Probe:
    wanted = [text.strip() for text in several(value)]

    def probe(answer: Answer) -> Finding:
        if answer.text.strip() in wanted:
            return Finding(True, f"is {quoted(answer.text)}, one of {listed(wanted)}")
        return Finding(False, f"is {quoted(answer.text)}, none of {listed(wanted)}")

    return probe


def _contains(value: Any, *, fold: bool = False) -> Probe:
    wanted = _needle(as_text(value))
    sought = wanted.lower() if fold else wanted

    def probe(answer: Answer) -> Finding:
        at = (answer.text.lower() if fold else answer.text).find(sought)
        if at < 0:
            return Finding(False, f"does not contain {quoted(wanted)}: {quoted(answer.text)}")
        return Finding(True, f"contains {quoted(wanted)} at character {at + 1}")

    return probe


def _contains_all(value: Any, *, fold: bool = False) -> Probe:
    wanted = [_needle(text) for text in several(value)]

    def probe(answer: Answer) -> Finding:
        missing = _split(answer, wanted, fold)[1]
        if missing:
            return Finding(False, f"does not contain {_quotes(missing)}: {quoted(answer.text)}")
        return Finding(True, f"contains all of {_quotes(wanted)}")

    return probe


def _contains_any(value: Any, *, fold: bool = False) -> Probe:
    wanted = [_needle(text) for text in several(value)]

    def probe(answer: Answer) -> Finding:
        found = _split(answer, wanted, fold)[0]
        if found:
            return Finding(True, f"contains {_quotes(found)}")
        return Finding(False, f"contains none of {_quotes(wanted)}: {quoted(answer.text)}")

    return probe


def _starts_with(value: Any) -> Probe:
    wanted = _needle(as_text(value))

    def probe(answer: Answer) -> Finding:
        if answer.text.startswith(wanted):
            return Finding(True, f"starts with {quoted(wanted)}")
        return Finding(False, f"starts with {quoted(answer.text[: max(60, len(wanted))])}, not with {quoted(wanted)}")

    return probe


def _regex(value: Any) -> Probe:
    pattern = as_text(value)
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        detail = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ValueError(f"not a pattern RE2 can use: {detail}") from error

    def probe(answer: Answer) -> Finding:
        match = compiled.search(answer.text)
        if match is None:
            return Finding(False, f"nothing in it matches /{clip(pattern, 80)}/: {quoted(answer.text)}")
        return Finding(True, f"{quoted(match.group())} matches /{clip(pattern, 80)}/")

    return probe


def several(value: Any) -> list[str]:
    """A list of texts, or one text with commas between them, as a CSV line has it. Raises ValueError."""
    if isinstance(value, str):
        value = [text.strip() for text in next(csv.reader([value], skipinitialspace=True), []) if text.strip()]
    if not isinstance(value, list) or not value:
        raise ValueError("needs a list of texts, such as [refund, return]")
    return [as_text(text) for text in value]


def _needle(text: str) -> str:
    if not text:
        raise ValueError("an empty text is in every answer; say what to look for")
    return text


def _split(answer: Answer, wanted: list[str], fold: bool) -> tuple[list[str], list[str]]:
    """Which are there, and which are not."""
    text = answer.text.lower() if fold else answer.text
    there = [(one.lower() if fold else one) in text for one in wanted]
    return (
        [one for one, found in zip(wanted, there, strict=True) if found],
        [one for one, found in zip(wanted, there, strict=True) if not found],
    )


def _quotes(texts: list[str]) -> str:
    return ", ".join(quoted(text, 40) for text in texts[:5]) + (" …" if len(texts) > 5 else "")


def _folding(make: Callable[..., Probe]) -> Callable[[Any], Probe]:
    return lambda value: make(value, fold=True)


KINDS: Mapping[str, Kind] = {
    "equals": Kind(
        _equals,
        "The answer is exactly this text; a map or a list is compared as JSON.",
        {"equals": "yes"},
    ),
    "one-of": Kind(
        _one_of,
        "The answer, without white space around it, is one of these texts.",
        {"one-of": ["positive", "negative", "neutral"]},
    ),
    "contains": Kind(
        _contains, "The text stands somewhere in the answer.", {"contains": "{{ expected.must_mention }}"}
    ),
    "icontains": Kind(_folding(_contains), "The same, whatever the case of letters.", {"icontains": "refund"}),
    "contains-all": Kind(_contains_all, "Every one of these texts is there.", {"contains-all": ["refund", "30 days"]}),
    "icontains-all": Kind(
        _folding(_contains_all), "The same, whatever the case of letters.", {"icontains-all": "refund, return"}
    ),
    "contains-any": Kind(
        _contains_any, "At least one of these texts is there.", {"contains-any": ["refund", "money back"]}
    ),
    "icontains-any": Kind(
        _folding(_contains_any), "The same, whatever the case of letters.", {"icontains-any": "refund, return"}
    ),
    "starts-with": Kind(_starts_with, "The answer begins with this text.", {"starts-with": "Dear"}),
    "regex": Kind(
        _regex,
        "An RE2 pattern matches somewhere in the answer; `^` and `$` are its ends.",
        {"regex": r"order #\d{6}"},
    ),
}
