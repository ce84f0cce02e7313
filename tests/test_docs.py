"""Pages are whole: links and anchors resolve, every page is in the site, messages are those of the code.

What the site's own build would say too, and that takes seconds more, is not asked here (launch/docs.sh).
"""

import ast
import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import bua_jax
from bua_jax.basics import files
from bua_jax.evaluation import results_page, tables
from bua_jax.methods.table import METHODS
from tests.support.helpers import ROOT
from tests.support.imports import LINE
from tests.support.readme import PAGES

DOCS = ROOT / "docs"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

RESULTS = sorted((DOCS / "results").glob("*.json"))
EXPERIMENTS = [path for path in RESULTS if "experiment" in json.loads(path.read_text())]


def prose(path: Path) -> str:
    return BLOCK.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {re.sub(r"\s+", "-", one.strip()) for one in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert there.is_relative_to(DOCS if page.is_relative_to(DOCS) else ROOT), target
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def _nav(entries: list) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from _nav(below)


def test_every_page_is_in_the_site() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = list(_nav(settings["nav"]))
    pages = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    unnamed = {f"results/{path.stem}.md" for path in EXPERIMENTS}  # mkdocs.yml: not_in_nav
    assert sorted(named) == sorted(pages - unnamed)


def test_every_page_says_what_it_is_for() -> None:
    for page in DOCS.rglob("*.md"):
        title, _, lead = page.read_text().split("\n")[:3]
        assert title.startswith("# "), page
        assert len(lead) > 40, page
        assert lead[0].isalpha(), page


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8192


# ------------------------------------------------------------------- lists that the code has too


def rows_of(page: Path) -> set[str]:
    """What stands in backticks in the first cells of a page's tables."""
    cells = re.findall(r"^\| (.*?) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_readme_lists_the_verbs() -> None:
    verbs = {path.stem for path in (ROOT / "bua_jax").glob("[a-z]*.py")} - {"cli"}
    assert verbs <= rows_of(ROOT / "README.md")


def test_methods_and_metrics_are_explained() -> None:
    assert set(METHODS) <= rows_of(DOCS / "methods.md")
    explained = rows_of(DOCS / "experiments.md")
    assert set(tables.METRICS) <= explained
    assert {"hr@5", "macro_f1", "overall_min20"} <= explained


def test_the_line_of_rooms_is_that_of_the_imports() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^basics < .*?(?=^```)", page, re.MULTILINE | re.DOTALL)
    there = [room for room in LINE if (ROOT / "bua_jax" / room).is_dir()]
    assert line.split() == " < ".join([*there, "verbs"]).split()


# ------------------------------------------------------------------------------ results of runs

README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNS = sorted(path.stem for path in RESULTS if path not in EXPERIMENTS)


def test_the_readme_shows_a_run() -> None:
    shown = re.findall(r"<!-- results:(\w+) -->", README)
    assert shown
    assert set(shown) <= set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_results_are_what_the_command_makes_of_the_json(name: str) -> None:
    said = files.read_json(DOCS / "results" / f"{name}.json")
    assert (DOCS / "results" / f"{name}.md").read_text() == results_page.page(name, said)
    assert (DOCS / "results" / f"{name}.svg").read_text() == results_page.picture(said)
    table = results_page.short_table(said["metrics"]["prediction"])
    assert results_page.with_results(README, name, table) == README


# Decimals with a unit. Limits that a test holds are named with it; evidence has one page, and its date.
FIGURE = re.compile(r"\d\.\d+ ?(?:%|s\b|ms\b|seconds|minutes|times as|nats|points|[KMG]iB|tokens)")
DATED = re.compile(r"\d{4}-\d\d-\d\d")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_measured_figures_are_written_by_commands(page: Path) -> None:
    if page.parent.name == "results":
        return
    written = re.sub(r"<!-- results:.*?<!-- /results:\w+ -->", "", prose(page), flags=re.DOTALL)
    for paragraph in re.split(r"\n\n|\n(?=[|-])", written):
        evidence = page.name == "reproduction.md" and DATED.search(paragraph)
        assert "`tests/" in paragraph or evidence or not FIGURE.search(paragraph), paragraph


# ---------------------------------------------------------------------------------- public names


def _public() -> list[tuple[str, str | None]]:
    """(module or module.name, the one name that is shown, or none for all) of docs/api.md."""
    found: list[tuple[str, str | None]] = []
    for name in re.findall(r"^::: (\S+)", (DOCS / "api.md").read_text(), re.MULTILINE):
        module, _, last = name.rpartition(".")
        found.append((name, None) if _file(name).exists() else (module, last))
    return found


def _file(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


# Papers' code imports these by their full names: they neither move nor change what they take.
IMPORTED = (
    "bua_jax.load",
    "bua_jax.interop.huggingface.load",
    "bua_jax.models.qwen2.Qwen2",
    "bua_jax.training.losses.round_balanced_loss",
    "bua_jax.training.losses.token_mean_loss",
    "bua_jax.training.weighting.task_weights",
    "bua_jax.evaluation.prediction.prediction_metrics",
    *(f"bua_jax.evaluation.sequences.{name}" for name in ("bleu", "tvd", "jsd", "js_distance")),
)


@pytest.mark.parametrize("name", IMPORTED)
def test_names_that_researchers_import_are_there_and_on_the_page(name: str) -> None:
    module, _, last = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), last))
    assert {(module, last), (module, None)} & {*_public()}


def _undocumented(node: ast.AST, prefix: str) -> Iterator[str]:
    """Public functions and classes below a node, and their methods, without a docstring."""
    for one in ast.iter_child_nodes(node):
        if not isinstance(one, ast.FunctionDef | ast.ClassDef) or one.name.startswith("_"):
            continue
        if any(getattr(way, "id", "") == "overload" for way in one.decorator_list):
            continue
        if ast.get_docstring(one) is None:
            yield f"{prefix}.{one.name}"
        if isinstance(one, ast.ClassDef):
            yield from _undocumented(one, f"{prefix}.{one.name}")


def test_the_page_shows_all_that_the_package_exports() -> None:
    (shown,) = re.findall(
        r"^::: bua_jax\n.*\n +members: \[(.*)\]", (DOCS / "api.md").read_text(), re.M
    )
    assert {*shown.split(", "), "__version__"} == set(bua_jax.__all__)


@pytest.mark.parametrize(("module", "name"), _public())
def test_public_names_are_documented(module: str, name: str | None) -> None:
    tree = ast.parse(_file(module).read_text())
    if name is not None:
        (node,) = (one for one in tree.body if getattr(one, "name", "") == name)
        assert ast.get_docstring(node)
        assert not isinstance(node, ast.ClassDef) or not list(_undocumented(node, name))
        return
    assert ast.get_docstring(tree)
    assert not list(_undocumented(tree, module))


# --------------------------------------------------------------------------------- error messages


def _texts() -> Iterator[str]:
    """Every text of the package; what is filled in is `…`."""
    for path in (ROOT / "bua_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]*)` \|", page, re.MULTILINE)
    assert len(messages) > 30
    texts = list(_texts())
    for message in messages:
        pattern = re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)
        assert any(pattern.search(text) for text in texts), message


# ------------------------------------------------------------------------------------ packaging


def test_a_wheel_holds_every_package() -> None:
    """An editable install finds those that the list forgets."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {p.parent.relative_to(ROOT) for p in (ROOT / "bua_jax").rglob("__init__.py")}
    there |= {
        Path("bua_jax") / p.parent.relative_to(ROOT)
        for p in (ROOT / "configs").rglob("__init__.py")
    }
    assert there <= {Path(*name.split(".")) for name in said}


def test_the_paper_is_what_is_cited() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= said.keys()
    paper = said["preferred-citation"]
    assert paper["url"].endswith("2604.23578")
    assert [one["family-names"] for one in paper["authors"]] == ["Meng", "Ding", "Li", "Sun", "Li"]
