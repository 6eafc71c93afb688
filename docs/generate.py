"""
Writes docs/reference/ from the code, so that the reference can not disagree with it.

`python docs/generate.py` rewrites the pages; `tests/repo/test_docs.py` fails when one is stale.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml
from cyclopts import App
from pydantic import BaseModel
from rich.console import Console

from tidegate import cli, config
from tidegate.core import errors, evaluation
from tidegate.evals import checks, schema
from tidegate.prompts import front_matter
from tidegate.telemetry import record

REFERENCE = Path(__file__).parent / "reference"
GATE = Path(__file__).parent / "concepts" / "gate.md"
POWER = Path(__file__).parents[1] / "bench" / "results" / "gate-power.json"
NOTE = "<!-- Written by docs/generate.py. Change the code, then run `uv run just docs`. -->\n\n"
CHECKS = """\
# Checks

A check judges one answer, at once and for nothing. It stands under `checks:` in `eval.yaml`, for every case, or in a
case, for that one. Names and meaning are promptfoo's; `one-of`, `output-tokens` and `output-valid` are ours.

- A check is a name (`is-json`), or a map of the name and what it takes (`{contains: refund}`). Options stand beside
  the name: `{rouge-n: …, threshold: 0.6, weight: 2}`.
- Every check has a `not-` form: `{not-contains: sorry}`. What is not known of an answer, such as the cost of a model
  without a price, passes neither form, and the reason says so.
- Texts may be templates over the case: `"{{ expected.must_mention }}"`, `"{{ inputs.question }}"`. One that is
  nothing but an expression keeps its type, so a list stays a list. What is undefined is an error at load.
- A case passes when all its checks pass. With a `threshold`, of the case or of the suite, the weighted mean of their
  scores has to reach it instead. A check scores 1 or 0, or its grade where it grades; `not-` turns it round. `weight`
  is 1; with 0 a check is reported and decides nothing.
- `{assert-set: [check, …], threshold: 0.5, weight: 2}` is one check of several: its score is their weighted mean,
  which has to reach `threshold`; without one, each has to pass.

| check | passes when | example | options |
|---|---|---|---|"""
CHECKS_READ = """
## How they are read

- `regex` and the patterns of `is-sql` are RE2's: linear in time, without look-around. A schema is JSON Schema 2020-12
  unless its `$schema` says otherwise, written out or the name of a file beside eval.yaml, and fetches nothing. XML
  with a document type of its own declarations is refused, so no entity is ever expanded.
- `is-sql` is read by sqlglot: MySQL, or the dialect that `databaseType` names. `allowedTables` and `allowedColumns`
  are patterns of `ACTION::DATABASE::TABLE` and `ACTION::TABLE::COLUMN`, as promptfoo has them, with `null` where a
  statement names none.
- `levenshtein` counts characters, so an emoji is one edit. `rouge-n` is the recall of Penn Treebank tokens, upper
  case apart from lower. `bleu`, `gleu` and `meteor` split at white space and know no case; several texts may be
  given, and the nearest counts. `bleu` of fewer than four words is near 0 unless they are equal. `meteor` matches
  words and Porter stems; promptfoo's finds synonyms in WordNet too, and is higher for those.
- `is-refusal` is a list of English phrases, an empty answer, or what the provider says.
- `cost`, `latency`, `perplexity` and `perplexity-score` take their limit as the value or as `threshold`: dollars,
  milliseconds. Perplexity asks the provider for log-probabilities.
- Checks of tools see the calls of an agent's whole loop, whose tools a case [scripts](../guides/agents.md). Names match
  whole, in any case of letters, with `*` and `?`. `not-trajectory:tool-used` means that none of the tools was called.

## Not here

