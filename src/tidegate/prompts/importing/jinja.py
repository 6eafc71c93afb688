"""
Nunjucks and Jinja2 templates → the template language of messages, which shares most of theirs.

What is shared passes through as it stands. What only looks shared is rewritten (`elseif`, `dump`, a value that may be
missing) or found: an expression becomes a comment in its place, a statement makes the whole template unusable, because
what it encloses would be something else without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from minijinja import Environment, TemplateError

from tidegate.prompts import template

Language = Literal["nunjucks", "jinja2"]

_TAG = re.compile(
    r"""(?P<comment>\{\#.*?\#\})
      | (?P<raw>\{%[-+]?\s*(?:raw|verbatim)\s*[-+]?%\}.*?\{%[-+]?\s*(?:endraw|endverbatim)\s*[-+]?%\})
      | \{\{(?P<out>(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?!\}\}).)*)\}\}
      | \{%(?P<statement>(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?!%\}).)*)%\}""",
    re.DOTALL | re.VERBOSE,
)
_WORD = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | (?P<number>\d+(?:\.\d+)?)
      | (?P<name>[A-Za-z_$][\w$]*)
      | (?P<mark>===|!==|==|!=|<=|>=|\*\*|//|\S))""",
    re.VERBOSE,
)
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\Z")
_IS_DEFINED = re.compile(r"\b([A-Za-z_]\w*)\s+is\s+(not\s+)?(defined|undefined)\b")

_STATEMENTS: Mapping[Language, Collection[str]] = {
    "nunjucks": {"if", "elif", "elseif", "else", "endif", "for", "endfor"},
    "jinja2": {"if", "elif", "else", "endif", "for", "endfor", "set", "with", "endwith"},
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
    """What a variable holds that JavaScript writes in its own way."""

    name: str
    """`boolean`, `list` or `object`."""
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
        types: of variables; only Nunjucks needs them, which writes `true` and `a,b`.
    """
    result = Translated("")
    pieces: list[str] = []
    end = 0
    for tag in _TAG.finditer(source):
        pieces.append(source[end : tag.start()])
        line = source.count("\n", 0, tag.start()) + 1
        pieces.append(_tag(tag, line, language, types, result))
        end = tag.end()
    result.text = "".join([*pieces, source[end:]])
    if not result.fatal:
        _compile(result)
    return result


def _tag(tag: re.Match[str], line: int, language: Language, types: Mapping[str, Type], result: Translated) -> str:
    if tag["comment"]:
        return tag[0]
    if tag["raw"]:
        return re.sub(r"\{%([-+]?\s*(?:end)?)verbatim", r"{%\1raw", tag[0])
    if tag["out"] is not None:
        before, code, after = _trim_marks(tag["out"])
        why = complaint(code, language)
        if why:
            result.omitted.append((line, why))
            return left_out(tag[0])
        if language == "nunjucks" and re.search(r"\|\s*dump\b(?!\s*\()", code):
            result.changed.append(
                (line, "`dump` writes JSON without spaces, `tojson` with one after each `,` and `:`.")
            )
        if code in types and types[code].name == "object":
            result.changed.append((line, f"`{code}` has several parts; it is shown as JSON, not as `[object Object]`."))
        return f"{{{{{before} {_output(code, language, types)} {after}}}}}"
    return _statement(tag, line, language, result)


def _statement(tag: re.Match[str], line: int, language: Language, result: Translated) -> str:
    before, code, after = _trim_marks(tag["statement"])
    word, _, rest = code.partition(" ")
    if word not in _STATEMENTS[language]:
        result.fatal.append((line, f"`{{% {word} %}}` is not in the part of {language} that is shared."))
        return tag[0]
    if _IS_DEFINED.search(rest) and language == "jinja2":
        rest = _IS_DEFINED.sub(lambda m: f'{m[1]} {"==" if bool(m[2]) == (m[3] == "defined") else "!="} ""', rest)
        result.changed.append((line, "an input that is not given is empty here, so `is defined` asks for that."))
    targets, subject = "", rest
    if word == "for":
        targets, _, subject = rest.partition(" in ")
        if "," in targets and language == "nunjucks":
            result.fatal.append((line, "a loop over keys and values: Nunjucks decides by the value what they are."))
        subject = re.sub(r"\.items\(\)\s*\Z", " | items", subject)
        targets += " in "
    elif word == "set":
        targets, _, subject = rest.partition("=")
        targets += "="
    elif word == "with":
        return tag[0]  # the compiler knows whether it is shared
    why = complaint(subject, language) if subject.strip() else None
    if why:
        result.fatal.append((line, why))
        return tag[0]
    word = "elif" if word == "elseif" else word
    subject = _present(subject.strip(), "[]" if word == "for" else '""')
    return f"{{%{before} {' '.join(part for part in (word, targets.strip(), subject) if part)} {after}%}}"


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


def _output(code: str, language: Language, types: Mapping[str, Type]) -> str:
    if language == "nunjucks":
        code = re.sub(r"\|\s*dump\b", "| tojson", code)
    kind = types.get(code)
    if kind is None:
        return _present(code, '""')
    if kind.name == "list":
        return f'{code} | join(",")'
    return f'{code} if {code} == "" else {code} | tojson' if kind.optional else f"{code} | tojson"


def _present(code: str, absent: str) -> str:
    """A path that may end at nothing gives `absent`, as both languages have it; a message refuses what is undefined."""
    path, bar, filters = code.partition("|")
    if not _PATH.match(path.strip()) or path.startswith("loop.") or re.match(r"\s*(?:default|d)\b", filters):
        return code
    return f"{path.strip()} | default({absent}){' |' + filters if bar else ''}"


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
    loops = re.findall(r"\{%[-+]?\s*for\s+[\w\s,]+?\s+in\s+([A-Za-z_]\w*)\b(?!\s*[.\[])", result.text)
    result.iterated = set(loops) & result.variables


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
