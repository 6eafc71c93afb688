"""
What a user writes as a check → a check that is ready for one case.

A check is a name (`is-json`) or a map of a name (`{contains: "{{ expected.must_mention }}"}`) with options beside it
(`{rouge-n: "…", threshold: 0.6, weight: 2}`). What does not depend on a case is built at load; templates are filled in
per case, before any call is made. Every error names file and line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import minijinja

from tidegate.core.document import parse_json
from tidegate.core.errors import InvalidFile, Problem, nearest
from tidegate.evals.checks import NOT, SET, Check, build, combined, known
from tidegate.prompts.source import escapes, leads_out, read_regular

OPTIONS = ("threshold", "weight", "alpha", "beta", "gamma")
"""Keys of a check that never are its name."""
FUEL = 50_000
MAX_FILE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One check as written: where it stands, its type, its value with files read in, and the check when it is fixed."""

    file: str
    line: int
    field: str
    name: str
    type: str
    value: Any
    options: Mapping[str, Any]
    inner: tuple[CheckSpec, ...]
    """The checks of an `assert-set`."""
    check: Check | None

    def bind(self, case_id: str, variables: Mapping[str, Any]) -> Check:
        """The check for one case. Raises InvalidFile when a template can not be filled in, or gives a bad value."""
        if self.check is not None:
            return self.check
        try:
            if self.inner:
                return combined(self.name, [one.bind(case_id, variables) for one in self.inner], self.options)
            return build(self.name, self.type, _filled(self.value, variables), self.options)
        except minijinja.TemplateError as error:
            hint = _hint(self.value, variables) if error.kind == "UndefinedError" else ""
            message = f"{_detail(error)} in case {case_id!r}.{hint}"
        except ValueError as error:
            message = f"{error} (in case {case_id!r})"
        raise InvalidFile([_with(Problem(self.file, self.line, self.field, ""), message)])

    @property
    def plain(self) -> dict[str, Any]:
        """The check as plain values, for digests."""
        value = [one.plain for one in self.inner] if self.inner else self.value
        return {self.type: value, **self.options}

    @property
    def weight(self) -> float:
        return float(self.options.get("weight", 1))


def read_checks(
    written: list[Any], folder: Path, place: Callable[[int, str | None], Problem], *, prefix: str = ""
) -> tuple[tuple[CheckSpec, ...], list[Problem]]:
    """
    The checks of one list, and every problem found in it.

    Args:
        written: the list as parsed.
        folder: the suite's folder; schema files stand in it.
        place: (index, check type or None) → a problem at that check with an empty message.
        prefix: goes before the results' names (`case/` for a case's own checks).
    """
    specs: list[CheckSpec] = []
    problems: list[Problem] = []
    for index, item in enumerate(written):
        try:
            type_, value, options = _split(item)
        except ValueError as error:
            problems.append(_with(place(index, None), str(error)))
            continue
        where = place(index, type_ if isinstance(item, dict) else None)
        try:
            specs.append(_spec(where, type_, value, options, folder))
        except ValueError as error:
            problems.append(_with(where, str(error)))
        except InvalidFile as error:
            problems += error.problems
    return _named(specs, prefix), problems


def complaint(written: Any) -> str | None:
    """What is wrong with a check that reads no file, as sentences; None when it is ready."""
    _, problems = read_checks([written], Path(), lambda _, __: Problem("", 0, "", ""))
    return " ".join(problem.message for problem in problems) or None


def inside(folder: Path, name: str, what: str) -> Path:
    """The file `name` of `folder`. Raises ValueError when it leaves the folder or is not there."""
    path = folder / name
    if escapes(name) or leads_out(folder, name):
        raise ValueError(f"{name!r} leaves the folder; {what} stands beside eval.yaml")
    if not path.is_file():
        there = [item.name for item in folder.iterdir() if item.is_file()]
        raise ValueError(f"there is no file {name!r} beside eval.yaml.{nearest(name, there)}")
    return path


def read_text(path: Path) -> str:
    """The file as text, line ends as `\\n`. Raises InvalidFile when it is not UTF-8, too large, or can not be read."""
    try:
        body = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidFile([Problem(str(path), 0, "", f"can not be read: {error.strerror}.")]) from error
    if body is None:
        raise InvalidFile([Problem(str(path), 0, "", "is not a regular file.")])
    if len(body) > MAX_FILE_BYTES:
        raise InvalidFile([Problem(str(path), 0, "", f"larger than {MAX_FILE_BYTES >> 20} MiB.")])
    try:
        return body.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidFile([Problem(str(path), line, "", "not valid UTF-8.")]) from error