| of promptfoo's | why not |
|---|---|"""


def pages() -> dict[str, str]:
    """File name in docs/reference/ → its text."""
    return {
        "checks.md": NOTE + checks_page(checks.KINDS, checks.ABSENT),
        "cli.md": NOTE + cli_page(list(cli.COMMANDS)),
        "config.md": NOTE + config_page(config.Config),
        "errors.md": NOTE + errors_page(errors.TidegateError),
        "eval.schema.json": _json(schema.suite_schema()),
        "golden.schema.json": _json(schema.golden_schema()),
        "gate-report.schema.json": gate_schema(),
        "prompt.md": NOTE + prompt_page(front_matter.FrontMatter),
        "records.md": NOTE + records_page([record.CallRow, record.AttemptRow, record.ContentRow]),
    }


def errors_page(root: type[errors.TidegateError]) -> str:
    """Every class of the error tree, in the tree's own order."""
    lines = [
        "# Errors",
        "",
        "Everything tidegate raises on purpose. Programs test for the code: it is `error.code` of an HTTP answer",
        "and in `error_type` of a record. The exit code is that of a command. *Retry* says whether the same call may",
        "succeed when it is sent again. Status and retry of `upstream_rejected` are the provider's own.",
        "",
        "| error | code | HTTP | exit | retry | meaning |",
        "|---|---|--:|--:|---|---|",
    ]
    for depth, kind in _tree(root):
        lines.append(
            f"| {'– ' * depth}{kind.__name__} | `{kind.code}` | {kind.http_status} | {kind.exit_code} "
            f"| {'yes' if kind.retryable else 'no'} | {_cell(inspect.getdoc(kind) or '')} |"
        )
    return "\n".join(lines) + "\n"


def gate_schema() -> str:
    """JSON Schema of what `tidegate gate --json` prints: one report, or several with the worst verdict."""
    _, parts = msgspec.json.schema_components(
        [evaluation.GateReport, evaluation.GateReports], ref_template="#/$defs/{name}"
    )
    for name, part in parts.items():
        notes = attribute_notes(getattr(evaluation, name))
        for key, field in part["properties"].items():
            field.pop("default", None)
            if key in notes:
                field["description"] = _flat(notes[key]).replace("None", "null")
        part["description"] = _flat(part.get("description", ""))
        part["required"] = list(part["properties"])  # what is not known is null, never left out
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tidegate gate --json",
        "description": "A later version may add properties; none goes, and none means something else.",
        "oneOf": [{"$ref": "#/$defs/GateReport"}, {"$ref": "#/$defs/GateReports"}],
        "$defs": parts,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def checks_page(kinds: Mapping[str, checks.Kind], absent: Mapping[str, str]) -> str:
    """Every type of check, in the order of the code, with an example; and those of promptfoo's that are none."""
    lines = [CHECKS]
    for name, kind in kinds.items():
        example = kind.example if isinstance(kind.example, str) else _flow(kind.example)
        options = ", ".join(f"`{option}`" for option in kind.options)
        lines.append(f"| `{name}` | {_cell(kind.summary)} | `{_cell(example)}` | {options} |")
    lines.append(CHECKS_READ)
    for reason in dict.fromkeys(absent.values()):
        names = ", ".join(f"`{name}`" for name, why in absent.items() if why == reason)
        lines.append(f"| {names} | {_cell(reason)} |")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """One line of YAML."""
    return str(
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    ).strip()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def cli_page(commands: list[str]) -> str:
    """What `tidegate --help` and `tidegate COMMAND --help` print."""
    parts = ["# Commands\n", _fence(_help(cli.build(), []))]
    for name in commands:
        parts += [f"## {name}\n", _fence(_help(cli.build(name), [name]))]
    return "\n".join(parts)


def config_page(model: type[BaseModel]) -> str:
    """Every key of tidegate.yaml: one section per object, in the order of the file."""
    intro = [
        "# tidegate.yaml",
        "",
        "Every key has a default; an unknown key is an error that names the nearest known one. A value may be",
        "`${env:NAME}` or `${file:/path}` where a secret is asked for: it is read when it is needed and never printed.",
        "Durations are seconds.",
        "",
    ]
    return "\n".join(intro + _sections(model, vars(config)))


def prompt_page(model: type[BaseModel]) -> str:
    """Every key of a prompt's front matter."""
    intro = [
        "# The front matter of prompt.md",
        "",
        "Only `model` is required; an unknown key is an error that names the nearest known one. Below the front matter",
        "stand the messages, each under a line with its role: `system:`, `developer:`, `user:` or `assistant:`.",
        "[Write a prompt](../guides/write-a-prompt.md) shows it in use.",
        "",
    ]
    return "\n".join(intro + _sections(model, vars(front_matter)))


