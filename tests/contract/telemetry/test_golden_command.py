"""`tidegate golden add`: from a record in the spool to a line of the golden set."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from tests.contract.telemetry.records import Places, entry, line
from tidegate.cli.golden import golden_
from tidegate.core.errors import BadInput, NotFound
from tidegate.evals.golden import load_golden


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tidegate.yaml").write_text("{}")
    folder = tmp_path / "prompts" / "support" / "answer"
    folder.mkdir(parents=True)
    (folder / "prompt.md").write_text("---\nmodel: p/m\ninputs: {name: string}\n---\nuser:\nHello {{ name }}\n")
    (folder / "eval.yaml").write_text("golden: cases.csv\nchecks: [is-json]\n")
    (folder / "cases.csv").write_text("id,tags,inputs.name,expected.must\nold,,Ada,x\n")
    recorded = entry(1, ago_s=5)
    Places(tmp_path / ".tidegate").spool_lines(msgspec.json.encode(recorded), line(2, ago_s=5, prompt=None))
    (tmp_path / "id").write_text(recorded.call.id)
    return tmp_path


def test_a_call_is_a_case_by_the_end_of_its_id(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = (project / "id").read_text()
    golden_(
        "add", "support/answer", call[-8:],
        expected='{"must": "30 days"}', tags=["new"], config=project / "tidegate.yaml", json=True,
    )  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    path = project / "prompts" / "support" / "answer" / "cases.csv"
    assert (said["file"], said["line"], said["case"]["id"]) == (str(path), 3, f"call-{call[-12:]}")
    assert path.read_text().splitlines()[2] == f"call-{call[-12:]},new,Zoë,30 days"
    assert load_golden(path).cases[1].inputs == {"name": "Zoë"}
    with pytest.raises(BadInput, match="is there already"):
        golden_("add", "support/answer", call, config=project / "tidegate.yaml")


def test_the_command_says_where_the_case_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = (project / "id").read_text()
    golden_("add", "support/answer", call, id="zoe", config=project / "tidegate.yaml")
    assert capsys.readouterr().out.replace("\n", "").endswith("cases.csv:3.")


def test_what_is_missing_is_said(project: Path) -> None:
    config = project / "tidegate.yaml"
    with pytest.raises(NotFound):
        golden_("add", "support/answer", "0123456789abcdef", config=config)
    with pytest.raises(NotFound):
        golden_("add", "support/ansver", "0123456789abcdef", config=config)
    with pytest.raises(BadInput, match="needs a prompt and the id"):
        golden_("add", "support/answer", config=config)
    with pytest.raises(BadInput, match="begins like JSON"):
        golden_("add", "support/answer", (project / "id").read_text(), expected="{oops", config=config)


@pytest.mark.parametrize("suite", [True, False])
def test_a_schema_is_printed_for_editors(capsys: pytest.CaptureFixture[str], suite: bool) -> None:
    golden_("schema", suite=suite)
    assert "rouge-n" in json.loads(capsys.readouterr().out)["$defs"]["Check"]["anyOf"][0]["enum"]
