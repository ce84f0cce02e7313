"""An experiment's table from the result files of its cells: every number with its interval, every claim.

Nothing is predicted here. What a page shows is a function of what its JSON holds, so that a published page
can be checked against it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bua_jax.basics.errors import DataError
from bua_jax.evaluation import results
from bua_jax.evaluation.counts import Totals, count, metrics
from bua_jax.evaluation.day_counts import DayCounts, count_days, day_metrics
from bua_jax.evaluation.differences import (
    LEAST_SEEDS,
    Difference,
    difference,
    holm,
    seeds_needed,
    table,
)
from bua_jax.evaluation.tables import LOWER_IS_BETTER
from bua_jax.evaluation.understanding.score import text_metrics
from bua_jax.events.groups import behaviour_groups
from bua_jax.events.windows import shown_id
from bua_jax.experiments.experiment import Cell, Claim, Experiment
from bua_jax.experiments.paper import FOOTNOTES, PUBLISHED
from bua_jax.experiments.run import provenance, run_of
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.evaluate import count_described, days_of, sides_of
from bua_jax.pipeline.steps import Run
from bua_jax.pipeline.windows import load_set

# --------------------------------------------------------------------------------- what cells say


class Asked(NamedTuple):
    """What a method said about a set, counted per person."""

    counts: Totals
    measure: Callable[[Any], dict[str, np.ndarray]]  # totals -> each metric float64[R]
    number: int  # of what was scored
    windows: str  # fingerprint of the set


def asked_of(cell: Cell, workdir: Path) -> Asked:
    """What a finished cell's method said.

    Raises `DataError` where its result file is missing or damaged, `MismatchError` where it is about
    other windows.
    """
    return asked_in(run_of(cell, workdir), cell.steps[0])


def asked_in(run: Run, step: str) -> Asked:
    """What `asked_of` says, of a step `predict|generate|describe/METHOD/SET` of a run."""
    kind, method, name = step.split("/")
    store = load_store(run)
    frozen = load_set(run, name, store)
    if kind == "describe":
        texts = count_described(run, store, method)
        return Asked(texts, text_metrics, len(frozen), frozen.fingerprint)
    said = results.read(run.file(step, results.FILE))
    names = [shown_id(store, frozen.windows, row) for row in range(len(frozen))]
    said = said.take(results.rows_of(said, frozen.fingerprint, names))
    people, number = frozen.windows.user, len(frozen)
    if kind == "generate":
        days = count_days(people, said.days, days_of(store, frozen), store.catalogue)
        measure = functools.partial(_own_metrics, sides=tuple(sides_of(method)))
        return Asked(days, measure, number, frozen.fingerprint)
    targets, size = store.behaviour[frozen.windows.end], len(store.catalogue.behaviours)
    found = count(people, targets, said.label, size, said.probability)
    measure = functools.partial(metrics, groups=behaviour_groups(store))
    return Asked(found, measure, number, frozen.fingerprint)


def _own_metrics(counts: DayCounts, sides: tuple[str, ...]) -> dict[str, np.ndarray]:
    """`day_metrics` of those sides of a day."""
    return {n: v for n, v in day_metrics(counts).items() if n.startswith(sides)}


def _known(one: Asked) -> dict[str, np.ndarray]:
    """Its metrics of all people."""
    return one.measure(one.counts.total())


def collect(
    experiment: Experiment, cells: Sequence[Cell], workdir: Path, command: str
) -> dict[str, Any]:
    """What NAME.json holds. cells: the finished ones, at least one, about the same windows.

    Raises as `asked_of`, and `DataError` where one person's windows are all that was asked about.
    """
    said: dict[str, dict[int, Asked]] = {}
    for cell in cells:
        said.setdefault(cell.row.name, {})[cell.seed] = asked_of(cell, workdir)
    any_one, main = said[cells[0].row.name][cells[0].seed], experiment.kind.main
    if len(any_one.counts) < 2:
        raise DataError(
            "There is one test person, and intervals are over people: give data with more people "
            "(config.data.num_users, or a larger file)."
        )
    rows = {
        row.name: _row(experiment, row.name, said) for row in experiment.rows if row.name in said
    }
    family = {
        name: row["against"][main]["p"]
        for name, row in rows.items()
        if "against" in row and row["against"][main]["p"] is not None
    }
    for name, p in holm(family).items():
        rows[name]["against"][main]["p_holm"] = p
    built = {cell.name: provenance(cell, workdir, experiment.scale.config) for cell in cells}
    for name, row in rows.items():
        row["costs"] = _mean_of([built[f"{name}/{seed}"]["costs"] for seed in row["seeds"]])
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "scale": experiment.scale.name,
        "reference": experiment.reference,
        "main": main,
        "columns": list(experiment.shown),
        "drawn": list(experiment.drawn),
        "command": command,
        "config": experiment.scale.config,
        "fields": dict(experiment.scale.fields),
        "windows": any_one.windows,
        "people": len(any_one.counts),
        "n": any_one.number,
        "what": experiment.kind.counted,
        "rows": rows,
        "claims": [_claim(claim, claim.metric or main, said) for claim in experiment.claims],
        "cells": built,
    }


def _mean_of(costs: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Means over a row's cells; None where a cell does not say."""
    found: dict[str, float | None] = {}
    for name in costs[0]:
        values = [value for one in costs if (value := one[name]) is not None]
        found[name] = round(float(np.mean(values)), 2) if len(values) == len(costs) else None
    return found


