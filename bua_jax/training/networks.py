"""Networks that predict the next behaviour at every event, as `training.events` trains and asks them."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.models.encoders import EncoderConfig, build, dropout, encode_events


class Network(Protocol):
    """What predicts the next behaviour at every event. It hashes by value: equal ones compile once."""

    @property
    def name(self) -> str:
        """What a person reads of it."""
        ...

    @property
    def classes(self) -> int:
        """How many behaviours there are."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the variables that it reads."""
        ...

    @property
    def rows(self) -> int:
        """Histories that it is asked about at once."""
        ...

    def logits(
        self,
        variables: Mapping[str, Any],
        fields: jax.Array,
        segments: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """float32[B, S, C] after every event of fields int32[B, S, 4]; segments int32[B, S], 0 = padding.

        key: of dropout; None: there is none.
        """
        ...


@dataclass(frozen=True)
class Encoder:
    """An encoder with its own head as a `Network`."""

    config: EncoderConfig
    parts, rows = ("encoder",), 512

    @property
    def name(self) -> str:
        return f"encoder {self.config.kind}"

    @property
    def classes(self) -> int:
        return self.config.num_behaviours

    def logits(
        self,
        variables: Mapping[str, Any],
        fields: jax.Array,
        segments: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(fields.shape[1]), fields.shape[:2])
        given = build(self.config), variables["encoder"], fields, segments, positions
        return encode_events(*given, **dropout(key)).logits


@functools.partial(jax.jit, static_argnames=("network",))
def last_log_probabilities(network: Network, variables, fields, n_events):
    """log p float32[n, C] of the behaviour after each row: fields int32[n, L, 4], n_events int32[n]."""
    segments = (jnp.arange(fields.shape[1]) < n_events[:, None]).astype(jnp.int32)
    logits = network.logits(variables, fields, segments)
    last = jnp.take_along_axis(logits, (n_events - 1)[:, None, None], axis=1)[:, 0]
    return jax.nn.log_softmax(last)


def predict_last(
    network: Network, variables: Mapping[str, Any], fields: np.ndarray, n_events: np.ndarray
) -> np.ndarray:
    """log p of the behaviour after each history: int32[n, L, 4], int32[n] -> float32[n, C]."""
    n, batch = len(fields), network.rows
    padded = -(-n // batch) * batch
    pad = ((0, padded - n), (0, 0), (0, 0))
    fields, counts = np.pad(fields, pad), np.pad(n_events, (0, padded - n), constant_values=1)
    parts = [
        np.asarray(
            last_log_probabilities(network, variables, fields[i : i + batch], counts[i : i + batch])
        )
        for i in range(0, padded, batch)
    ]
    return np.concatenate(parts)[:n] if parts else np.zeros((0, network.classes), np.float32)
