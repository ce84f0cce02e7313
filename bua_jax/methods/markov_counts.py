"""A floor: the history's counts and the last behaviour's successors, mixed."""

from dataclasses import dataclass

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.events.schema import EventStore
from bua_jax.methods.markov import Markov, fit_markov
from bua_jax.methods.protocol import Histories
from bua_jax.methods.window_majority import WindowMajority, fit_window_majority


@dataclass(frozen=True)
class MarkovCounts:
    """weight * window shares + (1 - weight) * Markov; the weight is chosen on validation users."""

    window: WindowMajority
    markov: Markov
    weight: float
    num_training_windows: int
    name: str = "markov_counts"
    fields: tuple[str, ...] = ("behaviour",)

    def predict(self, histories: Histories) -> np.ndarray:
        counted = self.window.predict(histories)
        return self.weight * counted + (1 - self.weight) * self.markov.predict(histories)


def fit_markov_counts(
    store: EventStore, validation: Histories, validation_targets: np.ndarray, methods: Settings
) -> MarkovCounts:
    """Chooses the mixing weight by validation log-loss; methods: `config.methods`, of the two mixed."""
    window = fit_window_majority(store, methods.window_majority)
    markov = fit_markov(store, methods.markov)
    counted, chained = window.predict(validation), markov.predict(validation)
    rows = np.arange(len(validation_targets))

    def log_loss(weight: float) -> float:
        mixed = weight * counted + (1 - weight) * chained
        return -float(np.mean(np.log(mixed[rows, validation_targets])))

    weight = min(np.linspace(0.05, 0.95, 19), key=log_loss)
    return MarkovCounts(window, markov, float(weight), markov.num_training_windows)
