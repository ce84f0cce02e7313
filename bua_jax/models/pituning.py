"""PITuning (Gong et al., 2024): a language model's blocks over events, and attention from intents to steps.

Its code was never published; what its figures leave open is chosen here: four embeddings are summed, the
outer product of intent and step is taken elementwise, and intents attend to all steps so far.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bua_jax.models.qwen2 import Qwen2, causal_mask
from bua_jax.models.qwen2_config import Qwen2Config

_MASKED = -1e30


@dataclass(frozen=True)
class PITuning:
    """Sizes, and what `training.networks.Network` asks for.

    Variables: encoder (embeddings of events, intents, heads) and base (layers and norm of `blocks`).
    """

    classes: int
    slots_per_day: int
    blocks: Qwen2Config
    hidden: int  # width between intent and step
    scale: float  # standard deviation of fresh embeddings
    num_places: int = 11

    name, parts, rows = "pituning", ("encoder", "base"), 64

    def init(self, base: Mapping[str, Any], labels: jax.Array, seed: int) -> dict[str, Any]:
        """Variables before training; labels float32[C, H]: what behaviours and intents begin as."""
        head = IntentHead(self)
        fields, segments = jnp.zeros((1, 2, 4), jnp.int32), jnp.ones((1, 2), jnp.int32)
        made = dict(jax.jit(head.init)(jax.random.key(seed), fields, segments)["params"])
        made |= {"behaviour": {"embedding": labels}, "intents": labels}
        return {"encoder": made, "base": dict(base)}

    def states(
        self,
        variables: Mapping[str, Any],
        fields: jax.Array,
        segments: jax.Array,
        hidden: jax.Array | None = None,
    ) -> jax.Array:
        """float32[B, S, H]: the blocks' output; hidden bool[B, S]: events of which the time alone is seen."""
        if hidden is None:
            hidden = jnp.zeros(segments.shape, bool)
        events = self._asked(variables, fields, hidden, method="embed")
        positions = jnp.broadcast_to(jnp.arange(fields.shape[1]), fields.shape[:2])
        params = {"params": variables["base"]}
        given = events, positions, segments
        found: Any = Qwen2(self.blocks).apply(params, *given, method="hidden")
        return found

    def intended(
        self, variables: Mapping[str, Any], states: jax.Array, segments: jax.Array
    ) -> jax.Array:
        """float32[B, S, C]: scores of the behaviour that follows each step."""
        return self._asked(variables, states, segments, method="intended")

    def reconstructed(self, variables: Mapping[str, Any], states: jax.Array) -> jax.Array:
        """float32[B, S, C]: scores of the behaviour of each step itself."""
        return self._asked(variables, states, method="reconstructed")

    def logits(
        self,
        variables: Mapping[str, Any],
        fields: jax.Array,
        segments: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """float32[B, S, C], see `Network.logits`; nothing is dropped."""
        return self.intended(variables, self.states(variables, fields, segments), segments)

    def _asked(self, variables: Mapping[str, Any], *given: jax.Array, method: str) -> jax.Array:
        found: Any = IntentHead(self).apply({"params": variables["encoder"]}, *given, method=method)
        return found


class IntentHead(nn.Module):
    """What stands before and after the blocks: embeddings, the intent attention, and both heads."""

    sizes: PITuning

    def setup(self) -> None:
        """Names the parts below; flax calls it."""
        c, width = self.sizes, self.sizes.blocks.hidden_size
        init, matrix = nn.initializers.normal(c.scale), nn.initializers.lecun_normal()
        self.weekday = nn.Embed(7, width, embedding_init=init)
        self.slot = nn.Embed(c.slots_per_day, width, embedding_init=init)
        self.place = nn.Embed(c.num_places, width, embedding_init=init)
        self.behaviour = nn.Embed(c.classes, width, embedding_init=init)
        self.unseen = self.param("unseen", init, (width,))  # in the place of a hidden event
        self.intents = self.param("intents", init, (c.classes, width))
        self.of_step = nn.Dense(c.hidden)
        self.of_intent = nn.Dense(c.hidden, use_bias=False)
        self.of_both = self.param("of_both", matrix, (width, c.hidden))
        self.slope = self.param("slope", nn.initializers.constant(0.25), (1,))  # of PReLU
        self.score = nn.Dense(1, use_bias=False)
        self.recency = self.param("recency", nn.initializers.constant(0.5), (1,))
        self.step_value = self.param("step_value", matrix, (width, 1))
        self.both_value = self.param("both_value", matrix, (width, 1))
        self.intent_value = nn.Dense(1, use_bias=False)
        self.bias = self.param("bias", nn.initializers.zeros, (c.classes,))
        self.reconstruction = nn.Dense(c.classes)

    def embed(self, fields: jax.Array, hidden: jax.Array) -> jax.Array:
        """fields int32[B, S, 4], hidden bool[B, S] -> float32[B, S, H]."""
        time = self.weekday(fields[..., 0]) + self.slot(fields[..., 1])
        event = self.place(fields[..., 2]) + self.behaviour(fields[..., 3])
        return time + jnp.where(hidden[..., None], self.unseen, event)

    def intended(self, states: jax.Array, segments: jax.Array) -> jax.Array:
        """states h float32[B, S, H], segments int32[B, S] -> float32[B, S, C].

        Of intent c with vector e, s_ci = MLP([e; e * h_i; h_i]) - r (t - i) weighs the steps i up to each
        t, by softmax; v is the weighted mean of the steps, and the score w [v; e * v; e] + b_c. That is
        linear in v, so that v itself, [B, S, C, H], is never made. Rotations leave no trace of a step's
        place in its state, as GPT-2's positions do: r, which is learnt, says what is near.
        """
        both = jnp.einsum("bsd,cd,dk->bsck", states, self.intents, self.of_both)
        step, intent = self.of_step(states)[:, :, None], self.of_intent(self.intents)
        joined = step + both + intent
        active = jnp.where(joined >= 0, joined, self.slope * joined)
        scores = self.score(active)[..., 0]  # [B, S, C]
        index = jnp.arange(segments.shape[1])
        near = self.recency * (index[None, :] - index[:, None])[..., None]  # [S, S, 1]
        seen = causal_mask(segments)[..., None]
        weights = jax.nn.softmax(jnp.where(seen, scores[:, None] + near, _MASKED), axis=2)
        values = states @ (self.step_value + self.both_value * self.intents.T)
        own = self.intent_value(self.intents)[:, 0] + self.bias
        return jnp.einsum("btsc,bsc->btc", weights, values) + own

    def reconstructed(self, states: jax.Array) -> jax.Array:
        """[B, S, H] -> [B, S, C]."""
        return self.reconstruction(states)

    def __call__(self, fields: jax.Array, segments: jax.Array) -> jax.Array:
        """Touches all parts, to make them."""
        states = self.embed(fields, segments == 0)
        return self.intended(states, segments) + self.reconstructed(states)
