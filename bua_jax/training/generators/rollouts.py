"""The heads for time and place beside a pretrained BehaveGPT, as a problem of the loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.models.rollouts import Rollouts
from bua_jax.parallel import sharding
from bua_jax.training.events import Events, EventSums, segments_of
from bua_jax.training.problem import Batch, Scalars, Terms


def head_losses(
    network: Rollouts, variables: Mapping[str, Any], fields: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(-log p(when and where the next event is | it, what was before), whether there is one) [B, S - 1].

    fields int32[B, S, 4]; mask int32[B, S], 0 = padding. The encoder is left as it is. An event is of a
    later day where the weekday is another or the clock went back, as far as the encoder can know.
    """
    states = jax.lax.stop_gradient(network.encoded(variables, fields, mask)[0])[:, :-1]
    weekday, slot, place, behaviour = jnp.moveaxis(fields[:, 1:], -1, 0)
    before = fields[:, :-1, 1]
    later = (weekday != fields[:, :-1, 0]) | (slot < before)
    when = network.when(variables, states, behaviour, before)
    where = network.where(variables, states, behaviour, slot)
    at = jnp.where(later, network.slots, 0) + slot
    log_p = jnp.take_along_axis(when, at[..., None], -1)[..., 0]
    log_p += jnp.take_along_axis(where, place[..., None], -1)[..., 0]
    return -log_p, mask[:, 1:]


@dataclass(frozen=True)
class Heads(Events):
    """What trains `heads` alone; behaviours stay those of the encoder's own head."""

    network: Rollouts

    @property
    def name(self) -> str:
        return "time and place heads"

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        nll, mask = head_losses(self.network, variables, batch["fields"], batch["mask"])
        behaviour, count = batch["fields"][:, 1:, 3], jnp.maximum(jnp.sum(mask), 1)
        means = jnp.stack([jnp.sum(weights[behaviour] * nll * mask) / count for weights in rows])
        one_hot = jax.nn.one_hot(behaviour, self.network.classes) * mask[..., None]
        classes = jnp.stack([(one_hot * nll[..., None]).sum((0, 1)), one_hot.sum((0, 1))])
        sums = EventSums.single_from_model_output(log_loss=means[0], events=mask.sum())
        return means, Terms(jnp.ones(()), classes, sums)

    def validation(self, mesh: jax.sharding.Mesh) -> Callable[[Mapping[str, Any]], Scalars]:
        arrays, network = self.validation_arrays(), self.network
        fields, size = arrays["fields"], network.rows
        mask = segments_of(arrays["n_events"], fields.shape[1])
        losses = jax.jit(lambda variables, *some: head_losses(network, variables, *some))

        def measure(variables: Mapping[str, Any]) -> Scalars:
            read = {part: sharding.to_host(variables[part]) for part in network.parts}
            total, count = 0.0, 0
            for i in range(0, len(fields), size):
                some = (np.resize(x[i : i + size], (size, *x.shape[1:])) for x in (fields, mask))
                nll, there = (np.asarray(x)[: len(fields) - i] for x in losses(read, *some))
                total, count = total + float(np.sum(nll * there)), count + int(there.sum())
            return {"validation/log_loss": total / max(1, count)}

        return measure
