"""Every check: what passes, what fails, what it says, and what it refuses at load."""

# ruff: noqa: E501 – the tables read best with one case a line

from __future__ import annotations

import re
from typing import Any

import pytest

from tidegate.core.usage import estimate_tokens
from tidegate.evals.checks import MAX_REASON, build, known
from tidegate.ports import PromptAnswer

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["answer"],
    "additionalProperties": False,
}
GOOD = '{"answer": "Within 30 days."}'
CHATTY = 'Hi there! I am so glad you asked.\n\n{"answer": "Within 30 days."}'


def verdict(type_: str, value: Any, output: str, tokens: int | None = None) -> tuple[bool, str]:
    result = build(type_, type_, value).judge(PromptAnswer(output, output_tokens=tokens))
    assert result.name == type_
    return result.passed, result.reason


@pytest.mark.parametrize(
    ("type_", "value", "output"),
    [
        ("is-json", None, GOOD),
        ("is-json", None, ' [1, "ü", null] \n'),
        ("is-json", None, "5"),
        ("is-json", SCHEMA, GOOD),
        ("is-json", True, '"anything"'),
        ("is-json", {"type": "integer"}, "1" * 40),
        ("contains", "30 days", GOOD),
        ("contains", 30, GOOD),
        ("contains", "日本", "in 日本 today"),
        ("regex", r"\d+ days", GOOD),
        ("regex", "^{", GOOD),
        ("equals", "yes", "yes"),
        ("equals", True, "true"),
        ("equals", {"a": 1, "b": [True]}, '{"b": [true], "a": 1.0}'),
        ("output-tokens", {"max": 10, "min": 2}, "four words are here"),
    ],
)
def test_what_holds_passes_and_its_opposite_fails(type_: str, value: Any, output: str) -> None:
    """One mechanism makes every `not-` form: exactly one of the two passes, and the other says why."""
    assert verdict(type_, value, output, 4) == (True, "")
    passed, reason = verdict(f"not-{type_}", value, output, 4)
    assert not passed
    assert reason


@pytest.mark.parametrize(
    ("type_", "value", "output", "reason"),
    [
        ("is-json", None, CHATTY, "not JSON at column 1: starts with 'Hi there! I am so glad you asked. {\"ans…'"),
        ("is-json", SCHEMA, CHATTY, "not JSON at column 1: starts with 'Hi there! I am so glad you asked. {\"ans…'"),
        ("is-json", None, "", "not JSON: the answer is empty"),
        ("is-json", None, " \n", "not JSON: the answer is empty"),
        ("is-json", None, '{"a": 1} and so on', "not JSON at column 10: extra data, near 'and so on'"),
        ("is-json", None, '{"a": 1,\n "b": }', "not JSON at line 2, column 7: expecting value, near '}'"),
        ("is-json", None, "NaN", "not JSON that can be read: NaN is not a JSON value"),
        ("is-json", None, "\ufeff{}", None),
        ("is-json", None, "[" * 100_000, None),
        ("is-json", None, "1" * 5_000, None),
        ("is-json", SCHEMA, "{}", 'JSON, but $ breaks the schema: "answer" is a required property'),
        ("is-json", SCHEMA, '{"answer": 7}', 'JSON, but $.answer breaks the schema: 7 is not of type "string"'),
        ("is-json", SCHEMA, '{"answer": "", "tags": ["a", 2]}', 'JSON, but $.tags[1] breaks the schema: 2 is not of type "string"'),
        ("is-json", SCHEMA, '{"tags": 1}', None),
        ("is-json", {"type": "number"}, "1e999", None),
        ("contains", "Forgot", GOOD, "does not contain 'Forgot': '{\"answer\": \"Within 30 days.\"}'"),
        ("contains", "30 DAYS", GOOD, None),
        ("regex", "^days", GOOD, "nothing in it matches /^days/: '{\"answer\": \"Within 30 days.\"}'"),
        ("regex", "a.b", "a\nb", None),
        ("equals", "yes", "yes\n", "differs from 'yes' in white space alone"),
        ("equals", {"a": 1}, '{"a": true}', None),
        ("equals", {"a": 1}, '{"a": 1, "b": 2}', None),
        ("equals", [1], "no", "is not JSON, so it does not equal '[1]': 'no'"),
        ("output-tokens", {"max": 3}, "x", "is 4 tokens long, over the 3 allowed"),
        ("output-tokens", {"min": 5}, "x", "is 4 tokens long, under the 5 asked for"),
        ("not-contains", "sorry", "I am sorry", "contains 'sorry' at character 6"),
        ("not-regex", "s.rry", "I am sorry", "'sorry' matches /s.rry/"),
    ],
)  # fmt: skip
def test_what_does_not_hold_fails_with_one_sentence(type_: str, value: Any, output: str, reason: str | None) -> None:
    passed, said = verdict(type_, value, output, 4)
    assert not passed
    assert said == reason if reason is not None else said
    assert len(said) <= MAX_REASON
    assert "\n" not in said


