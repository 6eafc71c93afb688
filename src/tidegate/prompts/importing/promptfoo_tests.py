"""
promptfoo's tests → cases: files and tables are read, defaults merged, variables filled in and multiplied.

A list of texts in a variable makes one case per text, as promptfoo has it; several make all combinations.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.core.document import Document
from tidegate.core.errors import InvalidFile
from tidegate.core.place import Path as FieldPath
from tidegate.prompts.importing import fields
from tidegate.prompts.importing.outcome import Spot
from tidegate.prompts.importing.promptfoo_checks import Assertions, Complaint, Grading, from_text
from tidegate.prompts.importing.promptfoo_judges import Judged
from tidegate.prompts.importing.promptfoo_models import grader, matches
from tidegate.prompts.importing.reading import MAX_BYTES, Given, parse

MAX_CASES = 10_000
_CODE = (".js", ".cjs", ".mjs", ".ts", ".py", ".rb")
_KEYS = {
    **dict.fromkeys(("description", "vars", "assert", "options", "metadata", "prompts", "providers", "threshold"), ""),
    "assertScoringFunction": "runs code: a function that scores a test.",
    "provider": "a test of another model than the prompt's has no place here.",
    "providerOutput": "an answer given beforehand has no place here: cases are answered by the model.",
}
_TRANSFORM = "runs code: the checks judge the answer as it is."
_OPTIONS = {
    **dict.fromkeys(("disableVarExpansion", "disableDefaultAsserts", "provider"), ""),
    **dict.fromkeys(("transform", "postprocess"), _TRANSFORM),
    "transformVars": "runs code: the variables stand as they are written.",
    "prefix": "text around a prompt belongs into the prompt here.",
    "suffix": "text around a prompt belongs into the prompt here.",
    "storeOutputAs": "a case here knows nothing of the answers to others.",
}
_OPTION = "a case has no such option here."
_NESTED = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Case:
    """One case, its variables filled in."""

    id: str
    variables: Mapping[str, Any]
    checks: tuple[Any, ...]
    tags: tuple[str, ...]
    spot: Spot
    prompts: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None
    threshold: float | None = None
    judged: tuple[Judged, ...] = ()

    def concerns(self, prompt: str, provider: str) -> bool:
        """Whether this case is of a prompt under a provider, by their labels."""
        return all(
            wanted is None or any(matches(label, one) for one in wanted)
            for label, wanted in ((prompt, self.prompts), (provider, self.providers))
        )

    def line(self, inputs: Mapping[str, Mapping[str, Any]], needed: Mapping[str, Any]) -> dict[str, Any]:
        """
        The case in a golden set: what the prompt does not take is what is expected of the answer.

        Args:
            needed: what its judges need, by their names.
        """
        given = {name: value for name, value in self.variables.items() if value is not None}
        line: dict[str, Any] = {
            "id": self.id,
            "inputs": {name: _as(inputs[name]["type"], given[name]) for name in inputs if name in given},
        }
        expected = {name: value for name, value in given.items() if name not in inputs} | dict(needed)
        more = {"expected": expected, "checks": list(self.checks), "tags": list(self.tags)}
        line |= {key: value for key, value in more.items() if value}
        return line if self.threshold is None else {**line, "threshold": self.threshold}


@dataclass(slots=True)
class Suite:
    """All cases, and the checks that every one of them has."""

    checks: list[Any] = field(default_factory=list)
    threshold: float | None = None
    cases: list[Case] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What `defaultTest` gives to every test."""

    spot: Spot
    variables: Mapping[str, Any]
    tags: tuple[str, ...]


