"""eval.yaml and golden.jsonl: what they become, and one clear place for everything that can be wrong with them."""

# ruff: noqa: E501 – the tables read best with one case a line

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evals import EXAMPLE, lines, load, write
from tidegate.core.errors import InvalidFile, NotFound
from tidegate.evals.golden import load_golden
from tidegate.evals.suite import load_suite, plan

CASE = {"id": "a", "inputs": {"q": "hi"}, "expected": {"must_mention": "30 days"}}
GOLDEN = lines(CASE)


def problems(folder: Path) -> list[str]:
    """What is wrong with the folder's suite, its golden set, or their plan, with paths relative to the folder."""
    try:
        suite, golden = load(folder)
        golden.fit(["q"])
        plan(suite, golden)
    except InvalidFile as error:
        return [str(problem).replace(f"{folder}/", "") for problem in error.problems]
    return []


def test_the_example_is_a_suite() -> None:
    suite, golden = load(EXAMPLE / "prompts/support/answer")
    golden.fit(["question", "context"])
    assert [check.name for check in suite.checks] == ["is-json", "contains", "output-tokens"]
    assert suite.must_pass == {"is-json"}
    assert (suite.repeats, suite.max_cost_nano_usd, suite.concurrency) == (3, 10**9, 4)
    assert [check.name for check in plan(suite, golden)["password-new-phone"]] == [
        "is-json",
        "contains",
        "output-tokens",
    ]
    lengths = {case.id: len(case.inputs["question"]) for case in golden.cases}
    assert [name for name, length in lengths.items() if length > 160] == ["password-new-phone"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("checks: [is-json\n", ["eval.yaml:2: not valid YAML"]),
        ("- is-json\n", ["eval.yaml:1: a suite is a map"]),
        ("", ["eval.yaml:1: a suite is a map"]),
        ("checks: [is-json]\nrepaets: 3\n", ["eval.yaml:2: repaets: unknown key 'repaets'. Did you mean 'repeats'?"]),
        ("checks: [is-json]\nrepeats: 0\n", ["eval.yaml:2: repeats:"]),
        ("checks: [is-json]\nrepeats: 101\n", ["eval.yaml:2: repeats:"]),
        ("checks: [is-json]\nrepeats: many\n", ["eval.yaml:2: repeats:"]),
        ("checks: [is-json]\nconcurrency: 0\n", ["eval.yaml:2: concurrency:"]),
        ("checks: is-json\n", ["eval.yaml:1: checks:"]),
        ("checks:\n  - is-json\n  - is-jsn\n", ["eval.yaml:3: checks[1]: no check is called 'is-jsn'. Did you mean 'is-json'?"]),
        ("checks:\n  - is-jsn: x\n", ["eval.yaml:2: checks[0]: no check is called 'is-jsn'. Did you mean 'is-json'?"]),
        ("checks:\n  - {contains: a, regex: b}\n", ["eval.yaml:2: checks[0]: two checks in one map"]),
        ("checks:\n  - 5\n", ["eval.yaml:2: checks[0]: a check is a name, or a map with one key"]),
        ("checks:\n  - {}\n", ["eval.yaml:2: checks[0]: a check is a name, or a map with one key"]),
        ("checks:\n  - contains\n", ["eval.yaml:2: checks[0]: needs a text to look for."]),
        ("checks:\n  - is-json\n  -\n    regex: 'a(b'\n", ["eval.yaml:4: checks[1].regex: not a pattern RE2 can use: missing ): a(b."]),
        ("checks:\n  - is-json: output.json\n", ["eval.yaml:2: checks[0].is-json: there is no file 'output.json' beside eval.yaml. Did you mean 'output.schema.json'?"]),
        ("checks:\n  - is-json: ../secret.json\n", ["eval.yaml:2: checks[0].is-json: '../secret.json' leaves the folder"]),
        ("checks:\n  - is-json: /etc/passwd\n", ["eval.yaml:2: checks[0].is-json: '/etc/passwd' leaves the folder"]),
        ("checks:\n  - is-json: link.json\n", ["eval.yaml:2: checks[0].is-json: 'link.json' leaves the folder"]),
        ("checks:\n  - is-json: broken.json\n", ["broken.json:2: not valid JSON"]),
        ("checks:\n  - is-json: bad.schema.json\n", ["eval.yaml:2: checks[0].is-json: not a valid JSON Schema at $.type"]),
        ("checks: [is-json]\ngolden: goldn.jsonl\n", ["eval.yaml:2: golden: there is no file 'goldn.jsonl' beside eval.yaml. Did you mean 'golden.jsonl'?"]),
        ("checks: [is-json]\ngolden: ../golden.jsonl\n", ["eval.yaml:2: golden: '../golden.jsonl' leaves the folder"]),
        ("checks: [is-json]\ngate:\n  must_pass:\n    - is-jsno\n", ["eval.yaml:4: gate.must_pass[0]: no check of this suite is called 'is-jsno'. Did you mean 'is-json'?"]),
        ("checks: [is-json]\ngate: {must_pass: [contains]}\n", ["eval.yaml:2: gate.must_pass[0]: no check of this suite is called 'contains'. Known: is-json."]),
        ("checks: [is-json]\ngate:\n  metrics:\n    pass-rate: {floor: 4}\n", ["eval.yaml:4: gate.metrics.pass-rate.floor: is outside of this metric's scale, 0 to 1"]),
        ("checks: [is-json]\ngate:\n  metrics:\n    grounded: {floor: 1}\n", ["eval.yaml:4: gate.metrics.grounded: no metric is called 'grounded'. Known: pass-rate, is-json."]),
        ("checks: [is-json]\ngate:\n  metrics:\n    pass-rate: {}\n", ["eval.yaml:4: gate.metrics.pass-rate: needs a margin, a floor, or both."]),
        ("checks: [is-json]\ngate:\n  metrics:\n    pass-rate: {magrin: 0.1}\n", ["eval.yaml:4: gate.metrics.pass-rate.magrin: unknown key 'magrin'. Did you mean 'margin'?"]),
        ("checks: [is-json]\ngate:\n  protects: [production]\n", ["eval.yaml:3: gate.protects: decides nothing here: tidegate.yaml, on the server that deploys, names protected environments."]),
        ("checks: [is-json]\ngate: {max_cost_usd: 0}\n", ["eval.yaml:2: gate.max_cost_usd:"]),
        ("checks: [is-json]\ngate: {max_cost_usd: lots}\n", ["eval.yaml:2: gate.max_cost_usd:"]),
        ("repeats: 2\n", ["golden.jsonl:1: checks: nothing checks the case 'a'"]),
        ("checks:\n  - is-json\n  - contains: '{{ expected.must_mentoin }}'\n", ["eval.yaml:3: checks[1].contains: 'expected.must_mentoin' is undefined in case 'a'. Did you mean 'must_mention'?"]),
        ("checks:\n  - contains: '{{ expectde.must_mention }}'\n", ["eval.yaml:2: checks[0].contains: 'expectde' is undefined in case 'a'. Did you mean 'expected'?"]),
        ("checks:\n  - contains: '{{ expected.must_mention'\n", ["eval.yaml:2: checks[0].contains: unexpected end of input"]),
        ("checks:\n  - regex: '({{ expected.must_mention }}'\n", ["eval.yaml:2: checks[0].regex: not a pattern RE2 can use: missing ): (30 days (in case 'a')."]),
        ("checks:\n  - contains: '{% include \"golden.jsonl\" %}'\n", ["eval.yaml:2: checks[0].contains: a check includes no template"]),
        ("checks:\n  - contains: '{% for i in range(99999) %}x{% endfor %}'\n", ["eval.yaml:2: checks[0].contains: engine ran out of fuel"]),
        ("checks:\n  - is-jsn\n  - regex: '('\ngate: {must_pass: [is-jsn]}\n", ["eval.yaml:2: checks[0]: no check", "eval.yaml:3: checks[1].regex: not a pattern"]),
    ],
)  # fmt: skip
def test_a_malformed_suite_names_its_line(tmp_path: Path, text: str, expected: list[str]) -> None:
    (tmp_path / "golden.jsonl").write_text("{}")
    (tmp_path / "secret.json").write_text("{}")
    folder = tmp_path / "answer"
    folder.mkdir()
    (folder / "output.schema.json").write_text("{}")
    (folder / "broken.json").write_text('{\n"a": }')
    (folder / "bad.schema.json").write_text('{"type": "strnig"}')
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    write(folder, eval_yaml=text, golden_jsonl=GOLDEN)
    found = problems(folder)
    assert len(found) == len(expected), found
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["golden.jsonl: has no cases"]),
        ("\n \n", ["golden.jsonl: has no cases"]),
        ('{"id": "a", "inputs": {"q": "x"}}\n{"id": "b"\n', ["golden.jsonl:2: not valid JSON"]),
        ('[1]\n', ["golden.jsonl:1: a case is a JSON object"]),
        ('{"inputs": {"q": "x"}}\n', ["golden.jsonl:1: id: is missing."]),
        ('{"id": 7, "inputs": {"q": "x"}}\n', ["golden.jsonl:1: id:"]),
        ('{"id": "", "inputs": {"q": "x"}}\n', ["golden.jsonl:1: id:"]),
        ('{"id": "a\\u0007", "inputs": {"q": "x"}}\n', ["golden.jsonl:1: id:"]),
        ('{"id": "a", "inptus": {"q": "x"}}\n', ["golden.jsonl:1: inptus: unknown key 'inptus'. Did you mean 'inputs'?"]),
        ('{"id": "a", "id": "b"}\n', ["golden.jsonl:1: id: this key stands twice"]),
        ('{"id": "a", "inputs": ["q"]}\n', ["golden.jsonl:1: inputs:"]),
        ('{"id": "a", "inputs": {"q": NaN}}\n', ["golden.jsonl:1: NaN is not JSON."]),
        ('{"id": "a", "inputs": {"q": 100000000000000000000}}\n', ["golden.jsonl:1: a whole number of more than 20 digits."]),
        ('{"id": "a", "inputs": {"q": "\\ud800"}}\n', ["golden.jsonl:1: can not be written as canonical JSON"]),
        ('{"id": "a", "critical": "yes", "inputs": {"q": "x"}}\n', ["golden.jsonl:1: critical:"]),
        ('{"id": "a", "inputs": {"q": "x"}, "checks": ["is-jsn"]}\n', ["golden.jsonl:1: checks[0]: no check is called 'is-jsn'. Did you mean 'is-json'?"]),
        ('{"id": "a", "inputs": {"q": "x"}, "checks": [{"regex": "("}]}\n', ["golden.jsonl:1: checks[0].regex: not a pattern RE2 can use"]),
        ('{"id": "a", "inputs": {"q": "x"}, "checks": [{"contains": "{{ expected.y }}"}]}\n', ["golden.jsonl:1: checks[0].contains: 'expected' is undefined in case 'a'."]),
        ('\n{"id": "a", "inputs": {"q": "x"}}\n\n{"id": "a", "inputs": {"q": "y"}}\n', ["golden.jsonl:4: id: the case 'a' stands twice: lines 2 and 4."]),
        ('{"id": "a", "inputs": {}}\n', ["golden.jsonl:1: inputs.q: is missing in case 'a': the prompt declares this input."]),
        ('{"id": "a", "inputs": {"q": "x", "qq": 1}}\n', ["golden.jsonl:1: inputs.qq: case 'a' sets an input that the prompt does not declare. Did you mean 'q'?"]),
        ('{"id": 1}\n{"id": "b", "x": 1}\n{\n', ["golden.jsonl:1: id:", "golden.jsonl:2: x: unknown key", "golden.jsonl:3: not valid JSON"]),
    ],
)  # fmt: skip
def test_a_malformed_golden_set_names_every_line(tmp_path: Path, text: str, expected: list[str]) -> None:
    """E11: one bad record is reported with all the others, and nothing runs."""
    write(tmp_path, eval_yaml="checks: [is-json]\n", golden_jsonl=text)
    found = problems(tmp_path)
    assert len(found) == len(expected), found
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning), found


