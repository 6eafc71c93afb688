"""
Nunjucks and Jinja2 templates → the template language of messages, which shares most of theirs.

What is shared passes through as it stands. What only looks shared is rewritten (`elseif`, `dump`, a value that may be
missing) or found: an expression becomes a comment in its place, a statement makes the whole template unusable, because
what it encloses would be something else without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from minijinja import Environment, TemplateError

from tidegate.prompts import template

Language = Literal["nunjucks", "jinja2"]

_OPEN = re.compile(r"\{[{%#]")
_OUT = re.compile(r"""\{\{(?P<code>(?>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?!\}\}).)*+)\}\}""", re.DOTALL)
_STATEMENT = re.compile(r"""\{%(?P<code>(?>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?!%\}).)*+)%\}""", re.DOTALL)
_RAW = re.compile(r"\{%[-+]?\s*(?:raw|verbatim)\s*[-+]?%\}")
_END_RAW = re.compile(r"\{%[-+]?\s*(?:endraw|endverbatim)\s*[-+]?%\}")
_WORD = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | (?P<number>\d+(?:\.\d+)?)
      | (?P<name>[A-Za-z_$][\w$]*)
      | (?P<mark>===|!==|==|!=|<=|>=|\*\*|//|\S))""",
    re.VERBOSE,
)
_NAME = re.compile(r"[A-Za-z_]\w*(?![\w.\[(])")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\Z")
_IS_DEFINED = re.compile(r"\b([A-Za-z_]\w*)\s+is\s+(not\s+)?(defined|undefined)\b")

