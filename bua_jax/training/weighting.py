"""Dynamic task weights (Appendix K.1): tasks that learn at another speed get another weight."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class WeightingState(NamedTuple):
    """EMA and initial loss of each task, float32[K]; 0 = not seen yet. Part of checkpoints."""

    ema: jax.Array
    initial: jax.Array


def init(count: int) -> WeightingState:
    """The state before any of `count` tasks was seen."""
    return WeightingState(jnp.zeros(count), jnp.zeros(count))


def update(state: WeightingState, loss: jax.Array, seen: jax.Array, decay: float) -> WeightingState:
    """loss: float32[K]; seen: bool[K], the tasks in the batch; the others keep what they have.

    The first loss of a task is its initial one and starts its EMA.
    """
    first = seen & (state.initial <= 0)
    initial = jnp.where(first, loss, state.initial)
    ema = jnp.where(first, loss, jnp.where(seen, decay * state.ema + (1 - decay) * loss, state.ema))
    return WeightingState(ema, initial)


def task_weights(
    ema: jax.Array, initial: jax.Array, alpha: float, *, floor: float = 0.0
) -> jax.Array:
    """w_i = |V| s_i^alpha / sum_V s_j^alpha with s_i = mean(r) / r_i and r_i = ema_i / initial_i.

    ema, initial: float[K] -> float[K]. V are the tasks with a positive initial loss; the others
    weigh 1. As printed (alpha > 0) slower tasks, whose r_i is larger, weigh less; a negative alpha
    gives what the text says. `floor` bounds r_i from below, so that a solved task keeps a say.
    """
    ema, initial = jnp.asarray(ema, float), jnp.asarray(initial, float)
    valid = (initial > 0) & jnp.isfinite(initial) & jnp.isfinite(ema)
    ratio = jnp.where(valid, ema, 1) / jnp.where(valid, initial, 1)
    ratio = jnp.maximum(ratio, max(floor, float(jnp.finfo(ratio.dtype).tiny)))
    # mean(r) cancels; the softmax of logarithms is s_i^alpha normalised, without overflow.
    share = jax.nn.softmax(-alpha * jnp.log(ratio), where=valid)
    return jnp.where(valid, share * jnp.sum(valid), 1)
