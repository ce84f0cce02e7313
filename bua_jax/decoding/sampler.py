"""Choosing a token from logits: greedy, temperature, nucleus."""

import functools

import jax
import jax.numpy as jnp


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
        return jnp.argmax(logits, axis=-1)
    scaled = logits / temperature
    order = jnp.argsort(-scaled, axis=-1)
    probability = jax.nn.softmax(jnp.take_along_axis(scaled, order, axis=-1), axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    kept = jnp.where(before < top_p, jnp.take_along_axis(scaled, order, axis=-1), -jnp.inf)
    picked = jax.vmap(jax.random.categorical)(keys, kept)
    return jnp.take_along_axis(order, picked[:, None], axis=-1)[:, 0]
