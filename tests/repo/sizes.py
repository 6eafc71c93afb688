"""
The longest files and functions of the package, for a reviewer's eye: `uv run just sizes`.

Nothing fails on a size. Behind a long one stands the question: what does this file hide?
"""

from __future__ import annotations

import ast
import sys
from statistics import median, quantiles

from tests.repo.tree import ROOT, modules


def report(top: int = 10) -> str:
    """Totals, the middle and the tail, then the `top` longest of each kind."""
    trees = modules()
    files = sorted(((len((ROOT / name).read_text("utf-8").splitlines()), name) for name in trees), reverse=True)
    functions = sorted(
        (
            ((node.end_lineno or 0) - node.lineno + 1, f"{name}:{node.lineno} {node.name}")
            for name, tree in trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ),
        reverse=True,
    )
    lines = [f"{len(files)} files, {sum(size for size, _ in files):,} lines, {len(functions)} functions", ""]
    for kind, rows in {"files": files, "functions": functions}.items():
        sizes = [size for size, _ in rows]
        lines.append(f"{kind}: median {median(sizes):.0f}, p95 {quantiles(sizes, n=20)[-1]:.0f}, longest {sizes[0]}")
        lines += [f"{size:6}  {name}" for size, name in rows[:top]]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(report())
