"""PITuning's two stages before the last: tuning to a population, and unlearning what it overlearnt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bua_jax.models.pituning import PITuning
from bua_jax.training import optimizer
from bua_jax.training.events import Events
from bua_jax.training.problem import Batch, Terms


@dataclass(frozen=True)
class Tuning(Events):
    """The next behaviour alone: the last stage, and what the others share."""

    network: PITuning

    def decayed(self, tree: Any) -> Any:
        return optimizer.decayed(tree)  # stacked norms have two axes


@dataclass(frozen=True)
class Population(Tuning):
    """CE of the next behaviour plus `reconstruction` times the CE of hidden events, a `masked` share.

    Both come of one pass: the events that are hidden are hidden from the prediction too.
    """

    reconstruction: float = 0.5
    masked: float = 0.15

    @property
    def name(self) -> str:
        return "pituning, population"

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        fields, mask, network = batch["fields"], batch["mask"], self.network
        hidden = jax.random.bernoulli(key, self.masked, mask.shape) & (mask > 0)
        states = network.states(variables, fields, mask, hidden)
        means, terms = self.scored(network.intended(variables, states, mask), batch, rows)
        scores = network.reconstructed(variables, states)
        nll = optax.softmax_cross_entropy_with_integer_labels(scores, fields[..., 3])
        recovered = jnp.sum(nll * hidden) / jnp.maximum(jnp.sum(hidden), 1)
        return means + self.reconstruction * recovered, terms


@dataclass(frozen=True)
class Unlearning(Tuning):
    """`unlearning_loss` of a student that begins as its teacher (variables: `teacher`, frozen)."""

    forgotten: tuple[bool, ...] = ()  # by behaviour
    strength: float = 0.1
    cap: float = 1.5  # multiple of ln C

    @property
    def name(self) -> str:
        return "pituning, unlearning"

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        fields, mask, network = batch["fields"], batch["mask"], self.network
        logits = network.logits(variables, fields, mask)
        teacher = jax.lax.stop_gradient(network.logits(variables["teacher"], fields, mask))
        forgotten = jnp.asarray(self.forgotten)[batch["targets"]]
        cap = self.cap * jnp.log(float(network.classes))
        loss = unlearning_loss(logits, teacher, mask, forgotten, self.strength, cap)
        means, terms = self.scored(logits, batch, rows)
        return jnp.full_like(means, loss), terms


def unlearning_loss(
    student: jax.Array,
    teacher: jax.Array,
    mask: jax.Array,
    forgotten: jax.Array,
    strength: float,
    cap: float | jax.Array,
) -> jax.Array:
    """float[]: the student is held to its teacher where a target is kept, and driven from it elsewhere.

    The mean of CE(softmax(teacher), student) over steps that are kept, less `strength` times the mean of
    min(CE, cap) over those whose targets are forgotten bool[B, S]: without a cap it would grow for ever.
    student and teacher float[B, S, C]: scores; mask [B, S].
    """
    ce = optax.softmax_cross_entropy(student, jax.nn.softmax(teacher))
    forget, keep = mask * forgotten, mask * ~forgotten
    kept = jnp.sum(ce * keep) / jnp.maximum(jnp.sum(keep), 1)
    capped = jnp.sum(jnp.minimum(ce, cap) * forget) / jnp.maximum(jnp.sum(forget), 1)
    return kept - strength * capped
