"""Imports point down the list of layers (design, section 3), walked from the source."""

import ast
from pathlib import Path

import pytest

from tests.support.helpers import ROOT

PACKAGE = ROOT / "bua_jax"
LEVELS = {
    "pipeline": 6,
    "evaluation": 5,
    "baselines": 5,
    "training": 4,
    "decoding": 4,
    "interop": 4,
    "feed": 3,
    "models": 2,
    "dialogue": 1,
    "events": 0,
}
BASICS = {"errors", "files", "console", "environment", "config"}  # importable from everywhere
HEAVY = {"orbax": {"training/checkpoint.py"}, "safetensors": {"interop"}}
NO_JAX = {"events", "dialogue"}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def violations(relative: str, imports: set[str]) -> list[str]:
    """Broken rules of one file (`events/schema.py`) that imports the given dotted names."""
    layer = relative.split("/")[0] if "/" in relative else None
    problems = []
    for name in sorted(imports):
        parts = name.split(".")
        for package, homes in HEAVY.items():
            if parts[0] == package and not any(relative.startswith(home) for home in homes):
                problems.append(f"{relative} imports {package}; only {sorted(homes)} may")
        if layer in NO_JAX and parts[0] in {"jax", "flax", "optax"}:
            problems.append(f"{relative} imports {name}; {layer}/ is free of jax")
        if layer in {"models"} and parts[0] in {"optax", "ml_collections", "polars"}:
            problems.append(
                f"{relative} imports {name}; models/ knows no optimizer, config or data"
            )
        if parts[0] != "bua_jax" or len(parts) < 2 or layer is None:
            continue
        target = parts[1]
        if target in LEVELS:
            same = {LEVELS[layer], LEVELS[target]} in ({4}, {5}, {1, 0})
            if LEVELS[target] > LEVELS[layer] and not same:
                problems.append(f"{relative} imports upward: {name}")
        elif target not in BASICS and (PACKAGE / f"{target}.py").exists():
            problems.append(f"{relative} imports the verb or command line {target}")
    return problems


FILES = sorted(p for p in PACKAGE.rglob("*.py") if "assets" not in p.parts)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    assert violations(path.relative_to(PACKAGE).as_posix(), _imports(path)) == []


def test_verbs_are_not_imported() -> None:
    verbs = {p.stem for p in PACKAGE.glob("*.py")} - BASICS - {"__init__", "cli"}
    for path in FILES:
        for name in _imports(path):
            parts = name.split(".")
            assert not (parts[0] == "bua_jax" and len(parts) > 1 and parts[1] in verbs), (
                path,
                name,
            )


@pytest.mark.parametrize(
    ("file", "imported"),
    [
        ("events/x.py", "bua_jax.models.qwen2"),
        ("events/x.py", "jax.numpy"),
        ("models/x.py", "optax"),
        ("feed/x.py", "bua_jax.training.loop"),
        ("training/loop.py", "orbax.checkpoint"),
        ("pipeline/x.py", "bua_jax.train"),
    ],
)
def test_the_rules_can_fail(file: str, imported: str) -> None:
    assert violations(file, {imported})
