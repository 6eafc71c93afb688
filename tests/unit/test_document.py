"""YAML and JSON with lines: scalars, and the sentences of problems."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from tidegate.core.document import Strict, parse_json, parse_yaml, validate
from tidegate.core.errors import InvalidFile


class Inner(Strict):
    count: Annotated[int, Field(ge=1)] = 1


class Model(Strict):
    name: str
    inner: Inner = Inner()
    words: list[str] = []
    share: float = 0.0
    on: bool = False
    most: Annotated[int, Field(ge=1, le=10)] = 1
    kind: Literal["a", "b"] = "a"


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
        ("name: x\nmost: 11", "f:2: most: must be at most 10 (it is 11)."),
        ("name: x\nmost: 0", "f:2: most: must be at least 1 (it is 0)."),
        ("name: x\nkind: c", "f:2: kind: must be 'a' or 'b' (it is 'c')."),
    ],
)
def test_a_wrong_value_is_one_sentence_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        validate(parse_yaml(text, "f"), Model)
    assert str(caught.value) == message


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "f:1: [0][0][0][0][0][0][0][0]: nested more than 64 levels deep."),
        ("".join(" " * level + "a:\n" for level in range(70)), "f:66: a.a.a.a.a.a.a.a: nested more than 64 levels"),
        ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40, "f:2: b[0][0][0][0][0][0][0]: nested"),
        (BOMB, "f:6: more than 200,000 values (aliases count each time)."),
        ("a: &a [*a]", "f:1: a[0]: the alias *a has no anchor before it."),
        ("a: 1\n---\nb: 2", "f:2: a second document begins here; one file holds one."),
        ("a: 1\nb: {\n c: 1,\n c: 2}", "f:4: b.c: this key stands twice."),
        ("? [a]\n: 1", "f:1: a key must be a plain string."),
        ("\u00e9: 1\na: \x07", "f:2: not valid YAML: control characters are not allowed."),
        (
            "a: !!python/object:os.system x",
            "f:1: a: the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed.",
        ),
        ("a: " + "9" * 5_000, "f:1: a: a whole number of more than 20 digits."),
    ],
)
def test_hostile_yaml_is_one_sentence(text: str, message: str) -> None:
    """A hundred thousand brackets ended the process in libyaml's composer."""
    with pytest.raises(InvalidFile) as caught:
        parse_yaml(text, "f")
    assert str(caught.value).startswith(message)


def test_an_alias_is_its_anchors_value_and_stands_where_it_is_used() -> None:
    document = parse_yaml("a: &a {x: 1}\nb:\n- *a\n- !!str 5", "f")
    assert document.data == {"a": {"x": 1}, "b": [{"x": 1}, "5"]}
    assert document.line(("b", 0, "x")) == 2


def test_values_of_json_know_their_line() -> None:
    text = '{"a": {\n "b": [1,\n  {"c": "x,}\\""}],\n "d": []\n}, "e":\n null}'
    document = parse_json(text, "f", first_line=5)
    assert {path: line for path, line in document.lines.items() if path} == {
        ("a",): 5,
        ("a", "b"): 6,
        ("a", "b", 0): 6,
        ("a", "b", 1): 7,
        ("a", "b", 1, "c"): 7,
        ("a", "d"): 8,
        ("e",): 9,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n"b": {"c": 1,\n"c": 2}}', "f:3: b.c: this key stands twice in one object."),
        ('{"a": "NaN",\n"b": NaN}', "f:2: NaN is not JSON."),
        ("[1,\n1e999]", "f:2: 1e999 is not a finite number."),
        ("[\n" + "9" * 5_000 + "]", "f:2: a whole number of more than 20 digits."),
        ("[" * 100_000, "f:1: nested too deeply."),
        ('["\0"]', "f:1: not valid JSON: "),
    ],
)
def test_hostile_json_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_json(text, "f")
    assert str(caught.value).startswith(message)
