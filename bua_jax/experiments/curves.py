"""Validation losses of rows that train in other ways, task by task (Figure 4)."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from bua_jax.basics import files
from bua_jax.basics.errors import DataError
from bua_jax.dialogue.rounds import TASKS
from bua_jax.evaluation import plots, tables
from bua_jax.evaluation.differences import LEAST_SEEDS, LEVEL
from bua_jax.experiments.experiment import Cell, Experiment
from bua_jax.experiments.run import provenance, run_of
from bua_jax.training.writers import read_scalars

_PREFIX = "validation/task/"


def losses_of(cell: Cell, workdir: Path) -> dict[str, list[tuple[float, float]]]:
    """By task: (share of its stage's steps, validation loss) at each evaluation.

    Raises `DataError` where there are none.
    """
    run = run_of(cell, workdir)
    found: dict[str, list[tuple[float, float]]] = {}
    for stage in cell.steps:
        records = read_scalars(run.folder(stage))
        last = max((record["step"] for record in records), default=1)
        for record in records:
            for name in (name for name in record if name.startswith(_PREFIX)):
                point = (round(record["step"] / last, 4), record[name])
                found.setdefault(name.removeprefix(_PREFIX), []).append(point)
    if not found:
        raise DataError(
            f"The cell {cell.name} has no validation losses in {run.folder(cell.steps[-1])}/metrics.jsonl: "
            "remove that folder and run the same command again."
        )
    return found


def collect(
    experiment: Experiment, cells: Sequence[Cell], workdir: Path, command: str
) -> dict[str, Any]:
    """What NAME.json holds. cells: the finished ones."""
    losses: dict[str, dict[int, Any]] = {}
    for cell in cells:
        losses.setdefault(cell.row.name, {})[cell.seed] = losses_of(cell, workdir)
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "scale": experiment.scale.name,
        "reference": experiment.reference,
        "command": command,
        "config": experiment.scale.config,
        "fields": dict(experiment.scale.fields),
        "claims": [asdict(claim) for claim in experiment.claims],
        "losses": {
            row: {str(s): one for s, one in by_seed.items()} for row, by_seed in losses.items()
        },
        "cells": {cell.name: provenance(cell, workdir, experiment.scale.config) for cell in cells},
    }


def _ends(losses: Mapping[str, Any], task: str, which: str) -> dict[str, float]:
    """By seed: the first or the lowest loss of a task."""
    found = {}
    for seed, by_task in losses.items():
        if values := [value for _, value in by_task.get(task, ())]:
            found[seed] = values[0] if which == "first" else min(values)
    return found


def compared(
    said: Mapping[str, Any], one: str, other: str, task: str, which: str
) -> dict[str, Any] | None:
    """A row's loss minus another's, paired by seed; None where one lacks the task.

    which: first or lowest. The interval, and the probability that the first is lower, are Student's t over
    seeds, and absent below `LEAST_SEEDS` of them.
    """
    losses, others = (_ends(said["losses"].get(row, {}), task, which) for row in (one, other))
    seeds = sorted(losses.keys() & others.keys(), key=int)
    if not seeds:
        return None
    y = np.array([losses[seed] - others[seed] for seed in seeds])
    found: dict[str, Any] = {
        "one": float(np.mean([losses[seed] for seed in seeds])),
        "other": float(np.mean([others[seed] for seed in seeds])),
        "difference": float(y.mean()),
        "seeds": len(seeds),
    }
    error = float(y.std(ddof=1)) / len(y) ** 0.5 if len(seeds) >= LEAST_SEEDS else 0.0
    if error:
        reach = float(stdtrit(len(y) - 1, (1 + LEVEL) / 2)) * error
        found |= {"low": found["difference"] - reach, "high": found["difference"] + reach}
        found["probability"] = float(stdtr(len(y) - 1, -found["difference"] / error))
    return found


def claims(said: Mapping[str, Any]) -> list[list[str]]:
    """What the paper says, the difference here, and whether it holds: a lower loss is better."""
    found = []
    for claim in said["claims"]:
        which, task = claim["metric"].split(" ")
        one = compared(said, claim["above"], claim["below"], task, which) or {}
        verdict = "undecided"
        if "low" in one and (one["high"] < 0 or one["low"] > 0):
            verdict = "held" if one["high"] < 0 else "not held"
        shown = f"{one['probability']:.2f}" if "probability" in one else "-"
        names = f"{claim['above']} below {claim['below']}"
        found.append([names, claim["metric"], _apart(one) if one else "-", verdict, shown])
    return found


def body(said: Mapping[str, Any]) -> list[list[str]]:
    """A line per row, task and end: both losses and their difference."""
    found = []
    for row in (row for row in said["losses"] if row != said["reference"]):
        for task in TASKS:
            for which in ("first", "lowest"):
                if (one := compared(said, said["reference"], row, task, which)) is None:
                    continue
                numbers = (
                    f"{one['one']:.3f}",
                    f"{one['other']:.3f}",
                    _apart(one),
                    str(one["seeds"]),
                )
                found.append([task, which, row, *numbers])
    return found


def _apart(one: Mapping[str, Any]) -> str:
    """What `compared` says of a difference, in nats."""
    interval = f" ({one['low']:+.3f} to {one['high']:+.3f})" if "low" in one else ""
    return f"{one['difference']:+.3f}{interval}"


def header(said: Mapping[str, Any]) -> list[str]:
    """Columns of the table."""
    return [
        "task",
        "loss",
        "row",
        said["reference"],
        "it",
        f"{said['reference']} minus it",
        "seeds",
    ]


def picture(said: Mapping[str, Any]) -> bytes:
    """PNG: means over seeds by task; the rows but the reference are dotted."""
    drawn = {}
    for row, by_seed in said["losses"].items():
        for task in TASKS:
            lines = [by_task[task] for by_task in by_seed.values() if task in by_task]
            if not lines or len({len(line) for line in lines}) > 1:
                continue
            split = "validation" if row == said["reference"] else "other"
            means = np.mean(lines, axis=0).tolist()
            drawn[f"{split} {task}"] = [(100 * share, value) for share, value in means]
    title = f"{said['title']} (dotted: not {said['reference']})"
    return plots.curves({title: drawn}, "validation loss (nats)", "% of the steps")


def page(said: Mapping[str, Any]) -> str:
    """NAME.md from what NAME.json holds."""
    name = said["experiment"]
    return "\n".join(
        [
            f"# {said['title']}\n\nA command wrote this page from [{name}.json]({name}.json); do not edit "
            "it.\n",
            f"```bash long\n{said['command']}\n```\n",
            "Validation loss in nats per token, mean over seeds; differences are paired by seed, with 95 % "
            f"intervals over seeds from {LEAST_SEEDS} of them on.\n",
            f"![validation losses by task]({name}.png)\n",
            tables.plain_markdown(header(said), body(said)),
            "## What the paper claims\n",
            tables.plain_markdown(
                ("claim: loss of", "loss", "difference", "here", "probability"), claims(said)
            ),
            "## Where it comes from\n",
            tables.plain_markdown(("of its cells", ""), facts(said)),
        ]
    )


def facts(said: Mapping[str, Any]) -> list[list[str]]:
    """Config, commits, machines and data of the cells."""
    cells = said["cells"].values()

    def all_of(name: str) -> str:
        return "; ".join(sorted({value for cell in cells for value in cell[name]}))

    return [
        ["scale", said["scale"]],
        ["config", f"{said['config']}" + (", with fields in the json" if said["fields"] else "")],
        ["commits", all_of("commits")],
        ["dates", all_of("dates")],
        ["machines", all_of("machines")],
        ["data", "; ".join(sorted({str(cell["data"]) for cell in cells}))],
    ]


def latex(said: Mapping[str, Any]) -> str:
    """The table for a paper; where it comes from is a comment."""
    below = [said["command"], *(f"{name}: {text}" for name, text in facts(said))]
    return tables.booktabs(header(said), body(said)) + tables.commented(below)


def comma_separated(said: Mapping[str, Any]) -> str:
    """A line per row, seed, task and evaluation: the share of the stage's steps, and the loss in nats."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", "seed", "task", "share", "loss"))
    for row, by_seed in said["losses"].items():
        for seed, by_task in by_seed.items():
            for task, points in by_task.items():
                writer.writerows((row, seed, task, share, f"{loss:.6f}") for share, loss in points)
    return text.getvalue()


def write(said: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes NAME.json, .md, .tex, .csv and .png into the folder."""
    shown = {".md": page(said), ".tex": latex(said), ".csv": comma_separated(said)}
    paths = [folder / f"{said['experiment']}{ending}" for ending in (".json", *shown, ".png")]
    files.write_json(paths[0], said)
    for path in paths[1:-1]:
        files.write_text(path, shown[path.suffix])
    with files.atomic_write(paths[-1]) as temporary:
        temporary.write_bytes(picture(said))
    return paths
