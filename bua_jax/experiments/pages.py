"""How an experiment's table is shown: Markdown, LaTeX, CSV; all of it from what its JSON holds."""

import csv
import io
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.evaluation import plots, tables
from bua_jax.evaluation.differences import LEAST_SEEDS
from bua_jax.experiments import curves
from bua_jax.experiments.paper import COSTS, FROM


def _with_interval(said: Mapping[str, Any], metric: str) -> str:
    value = tables.cell(said["value"], metric)
    if said["value"] is None or said["low"] is None:
        return value
    return f"{value} ({tables.cell(said['low'], metric)} to {tables.cell(said['high'], metric)})"


def _points(said: Mapping[str, Any]) -> str:
    value, low, high = (100 * said[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f}){_mark(said)}"


def _mark(said: Mapping[str, Any]) -> str:
    """A star at what is over people alone."""
    return "*" if said["over"] == "people" else ""


def header(said: Mapping[str, Any]) -> list[str]:
    """Columns of the table."""
    return [
        "row",
        *said["columns"],
        f"{said['main']} minus {said['reference']}",
        "p (Holm)",
        "paper's",
        "seeds needed",
    ]


def body(said: Mapping[str, Any]) -> list[list[str]]:
    """The table, as text: means over seeds, and differences with their intervals."""
    found = []
    for name, row in said["rows"].items():
        values = [
            tables.cell((row["metrics"].get(c) or {"value": None})["value"], c)
            for c in said["columns"]
        ]
        against = row.get("against", {}).get(said["main"])
        if against is None:
            found.append([name, *values, "", "", "", ""])
            continue
        p = against.get("p_holm")
        published = against.get("published")
        needed = against.get("seeds_needed") or ("more people" if against.get("judged") else "")
        found.append(
            [
                name,
                *values,
                _points(against),
                "" if p is None else f"{p:.3g}",
                "" if published is None else f"{100 * published:+.1f}",
                str(needed),
            ]
        )
    return found


def spread(said: Mapping[str, Any]) -> list[list[str]]:
    """Each row's rec_w by seed, and its mean with the interval."""
    found = []
    for name, row in said["rows"].items():
        one = row["metrics"][said["main"]]
        by_seed = ", ".join(
            f"{s}: {100 * v:.1f}" for s, v in zip(row["seeds"], one["by_seed"], strict=True)
        )
        deviation = statistics.stdev(one["by_seed"]) * 100 if len(row["seeds"]) > 1 else None
        found.append(
            [
                name,
                _with_interval(one, said["main"]) + _mark(one),
                "-" if deviation is None else f"{deviation:.1f}",
                by_seed,
            ]
        )
    return found


CLAIM = ("claim", "in", "difference", "here", "probability")


def claims(said: Mapping[str, Any]) -> list[list[str]]:
    """What is claimed, the difference here, and whether it holds."""
    found = []
    for claim in said["claims"]:
        p = claim["probability"]
        shown = "-" if p is None else f"{p:.2f}"
        found.append(
            [
                f"{claim['above']} above {claim['below']}",
                claim["metric"],
                _apart(claim),
                claim["verdict"],
                shown,
            ]
        )
    return found


def _apart(claim: Mapping[str, Any]) -> str:
    """The difference of a claim's two rows with its interval: in points, and of what is in nats as it is."""
    one = claim.get("difference")
    if not one or one["value"] is None or one["low"] is None:
        return "-"
    if tables.cell(1.0, claim["metric"]) == "100.0":
        return _points(one)
    return f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f}){_mark(one)}"


COST = (
    "row",
    "trained (minutes)",
    "GiB",
    "asked (seconds for 1,000)",
    "GiB ",
    "paper's, of 20,000 (Appendix L)",
)


def costs(said: Mapping[str, Any]) -> list[list[str]]:
    """What each row's training and being asked took, means over its cells."""
    found = []
    for name, row in said["rows"].items():
        if (own := row.get("costs")) is None:
            continue
        shown = ["-" if value is None else f"{value:.1f}" for value in own.values()]
        is_ = row.get("published")
        found.append([name, *shown, COSTS.get((is_["table"], is_["row"]), "") if is_ else ""])
    return found


TRIED = ("row", "fields", "validation log-loss", "")


def tried(said: Mapping[str, Any]) -> list[list[str]]:
    """The settings of each row that was tuned, with their validation log-losses."""
    found = []
    for name, row in said["rows"].items():
        losses = [one["log_loss"] for one in row.get("tried", ())]
        for one in row.get("tried", ()):
            fields = ", ".join(f"{k}={v}" for k, v in one["fields"].items()) or "as it is"
            taken = "taken" if losses.index(min(losses)) == row["tried"].index(one) else ""
            found.append([name, fields, f"{one['log_loss']:.3f}", taken])
    return found


def of_paper(said: Mapping[str, Any]) -> bool:
    """Whether the claims are the paper's, which then has numbers of some rows."""
    return any("published" in row for row in said["rows"].values())


def published_rows(said: Mapping[str, Any]) -> list[list[str]]:
    """The paper's own numbers of the rows."""
    return [
        [
            name,
            f"{one['table']}, {one['row']}",
            *(tables.cell(one["values"].get(c), c) for c in said["columns"]),
        ]
        for name, row in said["rows"].items()
        if (one := row.get("published"))
    ]


def seeds_of(said: Mapping[str, Any]) -> list[int]:
    """The seeds that any row has."""
    return sorted({seed for row in said["rows"].values() for seed in row["seeds"]})


def scope(said: Mapping[str, Any]) -> str:
    """What was asked, and what the numbers are."""
    return (
        f"{tables.scope(said)}, {len(seeds_of(said))} seeds. Means over seeds, in percent, log-loss in nats; "
        "95 % intervals over seeds and people."
    )


