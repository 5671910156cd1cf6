"""The house's rules, held against every import of the package: see the table in CONTRIBUTING.md.

Lazy imports and those for type checking count too. Backends and profiles lie at the top of the
repository and are rooms like the others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import registry

ROOT = Path(__file__).parents[2]
FOLDERS = {"harness": "harness", "backends": "harness.backends", "profiles": "harness.profiles"}

# From the top down: a room imports what stands below its row; rooms of one row do not know each
# other. Deeper names come before the room that they are in.
LAYERS = (
    ("harness.__main__",),
    ("harness.cli", "harness.pytest_plugin", "harness.compat"),
    ("harness.fleet",),  # a sweep over several machines, which says what each has
    (
        "harness.sweep",
        "harness.ledger",
        "harness.training",
        "harness.inspect",
        "harness.testing",
        "harness.report",
        "harness.api",
    ),
    ("harness.board",),
    ("harness.engine.driver",),
    ("harness.engine.outcome",),
    ("harness.engine.sampler", "harness.engine.worker"),
    ("harness.engine.loads",),
    ("harness.engine.wire",),
    ("harness.tensorboard", "harness.exports"),
    ("harness.views",),
    ("harness.compression",),
    ("harness.compare",),
    ("harness.analysis",),
    ("harness.stats",),
    ("harness.machine", "harness.models"),
    ("harness.backends", "harness.profiles", "harness.quantize"),
    ("harness.artifacts",),
    ("harness.zoo", "harness.records"),
    ("harness.spec",),
    ("harness.registry",),
    ("harness.protocols",),
    ("harness.host",),
    ("harness.errors", "harness.maybe", "harness.text", "harness.version"),
)
LEVEL = {room: level for level, row in enumerate(LAYERS) for room in row}
# Where nothing is computed: what they show stands in a record.
SHOWING = ("harness.views", "harness.exports", "harness.report", "harness.tensorboard",
           "harness.cli")  # fmt: skip
STATISTICS = {"median", "mean", "std", "var", "quantile", "percentile", "average"}
LOADERS = ("harness.registry", "harness.cli.main", "harness.exports")

# What still breaks a rule. It may only shrink.
KNOWN = frozenset((ROOT / "tests/data/known-violations.txt").read_text("utf-8").splitlines())


class Import(NamedTuple):
    importer: str
    imported: str


@cache
def modules(root: Path) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree, of every module under ``root``."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            steps = path.relative_to(root / folder).with_suffix("").parts
            name = ".".join([package, *(s for s in steps if s != "__init__")])
            found[name] = ast.parse(path.read_text("utf-8"))
    return found


def imports(trees: Mapping[str, ast.Module]) -> Iterator[Import]:
    """Every import of one of ``trees`` by another, whichever form it has."""
    for importer, tree in trees.items():
        for node in ast.walk(tree):
            for name in _named(node):
                imported = name if name in trees else name.rpartition(".")[0]
                if imported in trees and imported != importer:
                    yield Import(importer, imported)


def _named(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def room_of(module: str) -> str | None:
    """The deepest room that ``module`` is in; None for a package that only holds rooms."""
    steps = module.split(".")
    names = (".".join(steps[:end]) for end in range(len(steps), 0, -1))
    return next((name for name in names if name in LEVEL), None)


def upward(trees: Mapping[str, ast.Module]) -> list[str]:
    """Imports that do not point down."""
    found = []
    for importer, imported in imports(trees):
        above, below = room_of(importer), room_of(imported)
        if above != below and above and below and LEVEL[below] <= LEVEL[above]:
            found.append(f"{importer} -> {imported}")
    return sorted(set(found))


def circles(trees: Mapping[str, ast.Module]) -> list[str]:
    """Modules that import one another, by way of others or not (Tarjan, 1972)."""
    graph: dict[str, set[str]] = {name: set() for name in trees}
    for importer, imported in imports(trees):
        graph[importer].add(imported)
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(" <-> ".join(sorted(circle)))

    for name in graph:
        if name not in order:
            visit(name)
    return sorted(found)


def computing(trees: Mapping[str, ast.Module]) -> list[str]:
    """Statistics where figures are only shown."""
    found = []
    for name, tree in trees.items():
        if not name.startswith(SHOWING):
            continue
        for node in ast.walk(tree):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if (called and node.func.attr in STATISTICS) or "statistics" in _named(node):
                found.append(f"{name} computes a statistic")
    return sorted(set(found))


def naming_backends(trees: Mapping[str, ast.Module]) -> list[str]:
    """Names of the built-in backends in code that serves all of them; a stand-in may copy one."""
    names = set(registry.BACKENDS)
    return sorted(
        {
            f"{module} names {node.value}"
            for module, tree in trees.items()
            if not module.startswith(("harness.backends.", "harness.registry", "harness.testing."))
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in names
        }
    )


def laundering(trees: Mapping[str, ast.Module]) -> list[str]:
    """Imports of our own modules by name, which no other rule can see."""
    found = []
    for module, tree in trees.items():
        if module.startswith(LOADERS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and _called(node) == "import_module":
                text = ast.unparse(node.args[0])
                if text.lstrip("f").startswith(("'harness", '"harness')):
                    found.append(f"{module} imports {text}")
    return sorted(found)


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


RULES = (upward, circles, computing, naming_backends, laundering)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: object) -> None:
    assert callable(rule)
    assert sorted(set(rule(modules(ROOT))) - KNOWN) == []


def test_the_list_of_what_breaks_a_rule_only_shrinks() -> None:
    found = {violation for rule in RULES for violation in rule(modules(ROOT))}
    assert sorted(KNOWN - found) == []


def table() -> list[str]:
    """`LAYERS` as CONTRIBUTING.md has them, without the package's own name."""
    names = [[room.removeprefix("harness.") for room in row] for row in LAYERS]
    return [f"| {at} | {', '.join(row)} |" for at, row in enumerate(names, 1)]


def test_contributing_shows_the_layers() -> None:
    assert "\n".join(table()) in (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_every_module_is_in_a_room() -> None:
    packages = {"harness", "harness.engine"}
    homeless = [name for name in modules(ROOT) if room_of(name) is None and name not in packages]
    assert homeless == []


@pytest.mark.parametrize(
    ("module", "source", "rule", "told"),
    [
        ("harness.stats.planted", "def f():\n    from harness.cli import main", upward,
         "harness.stats.planted -> harness.cli.main"),
        ("harness.backends.planted", "import harness.profiles.memory", upward,
         "harness.backends.planted -> harness.profiles.memory"),
        ("harness.views.planted", "import numpy as np\nnp.median([1])", computing,
         "harness.views.planted computes a statistic"),
        ("harness.analysis.planted", "chosen = 'onnxruntime'", naming_backends,
         "harness.analysis.planted names onnxruntime"),
        ("harness.records.planted", "import importlib\nimportlib.import_module('harness.cli')",
         laundering, "harness.records.planted imports 'harness.cli'"),
    ],
)  # fmt: skip
def test_a_planted_violation_is_seen(module: str, source: str, rule: object, told: str) -> None:
    assert callable(rule)
    assert told in rule({**modules(ROOT), module: ast.parse(source)})


def test_a_planted_circle_is_seen() -> None:
    one, two = "harness.stats.one", "harness.stats.two"
    planted = {one: ast.parse(f"import {two}"), two: ast.parse(f"from {one} import x")}
    assert f"{one} <-> {two}" in circles({**modules(ROOT), **planted})
