"""Sequences of behaviours of one length as a problem: SASRec on real and generated days (Appendix H)."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.events.schema import EventStore
from bua_jax.training.events import EncoderSettings, EventBatches, Events
from bua_jax.training.optimizer import OptimizerSettings
from bua_jax.training.problem import Batch, Terms

TABLES = ("behaviour", "position")
"""SASRec's tables of vectors, on which its original's code puts a penalty (`l2_emb`)."""


def fields_of(behaviours: np.ndarray) -> np.ndarray:
    """int32[n, L, 4] of behaviours int[n, L]: of an event nothing else is told."""
    fields = np.zeros((*behaviours.shape, 4), np.int32)
    fields[..., 3] = behaviours
    return fields


class SequenceBatches(EventBatches):
    """Endless batches of sequences int[n, L + 1] in an order drawn for every epoch."""

    def __init__(
        self, store: EventStore, settings: EncoderSettings, per_epoch: int, sequences: np.ndarray
    ) -> None:
        super().__init__(store, settings, per_epoch)
        self._sequences = sequences

    def _draw(self) -> None:
        self._before = self._rng.bit_generator.state
        drawn = self._sequences[self._rng.permutation(len(self._sequences))]
        self._arrays = {
            "fields": fields_of(drawn[:, :-1]),
            "mask": np.ones((len(drawn), drawn.shape[1] - 1), np.int32),
            "targets": drawn[:, 1:].astype(np.int32),
        }


@dataclass(frozen=True)
class Sequences(Events):
    """The behaviour after every event of each of the sequences; validated on real windows.

    By Adam at one rate, without decay. l2_emb: of half the sum of squares of `TABLES`, in the loss.
    """

    sequences: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))  # int[n, L+1]
    held: Mapping[str, np.ndarray] = field(default_factory=dict)  # as `Events.validation_arrays`
    l2_emb: float = 0.0

    @functools.cached_property
    def per_epoch(self) -> int:
        return -(-len(self.sequences) // self.settings.batch)

    def data(self) -> SequenceBatches:
        return SequenceBatches(self.store, self.settings, self.per_epoch, self.sequences)

    def validation_arrays(self) -> dict[str, np.ndarray]:
        return dict(self.held)

    def optimizer(self, steps: int) -> OptimizerSettings:
        rate = self.settings.peak_lr
        return OptimizerSettings(rate, rate, rate, warmup_share=0.0, weight_decay=0.0)

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        means, terms = super().numerators(variables, batch, rows, key)
        vectors = [variables["encoder"][name]["embedding"] for name in TABLES]
        return means + self.l2_emb * sum(jnp.sum(x**2) for x in vectors) / 2, terms