def _tables(asked: Mapping[int, Asked], seeds: Sequence[int], metric: str) -> np.ndarray:
    """float64[S, P]: people's shares in a metric, by seed; NaN where the metric is of nothing."""
    one = asked[seeds[0]]
    return table([asked[seed].counts for seed in seeds], lambda c: one.measure(c)[metric])


def _row(
    experiment: Experiment, name: str, asked: Mapping[str, Mapping[int, Asked]]
) -> dict[str, Any]:
    row, own, other = experiment.row(name), asked[name], asked.get(experiment.reference)
    published, main = PUBLISHED.get(row.published) if row.published else None, experiment.kind.main
    said: dict[str, Any] = {
        "method": row.method,
        "fields": dict(row.fields),
        "note": row.note,
        "tried": list(row.tried),
        "seeds": sorted(own),
        "metrics": {},
    }
    known = _known(next(iter(own.values())))
    columns = [c for c in experiment.shown if c in known]
    for metric in columns:
        said["metrics"][metric] = _value(difference(_tables(own, sorted(own), metric)))
    if published is not None:
        said["published"] = {
            "table": published.table,
            "row": published.row,
            "values": {m: v for m in columns if (v := published.value(m)) is not None},
            "footnote": FOOTNOTES.get((published.table, published.row), ""),
        }
    seeds = sorted(own.keys() & other.keys()) if other is not None else []
    if name == experiment.reference or other is None or not seeds:
        return said
    there = _known(next(iter(other.values())))
    said["against"] = {}
    for metric in (c for c in columns if c in there):
        y = _tables(own, seeds, metric) - _tables(other, seeds, metric)
        said["against"][metric] = _value(found := difference(y))
        if metric == main and published is not None:
            said["against"][metric] |= _as_published(experiment, published, found)
    return said


def _value(found: Difference) -> dict[str, Any]:
    """A difference as JSON; None for what is of nothing."""
    said = {name: value for name, value in asdict(found).items() if name != "variance"}
    numbers = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in said.items()}
    return {**numbers, "by_seed": [None if np.isnan(v) else v for v in found.by_seed]}


def _as_published(experiment: Experiment, published: Any, found: Difference) -> dict[str, Any]:
    """The paper's difference, and how many seeds it would take to see it here."""
    of = experiment.row(experiment.reference).published
    if of is None:
        return {}
    main = experiment.kind.main
    effect = published.value(main) - PUBLISHED[of].value(main)
    enough = len(found.by_seed) >= LEAST_SEEDS and effect
    return {
        "published": round(effect, 6),
        "seeds_needed": seeds_needed(found.variance, effect) if enough else None,
        "judged": bool(enough),
    }


def _claim(claim: Claim, metric: str, asked: Mapping[str, Mapping[int, Asked]]) -> dict[str, Any]:
    """Held, not held or undecided, with which probability it holds, and the difference, paired.

    Undecided without one where there are too few seeds to say more than of these very models, and where
    the metric is of nothing.
    """
    said: dict[str, Any] = {**asdict(claim), "metric": metric}
    said |= {"verdict": "undecided", "probability": None, "difference": None}
    above, below = asked.get(claim.above, {}), asked.get(claim.below, {})
    seeds = sorted(above.keys() & below.keys())
    known = all(metric in _known(one) for one in (*above.values(), *below.values()))
    if not seeds or not known:
        return said
    y = _tables(above, seeds, metric) - _tables(below, seeds, metric)
    said["difference"] = _value(difference(y))
    found = difference(-y if metric in LOWER_IS_BETTER else y)
    if len(seeds) < LEAST_SEEDS or np.isnan(found.value):
        return said
    said["probability"] = found.probability
    if found.low > 0 or found.high < 0:
        said["verdict"] = "held" if found.low > 0 else "not held"
    return said
