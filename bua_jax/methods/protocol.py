"""What every predictor is: fitted on training users, asked for probabilities of the next behaviour."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bua_jax.events.schema import EventStore
from bua_jax.events.windows import WindowIndex, window_arrays


class Predictor(Protocol):
    """A fitted method. `fields`: what of an event it sees; ties are broken by label order."""

    @property
    def name(self) -> str: ...

    @property
    def fields(self) -> tuple[str, ...]: ...

    @property
    def num_training_windows(self) -> int: ...

    def predict(self, histories: "Histories") -> np.ndarray:
        """Probabilities float64[n, C]; rows sum to 1."""
        ...


@dataclass(frozen=True)
class Histories:
    """Histories as arrays, without their targets: see `window_arrays`."""

    fields: np.ndarray  # int32[n, L, 4]
    place_rank: np.ndarray  # int32[n, L]
    day: np.ndarray  # int32[n, L]
    n_events: np.ndarray  # int32[n]

    def __len__(self) -> int:
        return len(self.n_events)

    def last(self, field: int) -> np.ndarray:
        """int32[n]: a field of the last event."""
        return self.fields[np.arange(len(self)), self.n_events - 1, field]


def histories_of(
    store: EventStore, windows: WindowIndex, length: int
) -> tuple[Histories, np.ndarray]:
    """(histories, target behaviour int32[n])."""
    arrays = window_arrays(store, windows, length=length)
    seen = Histories(arrays["fields"], arrays["place_rank"], arrays["day"], arrays["n_events"])
    return seen, arrays["target_behaviour"]


def window_counts(histories: Histories, classes: int) -> np.ndarray:
    """float64[n, C]: events of each behaviour in each history."""
    n, length = histories.fields.shape[:2]
    inside = np.arange(length) < histories.n_events[:, None]
    flat = np.arange(n)[:, None] * classes + histories.fields[:, :, 3]
    return np.bincount(flat[inside], minlength=n * classes).reshape(n, classes).astype(float)