def test_a_missing_suite_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"eval\.yaml: no such file"):
        load_suite(tmp_path)


@pytest.mark.parametrize("name", ["eval.yaml", "golden.jsonl"])
def test_bytes_that_are_not_text_name_their_line(tmp_path: Path, name: str) -> None:
    write(tmp_path, eval_yaml="checks: [is-json]\n", golden_jsonl=GOLDEN)
    (tmp_path / name).write_bytes(b"\n\n\xff\n")
    assert problems(tmp_path) == [f"{name}:3: not valid UTF-8."]


def test_layout_is_no_content(tmp_path: Path) -> None:
    """Line ends, blank lines, a byte order mark, key order and case order change neither digest."""
    write(tmp_path, eval_yaml="checks: [is-json]\nrepeats: 2\n", golden_jsonl=lines(CASE, {**CASE, "id": "b"}))
    suite, golden = load(tmp_path)
    (tmp_path / "eval.yaml").write_bytes(
        b"\xef\xbb\xbf# hi\r\nrepeats: 2\r\nchecks: [{is-json: }]\r\nconcurrency: 9\r\n"
    )
    swapped = dict(reversed(CASE.items()))
    (tmp_path / "golden.jsonl").write_text("\n".join([json.dumps({**swapped, "id": "b"}), "", json.dumps(swapped)]))
    again = load(tmp_path)
    assert (suite.digest, golden.digest) == (again[0].digest, again[1].digest)
    assert [case.id for case in again[1].cases] == ["b", "a"]


