"""Looks at the gradients of single units, every so many steps, whatever balances them.

A look forms the products of the units' gradients (the Gram matrix) on the batch at hand, without a change
to training. What it finds is logged as scalars, and `read` gives it back: for pictures, and for the replay
of balancers that were not trained with (`experiments.replay`).
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.training.problem import Problem, Scalars
from bua_jax.training.step import gram_matrix, make_gradients, own_losses

_LOSS, _NORM, _COSINE = "look/loss/", "look/norm/", "look/cosine/"


class Looks(NamedTuple):
    """S looks at K units; NaN of units that were not in the batch."""

    units: tuple[str, ...]
    steps: np.ndarray  # int64[S]: the step whose batch was looked at
    losses: np.ndarray  # float64[S, K]
    gram: np.ndarray  # float64[S, K, K]


def make_look(problem: Problem, microbatches: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """(state, frozen, batch) -> (losses float[K], gram float32[K, K]) of the units' parts, all weighing 1.

    With the dropout of the step that follows. Losses are NaN of units that are not in the batch.
    """
    gradients_of = make_gradients(problem, microbatches)

    def look(state: Any, frozen: Mapping[str, Any], batch: Any) -> tuple[jax.Array, jax.Array]:
        _, own = jax.random.split(jax.random.wrap_key_data(state.key))
        rows = jnp.eye(len(problem.units), dtype=state.weights.dtype)
        _, gradients, terms = gradients_of(state.trainable, frozen, batch, rows, own)
        return own_losses(terms), gram_matrix(gradients)

    return look


def look_scalars(names: Sequence[str], losses: Any, gram: Any) -> Scalars:
    """What is logged of a look: `look/loss/UNIT`, `look/norm/UNIT` and `look/cosine/UNIT/UNIT`."""
    losses, gram = np.asarray(losses, float), np.asarray(gram, float)
    norm = np.sqrt(np.diag(gram))
    seen = np.flatnonzero(np.isfinite(losses) & (norm > 0)).tolist()
    found = {}
    for i in seen:
        found[_LOSS + names[i]], found[_NORM + names[i]] = losses[i], norm[i]
    for i, j in itertools.combinations(seen, 2):
        found[f"{_COSINE}{names[i]}/{names[j]}"] = gram[i, j] / (norm[i] * norm[j])
    return {name: float(value) for name, value in found.items()}


def read(records: Iterable[Mapping[str, Any]]) -> Looks:
    """The looks among the records of a metrics.jsonl, of the units that were ever there."""
    looks = {int(r["step"]): r for r in records if any(name.startswith(_LOSS) for name in r)}
    names = {n.removeprefix(_LOSS) for r in looks.values() for n in r if n.startswith(_LOSS)}
    units, steps = tuple(sorted(names)), sorted(looks)
    number = {name: i for i, name in enumerate(units)}
    losses = np.full((len(steps), len(units)), np.nan)
    gram = np.full((len(steps), len(units), len(units)), np.nan)
    for s, step in enumerate(steps):
        found = looks[step]
        norm = np.array([found.get(_NORM + name, np.nan) for name in units])
        losses[s] = [found.get(_LOSS + name, np.nan) for name in units]
        np.fill_diagonal(gram[s], norm**2)
        for name, cosine in found.items():
            if name.startswith(_COSINE):
                i, j = (number[unit] for unit in name.removeprefix(_COSINE).split("/"))
                gram[s, i, j] = gram[s, j, i] = cosine * norm[i] * norm[j]
    return Looks(units, np.array(steps, int), losses, gram)
