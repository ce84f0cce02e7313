"""Files, functions and folders stay small enough to read."""

import ast
from collections import Counter
from pathlib import Path

from tests.support.helpers import ROOT

FOLDERS = ("bua_jax", "configs", "tests")
FILE, FUNCTION, LOOP, FOLDER, VERB = 400, 60, 100, 16, 80  # lines, and files of a folder
SUFFIXES = {".py", ".cc", ".h"}
BANNER = "# -- "  # a comment that titles a section of a loop
NOT_A_VERB = {"__init__.py", "cli.py"}
OF_SYSTEMS = {"bua_jax/methods", "configs/methods", "tests/methods"}
UNBOUNDED = {"bua_jax", *OF_SYSTEMS, "configs/experiments"}
"""The verbs; a file per system; a file per table."""


def too_long(path: str, text: str) -> list[str]:
    """What of a source file is above the bounds; path: relative to the checkout."""
    lines = text.splitlines()
    parts = Path(path).parts
    verb = len(parts) == 2 and parts[0] == "bua_jax" and parts[1] not in NOT_A_VERB
    limit = VERB if verb else FILE
    found = [f"{path} has {len(lines)} lines"] if len(lines) > limit else []
    for node in ast.walk(ast.parse(text if path.endswith(".py") else "")):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            body = lines[node.lineno : node.end_lineno]
            sections = sum(line.strip().startswith(BANNER) for line in body)
            if length > (LOOP if sections >= 3 else FUNCTION):
                found.append(f"{path}: {node.name} has {length} lines")
    return found


def crowded(paths: list[str]) -> list[str]:
    """Folders with more source files than the bound."""
    count = Counter(str(Path(path).parent) for path in paths if Path(path).name != "__init__.py")
    return [
        f"{folder} has {number} files"
        for folder, number in sorted(count.items())
        if number > FOLDER and folder not in UNBOUNDED
    ]


def sources() -> dict[str, str]:
    found = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.*")))
    found = (path for path in found if path.suffix in SUFFIXES)
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in found}


def test_files_and_functions() -> None:
    found = sources()
    assert "bua_jax/training/loop.py" in found
    assert [line for path, text in found.items() for line in too_long(path, text)] == []


def test_folders() -> None:
    assert crowded(list(sources())) == []


def test_the_bounds_can_fail() -> None:
    body = "    pass\n"
    assert too_long("bua_jax/a/b.py", "def f():\n" + body * 59) == []
    assert too_long("bua_jax/a/b.py", "def f():\n" + body * 60) == [
        "bua_jax/a/b.py: f has 61 lines"
    ]
    loop = "def f():\n" + ("    # -- a section\n" + body * 20) * 4
    assert too_long("bua_jax/a/b.py", loop) == []
    assert too_long("bua_jax/a/b.py", loop + body * 20)
    assert too_long("tests/b.py", "x = 1\n" * 401)
    assert too_long("bua_jax/train.py", "x = 1\n" * 81)
    assert too_long("bua_jax/a/b.cc", "{\n" * 401)
    assert crowded([f"bua_jax/a/{i}.py" for i in range(17)]) == ["bua_jax/a has 17 files"]
    assert crowded([f"bua_jax/methods/{i}.py" for i in range(17)]) == []
