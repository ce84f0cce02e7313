"""What a training step carries over."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bua_jax.training import weighting


class TrainState(NamedTuple):
    """A pytree: step int32[], the trained groups, their optimizer state, the task weighting.

    There is no random key: training has no dropout, and the data's order is the iterator's.
    """

    step: jax.Array
    trainable: dict[str, Any]
    opt_state: optax.OptState
    weighting: weighting.WeightingState


def create(
    trainable: dict[str, Any], optimizer: optax.GradientTransformation, tasks: int
) -> TrainState:
    """The state before the first step, with a copy of `trainable`: steps donate their state."""
    step = jnp.zeros((), jnp.int32)
    trainable = jax.tree.map(jnp.copy, trainable)
    return TrainState(step, trainable, optimizer.init(trainable), weighting.init(tasks + 1))
