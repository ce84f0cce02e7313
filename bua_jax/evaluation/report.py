"""report.html: one self-contained page, the verdict first; every text from data or models is escaped.

It fetches nothing and runs no script. The same page shows a run, an experiment, a comparison of runs and a
check of data: whatever of its parts there is.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from bua_jax.basics.files import write_text
from bua_jax.evaluation import tables

_TEMPLATE = Path(__file__).parent / "report.html"


@dataclass(frozen=True)
class Section:
    """A titled table; `ours` are the first cells of rows that are marked, `said` stands below it."""

    title: str
    header: tuple[str, ...]
    rows: list[list[str]]
    ours: frozenset[str] = frozenset()
    said: str = ""


class Picture(NamedTuple):
    """PNG bytes; `finding` is what there is to see, for who cannot see it, and the caption."""

    title: str
    data: bytes
    finding: str


class Interval(NamedTuple):
    """A line of a forest plot: a difference and its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Forest:
    """Differences to one row with their intervals, above 0 where that row is better."""

    title: str
    unit: str
    lines: list[Interval]


class Entry(NamedTuple):
    """An event of a day as people read it; `at`: share of the day that is over, 0 to 1."""

    at: float
    clock: str
    label: str
    group: str  # head, medium or tail


@dataclass(frozen=True)
class Timeline:
    """One day told several times: by name (generated, real) its events."""

    title: str
    days: Mapping[str, Sequence[Entry]]


@dataclass(frozen=True)
class Conversation:
    """A titled list of (instruction, answer, reference); reference may be empty. Before it the history."""

    title: str
    turns: list[tuple[str, str, str]]
    history: str = ""


@dataclass(frozen=True)
class Report:
    """What the page shows, in the order of the page; whatever is empty is left out."""

    title: str
    verdict: Sequence[str] = ()
    forests: Sequence[Forest] = ()
    claims: Sequence[tuple[str, str, str]] = ()  # (claim, held | not held | undecided, probability)
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    tables: Sequence[Section] = ()
    pictures: Sequence[Picture] = ()
    days: Sequence[Timeline] = ()
    dialogues: Sequence[Conversation] = ()
    elsewhere: Sequence[Section] = ()  # what is not to be compared: the paper's private numbers
    facts: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)  # fields that differ from the defaults
    signature: str = ""


# ------------------------------------------------------------------------------------------ the page


def render(report: Report) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"base64": _base64, "anchor": _anchor, "metric": tables.metric_of}
    shown = (*report.tables, *report.elsewhere)
    legend = dict.fromkeys(m for table in shown for m in map(tables.metric_of, table.header) if m)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        legend={name: tables.MEANING[name] for name in legend},
        meaning=tables.MEANING,
        scales=[_scale(forest) for forest in report.forests],
        groups=("head", "medium", "tail"),
    )


def write_report(path: Path, report: Report) -> None:
    """Writes the page, atomically."""
    write_text(path, render(report))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _anchor(title: str) -> str:
    """A title as the end of a link within the page."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "part"


def _scale(forest: Forest) -> dict[str, float]:
    """How differences lie on a line from 0 to 100: x = zero + times * value."""
    ends = [0.0, *(end for line in forest.lines for end in (line.low, line.high))]
    low, high = min(ends), max(ends)
    times = 92 / (high - low or 1.0)
    return {"zero": 4 - times * low, "times": times}


# ------------------------------------------------------------------------------- parts of a run's page


def sections(metrics: Mapping[str, Any]) -> list[Section]:
    """The tables of an evaluation; metrics as in metrics.json. Best first, those of BUA marked."""
    prediction = metrics["prediction"]
    order = sorted(prediction, key=lambda name: -(prediction[name].get("rec_w") or 0))
    ours = frozenset({"bua"})
    rows = tables.rows({name: prediction[name] for name in order})
    found = [Section("Prediction (test users)", tables.HEADER, rows, ours)]
    if oracle := tables.oracle_rows(metrics.get("oracle", [])):
        found.append(Section("Reference answers given", tables.ORACLE_HEADER, oracle))
    if texts := tables.truth_rows(metrics.get("texts", {})):
        found.append(Section("Are the texts true?", tables.TRUTH_HEADER, texts, ours))
    found += _understanding(metrics.get("understanding", {}))
    if days := tables.generation_rows(metrics["generation"]):
        found.append(Section("Generation", tables.GENERATION_HEADER, days, ours))
    if originals := tables.originality_rows(metrics.get("originality", {})):
        found.append(Section("Are days copies?", tables.ORIGINALITY_HEADER, originals, ours))
    return found


def _understanding(table: Mapping[str, Any]) -> list[Section]:
    """What texts say of people, and whether that measure sees what is spoilt."""
    rows, rungs = tables.understanding_rows(table), tables.ladder_rows(table)
    if not rows:
        return []
    row, ladder = table["rows"][table["main"]], table["ladder"]
    said = f"{row['n']:,} windows of {row['people']:,} people. Percent, with 95 % intervals over people."
    spoilt = f"{ladder['n']:,} texts of {ladder['of']}, spoilt on purpose. Percent."
    return [
        Section(
            "What texts say of people",
            tables.UNDERSTANDING_HEADER,
            rows,
            frozenset({table["main"]}),
            said,
        ),
        Section("Does that measure fall?", tables.LADDER_HEADER, rungs, said=spoilt),
    ]


def papers() -> Section:
    """The paper's own numbers, which stand apart."""
    rows = [[name, *(f"{100 * v:.1f}" for v in row)] for name, row in tables.PAPER.items()]
    return Section(
        "The paper's numbers",
        ("method", *tables.METRICS[:6]),
        rows,
        said="Private data and a 7B model: not comparable, printed for its orderings.",
    )


def forest(against: Mapping[str, Mapping[str, float]]) -> list[Forest]:
    """BUA's differences to the other methods, the largest first; none where there are none."""
    pairs = sorted(against.items(), key=lambda pair: -pair[1]["difference"])
    lines = [
        Interval(name, *(100 * pair[key] for key in ("difference", "low", "high")))
        for name, pair in pairs
    ]
    return [Forest("BUA minus each method, rec_w", "points", lines)] if lines else []
