"""Choosing a token from logits: greedy, temperature, nucleus."""

import functools

import jax
import jax.numpy as jnp


def highest(logits: jax.Array) -> jax.Array:
    """`jnp.argmax` of logits float[B, V], whose reduction XLA does not vectorise on a CPU: int32[B].

    Where one is NaN it is the last token.
    """
    best = logits.max(axis=-1, keepdims=True)
    last = logits.shape[-1] - 1
    at = jnp.where(logits == best, jnp.arange(last + 1, dtype=jnp.int32), last)
    return at.min(axis=-1)


@functools.partial(jax.jit, static_argnames=("greedy",))
def sample(
    logits: jax.Array,
    mask: jax.Array,
    keys: jax.Array,
    temperature: jax.Array | float,
    top_p: jax.Array | float,
    *,
    greedy: bool,
) -> jax.Array:
    """int32[B] from logits float32[B, V] where mask bool[B, V]; one key per row.

    Nucleus sampling keeps the smallest set of tokens whose probability reaches `top_p`.
    """
    logits = jnp.where(mask, logits, -jnp.inf)
    if greedy:
        return highest(logits)
    scaled = logits / temperature
    order = jnp.argsort(-scaled, axis=-1)
    probability = jax.nn.softmax(jnp.take_along_axis(scaled, order, axis=-1), axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    kept = jnp.where(before < top_p, jnp.take_along_axis(scaled, order, axis=-1), -jnp.inf)
    picked = jax.vmap(jax.random.categorical)(keys, kept)
    return jnp.take_along_axis(order, picked[:, None], axis=-1)[:, 0]
