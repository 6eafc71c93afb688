"""A Markdown page as the self-checks see it: its links, headings, code blocks and inline code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token


@dataclass(frozen=True)
class Block:
    """A code block; `line` is that of its first line of code, 1-based. An indented one has the language `indented`."""

    language: str
    text: str
    line: int
    run: bool = False
    """Marked `sh run`: a test types it."""


@dataclass(frozen=True)
class Page:
    """`links` as they are written, `anchors` as a code host derives them from the headings."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    blocks: list[Block] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    """Source of every paragraph, table cell and heading."""


def read(path: Path) -> Page:
    """The page in a file."""
    return parse(path.read_text("utf-8"))


def parse(text: str) -> Page:
    page = Page()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "fence":
            line = token.map[0] + 2 if token.map else 0
            language, _, mark = token.info.partition(" ")
            page.blocks.append(Block(language, token.content, line, run=mark == "run"))
        elif token.type == "code_block":
            page.blocks.append(Block("indented", token.content, token.map[0] + 1 if token.map else 0))
        elif token.type == "inline":
            page.prose.append(token.content)
            if before is not None and before.type == "heading_open":
                page.anchors.add(anchor(token.content))
            for child in _walk(token):
                href = child.attrs.get("href") or child.attrs.get("src")
                if href:
                    page.links.append(str(href))
                if child.type == "code_inline":
                    page.code.append(child.content)
    return page


def anchor(heading: str) -> str:
    """`1 · The incident` → `1--the-incident`."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _walk(token: Token) -> Iterator[Token]:
    for child in token.children or []:
        yield child
        yield from _walk(child)
