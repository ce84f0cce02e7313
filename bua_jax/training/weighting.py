"""Dynamic task weights (Appendix K.1): tasks that learn at another speed get another weight."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class WeightingState(NamedTuple):
    """EMA and initial loss of each task, float32[K]; 0 = not seen yet. Part of checkpoints."""

    ema: jax.Array
    initial: jax.Array


def init(count: int) -> WeightingState:
    return WeightingState(jnp.zeros(count), jnp.zeros(count))


def update(state: WeightingState, loss: jax.Array, seen: jax.Array, decay: float) -> WeightingState:
    """loss: float32[K]; seen: bool[K]. The first loss of a task is its initial one and starts its EMA;
    tasks absent from the batch keep theirs."""
    first = seen & (state.initial <= 0)
    initial = jnp.where(first, loss, state.initial)
    ema = jnp.where(first, loss, jnp.where(seen, decay * state.ema + (1 - decay) * loss, state.ema))
    return WeightingState(ema, initial)


def task_weights(
    ema: jax.Array, initial: jax.Array, alpha: float, *, floor: float = 0.0
) -> jax.Array:
    """w_i = s_i^alpha |V| / sum_V s_j^alpha with s_i = mean(r) / r_i and r_i = ema_i / initial_i.

    ema, initial: float[K]. V are the tasks with a positive initial loss; the others weigh 1. As
    printed (alpha > 0) slower tasks weigh less; a negative alpha gives what the text says. `floor`
    bounds r_i from below.
    """
    valid = initial > 0
    count = jnp.maximum(jnp.sum(valid), 1)
    ratio = jnp.where(valid, ema / jnp.where(valid, initial, 1), 1)
    ratio = jnp.maximum(ratio, jnp.maximum(floor, jnp.finfo(ratio.dtype).tiny))
    mean = jnp.sum(jnp.where(valid, ratio, 0)) / count
    speed = jnp.where(valid, (mean / ratio) ** alpha, 0)
    total = jnp.sum(speed)
    return jnp.where(valid, speed / jnp.where(total > 0, total, 1) * count, 1)
