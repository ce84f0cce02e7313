"""A problem whose losses and gradients are known: squared distances of a vector to points of K units."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics

from bua_jax.training.balancers import table
from bua_jax.training.problem import Sum, Terms
from bua_jax.training.state import TrainState, create
from bua_jax.training.step import make_step, zero_sums
from bua_jax.training.weighting import Balancer

UNITS, SIZE, ROWS = 4, 6, 8
RATE = 0.05


ToySums = metrics.Collection.create(items=Sum.from_output("items"))


@dataclass(frozen=True)
class Toy:
    """`training.problem.Problem`, as far as steps need it: rows of a batch have a unit and a point each."""

    text: str = "equal"

    units = tuple(f"unit{i}" for i in range(UNITS))

    @functools.cached_property
    def balancer(self) -> Balancer:
        return table.balancer(self.text)

    def prepared(self, batch: Any) -> Any:
        return batch

    def numerators(self, variables: Any, batch: Any, rows: Any, key: Any) -> tuple[Any, Terms]:
        x, there = variables["projector"]["x"], batch["there"]
        nll = there * jnp.sum((x - batch["points"]) ** 2, axis=1)
        totals = jnp.stack([jnp.sum(nll * weights[batch["ids"]]) for weights in rows])
        units = jnp.stack([jnp.zeros(UNITS).at[batch["ids"]].add(v) for v in (nll, there)])
        sums = ToySums.single_from_model_output(items=there.sum())
        return totals, Terms(jnp.sum(there), units, sums)

    def empty(self) -> Any:
        return ToySums.empty()


@dataclass(frozen=True)
class Conflict(Toy):
    """After one and the same history 3 of 4 do A, 1 does B, and nobody does C: what A gains B loses.

    With p = softmax(x) the losses are -log p_A and -log p_B; their Pareto front is p_C = 0.
    """

    units = ("A", "B")

    def numerators(self, variables: Any, batch: Any, rows: Any, key: Any) -> tuple[Any, Terms]:
        nll = -jax.nn.log_softmax(variables["projector"]["x"])[:2]
        counts = batch["counts"][0]
        units = jnp.stack([counts * nll, counts])
        sums = ToySums.single_from_model_output(items=counts.sum())
        return rows @ (counts * nll), Terms(counts.sum(), units, sums)


def end_of_conflict(text: str, steps: int = 1200) -> np.ndarray:
    """p float64[3] where gradient descent by a method ends."""
    problem = Conflict(text)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5))
    state = create(problem, {"projector": {"x": jnp.zeros(3)}}, optimizer)
    step, sums = jax.jit(make_step(problem, optimizer, 1)), zero_sums(problem)
    for _ in range(steps):
        state, sums = step(state, {}, {"counts": jnp.array([[3.0, 1.0]])}, sums)
    return np.asarray(jax.nn.softmax(state.trainable["projector"]["x"]), np.float64)


def batch(seed: int, absent: int | None = None) -> Mapping[str, np.ndarray]:
    """Two rows of each unit; none of the absent one."""
    rng = np.random.default_rng(seed)
    ids = np.arange(ROWS, dtype=np.int32) % UNITS
    points = rng.normal(size=(ROWS, SIZE)) * 10.0 ** (ids[:, None] / 2 - 1)
    there = (ids != absent).astype(np.float32)
    return {"ids": ids, "points": points.astype(np.float32), "there": there}


class Trainer:
    """Steps of a method on the toy problem, by plain gradient descent."""

    def __init__(self, text: str, microbatches: int = 1) -> None:
        self.problem, optimizer = Toy(text), optax.sgd(RATE)
        start = {"projector": {"x": jnp.linspace(-1, 1, SIZE)}}
        self.state: TrainState = create(self.problem, start, optimizer)
        self.sums = zero_sums(self.problem)
        step = make_step(self.problem, optimizer, microbatches)
        self._step = jax.jit(step)

    def step(self, given: Mapping[str, Any]) -> TrainState:
        self.state, self.sums = self._step(self.state, {}, given, self.sums)
        return self.state

    @property
    def x(self) -> np.ndarray:
        return np.asarray(self.state.trainable["projector"]["x"], np.float64)


def by_hand(x: np.ndarray, given: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(units' losses float64[K], gradients of their parts of the loss float64[K, SIZE])."""
    away = x - given["points"].astype(np.float64)
    of = (given["ids"][None] == np.arange(UNITS)[:, None]) * given["there"][None]
    number = of.sum(1)
    with np.errstate(invalid="ignore"):
        losses = of @ (away**2).sum(1) / np.where(number > 0, number, np.nan)
    return losses, 2 * (of @ away) / given["there"].sum()