def _split(item: Any) -> tuple[str, Any, dict[str, Any]]:
    """(type, value, options) of a check as written. Raises ValueError."""
    if isinstance(item, str):
        item = {item: None}
    names = [key for key in item if key not in OPTIONS] if isinstance(item, dict) else []
    if not names:
        raise ValueError("a check is a name, or a map with one key, such as {contains: refund}.")
    checks = [name for name in names if known(name) is None]
    if len(checks) > 1:
        raise ValueError(f"two checks in one map, {checks[0]!r} and {checks[1]!r}; write each as an item of its own.")
    type_ = (checks or names)[0]
    wrong = known(type_)
    if wrong:
        raise ValueError(wrong)
    return type_, item[type_], {key: value for key, value in item.items() if key != type_}


def _spec(where: Problem, type_: str, value: Any, options: Mapping[str, Any], folder: Path) -> CheckSpec:
    inner: tuple[CheckSpec, ...] = ()
    check: Check | None = None
    if type_ == SET:
        inner = _set(where, value, folder)
        combined(type_, (), options)
        if all(one.check for one in inner):
            check = combined(type_, [one.check for one in inner if one.check], options)
    else:
        if type_.removeprefix(NOT) in ("is-json", "contains-json") and isinstance(value, str):
            path = inside(folder, value, "a schema")
            value = parse_json(read_text(path), str(path)).data
        check = None if _templated(value) else build(type_, type_, value, options)
    return CheckSpec(where.file, where.line, where.field, type_, type_, value, dict(options), inner, check)


def _set(where: Problem, value: Any, folder: Path) -> tuple[CheckSpec, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("takes a list of checks")
    inner, problems = read_checks(value, folder, lambda index, _: replace(where, field=f"{where.field}[{index}]"))
    if problems:
        raise InvalidFile(problems)
    return inner


def _named(specs: list[CheckSpec], prefix: str) -> tuple[CheckSpec, ...]:
    """Results carry the type; where a list holds several of one type they are numbered: `contains#1`, `contains#2`."""
    types = [spec.type for spec in specs]
    named = []
    for index, spec in enumerate(specs):
        several = types.count(spec.type) > 1
        name = prefix + (f"{spec.type}#{types[: index + 1].count(spec.type)}" if several else spec.type)
        if name == spec.name:
            named.append(spec)
            continue
        check = replace(spec.check, name=name) if spec.check else None
        named.append(replace(spec, name=name, check=check))
    return tuple(named)


def _with(place: Problem, message: str) -> Problem:
    sentence = message if message.endswith((".", "?")) else message + "."
    return Problem(place.file, place.line, place.field, sentence)


def _templated(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_templated, value.values()))
    if isinstance(value, list):
        return any(map(_templated, value))
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _filled(value: Any, variables: Mapping[str, Any]) -> Any:
    """Templates in texts filled in. What is one expression and nothing else keeps its type: a list stays a list."""
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if not _templated(value):
        return value
    text = _environment().render_str(value, **variables)
    alone = _ALONE.fullmatch(value)
    if alone is None:
        return text
    found = _environment().eval_expr(alone[1], **variables)
    return found if isinstance(found, list | dict | bool) else text


_ALONE = re.compile(r"\{\{((?:(?!\{\{|\}\}|\{%).)*)\}\}", re.DOTALL)


@cache
def _environment() -> minijinja.Environment:
    return minijinja.Environment(
        loader=_no_includes, undefined_behavior="strict", keep_trailing_newline=True, fuel=FUEL
    )


def _no_includes(name: str) -> NoReturn:
    raise ValueError(f"a check includes no template ({name})")


def _detail(error: minijinja.TemplateError) -> str:
    return (error.detail or error.message.splitlines()[0]).replace("`", "'")


def _hint(value: Any, variables: Mapping[str, Any]) -> str:
    """The nearest key for a misspelt `expected.x` or `inputs.x`."""
    if isinstance(value, dict | list):
        return "".join(_hint(item, variables) for item in (value.values() if isinstance(value, dict) else value))
    if not _templated(value):
        return ""
    try:
        names = _environment().undeclared_variables_in_str(value, nested=True)
    except minijinja.TemplateError:
        return ""
    for name in sorted(names):
        root, _, key = name.partition(".")
        if root not in variables:
            return nearest(root, variables)
        if isinstance(variables[root], dict) and key and key.split(".")[0] not in variables[root]:
            return nearest(key.split(".")[0], variables[root])
    return ""
