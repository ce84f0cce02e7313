"""One step of training on any problem: loss, gradients, weights of units, update, sums for the log."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bua_jax.training.problem import Batch, Problem, StepSums, Sums, Terms
from bua_jax.training.state import TrainState
from bua_jax.training.weighting import Balancer


def accumulated(of_part: Callable[[Batch], Any], batch: Batch, microbatches: int) -> Any:
    """Sum of `of_part` over microbatches. Part m has rows m, m + M, ..., of all devices."""
    if microbatches == 1:
        return of_part(batch)
    parts = jax.tree.map(
        lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    shapes = jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], parts))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(
        lambda carry, part: (jax.tree.map(jnp.add, carry, of_part(part)), None), zero, parts
    )[0]


def make_gradients(problem: Problem, microbatches: int):
    """(trainable, frozen, batch, rows, key) -> (losses, gradients, terms) of a batch.

    rows: float[M, K], weights of the units; losses: float[M], by each of them; gradients: M of them. One
    forward pass and M backward ones. Numerators, counts and gradients are summed over microbatches first
    and divided by the count of the whole batch after.
    """

    def of_part(trainable, frozen, rows, key, batch) -> tuple[jax.Array, list[Any], Terms]:
        def numerators(trainable):
            return problem.numerators({**frozen, **trainable}, batch, rows, key)

        totals, pull, terms = jax.vjp(numerators, trainable, has_aux=True)
        if len(rows) == 1:
            return totals, list(pull(jnp.ones_like(totals))), terms
        each = jax.lax.map(lambda one: pull(one)[0], jnp.eye(len(rows), dtype=totals.dtype))
        return totals, [jax.tree.map(lambda g, m=m: g[m], each) for m in range(len(rows))], terms

    def gradients(trainable, frozen, batch, rows, key) -> tuple[jax.Array, list[Any], Terms]:
        part = functools.partial(of_part, trainable, frozen, rows, key)
        totals, grads, terms = accumulated(part, batch, microbatches)
        count = jnp.maximum(terms.denominator, 1)
        return totals / count, jax.tree.map(lambda g: g / count, grads), terms

    return gradients


def gram_matrix(gradients: Sequence[Any]) -> jax.Array:
    """float32[M, M]: products of M gradients."""

    def of_leaf(*leaves: jax.Array) -> jax.Array:
        flat = jnp.stack([leaf.ravel() for leaf in leaves]).astype(jnp.float32)
        return flat @ flat.T

    return functools.reduce(jnp.add, jax.tree.leaves(jax.tree.map(of_leaf, *gradients)))


def weigh(
    balancer: Balancer,
    gradients: Callable[[jax.Array], tuple[jax.Array, list[Any], Terms]],
    state: TrainState,
    key: jax.Array,
) -> tuple[jax.Array, Any, Terms, tuple[jax.Array, Any]]:
    """(loss, gradient, terms, (weights, balancer's state)) after a batch's `gradients(rows)`.

    Weights of losses are the next step's; those of gradients this one's, so that all units' are asked for.
    """
    weights, count = state.weights, len(state.weights)
    rows = jnp.eye(count, dtype=weights.dtype) if balancer.gram else weights[None]
    losses, grads, terms = gradients(rows)
    gram = gram_matrix(grads) if balancer.gram else None
    total, number = terms.units
    own = jnp.where(number > 0, total / jnp.maximum(number, 1), jnp.nan)
    weighted = balancer.combine(own, gram, state.weighting, key, None)
    if balancer.gram:
        weights = weighted[0].astype(losses.dtype)
        gradient = jax.tree.map(lambda *g: jnp.tensordot(weights, jnp.stack(g), 1), *grads)
        return losses @ weights, gradient, terms, weighted
    return losses[0], grads[0], terms, weighted


def make_step(problem: Problem, optimizer: optax.GradientTransformation, microbatches: int = 1):
    """(state, frozen, batch, sums) -> (state, sums + this step's); to be jitted once."""
    gradients_of, balancer = make_gradients(problem, microbatches), problem.balancer

    def step(
        state: TrainState, frozen: Mapping[str, Any], batch: Batch, sums: Sums
    ) -> tuple[TrainState, Sums]:
        key, own = jax.random.split(jax.random.wrap_key_data(state.key))

        def gradients(rows: jax.Array) -> tuple[jax.Array, list[Any], Terms]:
            return gradients_of(state.trainable, frozen, batch, rows, own)

        drawn = jax.random.fold_in(own, 1)
        loss, grads, terms, (weights, weighting) = weigh(balancer, gradients, state, drawn)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)

        norm = optax.tree.norm(grads)
        counted = StepSums.single_from_model_output(
            steps=1,
            grad_norm=norm,
            unsupervised=terms.denominator == 0,
            zero=(terms.denominator > 0) & (loss == 0),
            not_finite=~(jnp.isfinite(loss) & jnp.isfinite(norm)),
        )
        sums = Sums(sums.step.merge(counted), sums.problem.merge(terms.sums))
        state = TrainState(
            state.step + 1, trainable, opt_state, weights, weighting, jax.random.key_data(key)
        )
        return state, sums

    return step


def zero_sums(problem: Problem) -> Sums:
    """What steps add to between two logs, before the first of them."""
    return Sums(StepSums.empty(), problem.empty())
