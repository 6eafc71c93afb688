"""A recorded call becomes a case: in the file's own format, at its end, or not at all."""

# ruff: noqa: E501 – the tables read best with one case a line

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidegate.core.errors import BadInput, InvalidFile
from tidegate.evals.golden import load_golden
from tidegate.evals.golden_add import add, case_of

INPUTS = {"q": False, "n": True}
CALL: dict[str, Any] = {"id": "0197-abcdef123456", "prompt": "a/b", "content": {"variables": {"q": "How?"}}}
CASE = {"id": "new", "inputs": {"q": 'How 😀, "now"?\nsoon'}, "expected": {"must": "30 days"}, "tags": ["x", "y"]}

SETS = {
    "g.jsonl": '{"id": "a",   "inputs": {"q": "old"}}\n\n',
    "bare.jsonl": '{"id": "a", "inputs": {"q": "old"}}',
    "g.yaml": "# kept\n- id: a\n  inputs: {q: old}   # as it is\n",
    "indented.yml": "\n  - {id: a, inputs: {q: old}}",
    "g.csv": "id,tags,inputs.q,expected.must\na,,old,\n",
    "windows.csv": "id,tags,inputs.q,inputs.n:json,expected:json\r\na,,old,,\r\n",
}


@pytest.mark.parametrize("name", SETS)
def test_a_case_is_appended_and_nothing_else_changes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(SETS[name].encode())
    line = add(path, CASE, INPUTS)
    after = path.read_bytes().decode()
    assert after.startswith(SETS[name])
    assert after.count("\r\n") == (after.count("\n") if "\r\n" in SETS[name] else 0)
    first, new = load_golden(path).cases
    assert (first.id, new.id, new.line) == ("a", "new", line)
    assert (new.inputs, new.expected, new.tags) == (CASE["inputs"], CASE["expected"], ("x", "y"))


@pytest.mark.parametrize("name", ["g.jsonl", "g.yaml", "g.csv"])
@pytest.mark.parametrize("begun", [True, False])
def test_the_first_case_makes_the_file(tmp_path: Path, name: str, begun: bool) -> None:
    path = tmp_path / name
    if begun:
        path.touch()
    assert add(path, {**CASE, "inputs": {"q": "x", "n": 2}, "critical": True}, INPUTS) == (2 if name == "g.csv" else 1)
    (case,) = load_golden(path).cases
    assert (case.inputs, case.critical) == ({"q": "x", "n": 2}, True)
    add(path, {"id": "b", "inputs": {"q": "z"}}, INPUTS)
    assert [case.id for case in load_golden(path).cases] == ["new", "b"]


@pytest.mark.parametrize(
    ("name", "text", "case", "said"),
    [
        ("g.jsonl", '{"id": "new", "inputs": {"q": "old"}}\n', CASE, "g.jsonl:1: a case 'new' is there already"),
        ("g.csv", "id,inputs.q\n\na,old\n", {"id": "b", "inputs": {"q": "old"}}, "g.csv:3: the case 'a' has the same inputs"),
        ("g.jsonl", "", {"id": "b", "inputs": {}}, "inputs.q: is missing in case 'b'"),
        ("g.jsonl", "", {"id": "b", "inputs": {"q": "", "z": 1}}, "inputs.z: case 'b' sets an input that the prompt does not declare"),
        ("g.jsonl", "", {"id": "b\n", "inputs": {"q": ""}}, "this call makes no case: id:"),
        ("g.csv", "id,inputs.q\na,old\n", {"id": "b", "inputs": {"q": "x", "n": 1}}, "has no column inputs.n"),
        ("g.csv", "id,inputs.q,inputs.n\na,old,\n", {"id": "b", "inputs": {"q": "x", "n": 1}}, "call it inputs.n:json to hold 1"),
        ("g.csv", "id,inputs.q\na,old\n", {"id": "b", "inputs": {"q": " "}}, "call it inputs.q:json to hold ' '"),
        ("g.yaml", "[{id: a, inputs: {q: old}}]\n", CASE, "only to a list in block style"),
        ("g.json", '[{"id": "a", "inputs": {"q": "old"}}]', CASE, "cases are added to JSONL, YAML and CSV"),
    ],
)  # fmt: skip
def test_what_can_not_be_added_leaves_the_file_alone(
    tmp_path: Path, name: str, text: str, case: dict[str, Any], said: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        add(path, case, INPUTS)
    assert said in str(caught.value)
    assert path.read_text() == text


def test_a_broken_set_is_mended_first(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text("{")
    with pytest.raises(InvalidFile):
        add(path, CASE, INPUTS)
    assert path.read_text() == "{"


def test_a_call_says_its_inputs_and_an_id() -> None:
    assert case_of(CALL, "a/b") == {"id": "call-abcdef123456", "inputs": {"q": "How?"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": None}, "named no prompt"),
        ({"prompt": "c/d"}, "was of c/d, not of a/b"),
        ({"content": None}, "was not kept"),
        ({"content": {"variables": None}}, "was not kept"),
    ],
)
def test_a_call_without_inputs_is_no_case(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        case_of({**CALL, **change}, "a/b")
