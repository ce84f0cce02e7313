"""Balancers: what each unit of a loss (task, round kind, behaviour) weighs, and Appendix K's weights.

A loss is a sum over units, linear in their weights. A balancer sees after every step the units' losses,
and says what they weigh in the next one. One that needs the gradients' products (`gram`) sees those of
the batch at hand, one backward pass per unit, and its weights are of that batch.

Those here are traced into the step. The methods of `training.balancers` are numpy in float64, and
`training.balancers.host` brings them into it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Balancer(NamedTuple):
    """A method of weighting K units.

    `combine(losses, gram, state, key, validation) -> (weights, state)`: losses float[K], NaN of units
    that are not in the batch; gram float[K, K], products of the units' gradients, or None; validation
    float[K], the units' validation losses where the step before was validated and the method is
    `validated`, else NaN. Weights float[K] multiply the units' parts of the loss: all 1 is the loss
    itself; NaN: that weight stays as it is.

    A method on the host has the same shape, with four differences: its arrays are numpy's in float64, it
    sees the units that are in the batch and no others, `key` is a `numpy.random.Generator`, and what is
    not there (gram, validation) is None. Arrays of its state have the K units first; scalars are shared.
    """

    init: Callable[[int], Any]  # K -> the state before the first step, a pytree of arrays
    combine: Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]
    gram: bool = False
    # (losses of the batch after the step, state) -> state
    after: Callable[[Any, Any], Any] | None = None
    validated: bool = False  # it asks for validation losses
    signed: bool = False  # weights may be negative
    faults: Sequence[str] = ()  # what was wrong with its answers, said by the loop


def equal() -> Balancer:
    """Every unit weighs 1."""
    return Balancer(lambda count: (), lambda losses, *rest: (jnp.ones_like(losses), rest[1]))


def _summing(balancer: Balancer) -> Balancer:
    """Its weights, scaled so that those of the units in a batch sum to their number, signs aside."""

    def combine(losses: jax.Array, *rest: Any) -> tuple[jax.Array, Any]:
        weights, state = balancer.combine(losses, *rest)
        there = ~(jnp.isnan(losses) | jnp.isnan(weights))
        total = jnp.sum(jnp.abs(weights), where=there)
        return jnp.where(there, weights * jnp.sum(there) / total, weights), state

    return balancer._replace(combine=combine)


class Scale(NamedTuple):
    """What weights say of a step's length."""

    of: Callable[[Balancer], Balancer] = lambda balancer: balancer
    unit_gradient: bool = False  # the optimizer sees a gradient of one length, whatever the weights


SCALES = {"own": Scale(), "sum": Scale(_summing), "direction": Scale(unit_gradient=True)}
"""Methods differ in the sum of their weights: as they are; equal sums; by their direction alone."""


# -------------------------------------------------------------------------------------- Appendix K


class WeightingState(NamedTuple):
    """EMA and initial loss of each unit, float32[K]; 0 = not seen yet. Part of checkpoints."""

    ema: jax.Array
    initial: jax.Array


def init(count: int) -> WeightingState:
    """The state before any of `count` units was seen."""
    return WeightingState(jnp.zeros(count), jnp.zeros(count))


def update(state: WeightingState, loss: jax.Array, seen: jax.Array, decay: float) -> WeightingState:
    """loss: float32[K]; seen: bool[K], the units in the batch; the others keep what they have.

    The first loss of a unit is its initial one and starts its EMA.
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


def appendix_k(alpha: float = 1.0, decay: float = 0.9, floor: float = 0.05) -> Balancer:
    """Appendix K.1: units that learn at another speed get another weight; see `task_weights`."""

    def combine(
        losses: jax.Array, gram: Any, state: WeightingState, key: Any, validation: Any
    ) -> tuple[jax.Array, WeightingState]:
        seen = ~jnp.isnan(losses)
        state = update(state, jnp.where(seen, losses, 0), seen, decay)
        return task_weights(state.ema, state.initial, alpha, floor=floor), state

    return Balancer(init, combine)
