"""A floor: what the history holds most."""

from dataclasses import dataclass

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.events.groups import training_mask
from bua_jax.events.schema import EventStore
from bua_jax.methods.majority import fit_majority
from bua_jax.methods.protocol import Histories, window_counts


@dataclass(frozen=True)
class WindowMajority:
    """The history's own shares; the training shares decide nothing but unseen behaviours."""

    shares: np.ndarray
    num_training_windows: int
    prior_events: float  # weight of the training shares in a window's distribution
    name: str = "window_majority"
    fields: tuple[str, ...] = ("behaviour",)

    def predict(self, histories: Histories) -> np.ndarray:
        counts = window_counts(histories, len(self.shares))
        # The prior is the same for all seen behaviours, so that ties fall to label order.
        unseen = np.where(counts > 0, 0.0, self.shares)
        weight = self.prior_events * np.divide(
            unseen,
            unseen.sum(1, keepdims=True),
            out=np.zeros_like(unseen),
            where=unseen.sum(1, keepdims=True) > 0,
        )
        mixed = counts + np.minimum(weight, 0.999)
        return mixed / mixed.sum(1, keepdims=True)


def fit_window_majority(store: EventStore, settings: Settings) -> WindowMajority:
    """settings: `config.methods.window_majority`."""
    shares, windows = fit_majority(store).shares, int(training_mask(store).sum())
    return WindowMajority(shares, windows, settings.prior_events)
