"""BehaveGPT's encoder with heads for time and place beside its own for behaviours.

With s the state after an event, beside that event's own embeddings (what predicts no behaviour the state
may have lost), p(next event | s) = p(b | s) p(when | s, b) p(where | s, b, slot): the first
is the encoder's own head. `when` is a slot of the same day, not before the last event's, or a slot of a
later day, which is how a day ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bua_jax.models.encoders import EncoderConfig, build, encode_events

_NEVER = -1e9


class _When(nn.Module):
    """float32[..., 2 S] of states float32[..., 2 D] and behaviours int32[...]."""

    classes: int
    slots: int
    hidden: int

    @nn.compact
    def __call__(self, states: jax.Array, behaviour: jax.Array) -> jax.Array:
        x = nn.Dense(self.hidden, name="state")(states)
        x = nn.gelu(x + nn.Embed(self.classes, self.hidden, name="behaviour")(behaviour))
        return nn.Dense(2 * self.slots, name="out")(x)


class _Where(nn.Module):
    """float32[..., P] of the same and slots int32[...]."""

    classes: int
    slots: int
    places: int
    hidden: int

    @nn.compact
    def __call__(self, states: jax.Array, behaviour: jax.Array, slot: jax.Array) -> jax.Array:
        x = nn.Dense(self.hidden, name="state")(states)
        x += nn.Embed(self.classes, self.hidden, name="behaviour")(behaviour)
        x = nn.gelu(x + nn.Embed(self.slots, self.hidden, name="slot")(slot))
        return nn.Dense(self.places, name="out")(x)


@dataclass(frozen=True)
class Rollouts:
    """An encoder and its heads. Variables: encoder (as it was pretrained), heads: when, where.

    It is a `training.networks.Network` too, whose logits are those of the encoder's own head.
    """

    config: EncoderConfig
    hidden: int = 64

    name, parts, rows = "rollouts", ("encoder", "heads"), 512

    @property
    def classes(self) -> int:
        return self.config.num_behaviours

    @property
    def slots(self) -> int:
        """Of a day."""
        return self.config.slots_per_day

    def _when(self) -> _When:
        return _When(self.classes, self.slots, self.hidden)

    def _where(self) -> _Where:
        return _Where(self.classes, self.slots, self.config.num_places, self.hidden)

    def init(self, seed: int) -> dict[str, Any]:
        """The heads before training."""
        when, where = jax.random.split(jax.random.key(seed))
        states, ids = jnp.zeros((1, 2 * self.config.state_dim)), jnp.zeros(1, jnp.int32)
        return {
            "when": self._when().init(when, states, ids)["params"],
            "where": self._where().init(where, states, ids, ids)["params"],
        }

    def encoded(
        self, variables: Mapping[str, Any], fields: jax.Array, segments: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(states float32[B, S, 2 D], logits float32[B, S, C]) after every event.

        fields int32[B, S, 4]; segments int32[B, S], 0 = padding.
        """
        positions = jnp.broadcast_to(jnp.arange(fields.shape[1]), fields.shape[:2])
        given = build(self.config), variables["encoder"], fields, segments, positions
        found = encode_events(*given)
        return jnp.concatenate([found.states, found.items], axis=-1), found.logits

    def logits(
        self,
        variables: Mapping[str, Any],
        fields: jax.Array,
        segments: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """float32[B, S, C] of the behaviour that follows."""
        return self.encoded(variables, fields, segments)[1]

    def when(
        self,
        variables: Mapping[str, Any],
        states: jax.Array,
        behaviour: jax.Array,
        slot: jax.Array,
    ) -> jax.Array:
        """log p of the same day's slots, then of a later day's, float32[..., 2 S]; none goes back.

        states float32[..., 2 D] after an event at slot int32[...]; behaviour int32[...]: what follows.
        """
        scores: Any = self._when().apply({"params": variables["heads"]["when"]}, states, behaviour)
        past = jnp.arange(2 * self.slots) < slot[..., None]
        return jax.nn.log_softmax(jnp.where(past, _NEVER, scores))

    def where(
        self, variables: Mapping[str, Any], states: jax.Array, behaviour: jax.Array, slot: jax.Array
    ) -> jax.Array:
        """log p of the place by order of first appearance, float32[..., P]; slot: of what follows."""
        scores: Any = self._where().apply(
            {"params": variables["heads"]["where"]}, states, behaviour, slot
        )
        return jax.nn.log_softmax(scores)
