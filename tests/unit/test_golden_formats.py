"""Golden sets in JSONL, YAML and CSV: one content, one digest; and what is wrong in each, with its line."""

# ruff: noqa: E501 – the tables read best with one case a line

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidegate.core.errors import InvalidFile
from tidegate.evals.golden import load_golden
from tidegate.evals.suite import load_suite

JSONL = (
    '{"id": "a", "inputs": {"q": "How, \\"now\\"?", "n": 2}, "expected": {"must": "30 days"}, "tags": ["x", "y"]}\n\n'
    '{"id": "b", "inputs": {"q": "😀\\nline"}, "cluster": "c", "critical": true, "threshold": 0.5}\n'
)
YAML = """\
# yaml-language-server: $schema=golden.schema.json
- id: a
  inputs: {q: 'How, "now"?', n: 2}
  expected:
    must: 30 days
  tags: [x, y]

- id: b
  inputs:
    q: "😀\\nline"
  cluster: c
  critical: true
  threshold: 0.5
"""
CSV = (
    "id,inputs.q,inputs.n:json,expected.must,tags,cluster,critical,threshold\r\n"
    'a,"How, ""now""?",2,30 days,"x, y",,,\r\n'
    ",,,,,,,\r\n"
    'b,"😀\nline",,,,c,TRUE,0.5\r\n'
)


def problems(path: Path) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load_golden(path)
    return [str(problem).removeprefix(f"{path.parent}/") for problem in caught.value.problems]


def put(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_one_content_has_one_digest_in_every_format(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in JSONL.split("\n") if line]
    files = {"g.jsonl": JSONL, "g.yaml": YAML, "g.yml": YAML, "g.csv": CSV, "g.json": json.dumps(rows, indent=1)}
    sets = {name: load_golden(put(tmp_path, name, text)) for name, text in files.items()}
    assert len({golden.digest for golden in sets.values()}) == 1
    assert {golden.text for golden in sets.values()} == {sets["g.jsonl"].text}
    assert [case.line for case in sets["g.yaml"].cases] == [2, 8]
    assert [case.line for case in sets["g.csv"].cases] == [2, 4]
    assert [case.line for case in sets["g.jsonl"].cases] == [1, 3]
    assert [case.threshold for case in sets["g.csv"].cases] == [None, 0.5]


def test_the_digest_of_a_set_stays_what_it_was(tmp_path: Path) -> None:
    """A set of before there were other formats, thresholds and options: approvals by its digest still hold."""
    text = (
        '{"id": "a", "inputs": {"q": "é 😀", "n": 1.5}, "expected": {"x": [1, null]}, "checks": ["is-json", {"contains": '
        '"{{ expected.x }}"}, {"output-tokens": {"max": 5}}], "tags": ["t"], "cluster": "c", "critical": true}\n{"id": "b"}'
    )
    assert load_golden(put(tmp_path, "g.jsonl", text)).digest == (
        "905acd7642816629d0d18f9d69cd4f9bbdd3fe8ed3efe9b8e10c1c14ec46ac58"
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("g.csv", "id,inputs.q\na\n", ["g.csv:2: has 1 cells, and the header 2."]),
        ("g.csv", 'id,inputs.q\na,"x\ny"\nb,"z\n', ["g.csv:4: not a CSV table: unexpected end of data."]),
        ("g.csv", "id,input.q\na,x\n", ["g.csv:1: input.q: no column is called so."]),
        ("g.csv", "id,tag\na,x\n", ["g.csv:1: tag: no column is called so. Did you mean 'tags'?"]),
        ("g.csv", "inputs.q\nx\n", ["g.csv:1: id: this column is missing"]),
        ("g.csv", "id,id\na,b\n", ["g.csv:1: id: this column stands twice."]),
        ("g.csv", "id,__expected\na,b\n", ["g.csv:1: __expected: is a column of promptfoo's; `tidegate import promptfoo`"]),
        ("g.csv", "id,expected,expected.a\na,b,c\n", ["g.csv:1: expected: stands beside expected.NAME"]),
        ("g.csv", "id,inputs.n:json\na,{\nb,1\nb,2\n", ["g.csv:2: inputs.n:json: not valid JSON", "g.csv:4: id: the case 'b' stands twice: lines 3 and 4."]),
        ("g.csv", "id,critical,threshold\na,maybe,\nb,,much\nc,,7\n", ["g.csv:2: critical: must be true or false", "g.csv:3: threshold: must be a number", "g.csv:4: threshold:"]),
        ("g.csv", "", ["g.csv: has no cases."]),
        ("g.csv", "id\n", ["g.csv: has no cases."]),
        ("g.csv", b"id\na\n\xff\n", ["g.csv:3: not valid UTF-8."]),
        ("g.yaml", "cases: []\n", ["g.yaml:1: a golden set in YAML is a list of cases"]),
        ("g.yaml", "- id: a\n- inputs: {}\n- x\n- id: a\n- id: 7\n", ["g.yaml:2: id: is missing", "g.yaml:3: a case is a JSON object", "g.yaml:4: id: the case 'a' stands twice: lines 1 and 4.", "g.yaml:5: id: must be a string"]),
        ("g.yaml", "- id: a\n  checks:\n  - contians: x\n", ["g.yaml:3: checks[0]"]),
        ("g.yaml", "- id: a\n  inputs: {q: [}\n", ["g.yaml:2:"]),
        ("g.yaml", "", ["g.yaml: has no cases."]),
        ("g.jsonl", '{"id": "a"}\n{"id": "b", "thresold": 1}\n{"id": "c"', ["g.jsonl:2: thresold: unknown key 'thresold'. Did you mean 'threshold'?", "g.jsonl:3: not valid JSON"]),
        ("g.jsonl", '{"id": "a", "threshold": 1.1}', ["g.jsonl:1: threshold:"]),
        ("g.txt", "x", ["g.txt: a golden set is a file of JSONL, YAML or CSV"]),
    ],
)  # fmt: skip
def test_what_is_wrong_names_its_line(tmp_path: Path, name: str, text: str | bytes, expected: list[str]) -> None:
    found = problems(put(tmp_path, name, text))
    assert len(found) == len(expected), found
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning), found