class Tests:
    """Reads `tests`, `scenarios` and `defaultTest`."""

    def __init__(self, given: Given, top: Spot, check: Complaint, judge_model: str | None = None) -> None:
        """`judge_model` takes the place of every model that judges."""
        self.given = given
        self.top = top
        self.judge_model = judge_model
        self.assertions = Assertions(given, top / "assertionTemplates", check)
        self.ids: set[str] = set()
        self.common_missing = 0
        """Assertions of every test that gave no check."""

    def suite(self) -> Suite:
        """Raises InvalidFile when lists in variables make more cases, or longer ones, than a suite can hold."""
        defaults = self._defaults()
        suite = Suite(threshold=_threshold(defaults.spot))
        asserts = [defaults.spot / "assert" / index for index in range(len(_list(defaults.spot / "assert")))]
        tests = [*self._listed(self.top / "tests"), *self._scenarios()]
        apart = any((test / "options" / "disableDefaultAsserts").value is True for test, _ in tests)
        common = [] if apart else [one for one in asserts if self.assertions.constant(one)]
        for one in common:
            suite.checks += self.assertions.read(one, {})
        self.common_missing = self.assertions.missing
        own = [one for one in asserts if one not in common]
        chars = 0
        for test, inherited in tests:
            for case in self._cases(test, inherited, defaults, own):
                suite.cases.append(case)
                chars += sum(len(value) for value in case.variables.values() if isinstance(value, str))
                if len(suite.cases) > MAX_CASES or chars > MAX_BYTES:
                    raise test.invalid(f"more than {MAX_CASES:,} cases or {MAX_BYTES >> 20} MiB of variables.")
        return suite

    def _defaults(self) -> _Defaults:
        spot = self.top / "defaultTest"
        if isinstance(spot.value, str):
            spot = next((Spot(document, spot.items) for document in self._documents(spot)), spot)
        if spot.value is not None and not isinstance(spot.value, dict):
            spot.left_out("must be a mapping.")
            return _Defaults(self.top / "defaultTest" / "none", {}, ())
        self._explain(spot)
        return _Defaults(spot, self._variables(spot / "vars"), _tags(spot / "metadata"))

    def _explain(self, spot: Spot) -> None:
        fields.unknown(spot, _KEYS, "a case has no such field here.")
        fields.unknown(spot / "options", _OPTIONS, _OPTION)
        if (spot / "threshold").value is not None and _threshold(spot) is None:
            (spot / "threshold").left_out("a threshold is a score from 0 to 1.")

    def _listed(self, spot: Spot) -> list[tuple[Spot, Mapping[str, Any]]]:
        """Every test, with the variables it inherits from its scenario."""
        found: list[tuple[Spot, Mapping[str, Any]]] = []
        value = spot.value
        if isinstance(value, str) or (isinstance(value, dict) and "path" in value):
            for document in self._documents(spot if isinstance(value, str) else spot / "path"):
                inner = Spot(document, spot.items)
                found += self._listed(inner) if isinstance(inner.value, list) else [(inner, {})]
        elif isinstance(value, list):
            for index, one in enumerate(value):
                nested = isinstance(one, str) or (isinstance(one, dict) and "path" in one)
                found += self._listed(spot / index) if nested else [(spot / index, {})]
        elif value is not None:
            spot.left_out("tests are a list, or the name of a file.")
        return found

    def _scenarios(self) -> list[tuple[Spot, Mapping[str, Any]]]:
        found: list[tuple[Spot, Mapping[str, Any]]] = []
        for index in range(len(_list(self.top / "scenarios"))):
            scenario = self.top / "scenarios" / index
            fields.unknown(scenario, {"config": "", "tests": "", "description": ""})
            tests = self._listed(scenario / "tests")
            for number in range(len(_list(scenario / "config"))):
                config = scenario / "config" / number
                fields.unknown(config, {"vars": ""}, "only variables are taken from a scenario's config.")
                found += [(test, self._variables(config / "vars")) for test, _ in tests]
        return found

    def _documents(self, spot: Spot) -> Iterator[Document]:
        """The files that a text names, as lists of tests."""
        reference = str(spot.value).removeprefix("file://")
        if re.sub(r":\w+\Z", "", reference).lower().endswith(_CODE):
            spot.refused(f"runs code: {reference[:80]!r} is a program that makes tests.")
            return
        if re.match(r"\w+://|huggingface:", reference):
            spot.left_out("tests kept elsewhere are not fetched.")
            return
        try:
            paths = self.given.beside(reference)
        except ValueError as error:
            fields.not_read(spot, error)
            return
        for path in paths:
            suffix = path.suffix.lower()
            text = self.given.read(path)
            if suffix == ".csv":
                yield _table(text, str(path))
            elif suffix == ".jsonl":
                yield _lines(text, path)
            elif suffix in (".yaml", ".yml", ".json"):
                yield parse(text, path)
            else:
                spot.left_out(f"tests in a {suffix or 'nameless'} file are not read.")

    def _cases(
        self, test: Spot, inherited: Mapping[str, Any], defaults: _Defaults, asserts: list[Spot]
    ) -> Iterator[Case]:
        if not isinstance(test.value, dict):
            test.left_out("a test is a mapping.")
            return
        self._explain(test)
        variables = {**defaults.variables, **inherited, **self._variables(test / "vars")}
        expand = (test / "options" / "disableVarExpansion").value is not True
        expand = expand and (defaults.spot / "options" / "disableVarExpansion").value is not True
        own = [] if (test / "options" / "disableDefaultAsserts").value is True else asserts
        own = [*own, *(test / "assert" / index for index in range(len(_list(test / "assert"))))]
        tags = tuple(dict.fromkeys((*defaults.tags, *_tags(test / "metadata"))))
        grading = self._grading(test, defaults.spot)
        for combination in _combinations(variables) if expand else [variables]:
            filled = _filled(combination)
            before = self.assertions.missing - self.common_missing
            made = [one for spot in own for one in self.assertions.read(spot, filled, grading)]
            if self.assertions.missing > before:
                _explain_mean(test, defaults.spot)
            yield Case(
                self._id(test),
                filled,
                tuple(one for one in made if not isinstance(one, Judged)),
                tags,
                test,
                _labels(test / "prompts"),
                _labels(test / "providers"),
                _threshold(test),
                tuple(one for one in made if isinstance(one, Judged)),
            )

    def _grading(self, *spots: Spot) -> Grading:
        """How the answers to a test are judged: by what it says itself, else by the defaults."""
        model = next((one for one in (grader(spot / "options" / "provider") for spot in spots) if one), None)
        barred = None
        if any(_threshold(spot) is not None for spot in spots):
            barred = "it counts in the mean that `threshold` is asked of, and no judge does here."
        for key in ("rubricPrompt", "factuality"):
            if any((spot / "options" / key).value is not None for spot in spots):
                barred = f"`options.{key}` is not carried over: write the judge yourself."
        return Grading(model, self.judge_model, barred)

    def _variables(self, spot: Spot) -> dict[str, Any]:
        value = spot.value
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            merged: dict[str, Any] = {}
            for one in [spot] if isinstance(value, str) else [spot / index for index in range(len(value))]:
                for document in self._documents(one):
                    merged |= self._variables(Spot(document, spot.items))
            return merged
        if value is not None and not isinstance(value, dict):
            spot.left_out("variables are a mapping.")
        given = value if isinstance(value, dict) else {}
        read = {name: self._variable(spot / name, one) for name, one in given.items()}
        return {name: one for name, one in read.items() if one is not _NOTHING}

    def _variable(self, spot: Spot, value: Any) -> Any:
        if isinstance(value, list):
            read = [self._variable(spot / index, one) for index, one in enumerate(value)]
            return [one for one in read if one is not _NOTHING]
        if isinstance(value, str) and value.startswith("file://"):
            return self._from_file(spot, value.removeprefix("file://"))
        if isinstance(value, str) and value.startswith("package:"):
            spot.refused("runs code: a function of a package that makes the value.")
            return _NOTHING
        return value

    def _from_file(self, spot: Spot, name: str) -> Any:
        if name.lower().endswith(_CODE):
            spot.refused(f"runs code: {name[:80]!r} is a program that makes the value.")
            return _NOTHING
        try:
            paths = self.given.beside(name)
            values = []
            for path in paths:
                text = self.given.read(path)
                is_yaml = path.suffix.lower() in (".yaml", ".yml")
                values.append(_compact(parse(text, path).data) if is_yaml else text.strip())
        except ValueError as error:
            fields.not_read(spot, error)
            return _NOTHING
        except InvalidFile as error:
            spot.left_out(f"{name!r} is no text that can be read: {error.problems[0].message}")
            return _NOTHING
        return values[0] if len(values) == 1 else values

    def _id(self, test: Spot) -> str:
        about = (test / "description").value
        text = re.sub(r"[\x00-\x1f\x7f]+", " ", about).strip()[:180] if isinstance(about, str) else ""
        stem, number = text or "case", 1 if text else len(self.ids) + 1
        chosen = text or f"case-{number}"
        while chosen in self.ids:
            number += 1
            chosen = f"{stem} {number}" if text else f"case-{number}"
        self.ids.add(chosen)
        return chosen


