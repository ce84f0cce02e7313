"""The mapping `two_stage` (A-LLMRec's first stage): SASRec's items, aligned with words by autoencoders.

It is a problem of the loop, beside a frozen SASRec.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.alignment.parts import Parts
from bua_jax.events.schema import EventStore
from bua_jax.models import two_stage
from bua_jax.models.encoders import build, encode_events
from bua_jax.training.events import EncoderSettings, Events, EventSums, segments_of, train
from bua_jax.training.networks import Encoder
from bua_jax.training.problem import Batch, Scalars, Terms

_ROWS = 512  # windows that are validated at once


@dataclass(frozen=True)
class Alignment(Events):
    """`models.two_stage.alignment_loss` of the next behaviour and of one drawn other at every position.

    Variables: `encoder` (SASRec, frozen), `projector` (the autoencoders), `base` with the labels' vectors
    `labels` float[C, E].
    """

    network: Encoder

    @property
    def name(self) -> str:
        return "items and words, aligned"

    def losses(self, variables: Mapping[str, Any], batch: Batch, key: jax.Array) -> jax.Array:
        """float[B, S]: what the next behaviour and another one cost at each position."""
        fields, mask, right = batch["fields"], batch["mask"], batch["targets"]
        positions = jnp.broadcast_to(jnp.arange(fields.shape[1]), mask.shape)
        given = build(self.network.config), variables["encoder"], fields, mask, positions
        states, classes = encode_events(*given).states, self.network.classes
        items, texts = variables["encoder"]["behaviour"]["embedding"], variables["base"]["labels"]
        loss = functools.partial(two_stage.alignment_loss, variables["projector"], states)
        total = loss(items[right], texts[right], True)
        if classes == 1:  # there is no other
            return total
        other = (right + jax.random.randint(key, right.shape, 1, classes)) % classes
        return total + loss(items[other], texts[other], False)

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        asked = batch["asked"] if "asked" in batch else batch["mask"]
        loss = self.losses(variables, batch, key) * asked
        mean = jnp.sum(loss) / jnp.maximum(jnp.sum(asked), 1)
        one_hot = jax.nn.one_hot(batch["targets"], self.network.classes) * asked[..., None]
        units = jnp.stack([(one_hot * loss[..., None]).sum((0, 1)), one_hot.sum((0, 1))])
        sums = EventSums.single_from_model_output(log_loss=mean, events=asked.sum())
        return jnp.full(len(rows), mean), Terms(jnp.ones(()), units, sums)

    def validation(self, mesh: jax.sharding.Mesh) -> Callable[[Mapping[str, Any]], Scalars]:
        """The same loss at the last event of validation people's windows, the others drawn once for all."""
        length, arrays = self.settings.history_length, self.validation_arrays()
        last = arrays["n_events"][:, None] - 1
        batch = {
            "fields": arrays["fields"],
            "mask": segments_of(arrays["n_events"], length),
            "targets": np.broadcast_to(arrays["target_behaviour"][:, None], (len(last), length)),
            "asked": (np.arange(length) == last).astype(np.int32),
        }
        of_batch = jax.jit(self.numerators)
        parts = [range(i, min(i + _ROWS, len(last))) for i in range(0, len(last), _ROWS)]

        def measure(variables: Mapping[str, Any]) -> Scalars:
            total = 0.0
            for number, rows in enumerate(parts):
                some = {name: value[rows.start : rows.stop] for name, value in batch.items()}
                key = jax.random.key(number)
                total += float(of_batch(variables, some, jnp.ones((1, 1)), key)[0][0]) * len(rows)
            return {"validation/log_loss": total / len(last)}

        return measure


def aligned(
    parts: Parts, labels: np.ndarray, store: EventStore, settings: EncoderSettings, folder: Path
) -> Parts:
    """`parts` whose encoder gives items in the space that the first stage makes; goes on after a cut.

    parts: with a fresh mapping of that kind (`alignment.hybrid.with_mapping`); labels: float[C, E], of words.
    """
    joint = parts.model.encoder
    assert isinstance(joint, two_stage.Joint)
    sasrec, config = parts.variables["encoder"]["sasrec"], joint.config
    fresh = two_stage.init(jax.random.key(settings.seed), config.dim, labels.shape[1])
    variables = {"encoder": sasrec, "projector": fresh, "base": {"labels": jnp.asarray(labels)}}
    problem = Alignment(Encoder(config), store, settings)
    said = {**dataclasses.asdict(config), "encoder": parts.identity["encoder"]}
    best = train(problem, variables, {"projector": 1.0}, folder, said)
    encoder = {"sasrec": sasrec, "joint": best["projector"]["item"]["encode"]}
    return dataclasses.replace(parts, variables={**parts.variables, "encoder": encoder})
