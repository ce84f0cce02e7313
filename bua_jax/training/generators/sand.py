"""SAND's pretraining as a point process, on days of training people, each behind the days before it."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.basics.errors import DataError
from bua_jax.models.sand import SIZE, Knots, Sand
from bua_jax.parallel import sharding
from bua_jax.training.events import Events, EventSums
from bua_jax.training.generators.sand_days import (
    Known,
    knots_of,
    known_days,
    stacked,
    width_of,
)
from bua_jax.training.problem import Batch, Scalars, Terms


class Reading(NamedTuple):
    """How days and what is before them become stretches of time."""

    slots: int  # of a day
    replay_days: int  # that are read before one
    length: int  # events that are read at most
    most: int  # events of a day at most

    def knots(self, many: list[Known], *, whole: bool) -> Knots:
        """[n, K] each; without `whole` what is before the days alone."""
        width = width_of(*self[1:]) - (0 if whole else 24 + self.most)
        how = self.slots, self.replay_days, width
        return stacked([knots_of(one, *how, whole=whole) for one in many])


class DayBatches(Iterator[dict[str, np.ndarray]]):
    """Endless batches of days in an order drawn for every epoch, each with the noise that it begins from.

    An epoch's last batch is filled up with its first days. The state is JSON.
    """

    def __init__(self, days: Knots, batch: int, per_epoch: int, seed: int) -> None:
        self._days, self._batch, self._per_epoch = days, batch, per_epoch
        self._rng, self._next = np.random.default_rng(seed), 0
        self._draw()

    def _draw(self) -> None:
        self._before = self._rng.bit_generator.state
        self._order = np.resize(
            self._rng.permutation(len(self._days.dt)), self._per_epoch * self._batch
        )
        self._noise = self._rng.normal(size=(len(self._order), SIZE)).astype(np.float32)

    def __next__(self) -> dict[str, np.ndarray]:
        if self._next == self._per_epoch:
            self._next = 0
            self._draw()
        some = slice(self._next * self._batch, (self._next + 1) * self._batch)
        self._next += 1
        rows = self._order[some]
        return {**{k: x[rows] for k, x in self._days._asdict().items()}, "noise": self._noise[some]}

    def get_state(self) -> dict[str, Any]:
        """The random numbers' state before the epoch, and the batch of it that comes next."""
        return {"before": self._before, "next": self._next}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = state["before"]
        self._draw()
        self._next = int(state["next"])

    def close(self) -> None:
        """There is nothing to end."""


def day_losses(network: Sand, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """float[B]: the negative log-likelihood of each day."""
    knots = Knots(*(batch[name] for name in Knots._fields))
    walk = functools.partial(network.log_likelihood, params)
    return -jax.vmap(walk)(batch["noise"], knots)


@dataclass(frozen=True)
class Days(Events):
    """The problem of a policy; `settings.batch` is of days, its loss the mean of a day's."""

    network: Any  # models.sand.Sand
    reading: Reading
    most_days: int = 0  # of training people, drawn; 0 = all

    units = ("days",)

    @property
    def name(self) -> str:
        return "sand"

    @functools.cached_property
    def known(self) -> list[Known]:
        """Days of training people. Raises `DataError` where there are none."""
        found = self._drawn("train", self.most_days)
        if not found:
            raise DataError(
                "No training person has a day that no unknown gap cuts, and SAND learns whole days. Leave "
                "the row sand out of config.evaluation.methods, or give data with longer records."
            )
        return found

    @functools.cached_property
    def days(self) -> Knots:
        """The same as stretches."""
        return self.reading.knots(self.known, whole=True)

    def _drawn(self, split: str, most: int) -> list[Known]:
        found = known_days(self.store, split, self.reading.most, self.reading.length)
        order = np.random.default_rng(self.settings.seed).permutation(len(found))
        return [found[i] for i in order[: most or None]]

    @property
    def batch(self) -> int:
        """Days of a batch."""
        return min(self.settings.batch, len(self.days.dt))

    @functools.cached_property
    def per_epoch(self) -> int:
        return -(-len(self.days.dt) // self.batch)

    def data(self) -> Any:
        return DayBatches(self.days, self.batch, self.per_epoch, self.settings.seed)

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        losses = day_losses(self.network, variables["policy"], batch)
        sums = EventSums.single_from_model_output(
            log_loss=losses.mean(), events=(batch["counted"] & (batch["event"] >= 0)).sum()
        )
        own = jnp.stack([losses.sum(), jnp.asarray(len(losses), losses.dtype)])[:, None]
        return rows[:, 0] * losses.mean(), Terms(jnp.ones(()), own, sums)

    def validation(self, mesh: jax.sharding.Mesh) -> Callable[[Mapping[str, Any]], Scalars]:
        """On days of validation people; where there are none, on those that it learns."""
        found = self._drawn("validation", self.settings.validation)
        rng, size = np.random.default_rng(self.settings.seed), self.batch
        days = self.reading.knots(found, whole=True) if found else self.days
        count = len(days.dt)
        noise = rng.normal(size=(count, SIZE)).astype(np.float32)
        arrays = {**days._asdict(), "noise": noise}
        losses = jax.jit(functools.partial(day_losses, self.network))

        def measure(variables: Mapping[str, Any]) -> Scalars:
            params, total = sharding.to_host(variables["policy"]), 0.0
            for i in range(0, count, size):
                rows = np.arange(i, i + size) % count
                some = losses(params, {name: x[rows] for name, x in arrays.items()})
                total += float(np.sum(np.asarray(some)[: count - i]))
            return {"validation/log_loss": total / count}

        return measure


def rates_of(days: Knots, classes: int) -> np.ndarray:
    """float[C]: events of each behaviour per counted day."""
    events = days.event[days.counted & (days.event >= 0)]
    return np.bincount(events, minlength=classes) / max(1, len(days.dt))
