"""YAML and JSON with lines: scalars, and the sentences of problems."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from tidegate.core.document import Strict, parse_yaml, validate
from tidegate.core.errors import InvalidFile


class Inner(Strict):
    count: Annotated[int, Field(ge=1)] = 1


class Model(Strict):
    name: str
    inner: Inner = Inner()
    words: list[str] = []
    share: float = 0.0
    on: bool = False


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("-0.5", -0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("1_000", "1_000"),
        ("0x1F", 31),
        ("12:30", "12:30"),
        ("2026-03-01", "2026-03-01"),
        ('"2"', "2"),
        ("'true'", "true"),
        ("|-\n  2", "2"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    data = parse_yaml(f"a: {text}\n", "f").data
    assert data == {"a": value}
    assert type(data["a"]) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999"])
def test_a_number_that_is_not_finite_is_an_error(text: str) -> None:
    with pytest.raises(InvalidFile, match=r"f:2: b: .* is not a finite number"):
        parse_yaml(f"a: 1\nb: {text}\n", "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "f:1: name: is missing."),
        ("name: 5", "f:1: name: must be a string (it is 5)."),
        ("name: x\ninner: 5", "f:2: inner: must be a mapping of `key: value` (it is 5)."),
        ("name: x\nwords: a", "f:2: words: must be a list (it is 'a')."),
        ("name: x\nshare: big", "f:2: share: must be a number (it is 'big')."),
        ("name: x\n\non: 'yes'", "f:3: on: must be true or false (it is 'yes')."),
        ("name: x\ninner:\n  count: 1.5", "f:3: inner.count: must be a whole number (it is 1.5)."),
        ("name: x\ninner:\n  count: true", "f:3: inner.count: must be a whole number (it is True)."),
        ("name: x\ninner:\n  cuont: 1", "f:3: inner.cuont: unknown key 'cuont'. Did you mean 'count'?"),
        ("- 1", "f:1: must be a mapping of `key: value`."),
    ],
)
def test_a_wrong_value_is_one_sentence_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        validate(parse_yaml(text, "f"), Model)
    assert str(caught.value) == message
