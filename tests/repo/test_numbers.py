"""
Every measured figure that a page quotes exists in bench/results/.

A figure is written with the place it comes from in a comment right behind it:
`0.21 ms <!-- bench: gateway.json unary.added_p50_ms -->`. It must be the stored value, rounded as it is written.
"""

from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from tests.repo.tree import ROOT, markdown, named

RESULTS = ROOT / "bench" / "results"
QUOTE = re.compile(r"([\d,]+(?:\.\d+)?)([^\d<\n]*)<!-- bench: (\S+) (\S+) -->")
MARK = re.compile(r"<!-- bench:")
MEASURED = re.compile(r"\d ?(?:ms|µs|MB|MiB|KiB|calls/s|rows/s)\b")


def value_at(document: Any, key: str) -> float:
    """The number at a dotted key; a step that is digits indexes a list."""
    return float(reduce(lambda at, step: at[int(step)] if isinstance(at, list) else at[step], key.split("."), document))


def prose(text: str) -> str:
    """A page without its code, where nothing is quoted."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def wrong_quotes(text: str, results: Path) -> list[str]:
    """The quoted figures that do not stand in the results, as `figure: why`."""
    text = prose(text)
    quotes = list(QUOTE.finditer(text))
    wrong = [] if len(quotes) == len(MARK.findall(text)) else ["a bench comment without a figure before it"]
    for quote in quotes:
        figure, _, file, key = quote.groups()
        try:
            stored = value_at(json.loads((results / file).read_text("utf-8")), key)
        except (OSError, LookupError, TypeError, ValueError) as error:
            wrong.append(f"{figure}: {file} {key}: {error!r}")
            continue
        digits = len(figure.partition(".")[2])
        if round(stored, digits) != float(figure.replace(",", "")):
            wrong.append(f"{figure}: {file} {key} says {stored}")
    return wrong


def unsourced(text: str) -> list[str]:
    """The lines, outside code, that state a measurement and not where it comes from."""
    return [line for line in prose(text).splitlines() if MEASURED.search(line) and not MARK.search(line)]


@pytest.mark.parametrize("path", markdown(), ids=named)
def test_every_quoted_figure_was_measured(path: Path) -> None:
    assert wrong_quotes(path.read_text("utf-8"), RESULTS) == []


def test_every_figure_in_the_readme_names_its_measurement() -> None:
    assert unsourced((ROOT / "README.md").read_text("utf-8")) == []


def test_a_wrong_or_unsourced_figure_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"p50_ms": [0.214]}')
    good = "p50 is 0.21 ms <!-- bench: a.json p50_ms.0 -->"
    assert wrong_quotes(good, tmp_path) == unsourced(good) == []
    assert len(wrong_quotes(good.replace("0.21", "0.20"), tmp_path)) == 1
    assert len(wrong_quotes(good.replace("p50_ms", "p99_ms"), tmp_path)) == 1
    assert len(wrong_quotes("fast <!-- bench: a.json p50_ms.0 -->", tmp_path)) == 1
    assert unsourced("It takes 0.3 ms.\n```\n5 ms\n```\n") == ["It takes 0.3 ms."]
