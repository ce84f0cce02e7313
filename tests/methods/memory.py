"""Sixty-four windows without any rule: what is trained must be able to learn them by heart."""

import dataclasses

import numpy as np

from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import prediction_windows
from bua_jax.methods.neural import Predicted
from bua_jax.training.events import EncoderSettings
from tests.events.stores import store_of
from tests.support.histories import histories_of

LENGTH, FIRST, WINDOWS, LIVES, COPIES = 48, 8, 64, 4, 16
SETTINGS = EncoderSettings(
    history_length=LENGTH, min_history=FIRST, epochs=18, batch=8, patience=0, weight_decay=0.0
)


def memory_store() -> EventStore:
    """Drawn lives with `WINDOWS` windows in all, lived by training people, and once by validation people.

    A history is longer than a life: most offsets that an epoch may begin at cut none.
    """
    rng = np.random.default_rng(0)
    catalogue = simulated_store(6, 2, 0).catalogue
    lives = [
        [(i // 8, i % 8, int(rng.integers(3)), int(rng.integers(37))) for i in range(events)]
        for events in [FIRST + WINDOWS // LIVES] * LIVES
    ]
    people, split = lives * (COPIES + 1), [0] * LIVES * COPIES + [1] * LIVES
    made = dataclasses.replace(store_of(people, split=split), catalogue=catalogue)
    return made.with_fingerprint()


def remembered(probabilities: Predicted, store: EventStore) -> float:
    """The share of the windows whose next behaviour is the likeliest."""
    windows = prediction_windows(store, "validation", history_length=LENGTH, min_history=FIRST)
    assert len(windows) == WINDOWS
    histories, targets = histories_of(store, windows, LENGTH)
    return float(np.mean(probabilities(histories).argmax(1) == targets))