def _sections(model: type[BaseModel], kinds: Mapping[str, Any]) -> list[str]:
    """One table per object of a model, in the order of the file; `kinds` holds the objects' classes by name."""
    schema = model.model_json_schema()
    objects = {model.__name__: schema, **schema.get("$defs", {})}
    parts: list[str] = []
    for name, place in _places(objects, model.__name__):
        kind = kinds[name]
        notes = attribute_notes(kind)
        parts += [f"## {place}", "", _flat(inspect.getdoc(kind) or ""), ""]
        parts += ["| key | value | default | meaning |", "|---|---|---|---|"]
        required = objects[name].get("required", [])
        for key, field in objects[name]["properties"].items():
            default = "required" if key in required else _default(field)
            parts.append(f"| `{key}` | {_cell(_kind(field, objects))} | {default} | {_cell(notes.get(key, ''))} |")
        parts.append("")
    return parts


def records_page(tables: list[type[msgspec.Struct]]) -> str:
    """The columns that `tidegate sql` and `tidegate calls --where` see."""
    titles = {
        "CallRow": "Table `calls`",
        "AttemptRow": "`calls.attempts[]`",
        "ContentRow": "Table `content`",
    }
    parts = [
        "# Columns of a record",
        "",
        "Durations are seconds, money is nano-USD (10⁻⁹ US dollars), instants are UTC.",
    ]
    parts += ["`calls` has one more column, `day`: the UTC date of `start`, by which the table is partitioned.", ""]
    for table in tables:
        notes = attribute_notes(table)
        parts += [f"## {titles[table.__name__]}", "", _flat(inspect.getdoc(table) or ""), ""]
        parts += ["| column | type | meaning |", "|---|---|---|"]
        for field in _annotations(table):
            parts.append(f"| `{field[0]}` | {_cell(field[1])} | {_cell(notes.get(field[0], ''))} |")
        parts.append("")
    return "\n".join(parts)


def attribute_notes(kind: type) -> dict[str, str]:
    """The docstring under each attribute of a class, its own and what it inherits inside tidegate."""
    notes: dict[str, str] = {}
    for parent in kind.__bases__:
        if parent.__module__.startswith("tidegate."):
            notes |= attribute_notes(parent)
    body = _class(kind).body
    for before, after in pairwise(body):
        if not isinstance(before, ast.AnnAssign) or not isinstance(before.target, ast.Name):
            continue
        match after:
            case ast.Expr(value=ast.Constant(value=str(text))):
                notes[before.target.id] = inspect.cleandoc(text)
    return notes


def _annotations(kind: type) -> Iterator[tuple[str, str]]:
    for node in _class(kind).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ast.unparse(node.annotation)
            words = get_args(getattr(record, text, None))
            yield node.target.id, f"one of {', '.join(f'`{word}`' for word in words)}" if words else f"`{text}`"


def _class(kind: type) -> ast.ClassDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef))


def _tree(kind: type[errors.TidegateError], depth: int = 0) -> Iterator[tuple[int, type[errors.TidegateError]]]:
    yield depth, kind
    for child in kind.__subclasses__():
        if child.__module__ == kind.__module__:
            yield from _tree(child, depth + 1)


def _places(objects: Mapping[str, Any], name: str, at: str = "") -> Iterator[tuple[str, str]]:
    """(class, where it stands in the file), in the order of the file."""
    yield name, f"`{at}`" if at else "The top level"
    for key, field in objects[name]["properties"].items():
        named, listed = field.get("additionalProperties"), field.get("items")
        ref = _ref(next((inner for inner in (named, listed) if isinstance(inner, dict)), field))
        if ref:
            suffix = ".NAME" if named else "[]" if listed else ""
            yield from _places(objects, ref, f"{at}.{key}".lstrip(".") + suffix)


def _ref(field: Mapping[str, Any]) -> str | None:
    ref = field.get("$ref")
    return str(ref).rpartition("/")[2] if ref else None


