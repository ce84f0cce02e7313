"""One step of training on any problem: loss, gradients, weights of units, update, sums for the log."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bua_jax.training.problem import (
    Batch,
    GramSums,
    Problem,
    StepSums,
    Sums,
    Terms,
    UnitSums,
)
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
        counts = rows @ terms.units[1].astype(rows.dtype) > 0  # where not, the gradient is 0

        def one(given: tuple[jax.Array, jax.Array]) -> Any:
            row, there = given
            zero = functools.partial(jax.tree.map, jnp.zeros_like, trainable)
            return jax.lax.cond(there, lambda: pull(row)[0], zero)

        each = jax.lax.map(one, (jnp.eye(len(rows), dtype=totals.dtype), counts))
        return totals, [jax.tree.map(lambda g, m=m: g[m], each) for m in range(len(rows))], terms

    def gradients(trainable, frozen, batch, rows, key) -> tuple[jax.Array, list[Any], Terms]:
        part = functools.partial(of_part, trainable, frozen, rows, key)
        totals, grads, terms = accumulated(part, problem.prepared(batch), microbatches)
        count = jnp.maximum(terms.denominator, 1)
        return totals / count, jax.tree.map(lambda g: g / count, grads), terms

    return gradients


def gram_matrix(gradients: Sequence[Any]) -> jax.Array:
    """float32[M, M]: products of M gradients."""

    def of_leaf(*leaves: jax.Array) -> jax.Array:
        flat = jnp.stack([leaf.ravel() for leaf in leaves]).astype(jnp.float32)
        return jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)

    return functools.reduce(jnp.add, jax.tree.leaves(jax.tree.map(of_leaf, *gradients)))


class Weighed(NamedTuple):
    """A batch's gradient after its units are weighed, and what they weigh."""

    loss: jax.Array  # float[]: as weighed
    gradient: Any
    terms: Terms
    used: jax.Array  # float32[K]: weights of this gradient
    weights: jax.Array  # float32[K]: those that the next step begins with
    weighting: Any  # the balancer's state
    gram: jax.Array | None  # float32[K, K]: products of the units' gradients, if it asks for them


def own_losses(terms: Terms) -> jax.Array:
    """float[K]: the units' losses, NaN of those that are not in the batch."""
    total, number = terms.units
    return jnp.where(number > 0, total / jnp.where(number > 0, number, 1), jnp.nan)


def weigh(
    balancer: Balancer,
    gradients: Callable[[jax.Array], tuple[jax.Array, list[Any], Terms]],
    state: TrainState,
    key: jax.Array,
) -> Weighed:
    """What a batch's `gradients(rows)` come to.

    Weights of losses are the next step's; those of gradients this one's, so that all units' are asked for.
    """
    weights, count = state.weights, len(state.weights)
    rows = jnp.eye(count, dtype=weights.dtype) if balancer.gram else weights[None]
    losses, grads, terms = gradients(rows)
    gram = gram_matrix(grads) if balancer.gram else None
    given = own_losses(terms), gram, state.weighting, key, state.validation
    new, weighting = balancer.combine(*given)
    new = jnp.where(jnp.isnan(new), weights, new).astype(losses.dtype)
    if gram is None:
        return Weighed(losses[0], grads[0], terms, weights, new, weighting, None)
    gradient = jax.tree.map(lambda *g: jnp.tensordot(new, jnp.stack(g), 1), *grads)
    return Weighed(losses @ new, gradient, terms, new, new, weighting, gram)


def unit_sums(found: Weighed) -> UnitSums:
    """What the units of one batch did."""
    there = found.terms.units[1] > 0
    plain = found.terms.units[0] / jnp.maximum(found.terms.denominator, 1)
    weight = jnp.where(there, found.used, 0)
    own = jnp.where(there, plain, 0)
    gram = None
    if found.gram is not None:
        norm = jnp.sqrt(jnp.diag(found.gram))
        length = jnp.outer(norm, norm)
        pull = weight * (found.gram @ weight)
        cosine = jnp.where(length > 0, found.gram / jnp.where(length > 0, length, 1), 0)
        gram = GramSums(norm, pull, cosine, (length > 0).astype(norm.dtype))
    return UnitSums(there.astype(weight.dtype), weight, own, weight * own, gram)


def make_step(problem: Problem, optimizer: optax.GradientTransformation, microbatches: int = 1):
    """(state, frozen, batch, sums) -> (state, sums + this step's); to be jitted once."""
    gradients_of, balancer = make_gradients(problem, microbatches), problem.balancer

    def after(
        found: Weighed, trainable: Any, frozen: Mapping[str, Any], batch: Batch, key: jax.Array
    ) -> Any:
        """The balancer's state, once it has seen the losses that the step left of the same batch."""
        if balancer.after is None:
            return found.weighting

        def terms(part: Batch) -> Terms:
            return problem.numerators({**frozen, **trainable}, part, found.used[None], key)[1]

        left = accumulated(terms, problem.prepared(batch), microbatches)
        return balancer.after(own_losses(left), found.weighting)

    def step(
        state: TrainState, frozen: Mapping[str, Any], batch: Batch, sums: Sums
    ) -> tuple[TrainState, Sums]:
        key, own = jax.random.split(jax.random.wrap_key_data(state.key))

        def gradients(rows: jax.Array) -> tuple[jax.Array, list[Any], Terms]:
            return gradients_of(state.trainable, frozen, batch, rows, own)

        found = weigh(balancer, gradients, state, jax.random.fold_in(own, 1))
        updates, opt_state = optimizer.update(found.gradient, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        weighting = after(found, trainable, frozen, batch, own)

        norm, terms = optax.tree.norm(found.gradient), found.terms
        counted = StepSums.single_from_model_output(
            steps=1,
            grad_norm=norm,
            unsupervised=terms.denominator == 0,
            zero=(terms.denominator > 0) & (found.loss == 0),
            not_finite=~(jnp.isfinite(found.loss) & jnp.isfinite(norm)),
        )
        units = sums.units.merge(unit_sums(found))
        sums = Sums(sums.step.merge(counted), sums.problem.merge(terms.sums), units)
        state = TrainState(
            state.step + 1,
            trainable,
            opt_state,
            found.weights,
            weighting,
            jnp.full_like(state.validation, jnp.nan),
            jax.random.key_data(key),
        )
        return state, sums

    return step


def zero_sums(problem: Problem) -> Sums:
    """What steps add to between two logs, before the first of them."""
    count = len(problem.units)
    one, both = (count,), (count, count)
    gram = GramSums(*map(jnp.zeros, (one, one, both, both))) if problem.balancer.gram else None
    units = UnitSums(jnp.zeros(one), jnp.zeros(one), jnp.zeros(one), jnp.zeros(one), gram)
    return Sums(StepSums.empty(), problem.empty(), units)
