"""A-LLMRec's first stage (Kim et al., 2024): items and their texts are brought into one space.

Two autoencoders with one hidden layer of the same width; beside them the frozen SASRec whose items these
are. What a language model reads later is the hidden layer of an item.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bua_jax.models.encoders import EncoderConfig, EncoderOutput, SASRec

WIDTH = 128
ITEM_WEIGHT, TEXT_WEIGHT = 0.5, 0.2
"""The shared space's width, and what the reconstructions weigh, as published."""

Params = Mapping[str, Any]


class Joint(nn.Module):
    """SASRec whose items lie in the shared space: [..., WIDTH]."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self,
        fields: jax.Array,
        segments: jax.Array,
        positions: jax.Array,
        *,
        deterministic: bool = True,
    ) -> EncoderOutput:
        given = fields, segments, positions
        output = SASRec(self.config, name="sasrec")(*given, deterministic=deterministic)
        return output._replace(items=nn.sigmoid(nn.Dense(WIDTH, name="joint")(output.items)))


def init(key: jax.Array, item_width: int, text_width: int) -> dict[str, Any]:
    """Fresh autoencoders of items and of texts."""
    found = {}
    for name, width in (("item", item_width), ("text", text_width)):
        key, into, out = jax.random.split(key, 3)
        found[name] = {
            "encode": nn.Dense(WIDTH).init(into, jnp.zeros((1, width)))["params"],
            "decode": nn.Dense(width).init(out, jnp.zeros((1, WIDTH)))["params"],
        }
    return found


def coded(params: Params, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., WIDTH]."""
    return jax.nn.sigmoid(x @ params["encode"]["kernel"] + params["encode"]["bias"])


def decoded(params: Params, code: jax.Array) -> jax.Array:
    """[..., WIDTH] -> [..., D]."""
    return code @ params["decode"]["kernel"] + params["decode"]["bias"]


def alignment_loss(
    params: Params, states: jax.Array, items: jax.Array, texts: jax.Array, right: bool
) -> jax.Array:
    """float[...]: what an item after a state costs, that is the next one (`right`) or is not.

    states, items: float[..., D]; texts: float[..., E], of the items. BCE of the product of state and rebuilt
    item over D, plus squared distances: of the codes, and weighed ones of both reconstructions.
    """
    code, words = coded(params["item"], items), coded(params["text"], texts)
    rebuilt, retold = decoded(params["item"], code), decoded(params["text"], words)
    logit = jnp.mean(states * rebuilt, axis=-1)
    near = jnp.mean((code - words) ** 2, axis=-1)
    item = jnp.mean((rebuilt - items) ** 2, axis=-1)
    text = jnp.mean((retold - texts) ** 2, axis=-1)
    told = jax.nn.softplus(-logit if right else logit)
    return told + near + ITEM_WEIGHT * item + TEXT_WEIGHT * text
