"""
Handlebars and Mustache templates → the template language of messages.

The scope of names is resolved here: `{{name}}` inside `{{#each people}}` becomes `person.name`-like paths. Lines that
hold nothing but a block's tag vanish, as both languages have it. What has no counterpart (partials, helpers of one's
own) becomes a comment in its place and is reported; a block of that kind goes as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from tidegate.core.errors import InvalidFile, Problem
from tidegate.prompts.importing.jinja import left_out, literal, path_code, wrapped
from tidegate.prompts.importing.outcome import Kind

_OPEN = re.compile(r"\\?\{\{")
_ESCAPED = re.compile(r"\\\{\{(?:(?!\}\}).)*+\}\}", re.DOTALL)
_COMMENT = re.compile(r"\{\{(?P<inner>~?!--(?:(?!--~?\}\}).)*+--~?|~?!(?!--)(?:(?!\}\}).)*+)\}\}", re.DOTALL)
_TRIPLE = re.compile(r"""\{\{\{(?P<inner>(?>"[^"]*"|'[^']*'|(?!\}\}\}).)*+)\}\}\}""", re.DOTALL)
_PLAIN = re.compile(r"""\{\{(?P<inner>(?>"[^"]*"|'[^']*'|(?!\}\}).)*+)\}\}""", re.DOTALL)
MAX_NESTED = 64
_WORD = re.compile(
    r"""(?P<open>\()|(?P<close>\))|\|(?P<params>[^|]*)\||(?P<key>[A-Za-z_][\w-]*)=
      | (?P<string>"[^"]*"|'[^']*')|(?P<value>[^\s()=|]+)""",
    re.VERBOSE,
)
_LITERAL = re.compile(r"-?\d+(?:\.\d+)?\Z|true\Z|false\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SEGMENT = re.compile(r"\[([^\]]*)\]|([^./\[\]]+)")
_REST_OF_LINE = re.compile(r"[ \t]*(?:\n|\Z)")

_BLOCKS = ("if", "unless", "each", "with", "ifEquals", "unlessEquals")
_OF_OTHERS = "is a helper, that is a function of your program: it would run code."


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the template on its top level: text in our language, or a mark between messages."""

    kind: Literal["text", "role", "history"]
    text: str
    """The role's name, for a role."""
    line: int


@dataclass(slots=True)
class Translated:
    """The whole template."""

    parts: list[Part] = field(default_factory=list)
    uses: dict[str, set[str]] = field(default_factory=dict)
    """Input → how it is used: `list`, `object`, `image`, `boolean`, `string`."""
    found: list[tuple[Kind, int, str]] = field(default_factory=list)


Schemas = Mapping[str, Mapping[str, Any]]
"""Input → the JSON Schema of its values, where it is known."""


def translate(
    source: str, *, file: str, first_line: int, schemas: Schemas, optional: frozenset[str], mustache: bool = False
) -> Translated:
    """
    `source` in our language, split at its `{{role}}` and `{{history}}`.

    Args:
        first_line: the line of `file` on which `source` begins.
        schemas: decides how a value is shown (`true`, not `True`) and what `{{#name}}` does with it.
        optional: inputs that a call may leave out.
        mustache: no helpers; a name is looked for in the enclosing scopes too.
    Raises: InvalidFile when blocks are not closed as they were opened.
    """
    return _Translator(file, first_line, schemas, optional, mustache).run(source)


@dataclass(frozen=True, slots=True)
class _Tag:
    sign: str
    """`#`, `^`, `/`, `>`, `!`, `&`, or nothing."""
    code: str
    raw: str
    line: int


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    line: int
    own_line_before: bool = False
    """A tag that stood alone on its line came before: its line end was taken away."""


@dataclass(slots=True)
class _Block:
    tag: _Tag
    body: list[_Node] = field(default_factory=list)
    inverse: list[_Node] | None = None
    chained: bool = False
    """`inverse` is one block, written `{{else if …}}`."""


_Node = _Text | _Tag | _Block


@dataclass(frozen=True, slots=True)
class _Scope:
    """What `this` is: an expression of our language, and the schema of its value."""

    path: tuple[str, ...]
    """Empty for the inputs themselves."""
    schema: Mapping[str, Any]
    loop: str | None = None
    """The name of the key in a loop over an object, an empty string in one over a list."""
    aliases: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Value:
    """An expression of our language."""

    code: str
    type: str | None
    """A JSON Schema type."""
    path: tuple[str, ...] = ()
    schema: Mapping[str, Any] = field(default_factory=dict)


class _Unshared(Exception):
    """Why something is not carried over. Never leaves this file."""

    def __init__(self, why: str, kind: Kind = "left out") -> None:
        super().__init__(why)
        self.kind = kind


class _Translator:
    def __init__(self, file: str, first_line: int, schemas: Schemas, optional: frozenset[str], mustache: bool) -> None:
        self.file = file
        self.first_line = first_line
        self.schemas = schemas
        self.optional = optional
        self.mustache = mustache
        self.result = Translated()
        self.taken: set[str] = set()
        self.now = first_line
        """The line of the tag that is being written."""

    def run(self, source: str) -> Translated:
        self.taken = set(re.findall(r"(?<![\w@])[A-Za-z_]\w*", source)) | set(self.schemas)
        nodes = self._tree(_alone(list(self._tokens(source))))
        root = [_Scope((), {"type": "object", "properties": dict(self.schemas)})]
        pieces: list[str] = []
        line = self.first_line

        def flush(next_line: int) -> None:
            nonlocal line
            self.result.parts.append(Part("text", "".join(pieces), line))
            pieces.clear()
            line = next_line

        for node in nodes:
            mark = self._mark(node)
            if mark is not None:
                flush(mark.line)
                self.result.parts.append(mark)
            else:
                self._emit(node, root, pieces)
        flush(line)
        return self.result

    # Reading

    def _tokens(self, source: str) -> Iterator[_Text | _Tag]:
        end, line, strip = 0, self.first_line, False
        while opening := _OPEN.search(source, end):
            text = source[end : opening.start()]
            at = line + text.count("\n")
            if source.startswith("{{{{", opening.start()):
                raise InvalidFile([Problem(self.file, at, "", "a raw block (`{{{{`) is not shared: write `\\{{`.")])
            kinds = (_ESCAPED,) if opening[0][0] == "\\" else (_COMMENT, _TRIPLE, _PLAIN)
            match = next((found for kind in kinds if (found := kind.match(source, opening.start()))), None)
            if match is None:
                raise InvalidFile([Problem(self.file, at, "", "`{{` is not closed.")])
            inner = "" if match.re is _ESCAPED else match["inner"]
            text = text.lstrip() if strip else text
            yield _Text(text.rstrip() if inner.startswith("~") else text, line)
            line, end, strip = at + match[0].count("\n"), match.end(), inner.endswith("~")
            if match.re is _ESCAPED:
                yield _Text(match[0][1:], at)
                continue
            code = inner.strip("~").strip()
            sign = "!" if match.re is _COMMENT else code[:1] if code[:1] in ("#", "^", "/", ">", "&") else ""
            yield _Tag(sign, code[len(sign) :].strip(), match[0], at)
        yield _Text(source[end:].lstrip() if strip else source[end:], line)

    def _tree(self, tokens: list[_Text | _Tag]) -> list[_Node]:
        top: list[_Node] = []
        open_: list[_Block] = []
        into = top
        for token in tokens:
            if isinstance(token, _Text):
                into.append(token)
            elif token.sign == "#" or (token.sign == "^" and token.code):
                block = _Block(token)
                into.append(block)
                open_.append(block)
                self._not_too_deep(token, open_)
                into = block.body
            elif token.sign == "/":
                into = self._close(token, open_, top)
            elif not self.mustache and (token.code == "else" or (token.sign == "^" and not token.code)):
                into = self._else(token, open_)
            elif not self.mustache and token.code.startswith("else ") and not token.sign:
                self._else(token, open_)
                block = _Block(_Tag("#", token.code[5:].strip(), token.raw, token.line))
                open_[-1].inverse = [block]
                open_[-1].chained = True
                open_.append(block)
                self._not_too_deep(token, open_)
                into = block.body
            else:
                into.append(token)
        if open_:
            self._fail(open_[0].tag, f"`{open_[0].tag.raw}` is not closed.")
        return top

    def _close(self, token: _Tag, open_: list[_Block], top: list[_Node]) -> list[_Node]:
        while open_:
            block = open_.pop()
            if open_ and open_[-1].chained and open_[-1].inverse == [block]:
                continue  # `{{else if}}` ends with the block it belongs to
            if block.tag.code.split()[:1] != token.code.split()[:1]:
                self._fail(token, f"`{token.raw}` closes `{block.tag.raw}` of line {block.tag.line}.")
            if not open_:
                return top
            parent = open_[-1]
            return parent.body if parent.inverse is None else parent.inverse
        self._fail(token, f"`{token.raw}` closes nothing.")

    def _else(self, token: _Tag, open_: list[_Block]) -> list[_Node]:
        if not open_ or open_[-1].inverse is not None:
            self._fail(token, f"`{token.raw}` belongs to no block.")
        open_[-1].inverse = []
        return open_[-1].inverse

    def _not_too_deep(self, token: _Tag, open_: list[_Block]) -> None:
        if len(open_) > MAX_NESTED:
            self._fail(token, f"blocks are nested more than {MAX_NESTED} deep.")

    def _fail(self, tag: _Tag, message: str) -> NoReturn:
        raise InvalidFile([Problem(self.file, tag.line, "", message)])

    # Writing

    def _mark(self, node: _Node) -> Part | None:
        if self.mustache or not isinstance(node, _Tag) or node.sign not in ("", "&"):
            return None
        words = node.code.split()
        if words == ["history"]:
            return Part("history", "", node.line)
        if words[:1] == ["role"] and len(words) >= 2 and words[1][0] in "\"'":
            if len(words) > 2:
                self._report("left out", node.line, f"`{node.raw}`: a message has no metadata here.")
            return Part("role", words[1].strip("\"'"), node.line)
        return None

    def _emit(self, node: _Node, scopes: list[_Scope], into: list[str]) -> None:
        if isinstance(node, _Text):
            text = literal(node.text)
            if node.own_line_before and into and into[-1].endswith("%}") and text[:1].strip():
                # The line end that vanished may stand where it is taken away again: easier to read.
                into[-1] = into[-1][:-2] + "-%}\n"
            into.append(text)
        elif isinstance(node, _Tag):
            if node.sign != "!":
                into.append(self._tag(node, scopes))
        else:
            self._emit_block(node, scopes, into)

    def _emit_all(self, nodes: list[_Node], scopes: list[_Scope], into: list[str]) -> None:
        for node in nodes:
            self._emit(node, scopes, into)

    def _tag(self, tag: _Tag, scopes: list[_Scope]) -> str:
        self.now = tag.line
        try:
            if tag.sign == ">":
                raise _Unshared("partials are other files of prompts; write the text here instead.")
            if self.mustache and tag.code[:1] == "=":
                raise _Unshared("other delimiters than `{{` are not shared.")
            return self._shown(tag, scopes)
        except _Unshared as why:
            self._report(why.kind, tag.line, f"`{_clip(tag.raw)}`: {why}")
            return left_out(tag.raw)

    def _shown(self, tag: _Tag, scopes: list[_Scope]) -> str:
        head, *rest = self._words(tag.code)
        if head[0] != "value":
            raise _Unshared("only a name or a helper can be shown.")
        name = head[1]
        if not self.mustache and (rest or name in ("role", "history", "media", "json", "section", "log", "lookup")):
            return self._helper(name, rest, scopes)
        if rest:
            raise _Unshared("a Mustache tag holds one name.")
        value = self._value(name, scopes)
        if value.type in ("array", "object"):
            self._report("changed", tag.line, f"`{tag.raw}` shows a value of several parts; here it is shown as JSON.")
            return f"{{{{ {value.code} | tojson }}}}"
        if value.type == "boolean":
            maybe = len(value.path) > 1 or value.path[0] in self.optional
            return (
                f'{{{{ {value.code} if {value.code} == "" else {value.code} | tojson }}}}'
                if maybe
                else (f"{{{{ {value.code} | tojson }}}}")
            )
        return f"{{{{ {value.code} }}}}"

    def _helper(self, name: str, words: list[tuple[str, str]], scopes: list[_Scope]) -> str:
        given, options = _arguments(words)
        if name == "json" and len(given) == 1 and given[0][0] == "value":
            value = self._value(given[0][1], scopes)
            indent = options.get("indent")
            if indent is None or not indent.isdigit() or indent == "0":
                line = "`{{json}}` writes JSON without spaces, `tojson` with one after each `,` and `:`."
                self._report("changed", self.now, line)
                return f"{{{{ {value.code} | tojson }}}}"
            return f"{{{{ {value.code} | tojson(indent={indent}) }}}}"
        if name == "media":
            return self._media(options, scopes)
        if name in ("role", "history"):
            raise _Unshared("a message can not begin inside a block: roles are found before anything is filled in.")
        if name == "section":
            raise _Unshared("a message has no pending parts here.")
        raise _Unshared(f"{name!r} {_OF_OTHERS}", "refused")

    def _media(self, options: Mapping[str, str], scopes: list[_Scope]) -> str:
        url = options.get("url", "")
        value = self._value(url, scopes) if url and url[0] not in "\"'" else None
        if value is None or len(value.path) != 1 or value.path[0] in self._loop_names(scopes):
            raise _Unshared("an image is an input of its own here: `{{media url=name}}`.")
        if "contentType" in options:
            self._report("left out", self.now, "`contentType`: an image's own bytes or address say what it is.")
        self._use(value.path[0], "image")
        return f"{{{{ {value.path[0]} }}}}"

    def _emit_block(self, block: _Block, scopes: list[_Scope], into: list[str]) -> None:
        try:
            marks = [mark.line for mark in self._inner_marks(block)]
            if marks:
                raise _Unshared("a message can not begin inside a block: roles are found before anything is filled in.")
            pieces: list[str] = []
            self._block(block, scopes, pieces)
            into += pieces
        except _Unshared as why:
            reason = f"`{_clip(block.tag.raw)}`, with all that it encloses: {why}"
            self._report(why.kind, block.tag.line, reason)
            into.append(left_out(block.tag.raw))

    def _inner_marks(self, block: _Block) -> Iterator[Part]:
        for node in (*block.body, *(block.inverse or ())):
            if isinstance(node, _Block):
                yield from self._inner_marks(node)
            elif mark := self._mark(node):
                yield mark

    def _block(self, block: _Block, scopes: list[_Scope], into: list[str], opener: str = "if") -> None:
        self.now = block.tag.line
        words = list(self._words(block.tag.code))
        params = [word[1].split() for word in words if word[0] == "params"]
        words = [word for word in words if word[0] != "params" and word != ("value", "as")]
        name = words[0][1] if words and words[0][0] == "value" else ""
        rest = words[1:]
        if self.mustache or (name not in _BLOCKS and not rest):
            self._section(block, name, scopes, into)
        elif name not in _BLOCKS:
            raise _Unshared(f"{name!r} {_OF_OTHERS}", "refused")
        elif block.tag.sign == "^":
            raise _Unshared("write `{{#if}} … {{else}}` instead of `{{^if}}`.")
        elif name in ("each", "with"):
            if len(rest) != 1 or rest[0][0] != "value" or opener != "if":
                raise _Unshared(f"`{name}` takes one name here.")
            value = self._value(rest[0][1], scopes, absent="[]" if name == "each" else '""')
            enter = self._each if name == "each" else self._with
            enter(block, value, params[0] if params else [], scopes, into)
        else:
            self._if(block, self._condition(name, rest, scopes), scopes, into, opener)

    def _condition(self, name: str, words: list[tuple[str, str]], scopes: list[_Scope]) -> str:
        if name in ("ifEquals", "unlessEquals"):
            if len(words) != 2 or "open" in (words[0][0], words[1][0]):
                raise _Unshared(f"`{name}` takes two values.")
            left, right = (self._operand(word, scopes) for word in words)
            return f"{left} {'==' if name == 'ifEquals' else '!='} {right}"
        if len(words) != 1 or words[0][0] != "value":
            raise _Unshared(
                f"`{name}` takes one name here.", "refused" if "open" in [w[0] for w in words] else "left out"
            )
        value = self._value(words[0][1], scopes)
        code = f"({value.code})" if " " in value.code and name == "unless" else value.code
        return code if name == "if" else f"not {code}"

    def _operand(self, word: tuple[str, str], scopes: list[_Scope]) -> str:
        if word[0] == "string":
            return json.dumps(word[1][1:-1], ensure_ascii=False)
        if _LITERAL.match(word[1]):
            return word[1]
        code = self._value(word[1], scopes).code
        return f"({code})" if " " in code else code

    def _if(self, block: _Block, condition: str, scopes: list[_Scope], into: list[str], opener: str = "if") -> None:
        into.append(f"{{% {opener} {condition} %}}")
        self._emit_all(block.body, scopes, into)
        inverse = block.inverse
        if inverse and block.chained and isinstance(inverse[0], _Block):
            if inverse[0].tag.code.split()[0] not in ("if", "unless", "ifEquals", "unlessEquals"):
                raise _Unshared("`{{else …}}` goes on with `if` or `unless` only.")
            self._block(inverse[0], scopes, into, "elif")
        elif inverse is not None:
            into.append("{% else %}")
            self._emit_all(inverse, scopes, into)
        if opener == "if":
            into.append("{% endif %}")

    def _each(self, block: _Block, value: _Value, params: list[str], scopes: list[_Scope], into: list[str]) -> None:
        over_object = value.type == "object" or (value.type is None and _mentions(block.body, "@key"))
        if len(value.path) == 1:
            self._use(value.path[0], "object" if over_object else "list")
        item = params[0] if params and _NAME.match(params[0]) else self._fresh("item")
        key = self._fresh("key") if over_object else ""
        schema = value.schema.get("additionalProperties" if over_object else "items")
        inner = _Scope((item,), schema if isinstance(schema, dict) else {}, key)
        if params:
            aliases: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {params[0]: ((item,), inner.schema)}
            if len(params) > 1:
                aliases[params[1]] = ((key,) if over_object else ("loop", "index0"), {})
            inner = _Scope(inner.path, inner.schema, key, aliases)
        target, over = (f"{key}, {item}", f"{wrapped(value.code)} | items") if over_object else (item, value.code)
        into.append(f"{{% for {target} in {over} %}}")
        self._emit_all(block.body, [*scopes, inner], into)
        if block.chained:
            raise _Unshared("`{{else if …}}` does not follow `{{#each}}` here.")
        if block.inverse is not None:
            into.append("{% else %}")
            self._emit_all(block.inverse, scopes, into)
        into.append("{% endfor %}")

    def _with(self, block: _Block, value: _Value, params: list[str], scopes: list[_Scope], into: list[str]) -> None:
        if len(value.path) == 1:
            self._use(value.path[0], "object")
        aliases = {params[0]: (value.path, value.schema)} if params else {}
        inner = _Scope(value.path, value.schema, None, aliases)
        outer, scopes = scopes, [*scopes, inner]
        into.append(f"{{% if {value.code} %}}")
        self._emit_all(block.body, scopes, into)
        if block.inverse is not None:
            into.append("{% else %}")
            self._emit_all(block.inverse, outer, into)
        into.append("{% endif %}")

    def _section(self, block: _Block, name: str, scopes: list[_Scope], into: list[str]) -> None:
        """`{{#name}}` and `{{^name}}`: what they do depends on the value."""
        value = self._value(name, scopes)
        if block.tag.sign == "^":
            code = f"({value.code})" if " " in value.code else value.code
            swapped = _Block(block.tag, block.body, block.inverse)
            self._if(swapped, f"not {code}", scopes, into)
            return
        if value.type == "array":
            self._each(block, self._value(name, scopes, absent="[]"), [], scopes, into)
        elif value.type == "object":
            self._with(block, value, [], scopes, into)
        elif value.type in ("boolean", "string", "number", "integer"):
            inner = _Scope(value.path, value.schema) if self.mustache else scopes[-1]
            self._if(block, value.code, [*scopes, inner], into)
        else:
            raise _Unshared(f"whether {name!r} is a list, an object or a yes-or-no is not declared.")

    # Names

    def _value(self, name: str, scopes: list[_Scope], *, absent: str = '""') -> _Value:
        if name.startswith("@"):
            return self._data(name, scopes)
        if _LITERAL.match(name):
            raise _Unshared(f"{name} is no name.")
        depth = len(scopes) - 1
        while name.startswith("../"):
            depth, name = depth - 1, name[3:]
        if depth < 0:
            raise _Unshared(f"{name!r} leads out of the template.")
        scope = scopes[depth]
        own = name in (".", "this")
        name = re.sub(r"^(?:this[./]|\./)", "", name)
        segments = [] if own else [quoted or plain for quoted, plain in _SEGMENT.findall(name)]
        if not own and not segments:
            raise _Unshared(f"{name!r} is no name.")
        for outer in reversed(scopes[: depth + 1]):
            if segments and segments[0] in outer.aliases:
                path, schema = outer.aliases[segments[0]]
                return self._at(path, schema, segments[1:], absent)
        if self.mustache and segments:
            scope = self._mustache_scope(segments[0], scopes)
        return self._at(scope.path, scope.schema, segments, absent)

    def _mustache_scope(self, name: str, scopes: list[_Scope]) -> _Scope:
        """The innermost scope that has `name`, or may have it while no other does."""
        known = next((scope for scope in reversed(scopes) if name in scope.schema.get("properties", {})), None)
        inner = scopes[scopes.index(known) + 1 :] if known else scopes
        unknown = [scope for scope in inner if _type_of(scope.schema) in (None, "object") and scope.path]
        unknown = [scope for scope in unknown if "properties" not in scope.schema]
        if known and unknown:
            raise _Unshared(
                f"{name!r} may be a part of `{'.'.join(unknown[-1].path)}` or an input: that is not declared."
            )
        return known or (unknown[-1] if unknown else scopes[0])

    def _at(self, path: tuple[str, ...], schema: Mapping[str, Any], segments: list[str], absent: str) -> _Value:
        if not path and not segments:
            raise _Unshared("`this` is all inputs together here.")
        inherited = len(path)
        for segment in segments:
            properties = schema.get("properties")
            known = properties.get(segment) if isinstance(properties, dict) else schema.get("items")
            schema = known if isinstance(known, dict) else {}
            path = (*path, segment)
        root = path[0]
        if not _NAME.match(root):
            raise _Unshared(f"an input is named with letters, digits and '_', and {root!r} is not.")
        if not inherited:
            self._use(root, _use_of(schema) if len(path) == 1 else "object")
        return _Value(path_code(path, absent), _type_of(schema), path, schema)

    def _data(self, name: str, scopes: list[_Scope]) -> _Value:
        if name.startswith("@root."):
            return self._value(name[6:], scopes[:1])
        loop = next((scope.loop for scope in reversed(scopes) if scope.loop is not None), None)
        known = {"@index": "loop.index0", "@first": "loop.first", "@last": "loop.last"}
        if loop and name == "@key":
            return _Value(loop, "string", (loop,))
        if loop is not None and name in known:
            kind = "integer" if name == "@index" else "boolean"
            return _Value(known[name], kind, ("loop",))
        raise _Unshared(f"{name!r} is data of your program, not an input of the prompt.")

    def _loop_names(self, scopes: list[_Scope]) -> set[str]:
        return {scope.path[0] for scope in scopes if scope.loop is not None}

    def _fresh(self, name: str) -> str:
        chosen, number = name, 2
        while chosen in self.taken:
            chosen, number = f"{name}_{number}", number + 1
        self.taken.add(chosen)
        return chosen

    def _words(self, code: str) -> list[tuple[str, str]]:
        return [(str(word.lastgroup), word[str(word.lastgroup)]) for word in _WORD.finditer(code)] or [("", "")]

    def _use(self, name: str, use: str) -> None:
        self.result.uses.setdefault(name, set()).add(use)

    def _report(self, kind: Kind, line: int, reason: str) -> None:
        if (kind, line, reason) not in self.result.found:
            self.result.found.append((kind, line, reason))


def _arguments(words: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """What a helper is given by place, and by name."""
    given: list[tuple[str, str]] = []
    options: dict[str, str] = {}
    key = None
    for kind, text in words:
        if key is not None:
            options[key] = text
            key = None
        elif kind == "key":
            key = text
        else:
            given.append((kind, text))
    return given, options


def _alone(tokens: list[_Text | _Tag]) -> list[_Text | _Tag]:
    """A line that holds nothing but one tag of a block, a comment or a partial vanishes with its line end."""
    alone = [_stands_alone(tokens, index) for index in range(len(tokens))]
    kept: list[_Text | _Tag] = []
    for index, token in enumerate(tokens):
        if isinstance(token, _Tag):
            kept.append(token)
            continue
        text, after = token.text, index > 0 and alone[index - 1]
        if after:
            text = _REST_OF_LINE.sub("", text, count=1)
        if index + 1 < len(tokens) and alone[index + 1]:
            text = text[: len(text) - len(text.rpartition("\n")[2])]
        kept.append(_Text(text, token.line, own_line_before=after))
    return kept


def _stands_alone(tokens: list[_Text | _Tag], index: int) -> bool:
    tag = tokens[index]
    if not isinstance(tag, _Tag) or not (tag.sign in ("#", "^", "/", "!", ">") or tag.code.split()[:1] == ["else"]):
        return False
    before, after = tokens[index - 1], tokens[index + 1]
    if not isinstance(before, _Text) or not isinstance(after, _Text):
        return False
    _, newline, indent = before.text.rpartition("\n")
    rest = _REST_OF_LINE.match(after.text)
    begins = bool(newline) or index == 1
    ends = rest is not None and (rest[0].endswith("\n") or index + 2 == len(tokens))
    return begins and ends and not indent.strip(" \t")


def _mentions(nodes: list[_Node], data: str) -> bool:
    """Whether `@key` and the like stand in a loop's body, its inner loops left out."""
    for node in nodes:
        if isinstance(node, _Tag) and data in node.code.split():
            return True
        if isinstance(node, _Block):
            inner = not node.tag.code.startswith("each ") and _mentions(node.body, data)
            if inner or data in node.tag.code.split() or _mentions(node.inverse or [], data):
                return True
    return False


def _type_of(schema: Mapping[str, Any]) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    return kind if isinstance(kind, str) else "string" if "enum" in schema else None


def _use_of(schema: Mapping[str, Any]) -> str:
    return {"array": "list", "object": "object", "boolean": "boolean"}.get(_type_of(schema) or "", "string")


def _clip(raw: str) -> str:
    line = " ".join(raw.split())
    return line if len(line) <= 80 else line[:79] + "…"