def test_tokens_that_nobody_counted_are_estimated_and_said_so() -> None:
    assert estimate_tokens(40) == 10
    assert verdict("output-tokens", {"max": 9}, "x" * 40) == (False, "is about 10 tokens long, over the 9 allowed")


def test_a_patient_pattern_is_no_trap() -> None:
    """RE2 is linear: what takes a backtracking engine for ever is answered at once."""
    assert verdict("regex", "(a+)+$", "a" * 50_000 + "b")[0] is False


@pytest.mark.parametrize("output", ["x" * 1_000_000, "é" * 100_000, "\x1b[31m\u202e" * 50_000])
def test_a_reason_is_short_however_long_the_answer(output: str) -> None:
    for type_, value in (
        ("is-json", None),
        ("contains", "needle" * 1_000),
        ("equals", "y" * 9_000),
        ("regex", "q" * 900),
    ):
        passed, reason = verdict(type_, value, output)
        assert not passed
        assert len(reason) <= MAX_REASON


@pytest.mark.parametrize(
    ("type_", "value", "complaint"),
    [
        ("is-json", 5, "takes a JSON Schema"),
        ("is-json", {"type": "strnig"}, "not a valid JSON Schema at $.type"),
        ("is-json", {"$ref": "http://example.org/s.json"}, "not a valid JSON Schema"),
        ("contains", None, "needs a text"),
        ("contains", ["a"], "needs a text"),
        ("contains", "", "an empty text"),
        ("regex", "a(b", "not a pattern RE2 can use: missing ): a(b"),
        ("regex", r"(?=x)", "not a pattern RE2 can use"),
        ("regex", None, "needs a text"),
        ("equals", None, "needs a text"),
        ("output-tokens", None, "takes {max: N}"),
        ("output-tokens", {}, "takes {max: N}"),
        ("output-tokens", {"maximum": 3}, "takes max and min, not 'maximum'. Did you mean 'max'?"),
        ("output-tokens", {"max": "3"}, "max is a whole number"),
        ("output-tokens", {"max": True}, "max is a whole number"),
        ("output-tokens", {"max": -1}, "max is a whole number"),
        ("output-tokens", {"max": 1, "min": 2}, "min 2 is above max 1"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_at_load(type_: str, value: Any, complaint: str) -> None:
    for form in (type_, f"not-{type_}"):
        with pytest.raises(ValueError, match=re.escape(complaint)):
            build(form, form, value)


def test_an_unknown_check_names_the_nearest() -> None:
    assert known("is-json") is None
    assert known("not-regex") is None
    assert known("is-jsn") == "no check is called 'is-jsn'. Did you mean 'is-json'?"
    assert known("not-contain") == "no check is called 'not-contain'. Did you mean 'not-contains'?"
    assert known("not-not-contains") is not None
