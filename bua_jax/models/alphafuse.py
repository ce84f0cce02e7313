"""AlphaFuse (Hu et al., 2025): behaviours as frozen language coordinates beside trained ones of their ids.

Of the published code the backbone is kept (one layer, one head, no projection after attention, norms of
SASRec's algorithm), and scores are cosines over a temperature in training and in prediction alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.models.encoders.base import attention_mask, dropout

_MASKED = -1e30


@dataclass(frozen=True)
class AlphaFuse:
    """Sizes, and what `training.networks.Network` asks for.

    Variables: encoder (trained) and base/labels, float32[C, language_dims] of `language_part`, which is
    not trained.
    """

    classes: int
    language_dims: int
    id_dims: int
    max_events: int
    dropout: float
    temperature: float

    name, parts, rows = "alphafuse", ("encoder", "base"), 512

    def init(self, language: np.ndarray, seed: int) -> dict[str, Any]:
        """Variables before training: ids are 0, so that behaviours are what language says of them."""
        fields = jnp.zeros((1, self.max_events, 4), jnp.int32)
        segments = jnp.ones((1, self.max_events), jnp.int32)
        made = jax.jit(_Backbone(self).init)(jax.random.key(seed), language, fields, segments)
        return {"encoder": made["params"], "base": {"labels": language}}

    def logits(
        self,
        variables: Mapping[str, Any],
        fields: jax.Array,
        segments: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """float32[B, S, C], see `Network.logits`."""
        language, params = variables["base"]["labels"], {"params": variables["encoder"]}
        scores: Any = _Backbone(self).apply(params, language, fields, segments, **dropout(key))
        return scores


def _unit(x: jax.Array) -> jax.Array:
    """x / |x| along the last axis, and 0 of 0."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + 1e-12)


class _Backbone(nn.Module):
    sizes: AlphaFuse

    @nn.compact
    def __call__(
        self,
        language: jax.Array,
        fields: jax.Array,
        segments: jax.Array,
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        c = self.sizes
        width = language.shape[1] + c.id_dims
        ids = self.param("ids", nn.initializers.zeros, (c.classes, c.id_dims))
        items = jnp.concatenate([language, ids], axis=1)
        drop = nn.Dropout(c.dropout, deterministic=deterministic)
        init = nn.initializers.normal(width**-0.5)
        place = nn.Embed(c.max_events, width, embedding_init=init, name="position")
        x = drop(items[fields[..., 3]] + place(jnp.arange(fields.shape[1])))
        query = nn.LayerNorm(name="norm1")(x)
        q = nn.Dense(width, name="query")(query)
        k, v = nn.Dense(width, name="key")(x), nn.Dense(width, name="value")(x)
        scores = jnp.einsum("btd,bsd->bts", q, k) * width**-0.5
        weights = jax.nn.softmax(jnp.where(attention_mask(segments)[:, 0], scores, _MASKED))
        y = nn.LayerNorm(name="norm2")(query + jnp.einsum("bts,bsd->btd", drop(weights), v))
        hidden = drop(nn.relu(nn.Dense(width, name="up")(y)))
        states = nn.LayerNorm(name="norm")(y + drop(nn.Dense(width, name="down")(hidden)))
        return _unit(states) @ _unit(items).T / c.temperature
