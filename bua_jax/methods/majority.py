"""The floor: what the training users do most, whatever the history."""

from dataclasses import dataclass

import numpy as np

from bua_jax.events.groups import training_mask, training_shares
from bua_jax.events.schema import EventStore
from bua_jax.methods.protocol import Histories


@dataclass(frozen=True)
class Majority:
    """The training users' shares, whatever the history."""

    shares: np.ndarray
    num_training_windows: int
    name: str = "majority"
    fields: tuple[str, ...] = ()

    def predict(self, histories: Histories) -> np.ndarray:
        return np.tile(self.shares, (len(histories), 1))


def fit_majority(store: EventStore) -> Majority:
    share = training_shares(store) + 1e-6
    return Majority(share / share.sum(), int(training_mask(store).sum()))
