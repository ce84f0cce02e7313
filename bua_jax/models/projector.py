"""The two-layer projector of Eq. 1: encoder states to the language model's input space.

A state knows what happened and what may come next. With `model.recall` a second projector, "recalled" among
the parameters of the first, makes soft tokens of the latter for the final user turn, so that a small base
need not tell both apart in one vector.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Projector(nn.Module):
    """H_seq = W2 gelu(W1 norm(state) + b1) + b2, float32: [..., D] -> [..., features]."""

    features: int

    @nn.compact
    def __call__(self, states: jax.Array) -> jax.Array:
        x = nn.LayerNorm(name="norm")(states.astype(jnp.promote_types(states.dtype, jnp.float32)))
        x = nn.gelu(nn.Dense(4 * self.features, name="hidden")(x))
        return nn.Dense(self.features, name="out")(x)


class Linear(nn.Module):
    """W state + b, float32: [..., D] -> [..., features]."""

    features: int

    @nn.compact
    def __call__(self, states: jax.Array) -> jax.Array:
        x = states.astype(jnp.promote_types(states.dtype, jnp.float32))
        return nn.Dense(self.features, name="out")(x)


def init(
    key: jax.Array,
    width: int,
    embedding: jax.Array,
    *,
    recall: bool = False,
    module: type[Projector | Linear] = Projector,
) -> dict[str, Any]:
    """Fresh parameters whose outputs have the mean norm of the token embeddings.

    width: of the encoder's states; embedding: [V, H]. recall: with a second projector too. Soft tokens at
    another scale than the words around them are ignored or drown them.
    """
    sample = jax.random.normal(key, (256, width))
    projector = module(embedding.shape[1])
    params = projector.init(key, sample)["params"]
    norms = jnp.linalg.norm(projector.apply({"params": params}, sample), axis=-1)
    table = embedding.astype(jnp.float32)
    target = jnp.mean(jnp.linalg.norm(table, axis=-1))
    out = {
        "kernel": params["out"]["kernel"] * (target / jnp.mean(norms)),
        "bias": params["out"]["bias"],
    }
    if not recall:
        return {**params, "out": out}
    second = init(jax.random.fold_in(key, 1), width, embedding)
    return {**params, "out": out, "recalled": second}
