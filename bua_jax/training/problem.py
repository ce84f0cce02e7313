"""What the one loop needs of a task, and what it keeps of a step.

A problem is what is trained on: dialogues (`training.dialogues`) or event sequences (`training.events`).
Its loss is a pair (numerator, denominator) until after the sum over microbatches and devices, and linear
in the weights of its units: tasks, round kinds, or behaviours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics

from bua_jax.training.optimizer import OptimizerSettings
from bua_jax.training.weighting import Balancer

Batch = Mapping[str, jax.Array]
Scalars = dict[str, float]


@dataclass(frozen=True)
class LoopSettings:
    """How the loop trains any problem; counts in optimizer steps."""

    microbatches: int = 1
    total_steps: int = 100
    evaluate_every: int = 50
    checkpoint_every: int = 50
    log_every: int = 10
    patience: int = 0  # validations without a better one before it stops; 0 = never early
    profile: int = 0  # steps to trace, once all is compiled
    gradients_every: int = 0  # steps between looks at single units' gradients; 0 = none
    seed: int = 42
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)


# ------------------------------------------------------------------------------------------- sums


@flax.struct.dataclass
class Sum(metrics.Metric):
    """Of a number, over steps."""

    total: jax.Array

    @classmethod
    def from_model_output(cls, value: jax.Array, **_: Any) -> "Sum":
        return cls(total=jnp.asarray(value, jnp.float32))

    @classmethod
    def empty(cls) -> "Sum":
        return cls(total=jnp.zeros(()))

    def merge(self, other: "Sum") -> "Sum":
        return type(self)(total=self.total + other.total)

    def compute(self) -> jax.Array:
        return self.total


def means(count: int) -> type[metrics.Metric]:
    """A metric of `count` means: float[2, count] of sums and numbers, which add up over steps."""

    @flax.struct.dataclass
    class Means(metrics.Average):
        @classmethod
        def from_model_output(cls, values: jax.Array, **_: Any) -> metrics.Average:
            return cls(total=values[0], count=values[1])

        @classmethod
        def empty(cls) -> metrics.Average:
            return cls(total=jnp.zeros(count), count=jnp.zeros(count))

        def compute(self) -> np.ndarray:
            """NaN where there was nothing."""
            total, number = np.asarray(self.total), np.asarray(self.count)
            return np.where(number > 0, total / np.maximum(number, 1), np.nan)

    return Means


StepSums = metrics.Collection.create(
    steps=Sum.from_output("steps"),
    grad_norm=Sum.from_output("grad_norm"),
    unsupervised=Sum.from_output("unsupervised"),
    zero=Sum.from_output("zero"),
    not_finite=Sum.from_output("not_finite"),
)
"""What is counted of the steps of every problem."""


class _Sums(metrics.Metric):
    """A metric whose arrays add up over steps."""

    def merge(self, other: Self) -> Self:
        return jax.tree.map(jnp.add, self, other)


@flax.struct.dataclass
class UnitSums(_Sums):
    """What K units did, summed over the steps in which each was there."""

    steps: jax.Array  # float[K]: their number
    weight: jax.Array  # float[K]
    plain: jax.Array  # float[K]: parts of the loss as if all weighed 1
    loss: jax.Array  # float[K]: parts of the loss as weighed; their sum is the loss's
    gram: "GramSums | None"  # where the balancer asks for gradients


@flax.struct.dataclass
class GramSums(_Sums):
    """What K units' gradients did; they are of the units' parts of the loss."""

    norm: jax.Array  # float[K]: of the gradients, before weights
    pull: jax.Array  # float[K]: products of weighted gradients with the update; sum to its square
    cosine: jax.Array  # float[K, K]
    pairs: jax.Array  # float[K, K]: steps in which both had a gradient


class Sums(NamedTuple):
    """What is added up on the device between two logs."""

    step: metrics.Collection  # StepSums
    problem: metrics.Collection  # the problem's own
    units: UnitSums


# ---------------------------------------------------------------------------------------- problem


class Terms(NamedTuple):
    """What a problem says of a batch beside its loss; all of it adds up over microbatches."""

    denominator: jax.Array  # float[]: of its loss
    # float[2, K]: numerators and denominators of the units' own losses; where all weigh 1 the first add up
    # to the loss's numerator
    units: jax.Array
    sums: metrics.Collection  # what is logged


class Data(Protocol):
    """Endless training batches with a position; that is JSON, and going on from it is exact."""

    def __next__(self) -> Mapping[str, np.ndarray]: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


class Problem(Protocol):
    """What is trained on. Its arrays have one row per sequence first, which lie over the mesh."""

    @property
    def name(self) -> str:
        """What a person reads of it."""
        ...

    @property
    def units(self) -> tuple[str, ...]:
        """What has a loss and a weight of its own, K names."""
        ...

    @property
    def balancer(self) -> Balancer:
        """How the units' weights follow from their losses."""
        ...

    @property
    def objective(self) -> str:
        """The scalar, of training and validation, that is to become small."""
        ...

    @property
    def items(self) -> str:
        """The `Sum` among its sums that throughput is counted in."""
        ...

    @property
    def advice(self) -> str:
        """Where to look when there is nothing to learn from."""
        ...

    @property
    def feed(self) -> Mapping[str, int]:
        """How batches are made, recorded for the reader of a checkpoint."""
        ...

    def data(self) -> Data:
        """The batches, from their start."""
        ...

    def prepared(self, batch: Batch) -> Batch:
        """The batch with what must be counted of the whole of it, before it is parted."""
        ...

    def validated(self, scalars: Scalars) -> np.ndarray:
        """float[K]: the units' losses among what `validation` measured; NaN of those without one."""
        ...

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        """float[M] of a batch: the loss's numerator by each row of weights float[M, K].

        key: of dropout. A problem that divides already (its batches are never parted) has denominator 1.
        """
        ...

    def empty(self) -> metrics.Collection:
        """Its sums before the first step."""
        ...

    def scalars(self, sums: Any) -> Scalars:
        """`train/...` values of its sums, on the host."""
        ...

    def validation(self, mesh: jax.sharding.Mesh) -> Callable[[Mapping[str, Any]], Scalars]:
        """variables -> `validation/...` scalars, the objective among them; data is prepared once."""
        ...

    def decayed(self, tree: Any) -> Any:
        """True on the leaves of what is trained that weight decay applies to."""
        ...
