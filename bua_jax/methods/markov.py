"""A floor: the next behaviour by the last one alone."""

from dataclasses import dataclass

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.events.groups import training_mask
from bua_jax.events.schema import EventStore
from bua_jax.methods.protocol import Histories


@dataclass(frozen=True)
class Markov:
    """p(next | last behaviour) with additive smoothing; `transitions`: float64[C, C], rows sum to 1."""

    transitions: np.ndarray
    num_training_windows: int
    name: str = "markov"
    fields: tuple[str, ...] = ("behaviour",)

    def predict(self, histories: Histories) -> np.ndarray:
        return self.transitions[histories.last(3)]


def fit_markov(store: EventStore, settings: Settings) -> Markov:
    """Transitions between consecutive events of the same training user; settings: `config.methods.markov`."""
    classes = len(store.catalogue.behaviours)
    owner = np.repeat(np.arange(len(store.users)), np.diff(store.offsets))
    pairs = training_mask(store)[1:] & (owner[1:] == owner[:-1])
    counts = np.full((classes, classes), settings.smoothing)
    np.add.at(counts, (store.behaviour[:-1][pairs], store.behaviour[1:][pairs]), 1)
    return Markov(counts / counts.sum(1, keepdims=True), int(pairs.sum()))
