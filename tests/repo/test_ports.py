"""Every port has an implementation, and a contract test that names it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping

from tests.repo.tree import ROOT, modules

PORTS = "src/tidegate/ports.py"


def members(node: ast.ClassDef) -> set[str]:
    """Methods, properties, class attributes and everything assigned to `self`."""
    found: set[str] = set()
    for item in ast.walk(node):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(item.name)
        elif isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store):
            found.add(item.attr)
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            found.add(item.target.id)
    return found


def protocols(tree: ast.Module) -> dict[str, set[str]]:
    """The Protocols of a module and what each of them asks for."""
    return {node.name: members(node) for node in classes(tree) if "Protocol" in bases(node)}


def classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).rpartition(".")[2] for base in node.bases]


def unimplemented(ports: Mapping[str, set[str]], trees: Iterable[ast.Module]) -> list[str]:
    """The ports that no class of `trees` satisfies, on its own or with what it inherits."""
    known = {node.name: node for tree in trees for node in classes(tree) if "Protocol" not in bases(node)}

    def all_members(node: ast.ClassDef) -> set[str]:
        inherited = [all_members(known[name]) for name in bases(node) if name in known and name != node.name]
        return members(node).union(*inherited)

    offered = [all_members(node) for node in known.values()]
    return [name for name, asked in ports.items() if not any(asked <= offer for offer in offered)]


def unnamed(ports: Iterable[str], texts: Iterable[str]) -> list[str]:
    """The ports that no text mentions by name."""
    words = set(re.findall(r"\w+", "\n".join(texts)))
    return [name for name in ports if name not in words]


def test_every_port_is_implemented() -> None:
    trees = modules()
    others = [tree for name, tree in trees.items() if name != PORTS]
    assert unimplemented(protocols(trees[PORTS]), others) == []


def test_every_port_has_a_contract_test() -> None:
    suites = [path.read_text("utf-8") for path in (ROOT / "tests" / "contract").rglob("*.py")]
    assert unnamed(protocols(modules()[PORTS]), suites) == []


def test_a_port_that_nothing_implements_or_tests_is_found() -> None:
    port = ast.parse("class Door(Protocol):\n    def open(self): ...\n    def close(self): ...\n")
    half = ast.parse("class Half:\n    def open(self): ...\n")
    whole = ast.parse("class Whole(Half):\n    def close(self): ...\n")
    assert unimplemented(protocols(port), [half]) == ["Door"]
    assert unimplemented(protocols(port), [half, whole]) == []
    assert unnamed(["Door"], ["Doors open"]) == ["Door"]
