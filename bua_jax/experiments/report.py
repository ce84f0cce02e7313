"""An experiment's table from the result files of its cells: every number with its interval, every claim.

Nothing is predicted here. What a page shows is a function of what its JSON holds, so that a published page
can be checked against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.basics.errors import DataError
from bua_jax.evaluation import results
from bua_jax.evaluation.counts import Counts, count, metrics
from bua_jax.evaluation.differences import (
    LEAST_SEEDS,
    Difference,
    difference,
    holm,
    seeds_needed,
    table,
)
from bua_jax.events.groups import behaviour_groups
from bua_jax.events.windows import shown_id
from bua_jax.experiments.experiment import LOWER_IS_BETTER, MAIN, Cell, Claim, Experiment
from bua_jax.experiments.paper import FOOTNOTES, PUBLISHED
from bua_jax.experiments.run import provenance, run_of
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import Run
from bua_jax.pipeline.windows import load_set

# --------------------------------------------------------------------------------- what cells say


def counts_of(cell: Cell, workdir: Path) -> tuple[Counts, dict[str, Any], str]:
    """(counts per test person, groups of behaviours, fingerprint of the windows) of a finished cell.

    Raises `DataError` where its result file is missing or damaged, `MismatchError` where it is about
    other windows.
    """
    (step,) = cell.steps
    return counts_in(run_of(cell, workdir), step)


def counts_in(run: Run, step: str) -> tuple[Counts, dict[str, Any], str]:
    """What `counts_of` says, of the step `predict/METHOD/test` of a run."""
    store = load_store(run)
    frozen = load_set(run, "test", store)
    said = results.read(run.folder(step) / results.FILE)
    names = [shown_id(store, frozen.windows, row) for row in range(len(frozen))]
    said = said.take(results.rows_of(said, frozen.fingerprint, names))
    targets, people = store.behaviour[frozen.windows.end], frozen.windows.user
    size = len(store.catalogue.behaviours)
    found = count(people, targets, said.label, size, said.probability)
    return found, behaviour_groups(store), frozen.fingerprint


def collect(
    experiment: Experiment, cells: Sequence[Cell], workdir: Path, command: str
) -> dict[str, Any]:
    """What NAME.json holds. cells: the finished ones, at least one, about the same windows.

    Raises as `counts_of`, and `DataError` where one person's windows are all that was asked about.
    """
    counts: dict[str, dict[int, Counts]] = {}
    groups: dict[str, Any] = {}
    windows = ""
    for cell in cells:
        found, groups, windows = counts_of(cell, workdir)
        counts.setdefault(cell.row.name, {})[cell.seed] = found
    any_one = counts[cells[0].row.name][cells[0].seed]
    if len(any_one.nll) < 2:
        raise DataError(
            "There is one test person, and intervals are over people: give data with more people "
            "(config.data.num_users, or a larger file)."
        )
    rows = {
        row.name: _row(experiment, row.name, counts, groups)
        for row in experiment.rows
        if row.name in counts
    }
    family = {
        name: said["against"][MAIN]["p"]
        for name, said in rows.items()
        if "against" in said and said["against"][MAIN]["p"] is not None
    }
    for name, p in holm(family).items():
        rows[name]["against"][MAIN]["p_holm"] = p
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "scale": experiment.scale.name,
        "reference": experiment.reference,
        "columns": list(experiment.columns),
        "command": command,
        "config": experiment.scale.config,
        "fields": dict(experiment.scale.fields),
        "windows": windows,
        "people": len(any_one.nll),
        "n": int(any_one.support.sum()),
        "rows": rows,
        "claims": [_claim(claim, counts, groups) for claim in experiment.claims],
        "cells": {cell.name: provenance(cell, workdir, experiment.scale.config) for cell in cells},
    }


def _tables(
    counts: Mapping[int, Counts], seeds: Sequence[int], metric: str, groups: Mapping[str, Any]
) -> np.ndarray:
    """float64[S, P]: people's shares in a metric, by seed; NaN where the metric is of nothing."""
    return table([counts[seed] for seed in seeds], lambda c: metrics(c, groups)[metric])


def _row(
    experiment: Experiment,
    name: str,
    counts: Mapping[str, Mapping[int, Counts]],
    groups: Mapping[str, Any],
) -> dict[str, Any]:
    row, own, other = experiment.row(name), counts[name], counts.get(experiment.reference)
    published = PUBLISHED.get(row.published) if row.published else None
    said: dict[str, Any] = {
        "method": row.method,
        "fields": dict(row.fields),
        "note": row.note,
        "seeds": sorted(own),
        "metrics": {},
    }
    columns = [
        c for c in experiment.columns if c in metrics(next(iter(own.values())).total(), groups)
    ]
    for metric in columns:
        said["metrics"][metric] = _value(difference(_tables(own, sorted(own), metric, groups)))
    if published is not None:
        said["published"] = {
            "table": published.table,
            "row": published.row,
            "values": {m: v for m in columns if (v := published.value(m)) is not None},
            "footnote": FOOTNOTES.get((published.table, published.row), ""),
        }
    if name == experiment.reference or other is None:
        return said
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return said
    said["against"] = {}
    for metric in columns:
        if metric not in metrics(next(iter(other.values())).total(), groups):
            continue
        y = _tables(own, seeds, metric, groups) - _tables(other, seeds, metric, groups)
        said["against"][metric] = _value(found := difference(y))
        if metric == MAIN and published is not None:
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
    effect = published.value(MAIN) - PUBLISHED[of].value(MAIN)
    enough = len(found.by_seed) >= LEAST_SEEDS and effect
    return {
        "published": round(effect, 6),
        "seeds_needed": seeds_needed(found.variance, effect) if enough else None,
        "judged": bool(enough),
    }


def _claim(
    claim: Claim, counts: Mapping[str, Mapping[int, Counts]], groups: Mapping[str, Any]
) -> dict[str, Any]:
    """Held, not held or undecided, and with which probability it holds.

    Undecided without one where there are too few seeds to say more than of these very models, and where
    the metric is of nothing.
    """
    said: dict[str, Any] = {**asdict(claim), "verdict": "undecided", "probability": None}
    above, below = counts.get(claim.above, {}), counts.get(claim.below, {})
    seeds = sorted(above.keys() & below.keys())
    known = all(
        claim.metric in metrics(one.total(), groups) for one in (*above.values(), *below.values())
    )
    if len(seeds) < LEAST_SEEDS or not known:
        return said
    y = _tables(above, seeds, claim.metric, groups) - _tables(below, seeds, claim.metric, groups)
    found = difference(-y if claim.metric in LOWER_IS_BETTER else y)
    if np.isnan(found.value):
        return said
    said["probability"] = found.probability
    if found.low > 0 or found.high < 0:
        said["verdict"] = "held" if found.low > 0 else "not held"
    return said