def test_a_set_of_another_format_is_found_by_its_name(tmp_path: Path) -> None:
    put(tmp_path, "golden.yaml", YAML)
    put(tmp_path, "eval.yaml", "checks: [is-json]\n")
    with pytest.raises(InvalidFile, match=r"no file 'golden.jsonl' beside eval.yaml. Did you mean 'golden.yaml'\?"):
        load_suite(tmp_path)


def test_a_pipe_or_a_folder_is_no_golden_set(tmp_path: Path) -> None:
    (tmp_path / "g.csv").mkdir()
    assert problems(tmp_path / "g.csv")[0].startswith("g.csv: ")
    assert problems(tmp_path / "gone.yaml") == ["gone.yaml: can not be read: No such file or directory."]


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert load_golden(put(tmp_path, "g.csv", b"\xef\xbb\xbfid\r\na\r\n")).cases[0].id == "a"


def test_line_ends_are_no_content(tmp_path: Path) -> None:
    """Also those inside of a cell: a spreadsheet on Windows writes the same set."""
    text = 'id,inputs.q\na,"one\ntwo"\n'
    unix, windows = (load_golden(put(tmp_path, "g.csv", one)) for one in (text, text.replace("\n", "\r\n")))
    assert unix.digest == windows.digest
    assert unix.cases[0].inputs == {"q": "one\ntwo"}


def test_many_cases_of_one_id_are_told_in_one_pass(tmp_path: Path) -> None:
    """20,000 duplicates: the search for the first of them is no loop over all."""
    found = problems(put(tmp_path, "g.jsonl", '{"id": "a"}\n' * 20_000))
    assert len(found) == 19_999
    assert found[-1].endswith("lines 1 and 20000.")