_NOTHING = object()
"""What stands for a value that was refused: nothing is set then."""


def _threshold(spot: Spot) -> float | None:
    value = (spot / "threshold").value
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    return value if whole and 0 <= value <= 1 else None


def _explain_mean(*spots: Spot) -> None:
    """Says of the threshold that holds that it is of another mean than before."""
    for spot in spots:
        if _threshold(spot) is not None:
            (spot / "threshold").changed("the mean it is asked of lacks the assertions that did not carry over.")
            return


def _list(spot: Spot) -> list[Any]:
    if isinstance(spot.value, list):
        return spot.value
    if spot.value is not None:
        spot.left_out("must be a list.")
    return []


def _labels(spot: Spot) -> tuple[str, ...] | None:
    return tuple(map(str, spot.value)) if isinstance(spot.value, list) else None


def _tags(spot: Spot) -> tuple[str, ...]:
    """Metadata serves to choose tests: so do tags."""
    tags = []
    for key, value in spot.value.items() if isinstance(spot.value, dict) else ():
        if isinstance(value, str | int | float):
            tags.append(f"{key}={_text(value)}")
        else:
            (spot / key).left_out("a tag is a text: only plain values become one.")
    return tuple(tags)


def _combinations(variables: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every choice of one text from each list whose first item is a text."""
    lists = [
        value if isinstance(value, list) and value and isinstance(value[0], str) else [value]
        for value in variables.values()
    ]
    for chosen in itertools.product(*lists):
        yield dict(zip(variables, chosen, strict=True))


def _filled(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables as promptfoo puts them into a prompt: numbers as JavaScript has them, `{{ other }}` replaced."""
    filled = {name: _number(value) for name, value in variables.items()}
    for name, value in filled.items():
        if isinstance(value, str):
            filled[name] = value.removesuffix("\n")
    for _ in range(5):
        for name, value in filled.items():
            found = _NESTED.search(value) if isinstance(value, str) else None
            if found and filled.get(found[1]) is not None:
                filled[name] = value.replace(found[0], _text(filled[found[1]]), 1)
    return filled


def _figure(text: str) -> Any:
    """A cell that is a number; else its text."""
    return _number(float(text)) if re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", text) else text


def _number(value: Any) -> Any:
    """JavaScript knows no difference between 1 and 1.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _as(kind: str, value: Any) -> Any:
    """A value that is of another type than other cases' is a text."""
    return _text(value) if kind == "string" else value


def _lines(text: str, path: Any) -> Document:
    tests: list[Any] = []
    lines: dict[FieldPath, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            lines[(len(tests),)] = number
            tests.append(parse(line, path, first_line=number).data)
    return Document(str(path), tests, lines)


def _table(text: str, file: str) -> Document:
    """A CSV table: a column is a variable, or `__expected` and the like."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    tests: list[Any] = []
    lines: dict[FieldPath, int] = {}
    try:
        for row in reader:
            lines[(len(tests),)] = reader.line_num
            tests.append(_row({key: value for key, value in row.items() if isinstance(value, str) and key is not None}))
    except csv.Error as error:
        raise InvalidFile(
            [Document(file, None, {(): reader.line_num}).problem((), f"not a CSV table: {error}.")]
        ) from error
    return Document(file, tests, lines)


def _row(row: Mapping[str, str]) -> dict[str, Any]:
    row = {name.strip(): value for name, value in row.items()}
    test: dict[str, Any] = {"vars": {name: value for name, value in row.items() if not name.startswith("__")}}
    asserts = [
        from_text(value.strip()) for name, value in row.items() if name.startswith("__expected") and value.strip()
    ]
    metadata: dict[str, str] = {}
    for name, value in row.items():
        if not value.strip() or not name.startswith("__") or name.startswith("__expected"):
            continue
        key = name.removeprefix("__")
        if key in ("prefix", "suffix"):
            test.setdefault("options", {})[key] = value
        elif key.startswith("metadata:"):
            metadata[key.removeprefix("metadata:")] = value
        elif key == "metric":
            asserts = [{**one, "metric": value} for one in asserts]
        elif configured := re.fullmatch(r"config:__expected(\d*):threshold", key):
            at = int(configured[1] or 1) - 1
            asserts[at : at + 1] = [{**one, "threshold": _figure(value)} for one in asserts[at : at + 1]]
        elif key == "threshold":
            if _figure(value) != 0:  # which is none, in promptfoo's tables
                test[key] = _figure(value)
        else:
            test[key] = value
    return test | ({"assert": asserts} if asserts else {}) | ({"metadata": metadata} if metadata else {})
