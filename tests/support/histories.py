"""Histories as the methods see them: of windows, and by hand."""

import numpy as np

from bua_jax.events.schema import EventStore
from bua_jax.events.windows import WindowIndex, window_arrays
from bua_jax.methods.protocol import Histories


def histories_of(
    store: EventStore, windows: WindowIndex, length: int
) -> tuple[Histories, np.ndarray]:
    """(histories, target behaviour int32[n])."""
    arrays = window_arrays(store, windows, length=length)
    seen = Histories(arrays["fields"], arrays["place_rank"], arrays["day"], arrays["n_events"])
    return seen, arrays["target_behaviour"]


def of(rows: list[list[int]]) -> Histories:
    """Histories of behaviours alone."""
    length = max(map(len, rows))
    fields = np.zeros((len(rows), length, 4), np.int32)
    for i, row in enumerate(rows):
        fields[i, : len(row), 3] = row
    zeros = np.zeros((len(rows), length), np.int32)
    return Histories(fields, zeros, zeros, np.asarray([len(r) for r in rows], np.int32))
