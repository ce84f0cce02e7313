"""Counterfactual replay: what balancers of gradients would have done at each look of a run, without training.

A look holds the units' losses and the products of their gradients (`training.looks`); a balancer is asked
about those in their order, with its own state. What it would have changed in later looks is not known: the
gradients are those of the path that the run took.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.evaluation import plots
from bua_jax.evaluation.tables import markdown
from bua_jax.experiments.experiment import Experiment, load
from bua_jax.training.balancers import host
from bua_jax.training.balancers.table import BALANCERS, parse
from bua_jax.training.looks import Looks, read
from bua_jax.training.stage_table import STAGE_TABLE
from bua_jax.training.weighting import Balancer
from bua_jax.training.writers import read_scalars

NAME = "replay"  # of the files


class Replayed(NamedTuple):
    """What a balancer says at S looks; the plain update is that of weights 1."""

    weights: np.ndarray  # float64[S, K]; NaN of units that were not there
    cosine: np.ndarray  # float64[S]: of its update with the plain one
    length: np.ndarray  # float64[S]: of its update, over that of the plain one
    worst: (
        np.ndarray
    )  # float64[S]: least cosine of its update with a unit's gradient; < 0: that unit loses


def of_gradients() -> tuple[str, ...]:
    """The balancers of the table that ask for gradients, with their default settings."""
    return tuple(name for name, entry in BALANCERS.items() if entry.build().gram)


def replay(method: Balancer, looks: Looks, seed: int = 0) -> Replayed:
    """Asks a method in numpy about every look. Raises `ValueError` for an answer that is none."""
    state, found = method.init(len(looks.units)), []
    for step, losses, gram in zip(looks.steps, looks.losses, looks.gram, strict=True):
        rng = np.random.default_rng([seed, int(step)])
        weights, state = host.asked(method, losses, gram, state, rng)
        found.append((weights, *_compared(weights, gram)))
    return Replayed(*(np.array(values) for values in zip(*found, strict=True)))


def _compared(weights: np.ndarray, gram: np.ndarray) -> tuple[float, float, float]:
    """(cosine with the plain update, relative length, least cosine with a unit's gradient)."""
    here = np.isfinite(weights)
    gram, weights = gram[np.ix_(here, here)], weights[here]
    own, plain = gram @ weights, gram.sum(1)
    length, other = np.sqrt(max(weights @ own, 0)), np.sqrt(max(plain.sum(), 0))
    if not length or not other:
        return np.nan, np.nan, np.nan
    return (
        float(weights @ plain / (length * other)),
        float(length / other),
        float(np.min(own / (length * np.sqrt(np.diag(gram))))),
    )


def looks_of(run: Path) -> dict[str, Looks]:
    """By stage, the looks of a run's folder. Raises `DataError` where nothing was looked at."""
    found = {stage: read(read_scalars(run / stage)) for stage in STAGE_TABLE}
    found = {stage: looks for stage, looks in found.items() if len(looks.steps)}
    if not found:
        raise DataError(
            f"{run} holds no looks at gradients. Train with --config.execution.gradients_every=10 (and "
            "--config.stage2.balancer_unit=round for round kinds instead of tasks)."
        )
    return found


def named_by(experiment: Experiment) -> tuple[str, ...]:
    """The balancers of gradients among those that an experiment's rows train with, each once."""
    texts = [str(v) for row in experiment.rows for k, v in row.fields.items() if "balancer" in k]
    return tuple(text for text in dict.fromkeys(texts) if text.partition(":")[0] in of_gradients())


def _method(text: str) -> Balancer:
    """The balancer of a text, in numpy."""
    _, entry, settings = parse(text)
    return entry.build(**settings)


def page(stage: str, looks: Looks, replayed: Mapping[str, Replayed]) -> str:
    """Of each method: means over looks of its weights, and how its update lies to the plain one."""
    plain = replay(Balancer(lambda count: (), lambda loss, *_: (np.ones_like(loss), ())), looks)
    rows = []
    for name, one in {"equal": plain, **replayed}.items():
        lost = np.mean(one.worst < -1e-9)
        weights = [f"{np.nanmean(w):.2f}" for w in one.weights.T]
        rows.append(
            [name, f"{np.nanmean(one.cosine):.3f}", f"{np.nanmean(one.length):.2f}", f"{lost:.0%}"]
            + weights
        )
    said = (
        f"{len(looks.steps)} looks, steps {looks.steps[0]} to {looks.steps[-1]}. cosine: of the update with "
        "the plain one (all weights 1); length: over that of the plain one; harmed: share of looks in which "
        "the update goes against some unit's gradient; then mean weights.\n"
    )
    table = markdown(("balancer", "cosine", "length", "harmed", *looks.units), rows)
    return f"## {stage}\n\n{said}\n{table}"


def _drawn(stage: str, looks: Looks, replayed: Mapping[str, Replayed]) -> bytes:
    """Weights over steps, a panel for each method."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, one in replayed.items():
        panels[name] = {
            f"logged {unit}": list(zip(looks.steps[there].tolist(), w[there], strict=True))
            for unit, w in zip(looks.units, one.weights.T, strict=True)
            if (there := np.isfinite(w)).any()
        }
    return plots.curves(panels, f"weight in {stage}")


def write_pages(run: Path, experiment: str = "") -> str:
    """Replays balancers on a run's looks: those of an experiment's rows, or all; writes and returns pages.

    In each looked-at stage's folder of `run`: replay.md, replay.png, and replay.json with every look.
    """
    names = named_by(load(experiment)) if experiment else of_gradients()
    if not names:
        raise ConfigError(f"{experiment} trains with no balancer of gradients: {of_gradients()}.")
    pages = []
    for stage, looks in looks_of(run).items():
        replayed = {name: replay(_method(name), looks) for name in names}
        pages.append(page(stage, looks, replayed))
        files.write_text(run / stage / f"{NAME}.md", pages[-1])
        files.write_json(run / stage / f"{NAME}.json", _as_json(looks, replayed))
        with files.atomic_write(run / stage / f"{NAME}.png") as temporary:
            temporary.write_bytes(_drawn(stage, looks, replayed))
    return "\n".join(pages)


def _as_json(looks: Looks, replayed: Mapping[str, Replayed]) -> dict[str, Any]:
    def listed(values: np.ndarray) -> Any:
        """Nested lists; null for what is not finite."""
        shown = values.astype(object)
        shown[~np.isfinite(values)] = None
        return shown.tolist()

    methods = {
        name: {field: listed(value) for field, value in one._asdict().items()}
        for name, one in replayed.items()
    }
    return {"units": looks.units, "steps": looks.steps.tolist(), "methods": methods}
