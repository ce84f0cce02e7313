"""The claims of all tables in a folder on one page, and whether they hold."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.evaluation.tables import plain_markdown
from bua_jax.experiments import curves, pages

PAGE = "claims.md"


def tables_in(folder: Path) -> list[dict[str, Any]]:
    """What the JSON files of a folder hold that are tables with claims, by name."""
    found = [files.read_json(path) for path in sorted(folder.glob("*.json"))]
    tables = (said for said in found if isinstance(said, dict) and "experiment" in said)
    return [said for said in tables if said.get("claims")]


def page(tables: Sequence[Mapping[str, Any]]) -> str:
    """The page of tables as `pages.write` and `curves.write` leave them."""
    parts, verdicts = [], Counter[str]()
    for said in tables:
        lines = _lines(said)
        verdicts.update(line[3] for line in lines)
        seeds = len({name.rpartition("/")[2] for name in said["cells"]})
        title = said["title"].translate(str.maketrans({sign: f"\\{sign}" for sign in "[]<"}))
        parts.append(f"## [{title}]({said['experiment']}.md)\n")
        parts.append(
            f"Scale {said['scale']}, {seeds} seeds.\n\n{plain_markdown(pages.CLAIM, lines)}"
        )
    counted = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
    lead = (
        "Every claim of the tables that were run whole, the paper's and pairs of rows of our own choosing: "
        "the difference here with its 95 % interval over seeds and people (of losses: over seeds), and "
        f"whether it holds. Of {verdicts.total()} claims: {counted}. `undecided` is what an interval around "
        "0 leaves open at this size. A command wrote this page from the tables' json; do not edit it.\n"
    )
    return "\n".join([f"# What holds\n\n{lead}", *parts])


def _lines(said: Mapping[str, Any]) -> list[list[str]]:
    """A claim's text, metric, difference, verdict and probability."""
    if "losses" in said:  # of curves
        return [[claim, f"loss: {metric}", *found] for claim, metric, *found in curves.claims(said)]
    return pages.claims(said)


def write(folder: Path) -> Path:
    """Writes the folder's page."""
    files.write_text(folder / PAGE, page(tables_in(folder)))
    return folder / PAGE