_STATEMENTS: Mapping[Language, Collection[str]] = {
    "nunjucks": {"if", "elif", "elseif", "else", "endif", "for", "endfor"},
    "jinja2": {"if", "elif", "else", "endif", "for", "endfor", "set"},
}
_NUNJUCKS_FILTERS = {
    *("capitalize", "default", "d", "dump", "first", "join", "last", "length", "lower"),
    *("replace", "reverse", "safe", "string", "trim", "upper"),
}
_WORDS = {"and", "or", "not", "in", "if", "else", "true", "false", "none", "True", "False", "None", "is"}
_MARKS: Mapping[Language, Collection[str]] = {
    "nunjucks": {"==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ",", ".", "|"},
    "jinja2": {"==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ",", ".", "|", "+", "-", "*", "/", "//", "%", "~"},
}


class Type(NamedTuple):
    """What a variable holds."""

    name: str
    """As inputs name it: `boolean`, `list`, `object`, …"""
    optional: bool = False


_NONE: Mapping[str, Type] = {}


@dataclass(slots=True)
class Translated:
    """A message's template in our language, and what is not as it was."""

    text: str
    variables: set[str] = field(default_factory=set)
    iterated: set[str] = field(default_factory=set)
    """Those of them that a `for` goes over."""
    opened: set[str] = field(default_factory=set)
    """Those of them that something is taken out of: `x.a`."""
    omitted: list[tuple[int, str]] = field(default_factory=list)
    """(1-based line, why) of each expression that became a comment."""
    changed: list[tuple[int, str]] = field(default_factory=list)
    fatal: list[tuple[int, str]] = field(default_factory=list)
    """Why the template can not be used at all; empty when it can."""


def translate(source: str, language: Language, *, types: Mapping[str, Type] = _NONE) -> Translated:
    """
    `source` in our language.

    Args:
        types: of variables. Nunjucks shows them otherwise (`true`, `a,b`), and of Jinja2 they say what is empty.
    """
    result = Translated("")
    writer = _Writer(language, types, result)
    pieces: list[str] = []
    end, line = 0, 1
    while opening := _OPEN.search(source, end):
        line += source.count("\n", end, opening.start())
        pieces.append(source[end : opening.start()])
        close = _end(source, opening)
        if close is None:
            result.fatal.append((line, f"`{opening[0]}` is not closed."))
            return result
        tag = source[opening.start() : close]
        pieces.append(writer.tag(tag, line))
        line += tag.count("\n")
        end = close
    result.text = "".join([*pieces, source[end:]])
    if not result.fatal:
        _compile(result)
    return result


def _end(source: str, opening: re.Match[str]) -> int | None:
    """Where the tag that begins here ends; None when it does not."""
    at = opening.start()
    if opening[0] == "{#":
        close = source.find("#}", at + 2)
        return None if close < 0 else close + 2
    if raw := _RAW.match(source, at):
        closing = _END_RAW.search(source, raw.end())
        return closing.end() if closing else None
    found = (_OUT if opening[0] == "{{" else _STATEMENT).match(source, at)
    return found.end() if found else None


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes one tag after the other in our language."""

    language: Language
    types: Mapping[str, Type]
    result: Translated

    def tag(self, tag: str, line: int) -> str:
        if tag.startswith("{#"):
            return tag
        if _RAW.match(tag):
            return re.sub(r"\{%([-+]?\s*(?:end)?)verbatim", r"{%\1raw", tag)
        if tag.startswith("{%"):
            return self._statement(tag, line)
        before, code, after = _trim_marks(tag[2:-2])
        code = self._defined(code, line)
        why = complaint(code, self.language)
        if why:
            self.result.omitted.append((line, why))
            return left_out(tag)
        return f"{{{{{before} {self._shown(code, line)} {after}}}}}"

    def _shown(self, code: str, line: int) -> str:
        if self.language == "jinja2":
            return _present(code, '""')
        if re.search(r"\|\s*dump\b(?!\s*\()", code):
            why = "`dump` writes JSON without spaces, `tojson` with one after each `,` and `:`."
            self.result.changed.append((line, why))
        kind = self.types.get(code)
        if kind is not None and kind.name == "boolean":
            return f'{code} if {code} == "" else {code} | tojson' if kind.optional else f"{code} | tojson"
        if kind is not None and kind.name == "list":
            return f'{code} | join(",")'
        if kind is not None and kind.name == "object":
            why = f"`{code}` has several parts; it is shown as JSON, not as `[object Object]`."
            self.result.changed.append((line, why))
            return f"{code} | tojson"
        return _present(re.sub(r"\|\s*dump\b", "| tojson", code), '""')

    def _statement(self, tag: str, line: int) -> str:
        before, code, after = _trim_marks(tag[2:-2])
        word, _, rest = self._defined(code, line).partition(" ")
        if word not in _STATEMENTS[self.language]:
            return self._fatal(tag, line, f"`{{% {word} %}}` is not in the part of {self.language} that is shared.")
        targets, subject = "", rest.strip()
        if word in ("for", "set"):
            targets, sign, subject = (part.strip() for part in rest.partition(" in " if word == "for" else "="))
            if "," in targets and self.language == "nunjucks":
                return self._fatal(tag, line, "a loop over two: Nunjucks decides by the value what they are.")
            subject = re.sub(r"\.items\(\)\Z", " | items", subject)
            targets += f" {sign}"
            if word == "for" and (over := _NAME.match(subject)):
                self.result.iterated.add(over[0])
        why = complaint(subject, self.language) if subject else None
        if why:
            return self._fatal(tag, line, why)
        word = "elif" if word == "elseif" else word
        subject = _present(subject, "[]" if word == "for" else '""')
        return f"{{%{before} {' '.join(part for part in (word, targets, subject) if part)} {after}%}}"

    def _fatal(self, tag: str, line: int, why: str) -> str:
        self.result.fatal.append((line, why))
        return tag

    def _defined(self, code: str, line: int) -> str:
        """Here every input is defined: one that is not given is empty."""
        if self.language == "nunjucks" or not _IS_DEFINED.search(code):
            return code
        why = "an input that is not given is empty here, so `is defined` asks whether it is empty."
        self.result.changed.append((line, why))
        return _IS_DEFINED.sub(self._not_empty, code)

    def _not_empty(self, found: re.Match[str]) -> str:
        kind = self.types.get(found[1])
        empty = {"list": "[]", "object": "{}"}.get(kind.name if kind else "", '""')
        return f"{found[1]} {'==' if bool(found[2]) == (found[3] == 'defined') else '!='} {empty}"


def complaint(code: str, language: Language) -> str | None:
    """Why an expression does not mean the same here, as a sentence; None when it does."""
    words = list(_words(code))
    for index, (kind, text) in enumerate(words):
        before = words[index - 1][1] if index else ""
        after = words[index + 1][1] if index + 1 < len(words) else ""
        if kind == "name" and before == "|":
            if why := _filter_complaint(text, language):
                return why
        elif kind == "name" and after == "(" and text not in _WORDS and (text != "range" or before == "."):
            return f"`{text}(…)` calls a function; only filters are shared."
        elif kind == "name" and text == "is" and language == "nunjucks":
            return "tests (`is …`) are not shared."
        elif kind == "name" and before == "." and text == "length":
            return "`.length` is of JavaScript; write `| length`." if words[max(index - 2, 0)][1] != "loop" else None
        elif kind == "mark" and text not in _MARKS[language]:
            return f"`{text}` is not in the part of {language} that is shared."
    return None


def _filter_complaint(name: str, language: Language) -> str | None:
    if language == "nunjucks":
        return None if name in _NUNJUCKS_FILTERS else f"the filter `{name}` is not shared, or means something else."
    try:
        template.environment().render_str(f"{{{{ x | {name} }}}}", x="")
    except TemplateError as error:
        return f"there is no filter `{name}`." if error.kind == "UnknownFilter" else None
    except (TypeError, ValueError):
        return None
    return None


def _words(code: str) -> Iterator[tuple[str, str]]:
    for word in _WORD.finditer(code):
        yield str(word.lastgroup), word[str(word.lastgroup)]


def _present(code: str, absent: str) -> str:
    """A path that may end at nothing gives `absent`, as both languages have it; a message refuses what is undefined."""
    path, bar, filters = code.partition("|")
    path = path.strip()
    if not _PATH.match(path) or path.startswith("loop.") or re.match(r"\s*(?:default|d)\b", filters):
        return code
    return path_code(path.split("."), absent) + (f" |{filters}" if bar else "")


def path_code(path: Sequence[str], absent: str) -> str:
    """A path as an expression: where a step of it is not there, it is `absent`."""
    if path[0] == "loop":
        return ".".join(path)
    code = path[0]
    for index, segment in enumerate(path[1:], start=2):
        step = f"[{segment if segment.isdigit() else json.dumps(segment)}]"
        step = f".{segment}" if _IDENTIFIER.match(segment) else step
        code = f"{wrapped(code)}{step} | default({absent if index == len(path) else '{}'})"
    return code


def wrapped(code: str) -> str:
    """An expression that something may be put behind."""
    return f"({code})" if " " in code else code


def _trim_marks(code: str) -> tuple[str, str, str]:
    before = code[:1] if code[:1] in ("-", "+") else ""
    after = code[-1:] if code[-1:] in ("-", "+") and len(code) > 1 else ""
    return before, code[len(before) : len(code) - len(after)].strip(), after


def _compile(result: Translated) -> None:
    env = template.environment()
    try:
        env.add_template("message", result.text)
        dotted = env.undeclared_variables_in_str(result.text, nested=True)
    except TemplateError as error:
        result.fatal.append((error.line or 1, f"not a template that can be read: {template.reason(error)}."))
        return
    result.variables = template.used(result.text)
    result.opened = {name.partition(".")[0] for name in dotted if "." in name} & result.variables
    result.iterated &= result.variables


def left_out(source: str) -> str:
    """A comment that stands where something did not carry over."""
    return "{# left out: " + " ".join(source.split()).replace("{#", "{ #").replace("#}", "# }") + " #}"


def literal(text: str) -> str:
    """A template that renders exactly `text`."""
    text = re.sub(r"\{(?=[{%#])", '{{ "{" }}', text)
    return text[:-1] + '{{ "{" }}' if text.endswith("{") else text


def filler(language: Language) -> Callable[[str, Mapping[str, Any]], str]:
    """Fills a template in once, here, where what is not given is empty. Raises ValueError with one sentence."""
    env = Environment(
        undefined_behavior="chainable",
        auto_escape_callback=lambda _name: False,
        keep_trailing_newline=True,
        fuel=template.FUEL,
    )
    env.add_filter("tojson", template.tojson)

    def fill(source: str, variables: Mapping[str, Any]) -> str:
        names = {bool: "boolean", list: "list", dict: "object"}
        types = {name: Type(names[type(value)]) for name, value in variables.items() if type(value) in names}
        translated = translate(source, language, types=types)
        for _, why in (*translated.fatal, *translated.omitted):
            raise ValueError(why)
        try:
            return env.render_str(translated.text, **{name: one for name, one in variables.items() if one is not None})
        except TemplateError as error:
            raise ValueError(f"can not be filled in: {template.reason(error)}.") from error

    return fill
