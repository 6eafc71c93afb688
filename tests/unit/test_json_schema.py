"""JSON Schemas of prompts, wherever they come from: nothing is fetched, and every draft means the same everywhere."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tidegate.core.artifact import Artifact, Message, Output, Tool
from tidegate.core.errors import BadInput
from tidegate.core.json_schema import NotASchema, flaws, validator
from tidegate.evals.checks.json_values import first_error
from tidegate.fakes import FixedClock, FixedRandom
from tidegate.gateway.validity import problem
from tidegate.prompts.registry import Registry
from tidegate.stores.control import open_control

DRAFT_7: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "properties": {"pair": {"items": [{"type": "string"}, {"type": "integer"}]}},
}
DRAFT_4: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "properties": {"n": {"minimum": 3, "exclusiveMinimum": True}},
}


def said(schema: dict[str, Any], text: str) -> str | None:
    return problem(Output("schema", schema), json.dumps(schema), text)


@pytest.mark.parametrize(
    ("schema", "good", "bad", "place"),
    [(DRAFT_7, '{"pair": ["a", 1]}', '{"pair": [1, "a"]}', "$.pair[0]"), (DRAFT_4, '{"n": 4}', '{"n": 3}', "$.n")],
)
def test_a_live_answer_is_held_against_the_draft_that_the_schema_names(
    schema: dict[str, Any], good: str, bad: str, place: str
) -> None:
    """As an eval does: the gateway took every schema for one of 2020-12, and such a call ended in a 500."""
    assert said(schema, good) is None
    assert (said(schema, bad) or "").startswith(f"{place}: ")
    assert first_error(validator(schema), json.loads(bad)) != ""


ELSEWHERE = ["http://127.0.0.1:1/x", "https://evil.example/x", "file:///etc/passwd", "other.json", "urn:x"]


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_schema_reaches_no_file_and_no_address(where: str) -> None:
    """One that came over the API was in no file that is checked, and the gateway fetched what it named."""
    schema = {"$ref": where}
    with pytest.raises(NotASchema):
        validator(schema)
    assert (said(schema, "{}") or "").startswith("the prompt's schema can not be used: ")


def test_what_stands_in_a_file_is_not_told_by_a_schema_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"const": "canary"}')
    assert "canary" not in (said({"$ref": (tmp_path / "secret.json").as_uri()}, "{}") or "")


@pytest.mark.parametrize(
    ("output", "tools", "field"),
    [
        ({"$ref": "file:///etc/passwd"}, {}, "output.schema"),
        ({"type": 7}, {}, "output.schema"),
        ({}, {"$ref": "http://127.0.0.1:1/x"}, "tools.look.parameters"),
    ],
)
def test_such_a_schema_is_not_registered(
    tmp_path: Path, output: dict[str, Any], tools: dict[str, Any], field: str
) -> None:
    artifact = Artifact(
        messages=(Message("user", "x"),),
        model="a/b",
        output=Output("schema", output),
        tools=(Tool("look", parameters=tools),),
    )
    with closing(Registry(open_control(tmp_path / "c.db"), FixedClock(), FixedRandom(), protects=[])) as registry:
        with pytest.raises(BadInput, match=rf"^artifact\.{field}: not a valid JSON Schema: .*\.$"):
            registry.register("a", artifact)
        assert registry.prompts() == []


def test_half_a_character_breaks_an_answer_and_not_the_check() -> None:
    """Models do say such; the engine can not look at it."""
    schema = {"type": "string", "minLength": 1}
    assert said(schema, '"\\ud83d"') == "$: holds half a character (a lone surrogate), which is no text"
    assert flaws(validator(schema), "whole") == []
    assert first_error(validator(schema), "\ud83d") != ""
    with pytest.raises(NotASchema, match="half a character"):
        validator({"enum": ["\ud83d"]})


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_only_python_reads_is_no_json(word: str) -> None:
    assert problem(Output("json"), "", f'{{"a": {word}}}') == f"not JSON: it starts with '{{\"a\": {word}}}'"
