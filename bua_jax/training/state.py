"""What a training step carries over."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bua_jax.training.problem import Problem


class TrainState(NamedTuple):
    """A pytree of all that a step depends on beside its batch, and of all that a checkpoint holds of it."""

    step: jax.Array  # int32[]
    trainable: dict[str, Any]  # by part
    opt_state: optax.OptState
    weights: jax.Array  # float32[K]: what the units of the loss weigh in the next step
    weighting: Any  # the balancer's state
    # float32[K]: units' validation losses where the step before was validated and the balancer asks, else NaN
    validation: jax.Array
    key: jax.Array  # uint32[2], of the next step's dropout and draws


def create(
    problem: Problem,
    trainable: dict[str, Any],
    optimizer: optax.GradientTransformation,
    seed: int = 0,
) -> TrainState:
    """The state before the first step, with a copy of `trainable`: steps donate their state."""
    units = len(problem.units)
    return TrainState(
        jnp.zeros((), jnp.int32),
        jax.tree.map(jnp.copy, trainable),
        optimizer.init(trainable),
        jnp.ones(units),
        problem.balancer.init(units),
        jnp.full(units, jnp.nan),
        jax.random.key_data(jax.random.key(seed)),
    )
