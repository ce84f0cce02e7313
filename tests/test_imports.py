"""Imports point down the strict line of rooms (design, section 3) and make no circles."""

import ast
from pathlib import Path

import pytest

from tests.support.helpers import ROOT

PACKAGE = ROOT / "bua_jax"
LINE = [
    *("basics", "events", "parallel", "dialogue", "models", "feed", "training", "interop"),
    *("decoding", "alignment", "evaluation", "methods", "pipeline", "experiments", "planning"),
    *("benchmarks", "nano", "serving"),
]
HEAVY = {"orbax": "training/checkpoint.py", "safetensors": "interop/"}  # their only homes
WITHOUT_JAX = {"events", "dialogue", "evaluation"}


def _module_of(path: Path) -> str:
    """`bua_jax/events/schema.py` -> `bua_jax.events.schema`; a package is its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """Dotted names; of `from a import b` the module `a.b` where there is one, else `a`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, path  # absolute imports only
            assert node.level == 0, path
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found


def _room(module: str) -> str | None:
    """The room of a module of the package; None for a verb and for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or module in ROOMS else None


ROOMS = {f"bua_jax.{room}" for room in LINE}


def violations(module: str, imports: set[str]) -> list[str]:
    """Broken rules of a module (`bua_jax.events.schema`) that imports the given modules."""
    room, problems = _room(module), []
    path = module.removeprefix("bua_jax.").replace(".", "/") + ".py"
    for name in sorted(imports):
        package = name.split(".")[0]
        if package in HEAVY and not path.startswith(HEAVY[package]):
            problems.append(f"{module} imports {package}; only {HEAVY[package]} may")
        if room in WITHOUT_JAX and package in {"jax", "flax", "optax"}:
            problems.append(f"{module} imports {name}; {room}/ is free of jax")
        if room == "evaluation" and _room(name) == "models":
            problems.append(f"{module} imports {name}; evaluation/ knows no model")
        if room == "models" and package in {"optax", "ml_collections", "polars"}:
            problems.append(f"{module} imports {name}; models/ knows no optimizer, config or data")
        if package != "bua_jax":
            continue
        if name not in FILES:
            problems.append(f"{module} imports {name}, which is not there")
        target = _room(name)
        if target is None and (room is not None or name not in {"bua_jax", "bua_jax.cli"}):
            problems.append(f"{module} imports the verb or command line {name}")
        elif room is not None and target is not None and LINE.index(target) > LINE.index(room):
            problems.append(f"{module} imports upward: {name}")
    return problems


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, or none."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module in done:
            return []
        for name in sorted(graph.get(module, ())):
            found = walk(name, [*way, module])
            if found:
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module: str) -> None:
    assert violations(module, _imports(FILES[module])) == []


def test_every_folder_is_a_room() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(LINE)
    assert {"basics", "pipeline"} <= folders


def test_no_circles() -> None:
    graph = {module: _imports(path) & FILES.keys() for module, path in FILES.items()}
    assert circle(graph) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("bua_jax.events.x", "bua_jax.models.qwen2"),
        ("bua_jax.events.x", "bua_jax.dialogue.text"),
        ("bua_jax.events.x", "jax.numpy"),
        ("bua_jax.events.x", "bua_jax.basics.no_such_module"),
        ("bua_jax.basics.x", "bua_jax.events.schema"),
        ("bua_jax.models.x", "optax"),
        ("bua_jax.feed.x", "bua_jax.training.loop"),
        ("bua_jax.training.x", "bua_jax.interop.peft"),
        ("bua_jax.evaluation.x", "bua_jax.models.lora"),
        ("bua_jax.training.loop", "orbax.checkpoint"),
        ("bua_jax.pipeline.x", "bua_jax.train"),
        ("bua_jax.pipeline.x", "bua_jax.cli"),
        ("bua_jax.pipeline.x", "bua_jax"),
        ("bua_jax.train", "bua_jax.predict"),
    ],
)
def test_the_rules_can_fail(module: str, imported: str) -> None:
    assert violations(module, {imported})


def test_circles_are_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