@pytest.mark.parametrize(
    "change",
    ["checks: [is-json, {contains: x}]\n", "checks: [not-is-json]\n", "checks: [{is-json: s.json}]\n",
     "checks: [is-json]\nrepeats: 4\n", "checks: [is-json]\ngate: {must_pass: [is-json]}\n",
     "checks: [is-json]\ngate: {metrics: {pass-rate: {floor: 0.5}}}\n"],
)  # fmt: skip
def test_whatever_decides_what_passing_means_is_in_the_digest(tmp_path: Path, change: str) -> None:
    """E14: the bar can not be moved without anybody noticing."""
    (tmp_path / "s.json").write_text('{"type": "object"}')
    write(tmp_path, eval_yaml="checks: [is-json]\n", golden_jsonl=GOLDEN)
    before = load_suite(tmp_path)
    write(tmp_path, eval_yaml=change)
    assert load_suite(tmp_path).digest != before.digest


def test_a_schema_is_part_of_the_digest_by_content(tmp_path: Path) -> None:
    write(tmp_path, eval_yaml="checks: [{is-json: s.json}]\n", golden_jsonl=GOLDEN)
    (tmp_path / "s.json").write_text('{"type": "object"}')
    before = load_suite(tmp_path)
    (tmp_path / "s.json").write_text('{"type": "array"}')
    assert load_suite(tmp_path).digest != before.digest
    assert hashlib.sha256(before.text.encode()).hexdigest() == before.digest


