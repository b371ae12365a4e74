"""The import diagram of each library, read from its source.

Parts are a library's modules and packages. `LAYERS` states the only allowed
direction: a part may import from its own part and from lower layers.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tools.results import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# Lowest first; parts in one layer do not import each other.
LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "wardwise": (
        ("errors", "highs"),
        ("journal", "site", "fleet.loss", "fleet.require", "fleet.randomness", "fleet.compiled"),
        ("pharmacy", "fleet.energy"),
        ("fleet.problem", "fleet.plan", "fleet.facts"),
        ("fleet.check", "fleet.schedule", "io", "flows"),
        ("fleet.search", "fleet.chance", "fleet.charging", "dynamism", "generate"),
        ("fleet.bounds", "fleet.peer_pyvrp"),
        ("fleet.vns", "fleet.exact"),
        ("fleet.solvers", "fleet.dispatch"),
        ("fleet.replay", "fleet.sizing", "dispenser"),
        ("fleet.simulate", "fleet.learn"),
        ("hospital",),
        ("report",),
        ("cli",),
    ),
    "weightwise": (
        ("numerics",),
        ("laws", "optim", "distributed", "images", "multiplex"),
        ("fp8",),
        ("lm", "vision", "clip", "distill"),
        ("train",),
        ("recipes", "report", "serve"),
        ("demo", "sweep"),
        ("cli",),
    ),
}


def edges(library: str) -> dict[str, set[str]]:
    """Imports at run time from part to part of a library (names for annotations left out)."""
    found: dict[str, set[str]] = {part: set() for layer in LAYERS[library] for part in layer}
    base = ROOT / library / library
    for path in sorted(base.rglob("*.py")):
        module = ".".join(path.relative_to(base).with_suffix("").parts)
        if module in ("__init__", "__main__"):
            continue
        for name in imported(path):
            package, _, rest = name.partition(".")
            if package != library or rest in ("", "__version__"):
                continue
            source, target = part_of(library, module), part_of(library, rest)
            if source != target:
                found.setdefault(source, set()).add(target)
    return {part: targets for part, targets in found.items() if _exists(base, part)}


def imported(path: Path) -> list[str]:
    """Dotted names that a file imports, each `from a import b` as `a.b`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in _run_time_nodes(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _run_time_nodes(node: ast.AST) -> list[ast.AST]:
    """All nodes below `node` except the bodies of `if TYPE_CHECKING`."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return []
    children = [n for child in ast.iter_child_nodes(node) for n in _run_time_nodes(child)]
    return [node, *children]


def part_of(library: str, name: str) -> str:
    """The longest declared part that a dotted name lies in; else its first component."""
    parts = [part for layer in LAYERS[library] for part in layer]
    fitting = [part for part in parts if name == part or name.startswith(part + ".")]
    return max(fitting, key=len) if fitting else name.split(".", maxsplit=1)[0]


def violations(library: str) -> list[str]:
    """Every import that goes sideways or up."""
    level = {part: i for i, layer in enumerate(LAYERS[library]) for part in layer}
    return [
        f"{library}.{source} imports {library}.{target}"
        for source, targets in edges(library).items()
        for target in sorted(targets)
        if source not in level or target not in level or level[target] >= level[source]
    ]


def diagram(library: str) -> str:
    """Text picture: lowest layer first, with what each part imports."""
    graph = edges(library)
    lines = ["```text"]
    for layer in LAYERS[library]:
        for part in layer:
            if part in graph:
                uses = ", ".join(sorted(graph[part])) or "nothing of the library"
                lines.append(f"{part:<16} <- {uses}")
    return "\n".join([*lines, "```"])


def _exists(base: Path, part: str) -> bool:
    path = base.joinpath(*part.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()