def _kind(field: Mapping[str, Any], objects: Mapping[str, Any]) -> str:
    """`whole number, 0 to 65535`, `a list of text`, `one of …`."""
    if "anyOf" in field:
        branches = [_kind(branch, objects) for branch in field["anyOf"] if branch.get("type") != "null"]
        return branches[0]
    if _ref(field):
        return "an object, below"
    if "enum" in field or "const" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = field.get("type", "any")
    if kind == "object" and not isinstance(field.get("additionalProperties"), dict):
        return "an object"
    if kind == "object":
        return f"name → {_kind(field.get('additionalProperties', {}), objects)}"
    if kind == "array":
        return f"a list of {_kind(field.get('items', {}), objects)}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    low, high = field.get("minimum"), field.get("maximum")
    if "exclusiveMinimum" in field:
        return f"{words[kind]}, above {field['exclusiveMinimum']}, at most {high:,}"
    if low is not None:
        return (
            f"{words[kind]}, {_number(low)} to {high:,}"
            if high is not None
            else f"{words[kind]}, at least {_number(low)}"
        )
    return "a secret" if field.get("format") == "password" else words.get(kind, kind)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value is None:
        return "none"
    if isinstance(value, dict) and value:
        return "below"
    return f"`{msgspec.json.encode(value).decode()}`"


def _help(app: App, tokens: list[str]) -> str:
    screen = io.StringIO()
    app.help_print(tokens, console=Console(file=screen, width=100, force_terminal=False, color_system=None))
    return "\n".join(line.rstrip() for line in screen.getvalue().strip().splitlines())


def _fence(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _flat(text).replace("|", "\\|")


def with_power(page: str, results: Mapping[str, Any]) -> str:
    """docs/concepts/gate.md with its tables of measured errors, each figure with the place it comes from."""
    before, begin, rest = page.partition("<!-- begin: gate-power -->\n")
    _, end, after = rest.partition("<!-- end: gate-power -->")
    return before + begin + power_tables(results) + end + after


def power_tables(results: Mapping[str, Any]) -> str:
    """False alarms by kind of metric, how often a drop of 10 points is found, and both of `must_pass`."""
    found = {name: list(enumerate(results[name])) for name in ("unchanged", "drop_10", "must_pass")}
    sizes = sorted({row["n"] for _, row in found["unchanged"]})

    def head(title: str) -> list[str]:
        return [f"| {title} | {' | '.join(f'{n} cases' for n in sizes)} |", "|---|" + "--:|" * len(sizes)]

    alarms, power = head("nothing changed: FAIL, in %"), head("10 points worse: FAIL, in %")
    guards = head("`must_pass`: FAIL, in %")
    for kind, title in {"rate": "pass rate", "score": "judge's score"}.items():
        for clustered, looks, repeats in ((False, 1, 1), (False, 1, 3), (False, 2, 3), (True, 1, 3), (True, 2, 3)):
            words = (
                f"{title}, {_repeats(repeats)}{', clusters' if clustered else ''}{', two looks' if looks > 1 else ''}"
            )
            wanted = {"metric": kind, "clustered": clustered, "looks": looks, "repeats": repeats}
            alarms.append(_measured(words, "unchanged", found["unchanged"], wanted, sizes))
    for change in ("everywhere", "one in ten"):
        for repeats in (1, 3):
            where = "every case a little" if change == "everywhere" else "one case in ten entirely"
            words = f"{where}, {_repeats(repeats)}"
            power.append(_measured(words, "drop_10", found["drop_10"], {"change": change, "repeats": repeats}, sizes))
    for words, now, field in (
        ("nothing changed", None, "fail_percent"),
        ("nothing changed, if nothing were tried again", None, "breaks_percent"),
        ("one case always fails", 0.0, "fail_percent"),
    ):
        for repeats in (2, 3):
            wanted = {"now": now, "repeats": repeats}
            title = f"{words}, {_repeats(repeats)}"
            guards.append(_measured(title, "must_pass", found["must_pass"], wanted, sizes, field=field))
    return "\n".join([*alarms, "", *power, "", *guards, ""])


def _repeats(count: int) -> str:
    return f"{count} repeat{'' if count == 1 else 's'}"


def _measured(
    title: str,
    table: str,
    rows: list[tuple[int, Mapping[str, Any]]],
    wanted: Mapping[str, Any],
    sizes: list[int],
    *,
    field: str = "fail_percent",
) -> str:
    cells = []
    for n in sizes:
        index, row = next((i, row) for i, row in rows if row["n"] == n and wanted.items() <= row.items())
        cells.append(f"{row[field]:.1f} <!-- bench: gate-power.json {table}.{index}.{field} -->")
    return f"| {title} | {' | '.join(cells)} |"


def main() -> None:
    """Rewrites every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, "utf-8")
    GATE.write_text(with_power(GATE.read_text("utf-8"), json.loads(POWER.read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    main()
