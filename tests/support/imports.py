"""The rooms of the package in their order, and what each of its modules imports."""

import ast
from pathlib import Path

from tests.support.helpers import ROOT

PACKAGE = ROOT / "bua_jax"
LINE = [
    *("basics", "events", "parallel", "dialogue", "models", "feed", "training", "interop"),
    *("decoding", "alignment", "evaluation", "methods", "pipeline", "experiments", "agreement"),
    *("planning", "benchmarks", "nano", "serving"),
]
ROOMS = {f"bua_jax.{room}" for room in LINE}
BUILDER = "_built_by"  # pipeline/chain.py: the one that imports by name, modules of its own room


def _module_of(path: Path) -> str:
    """`bua_jax/events/schema.py` -> `bua_jax.events.schema`; a package is its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(source: str) -> set[str]:
    """Dotted names, wherever they are imported; of `from a import b` the module `a.b` where there is one."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None  # absolute imports only
            assert node.level == 0, node.module
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == BUILDER:
            found.add(f"bua_jax.pipeline.{ast.literal_eval(node.args[0])}")
    return found


def room_of(module: str) -> str | None:
    """The room of a module of the package; None for a verb and for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or module in ROOMS else None
