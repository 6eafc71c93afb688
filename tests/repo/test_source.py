"""What every module and every error owes its reader."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from tests.repo.tree import modules

VAGUE = ("util", "helper", "manager", "common", "base", "misc", "abstract")
ERRORS = "src/tidegate/core/errors.py"


def without_docstring(trees: Mapping[str, ast.Module]) -> list[str]:
    return [name for name, tree in trees.items() if not ast.get_docstring(tree)]


def vague(names: Mapping[str, object] | list[str]) -> list[str]:
    """The files whose name says nothing about what they hide."""
    return [name for name in names if any(word in PurePosixPath(name).stem.split("_") for word in plural(VAGUE))]


def plural(words: tuple[str, ...]) -> list[str]:
    return [*words, *(f"{word}s" for word in words)]


def error_classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    """Every class that descends, inside the module, from TidegateError."""
    found: dict[str, ast.ClassDef] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            parents = {ast.unparse(base) for base in node.bases}
            if node.name == "TidegateError" or parents & found.keys():
                found[node.name] = node
    return found


def undocumented(tree: ast.Module) -> list[str]:
    """The error classes without a docstring, or missing from the picture at the top of the file."""
    drawn = set(re.findall(r"(?:^ *|─ )([A-Z]\w+)", ast.get_docstring(tree) or "", re.MULTILINE))
    return [name for name, node in error_classes(tree).items() if not ast.get_docstring(node) or name not in drawn]


def strays(trees: Mapping[str, ast.Module]) -> list[str]:
    """Error classes of our tree that are defined outside core/errors.py."""
    known = set(error_classes(trees[ERRORS]))
    return [
        f"{name}: {node.name}"
        for name, tree in trees.items()
        if name != ERRORS
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and {ast.unparse(base).rpartition(".")[2] for base in node.bases} & known
    ]


def test_every_module_says_what_it_hides() -> None:
    assert without_docstring(modules()) == []


def test_every_file_is_named_for_its_concept() -> None:
    assert vague(modules()) == []


def test_every_error_is_documented_and_in_the_picture() -> None:
    assert undocumented(modules()[ERRORS]) == []


def test_every_error_is_in_the_one_tree() -> None:
    assert strays(modules()) == []


def test_the_checks_can_fail() -> None:
    assert without_docstring({"a.py": ast.parse("x = 1")}) == ["a.py"]
    assert vague(["src/x/http_utils.py", "src/x/database.py", "base.py"]) == ["src/x/http_utils.py", "base.py"]
    tree = ast.parse('"""\nTidegateError\n├─ Known\n"""\nclass TidegateError(Exception):\n    "x"\n')
    tree.body += ast.parse('class Known(TidegateError):\n    "x"\nclass Forgotten(Known):\n    "x"').body
    assert undocumented(tree) == ["Forgotten"]
    stray = ast.parse("class Mine(errors.Known): ...")
    assert strays({ERRORS: tree, "b.py": stray}) == ["b.py: Mine"]
