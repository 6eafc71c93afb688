"""
Checks of XML and HTML.

XML is read by expat as a whole document; a document type with declarations of its own is refused, so that no entity
can be defined, let alone expanded. HTML is read as browsers do, who refuse nothing: what counts is that the answer is
made of elements that exist.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

import re2

from tidegate.evals.checks.check import Answer, Finding, Kind, Probe, as_text, listed, quoted
from tidegate.evals.checks.text import several

MAX_CHARS = 1 << 20
MAX_SCANNED = 1 << 18
"""Of a text whose tags are looked for one by one, as that takes 20 µs a tag."""
MAX_DEPTH = 100
MAX_UNCLOSED = 100
"""How many elements may stay open inside one that is closed."""
_ATTRIBUTE = "@_"


class Refused(ValueError):
    """XML that is not read on purpose."""


def _is_xml(value: Any) -> Probe:
    wanted = _elements(value)

    def probe(answer: Answer) -> Finding:
        if not answer.text.strip():
            return Finding(False, "not XML: the answer is empty")
        try:
            paths = _paths(answer.text)
        except Refused as error:
            return Finding(False, f"not XML that is read: {error}")
        except expat.ExpatError as error:
            place = f"line {error.lineno}, column {error.offset + 1}"
            return Finding(False, f"not XML at {place}: {expat.ErrorString(error.code)}; {quoted(answer.text)}")
        missing = [one for one in wanted if one not in paths]
        if missing:
            return Finding(False, f"XML, but without {listed(missing)}")
        return Finding(True, f"is XML{_having(wanted)}")

    return probe


def _contains_xml(value: Any) -> Probe:
    wanted = _elements(value)

    def probe(answer: Answer) -> Finding:
        found: set[str] = set()
        for start, end in _outermost(answer.text):
            try:
                paths = _paths(answer.text[start:end])
            except (Refused, expat.ExpatError):
                continue
            found |= paths
            if all(one in found for one in wanted):
                return Finding(True, f"contains XML{_having(wanted)}")
        if found:
            return Finding(False, f"contains XML, but without {listed([one for one in wanted if one not in found])}")
        return Finding(False, f"contains no XML: {quoted(answer.text)}")

    return probe


def _elements(value: Any) -> list[str]:
    if isinstance(value, dict):
        if list(value) != ["requiredElements"]:
            raise ValueError("takes the paths of elements it needs, such as [order.id, order.total], or nothing")
        value = value["requiredElements"]
    return [] if value is None else [as_text(one) for one in several(value)]


def _having(wanted: list[str]) -> str:
    return f" with {listed(wanted)}" if wanted else ""


def _paths(text: str) -> set[str]:
    """
    The dotted path of every element (`order.id`; the second of several is also `order.1.id`) and `@_` attribute.

    Raises Refused, ExpatError.
    """
    parser = expat.ParserCreate()
    paths: set[str] = set()
    open_: list[tuple[str, set[str], dict[str, int]]] = [("", {""}, defaultdict(int))]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(open_) > MAX_DEPTH:
            raise Refused(f"its elements are nested more than {MAX_DEPTH} deep")
        _, above, seen = open_[-1]
        number, seen[name] = seen[name], seen[name] + 1
        here = {f"{path}.{step}".lstrip(".") for path in above for step in (name, f"{name}.{number}")}
        if len(here) > 4:
            # Deep down only plain paths and those of one number are told apart: paths would double with every level.
            here = {min(here, key=len), max(here, key=len)}
        paths.update(here, (f"{path}.{_ATTRIBUTE}{key}" for path in here for key in attributes))
        open_.append((name, here, defaultdict(int)))

    def end(_: str) -> None:
        open_.pop()

    def doctype(_: str, __: str | None, ___: str | None, has_internal_subset: bool) -> None:
        if has_internal_subset:
            raise Refused("its document type declares entities or elements of its own")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = doctype
    if len(text) > MAX_CHARS:
        raise Refused(f"it is longer than {MAX_CHARS:,} characters")
    parser.Parse(text.strip().encode("utf-8", "replace"), True)
    return paths


_TAG = re2.compile(r"""<(/?)([A-Za-z_:][\w:.-]*)((?:[^<>"']|"[^"]*"|'[^']*')*?)(/?)>""")


def _outermost(text: str) -> list[tuple[int, int]]:
    """Where an element begins and ends that stands in no other; an element that is never closed is none."""
    open_: list[tuple[str, int]] = []
    found: list[tuple[int, int]] = []
    for tag in _TAG.finditer(text[:MAX_SCANNED]):
        closing, name, empty = tag.group(1), tag.group(2), tag.group(4)
        if empty:
            found.append((tag.start(), tag.end()))
        elif not closing:
            open_.append((name, tag.start()))
        elif name in (one for one, _ in open_[-MAX_UNCLOSED:]):
            while open_[-1][0] != name:
                open_.pop()
            found.append((open_.pop()[1], tag.end()))
    outermost: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if not outermost or start >= outermost[-1][1]:
            outermost.append((start, end))
    return outermost


_ELEMENTS = """
a abbr address area article aside audio b base bdi bdo blockquote body br button canvas caption cite code col
colgroup data datalist dd del details dfn dialog div dl dt em embed fieldset figcaption figure footer form h1 h2 h3
h4 h5 h6 head header hgroup hr html i iframe img input ins kbd label legend li link main map mark math menu meta
meter nav noscript object ol optgroup option output p param picture pre progress q rp rt ruby s samp script search
section select slot small source span strong style sub summary sup svg table tbody td template textarea tfoot th
thead time title tr track u ul var video wbr
"""
_HTML = frozenset(_ELEMENTS.split())
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
)


_TOKEN = re2.compile(
    r"""(?s)<!--.*?-->|<[!?][^>]*>|<(/?)([a-zA-Z][a-zA-Z0-9-]*)(?:[^a-zA-Z0-9<>"'-](?:[^<>"']|"[^"]*"|'[^']*')*)?>"""
)


def _page(text: str) -> tuple[list[str], str]:
    """The elements of HTML in a text, and the first words outside of every element."""
    elements: dict[str, None] = {}
    open_: list[str] = []
    among: Counter[str] = Counter()
    loose, at = "", 0
    for token in _TOKEN.finditer(text):
        if not open_ and not loose:
            loose = text[at : token.start()].strip()
        at = token.end()
        tag = (token.group(2) or "").lower()
        if token.group(1) and among[tag]:
            closed = ""
            while closed != tag:
                closed = open_.pop()
                among[closed] -= 1
        elif tag and not token.group(1):
            if tag in _HTML or "-" in tag:
                elements[tag] = None
            if tag not in _VOID:
                open_.append(tag)
                among[tag] += 1
    return list(elements), loose or ("" if open_ else text[at:].strip())


def _is_html(value: Any) -> Probe:
    _takes_nothing(value)

    def probe(answer: Answer) -> Finding:
        text = answer.text.strip()
        if not text:
            return Finding(False, "not HTML: the answer is empty")
        if len(text) > MAX_SCANNED:
            return Finding(False, f"not HTML that is read: longer than {MAX_SCANNED:,} characters")
        if text[:5].lower() == "<?xml":
            return Finding(False, "XML, not HTML")
        elements, loose = _page(text)
        if loose and "<body" not in text.lower():
            return Finding(False, f"not HTML: text stands outside of every element: {quoted(loose)}")
        if not elements:
            return Finding(False, f"not HTML: it has no element of HTML: {quoted(text)}")
        return Finding(True, f"is HTML with {listed(elements)}")

    return probe


_COMMON = (
    "html|head|body|div|span|p|a|img|h[1-6]|ul|ol|li|table|tr|td|th|form|input|button|script|style|link|meta|br|hr"
)
_OPENING = re2.compile(r"<[a-zA-Z][a-zA-Z0-9-]*(?:\s[^>]*)?>")
_CLOSING = re2.compile(r"</[a-zA-Z][a-zA-Z0-9-]*\s*>")
_SIGNS = tuple(
    (re2.compile(pattern), points)
    for pattern, points in (
        (r"<[a-zA-Z][a-zA-Z0-9-]*(?:\s[^>]*)?/>", 1),
        (r"&(?:[a-zA-Z]+|#[0-9]+|#x[0-9a-fA-F]+);", 1),
        (r"(?i)<!doctype\s+html", 2),
        (r"(?s)<!--.*?-->", 1),
        (r"""\s[a-zA-Z-]+=\s*["'][^"']*["']""", 1),
        (rf"(?i)<(?:{_COMMON})\b", 2),
    )
)


def _contains_html(value: Any) -> Probe:
    """As promptfoo weighs it: a common tag, a pair of tags, or two lesser signs."""
    _takes_nothing(value)

    def probe(answer: Answer) -> Finding:
        opening, closing = _OPENING.search(answer.text), _CLOSING.search(answer.text)
        points = (opening is not None) + (closing is not None)
        first = opening or closing
        for pattern, worth in _SIGNS:
            found = pattern.search(answer.text)
            if found:
                points += worth
                first = first or found
        if points >= 2 and first:
            return Finding(True, f"contains HTML: {quoted(first.group())}")
        return Finding(False, f"contains no HTML: {quoted(answer.text)}")

    return probe


def _takes_nothing(value: Any) -> None:
    if value is not None:
        raise ValueError("takes no value")


KINDS: Mapping[str, Kind] = {
    "is-xml": Kind(
        _is_xml,
        "The whole answer is a well-formed XML document, with these elements if any are named.",
        {"is-xml": ["order.id", "order.total"]},
    ),
    "contains-xml": Kind(_contains_xml, "A well-formed XML element stands somewhere in the answer.", "contains-xml"),
    "is-html": Kind(_is_html, "The answer is made of HTML elements, with no text outside of them.", "is-html"),
    "contains-html": Kind(_contains_html, "The answer has HTML in it.", "not-contains-html"),
}
