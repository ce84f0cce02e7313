"""BehaveGPT (Gong et al., 2025): four embeddings concatenated, a causal transformer, a two-layer head.

Sizes and details that the source leaves open are those of shared defaults: pre-norm, GELU, learned
positions. The penultimate hidden state is the transformer's output before the head.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bua_jax.models.encoders.base import EncoderConfig, EncoderOutput, attention_mask


class BehaveGPT(nn.Module):
    """See `EncoderOutput` for what it returns."""

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
        c = self.config
        sizes = (7, c.slots_per_day, c.num_places, c.num_behaviours)
        names = ("weekday", "slot", "place", "behaviour")
        init = nn.initializers.normal(0.1)
        parts = [
            nn.Embed(size, c.dim, embedding_init=init, name=name)(fields[..., i])
            for i, (name, size) in enumerate(zip(names, sizes, strict=True))
        ]
        items = jnp.concatenate(parts, axis=-1)
        x = items + nn.Embed(c.max_events, c.state_dim, embedding_init=init, name="position")(
            positions
        )
        x = nn.Dropout(c.dropout, deterministic=deterministic)(x)
        mask = attention_mask(segments)
        for layer in range(c.num_layers):
            y = nn.LayerNorm(name=f"norm1_{layer}")(x)
            y = nn.MultiHeadDotProductAttention(
                c.num_heads,
                dropout_rate=c.dropout,
                deterministic=deterministic,
                name=f"attention_{layer}",
            )(y, mask=mask)
            x = x + nn.Dropout(c.dropout, deterministic=deterministic)(y)
            y = nn.LayerNorm(name=f"norm2_{layer}")(x)
            y = nn.gelu(nn.Dense(4 * c.state_dim, name=f"up_{layer}")(y))
            y = nn.Dense(c.state_dim, name=f"down_{layer}")(y)
            x = x + nn.Dropout(c.dropout, deterministic=deterministic)(y)
        states = nn.LayerNorm(name="norm")(x)
        hidden = nn.gelu(nn.Dense(c.state_dim, name="head_hidden")(states))
        return EncoderOutput(states, items, nn.Dense(c.num_behaviours, name="head")(hidden))