def warnings(said: Mapping[str, Any]) -> list[str]:
    """What makes a table say less than it seems to."""
    found, seeds = [], seeds_of(said)
    if any(one["over"] == "people" for one in _intervals(said)):
        found.append(
            f"Marked *: over people alone, as there are fewer than {LEAST_SEEDS} seeds to pair. It "
            "is about these very models, another seed may say otherwise."
        )
    if said["people"] < tables.FEW_PEOPLE:
        found.append(f"{said['people']} test people are few: differences between rows mean little.")
    if incomplete := [n for n, row in said["rows"].items() if len(row["seeds"]) < len(seeds)]:
        found.append(f"Fewer seeds than others have: {', '.join(incomplete)}.")
    return found


def footnotes(said: Mapping[str, Any]) -> list[str]:
    """How the paper contradicts its own numbers of the rows."""
    published = [row["published"] for row in said["rows"].values() if "published" in row]
    return [f"{p['table']}, {p['row']}: {p['footnote']}" for p in published if p["footnote"]]


def notes(said: Mapping[str, Any]) -> list[str]:
    """What is said of rows."""
    return [f"{name}: {row['note']}" for name, row in said["rows"].items() if row["note"]]


def page(said: Mapping[str, Any]) -> str:
    """NAME.md from what NAME.json holds."""
    name = said["experiment"]
    parts = [
        f"# {said['title']}\n\nA command wrote this page from [{name}.json]({name}.json); do not edit it.\n",
        f"```bash long\n{said['command']}\n```\n",
        f"{scope(said)} [What the metrics mean](../experiments.md#metrics).\n",
        tables.plain_markdown(header(said), body(said)),
    ]
    if said.get("drawn"):
        parts.append(f"![{', '.join(said['drawn'])} by row]({name}.png)\n")
    parts += [f"**{text}**\n" for text in warnings(said)]
    if said["claims"]:
        title = "What the paper claims" if of_paper(said) else "Row against row"
        parts += [f"## {title}\n"]
        parts += [tables.plain_markdown(CLAIM, claims(said))]
    if rows := tried(said):
        parts += [
            "## What was tried\n",
            "Each row with as many settings, with one seed; the lowest log-loss on validation people was "
            "taken, before any test person was asked.\n",
            tables.plain_markdown(TRIED, rows),
        ]
    parts += ["## By seed\n"]
    columns = ("row", f"{said['main']} (95 %)", "sd of seeds", "seed: value")
    parts += [tables.plain_markdown(columns, spread(said))]
    if rows := published_rows(said):
        parts += [f"## The paper's numbers\n\n{FROM}. Not to be met, only ordered alike.\n"]
        parts += [tables.plain_markdown(("row", "is", *said["columns"]), rows)]
        parts += [f"{text}\n" for text in footnotes(said)]
    if rows := costs(said):
        parts += [
            "## What it costs\n",
            "On the machines below, loading and compiling included; GiB are the host's largest resident "
            "memory. What several rows share is counted in each.\n",
            tables.plain_markdown(COST, rows),
        ]
    parts += [
        "## Where it comes from\n",
        tables.plain_markdown(("of its cells", ""), facts(said)),
    ]
    if said_of_rows := notes(said):
        parts.append("\n".join(f"- {text}" for text in said_of_rows) + "\n")
    return "\n".join(parts)


def bars(said: Mapping[str, Any]) -> plots.Bars:
    """What is drawn: by column each row's mean over seeds and its interval, where it has them."""
    return {
        metric: [
            (name, one["value"], *(one[e] if one[e] is not None else one["value"] for e in _ENDS))
            for name, row in said["rows"].items()
            if (one := row["metrics"].get(metric)) and one["value"] is not None
        ]
        for metric in said.get("drawn", ())
    }


_ENDS = ("low", "high")


def _intervals(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All that is shown with an interval."""
    rows = said["rows"].values()
    return [
        *(row["metrics"][said["main"]] for row in rows),
        *(row["against"][said["main"]] for row in rows if said["main"] in row.get("against", {})),
    ]


def facts(said: Mapping[str, Any]) -> list[list[str]]:
    minutes = sum(cell["minutes"] for cell in said["cells"].values())
    return [
        *curves.facts(said),
        ["test windows", said["windows"]],
        ["minutes, shared steps counted in each cell", f"{minutes:.0f}"],
    ]


def latex(said: Mapping[str, Any]) -> str:
    """The table for a paper; what stands below it and where it comes from are comments."""
    below = [*warnings(said), *footnotes(said), *notes(said), FROM, said["command"]]
    below += [f"{name}: {text}" for name, text in facts(said)]
    return tables.booktabs(header(said), body(said)) + tables.commented(below)


def comma_separated(said: Mapping[str, Any]) -> str:
    """A line per row, seed and metric, in shares and nats."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", "seed", "metric", "value"))
    for name, row in said["rows"].items():
        for metric, one in row["metrics"].items():
            for seed, value in zip(row["seeds"], one["by_seed"], strict=True):
                writer.writerow((name, seed, metric, "" if value is None else f"{value:.6f}"))
    return text.getvalue()


def write(said: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes NAME.json, .md, .tex and .csv into the folder, and .png where columns are drawn."""
    shown = {".md": page(said), ".tex": latex(said), ".csv": comma_separated(said)}
    paths = [folder / f"{said['experiment']}{ending}" for ending in (".json", *shown)]
    files.write_json(paths[0], said)
    for path in paths[1:]:
        files.write_text(path, shown[path.suffix])
    if said.get("drawn"):
        paths.append(folder / f"{said['experiment']}.png")
        with files.atomic_write(paths[-1]) as temporary:
            temporary.write_bytes(plots.bars(bars(said)))
    return paths
