"""`tidegate golden`: a recorded call becomes a case of a prompt's golden set; schemas for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from tidegate import compose
from tidegate.cli.calls import find
from tidegate.cli.output import out, print_json, visible
from tidegate.core.errors import BadInput, InvalidFile, NotFound


def golden_(
    action: Literal["add", "schema"],
    prompt: str | None = None,
    call: str | None = None,
    /,
    *,
    id: str | None = None,  # noqa: A002 – the option's name
    expected: str | None = None,
    tags: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    cluster: str | None = None,
    critical: bool = False,
    suite: bool = False,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Make a recorded call a case of a prompt's golden set, or print the JSON Schema of golden sets for editors.

    `add` appends one case with the call's inputs to the file that eval.yaml names, in the file's own format, and
    touches no other line. What was expected of the answer is yours to say.

    For example:
      tidegate golden add support/answer 5e1f09a2c7d4 --expected "30 days"
      tidegate golden schema > golden.schema.json

    Parameters
    ----------
    action
        `add` a case, or print a `schema`.
    prompt
        The prompt whose golden set it is.
    call
        The id of a call of that prompt, or its last characters as `tidegate calls` shows them.
    id
        The case's id; by default `call-` and the end of the call's.
    expected
        What is expected of the answer: JSON, or a text.
    tags
        Tags of the case, such as `returns`.
    cluster
        The name of the cases that count as one in the statistics.
    critical
        Every check of this case must pass.
    suite
        With `schema`: the one of eval.yaml.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the file, the line and the case as JSON.
    """
    if action == "schema":
        _schema(prompt, suite=suite)
        return
    if prompt is None or call is None:
        raise BadInput("`tidegate golden add` needs a prompt and the id of a call.")
    from tidegate.evals.folder import optional_inputs
    from tidegate.evals.golden_add import add, case_of
    from tidegate.prompts.files import load_prompt

    project = compose.project(config)
    loaded = load_prompt(project.prompts, prompt)
    case: dict[str, Any] = case_of(find(compose.call_log(project), call), prompt)
    more = {"expected": _expected(expected), "tags": tags, "cluster": cluster, "critical": critical or None}
    case |= {"id": id} if id is not None else {}
    case |= {key: value for key, value in more.items() if value is not None}
    path = _golden(loaded.folder)
    may_be_absent = optional_inputs(loaded.artifact)
    line = add(path, case, {name: name in may_be_absent for name in loaded.artifact.inputs})
    if json:
        print_json({"file": str(path), "line": line, "case": case})
    else:
        out.print(visible(f"Case {case['id']} is at {path}:{line}."), markup=False, highlight=False)


def _schema(prompt: str | None, *, suite: bool) -> None:
    from tidegate.evals.schema import golden_schema, suite_schema

    if prompt is not None:
        raise BadInput("`tidegate golden schema` takes no prompt: golden sets of all prompts look alike.")
    print_json(suite_schema() if suite else golden_schema())


def _golden(folder: Path) -> Path:
    """The golden set of a prompt's suite; without a suite, or where the set is still to be made, golden.jsonl."""
    from tidegate.evals.suite import SuiteFile, load_suite

    try:
        return load_suite(folder).golden
    except NotFound:
        return folder / str(SuiteFile.model_fields["golden"].default)


def _expected(text: str | None) -> Any:
    from tidegate.core.document import parse_json

    if text is None:
        return None
    try:
        return parse_json(text, "--expected").data
    except InvalidFile as error:
        if text.lstrip()[:1] in ("{", "["):
            raise BadInput(f"--expected begins like JSON, and is {error.problems[0].message}") from error
        return text
