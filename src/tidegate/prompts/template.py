"""
The template language of messages: MiniJinja, cut down to what a prompt needs.

Undefined values are errors, nothing is escaped, nothing can be included, and a render spends bounded fuel. Values are
inert: what a variable holds is never read as template text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import Any

from minijinja import Environment, TemplateError

from tidegate.core.errors import nearest

FUEL = 500_000
"""Steps, not seconds: stops an endless loop, not one step that makes a huge list. Lets 1 MiB pass through a filter."""

_FORBIDDEN = ("include", "extends", "import", "from")
_HIDDEN_GLOBALS = ("debug",)
_TOKEN = re.compile(
    r"""\{\#.*?\#\}                                                     # comment
      | \{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}        # text that only looks like a template
      | (?P<code>\{\{(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?!\}\}).)*\}\}
               | \{%(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?!%\}).)*%\})""",
    re.DOTALL | re.VERBOSE,
)
_STRING = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", re.DOTALL)
_STATEMENT = re.compile(r"\{%[-+]?\s*(\w+)")


def environment() -> Environment:
    """A fresh environment; templates added to it are compiled once."""
    made = Environment(
        undefined_behavior="strict",
        auto_escape_callback=lambda _name: False,
        keep_trailing_newline=True,
        fuel=FUEL,
    )
    for name in _HIDDEN_GLOBALS:
        made.remove_global(name)
    made.add_filter("tojson", tojson)
    return made


def problems(source: str, declared: Iterable[str], images: Collection[str] = ()) -> list[tuple[int, str]]:
    """
    What is wrong with one message's template, as (1-based line in `source`, sentence); empty when nothing is.

    Args:
        declared: the prompt's inputs.
        images: those of them that are images; they may only be shown whole, or asked for in an `if`.
    """
    try:
        _reading().add_template("message", source)
    except TemplateError as error:
        return [(error.line or 1, f"template syntax: {reason(error)}.")]
    found = []
    for line, code in _code(source):
        word = statement[1] if (statement := _STATEMENT.match(code)) else None
        if word in _FORBIDDEN:
            found.append((line, f"`{{% {word} %}}` is not allowed: a prompt is one file."))
        cut = [name for name in images if _use(name).search(code) and not _whole(name).match(code)]
        if cut and word not in ("if", "elif"):
            found.append((line, f"the image {cut[0]!r} can only be shown whole, as `{{{{ {cut[0]} }}}}`."))
    known = set(declared)
    for name in used(source) - known:
        hint = nearest(name, known) or f" Declare it: `inputs: {{{name}: string}}`."
        found.append((_line_of(source, name), f"the variable {name!r} is not declared in `inputs`.{hint}"))
    return sorted(found)


def used(source: str) -> set[str]:
    """The variables that a template, valid or not, asks its caller for."""
    env = _reading()
    try:
        return {name for name in env.undeclared_variables_in_str(source) if name not in env.globals}
    except TemplateError:
        return set()


@cache
def _reading() -> Environment:
    """The environment that templates are looked at in: the last one is kept, and nothing is ever rendered."""
    return environment()


def reason(error: TemplateError) -> str:
    """A template error as half a sentence, without the engine's place and its dump of the source."""
    text = str(error.detail or error.message)
    return text.removesuffix(".")


def _code(source: str) -> Iterator[tuple[int, str]]:
    """The expressions and statements of a template, strings blanked, each with its line."""
    for token in _TOKEN.finditer(source):
        if token["code"]:
            blanked = _STRING.sub(lambda string: re.sub(r"[^\n]", " ", string[0]), token["code"])
            yield source.count("\n", 0, token.start()) + 1, blanked


def _line_of(source: str, name: str) -> int:
    for line, code in _code(source):
        if use := _use(name).search(code):
            return line + code.count("\n", 0, use.start())
    return 1


def _use(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.]){re.escape(name)}\b")


def _whole(name: str) -> re.Pattern[str]:
    return re.compile(rf"\{{\{{[-+]?\s*{re.escape(name)}\s*[-+]?\}}\}}\Z")


def tojson(value: Any, indent: int | None = None) -> str:
    """JSON for a model to read: the engine's own would write `'` and `<` as escapes, for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
