"""Fair tuning: rows try as many settings each, and validation people choose before test people are asked.

A trial is a cell of the first seed whose method is asked about the set `match`, of validation people; the
row as it is is one of them. The lowest log-loss there wins, and all seeds are built with it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bua_jax.experiments.experiment import Cell, Experiment, Row, cells, chosen
from bua_jax.experiments.report import asked_of
from bua_jax.experiments.run import build_cells, finished

SET, METRIC = "match", "log_loss"


def fields_of(row: Row) -> list[Mapping[str, Any]]:
    """In what each trial differs from the row; nothing first."""
    return [{}, *row.trials]


def trials(experiment: Experiment, rows: Sequence[str] = ()) -> list[Cell]:
    """The cells that are tried before the experiment's own, of some rows; none given: of all."""
    tuned = [r for r in experiment.rows if r.trials and (not rows or r.name in rows)]
    return [cell for row in tuned for cell in _of_row(experiment, row)]


def _of_row(experiment: Experiment, row: Row) -> list[Cell]:
    tried = [
        dataclasses.replace(
            row, name=f"{row.name}, trial {i}", fields={**row.fields, **more}, trials=()
        )
        for i, more in enumerate(fields_of(row), 1)
    ]
    scale = dataclasses.replace(experiment.scale, seeds=experiment.scale.seeds[:1])
    own = cells(dataclasses.replace(experiment, rows=tuple(tried), scale=scale))
    return [dataclasses.replace(cell, steps=(f"predict/{row.method}/{SET}",)) for cell in own]


def build(
    experiment: Experiment,
    rows: Sequence[str],
    seeds: Sequence[str],
    workdir: Path,
    *,
    take_over: bool,
) -> tuple[Experiment, dict[str, str]]:
    """Builds trials, and with what won the cells of some rows and seeds (none given: all).

    Returns the experiment as it was built, and what failed with its error, as `build_cells` does. No cell is
    built where a trial failed.
    """
    if failed := build_cells(experiment, trials(experiment, rows), workdir, take_over=take_over):
        return experiment, failed
    experiment = settled(experiment, workdir)
    some = chosen(cells(experiment), rows, seeds)
    return experiment, build_cells(experiment, some, workdir, take_over=take_over)


def settled(experiment: Experiment, workdir: Path) -> Experiment:
    """The experiment in which each row whose trials are all there has the fields that won, and no trials.

    A row with trials that are not there, or that failed, is left as it is. Raises `DataError` for a damaged
    result file, and where a method gave no probabilities.
    """
    rows = []
    for row in experiment.rows:
        tried = _of_row(experiment, row) if row.trials else []
        if tried and len(finished(tried, workdir)) == len(tried):
            losses = [log_loss(cell, workdir) for cell in tried]
            told = tuple(
                {"fields": dict(more), METRIC: loss}
                for more, loss in zip(fields_of(row), losses, strict=True)
            )
            best = fields_of(row)[losses.index(min(losses))]
            row = dataclasses.replace(row, fields={**row.fields, **best}, trials=(), tried=told)
        rows.append(row)
    return dataclasses.replace(experiment, rows=tuple(rows))


def log_loss(cell: Cell, workdir: Path) -> float:
    """Mean log-loss in nats of a trial's predictions about the validation windows."""
    asked = asked_of(cell, workdir)
    return float(asked.measure(asked.counts.total())[METRIC][0])
