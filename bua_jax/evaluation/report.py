"""report.html: one self-contained page; every text from data or models is escaped."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from bua_jax.basics.files import write_text
from bua_jax.evaluation import tables

_TEMPLATE = Path(__file__).parent / "report.html"


@dataclass(frozen=True)
class Section:
    """A titled table."""

    title: str
    header: tuple[str, ...]
    rows: list[list[str]]


@dataclass(frozen=True)
class Conversation:
    """A titled list of (instruction, answer)."""

    title: str
    turns: list[tuple[str, str]]


@dataclass(frozen=True)
class Report:
    """What the page shows; pictures are (title, PNG bytes)."""

    title: str
    notes: list[str]
    tables: list[Section]
    pictures: list[tuple[str, bytes]]
    dialogues: list[Conversation]
    signature: str


def render(report: Report) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    pictures = [
        {"title": title, "data": base64.b64encode(data).decode()} for title, data in report.pictures
    ]
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=report.title,
        notes=report.notes,
        tables=report.tables,
        pictures=pictures,
        dialogues=report.dialogues,
        signature=report.signature,
    )


def sections(metrics: Mapping[str, Any]) -> list[Section]:
    """The tables of an evaluation; metrics as in metrics.json."""
    found = [
        Section("Prediction (test users)", tables.HEADER, tables.rows(metrics["prediction"])),
        Section(
            "Generation", tables.GENERATION_HEADER, tables.generation_rows(metrics["generation"])
        ),
        Section(
            "Paper (private data, 7B model): not comparable, printed for its orderings",
            ("method", *tables.METRICS[:6]),
            [[name, *(f"{100 * v:.1f}" for v in row)] for name, row in tables.PAPER.items()],
        ),
    ]
    if "originality" in metrics:
        originals = tables.originality_rows(metrics["originality"])
        found.insert(2, Section("Are days copies?", tables.ORIGINALITY_HEADER, originals))
    if texts := tables.truth_rows(metrics.get("texts", {})):
        found.insert(1, Section("Are the texts true?", tables.TRUTH_HEADER, texts))
    if oracle := tables.oracle_rows(metrics.get("oracle", [])):
        found.insert(1, Section("Reference answers given", tables.ORACLE_HEADER, oracle))
    return found


def write_report(path: Path, report: Report) -> None:
    """Writes the page, atomically."""
    write_text(path, render(report))
