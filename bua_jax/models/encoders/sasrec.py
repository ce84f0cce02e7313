"""SASRec (Kang & McAuley, 2018): self-attention over behaviour ids, scores tied to the item table.

Softmax cross-entropy over all behaviours instead of sampled negatives: there are tens of them, not
thousands. The norm order is pre-norm on the query alone, as in the original algorithm.
"""

import flax.linen as nn
import jax

from bua_jax.models.encoders.base import EncoderConfig, EncoderOutput, attention_mask


class SASRec(nn.Module):
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
        init = nn.initializers.normal(c.dim**-0.5)
        table = nn.Embed(c.num_behaviours, c.dim, embedding_init=init, name="behaviour")
        items = table(fields[..., 3])
        if c.all_fields:
            sizes = {"weekday": 7, "slot": c.slots_per_day, "place": c.num_places}
            for i, (name, size) in enumerate(sizes.items()):
                items = items + nn.Embed(size, c.dim, embedding_init=init, name=name)(
                    fields[..., i]
                )
        x = items * c.dim**0.5
        x = x + nn.Embed(c.max_events, c.dim, embedding_init=init, name="position")(positions)
        x = nn.Dropout(c.dropout, deterministic=deterministic)(x)
        mask = attention_mask(segments)
        for layer in range(c.num_layers):
            query = nn.LayerNorm(name=f"norm1_{layer}")(x)
            y = nn.MultiHeadDotProductAttention(
                c.num_heads,
                dropout_rate=c.dropout,
                deterministic=deterministic,
                name=f"attention_{layer}",
            )(query, x, mask=mask)
            x = query + y
            y = nn.LayerNorm(name=f"norm2_{layer}")(x)
            hidden = nn.relu(nn.Dense(c.dim, name=f"up_{layer}")(y))
            hidden = nn.Dropout(c.dropout, deterministic=deterministic)(hidden)
            y = y + nn.Dense(c.dim, name=f"down_{layer}")(hidden)
            x = nn.Dropout(c.dropout, deterministic=deterministic)(y)
        states = nn.LayerNorm(name="norm")(x)
        return EncoderOutput(states, items, table.attend(states))
