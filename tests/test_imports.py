"""Imports point down the strict line of rooms (design, section 3) and make no circles."""

import ast

import pytest

from tests.support.helpers import ROOT
from tests.support.imports import BUILDER, FILES, LINE, PACKAGE, imports_of, room_of

HEAVY = {"orbax": "training/checkpoint.py", "safetensors": "interop/"}  # their only homes
WITHOUT_JAX = {"events", "dialogue", "evaluation"}


def violations(module: str, imports: set[str]) -> list[str]:
    """Broken rules of a module (`bua_jax.events.schema`) that imports the given modules."""
    room, problems = room_of(module), []
    path = module.removeprefix("bua_jax.").replace(".", "/") + ".py"
    for name in sorted(imports):
        package = name.split(".")[0]
        if package in HEAVY and not path.startswith(HEAVY[package]):
            problems.append(f"{module} imports {package}; only {HEAVY[package]} may")
        if room in WITHOUT_JAX and package in {"jax", "flax", "optax"}:
            problems.append(f"{module} imports {name}; {room}/ is free of jax")
        if room == "evaluation" and room_of(name) == "models":
            problems.append(f"{module} imports {name}; evaluation/ knows no model")
        if room == "models" and package in {"optax", "ml_collections", "polars"}:
            problems.append(f"{module} imports {name}; models/ knows no optimizer, config or data")
        if package != "bua_jax":
            continue
        if name not in FILES:
            problems.append(f"{module} imports {name}, which is not there")
        target = room_of(name)
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
    assert violations(module, imports_of(FILES[module].read_text())) == []


def test_every_folder_is_a_room() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(LINE)
    assert {"basics", "pipeline"} <= folders


def test_no_circles() -> None:
    graph = {module: imports_of(path.read_text()) & FILES.keys() for module, path in FILES.items()}
    assert circle(graph) == []


def by_name(source: str) -> list[str]:
    """Functions that import a module by a name that no import statement shows."""
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef))
    found = (node.name for node in functions if "import_module(" in ast.unparse(node))
    return sorted({*found, *(["__import__"] if "__import__" in source else [])})


def test_no_import_is_hidden_in_a_text() -> None:
    """Or neither the line nor circles would see it; the table of steps names modules of its own room."""
    found = {
        module: names for module, path in FILES.items() if (names := by_name(path.read_text()))
    }
    assert found == {"bua_jax.pipeline.chain": sorted([BUILDER, "build"])}
    assert "bua_jax.pipeline.stages" in imports_of(FILES["bua_jax.pipeline.chain"].read_text())


def test_imports_are_seen_wherever_they_stand() -> None:
    lazy = "def f():\n    from bua_jax.training import loop\n    import bua_jax.cli\n"
    typed = "if TYPE_CHECKING:\n    from bua_jax.alignment.bases import Base\n"
    built = "step = _built_by('stages', 'build_stage', name)\n"
    assert imports_of(lazy + typed + built) == {
        "bua_jax.training.loop",
        "bua_jax.cli",
        "bua_jax.alignment.bases",
        "bua_jax.pipeline.stages",
    }
    assert by_name("def f(x):\n    return importlib.import_module(x)\n") == ["f"]


def imported_tests(source: str) -> list[str]:
    """The tests that a file of tests/ imports; what they share lies in tests/support and beside them."""
    return sorted(
        name for name in imports_of(source) if name.rpartition(".")[2].startswith("test_")
    )


def test_no_test_imports_a_test() -> None:
    assert imported_tests("from tests.methods.test_baselines import of\n")
    found = {str(p): imported_tests(p.read_text()) for p in (ROOT / "tests").rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


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