@pytest.mark.parametrize("change", [{"inputs": {"q": "ho"}}, {"expected": 1}, {"critical": True}, {"cluster": "c"},
                                    {"tags": ["x"]}, {"checks": ["is-json"]}])  # fmt: skip
def test_whatever_a_case_says_is_in_the_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, golden_jsonl=GOLDEN)
    before = load_golden(tmp_path / "golden.jsonl")
    write(tmp_path, golden_jsonl=lines({**CASE, **change}))
    assert load_golden(tmp_path / "golden.jsonl").digest != before.digest


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    """U+2028 and U+0085 are allowed inside JSON strings."""
    case = {"id": "a", "inputs": {"q": "one\u2028two\u0085three"}}
    write(tmp_path, golden_jsonl=json.dumps(case, ensure_ascii=False))
    assert load_golden(tmp_path / "golden.jsonl").cases[0].inputs["q"] == "one\u2028two\u0085three"


def test_several_checks_of_one_type_are_numbered_and_guarded_together(tmp_path: Path) -> None:
    text = "checks: [{contains: a}, is-json, {contains: b}]\ngate: {must_pass: [contains]}\n"
    write(tmp_path, eval_yaml=text, golden_jsonl=GOLDEN)
    suite, golden = load(tmp_path)
    assert [check.name for check in plan(suite, golden)["a"]] == ["contains#1", "is-json", "contains#2"]
    assert suite.must_pass == {"contains#1", "contains#2"}
    write(tmp_path, eval_yaml=text.replace("[contains]", "['contains#2']"))
    assert load_suite(tmp_path).must_pass == {"contains#2"}


def test_a_case_brings_its_own_checks(tmp_path: Path) -> None:
    """Their templates see the case too; their names never clash with the suite's."""
    own = {
        "id": "b",
        "inputs": {"q": "hi"},
        "expected": "x.y",
        "checks": [{"contains": "{{ expected }}{{ inputs.q }}"}],
    }
    write(tmp_path, eval_yaml="checks: [{contains: z}]\n", golden_jsonl=lines(CASE, own))
    suite, golden = load(tmp_path)
    planned = plan(suite, golden)
    assert [check.name for check in planned["b"]] == ["contains", "case/contains"]
    assert [check.name for check in planned["a"]] == ["contains"]


def test_cases_of_one_cluster_are_one_item(tmp_path: Path) -> None:
    cases = [{"id": name, "cluster": cluster} for name, cluster in (("a", "x"), ("b", "x"), ("c", None), ("x", None))]
    write(tmp_path, golden_jsonl=lines(*cases))
    assert load_golden(tmp_path / "golden.jsonl").items == 3
