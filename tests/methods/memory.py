"""Sixty-four windows without any rule: what is trained must be able to learn them by heart."""

import dataclasses

import numpy as np

from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import prediction_windows
from bua_jax.methods.neural import Predicted
from bua_jax.methods.protocol import histories_of
from bua_jax.training.events import EncoderSettings
from tests.events.stores import store_of

LENGTH, WINDOWS, LIVES, COPIES = 8, 64, 4, 8
SETTINGS = EncoderSettings(
    history_length=LENGTH, min_history=LENGTH, epochs=40, batch=8, patience=0, weight_decay=0.0
)


def memory_store() -> EventStore:
    """Drawn lives with `WINDOWS` windows in all, lived by training people, and once by validation people."""
    rng = np.random.default_rng(0)
    catalogue = simulated_store(6, 2, 0).catalogue
    labels = tuple(f"{one}{more}" for one in catalogue.behaviours for more in ("", " twice"))
    catalogue = dataclasses.replace(catalogue, behaviours=labels)
    lives = [
        [
            (i // 8, i % 8, int(rng.integers(3)), int(rng.integers(len(labels))))
            for i in range(events)
        ]
        for events in [LENGTH + WINDOWS // LIVES] * LIVES
    ]
    people, split = lives * (COPIES + 1), [0] * LIVES * COPIES + [1] * LIVES
    made = dataclasses.replace(store_of(people, split=split), catalogue=catalogue)
    return made.with_fingerprint()


def remembered(probabilities: Predicted, store: EventStore) -> float:
    """The share of the windows whose next behaviour is the likeliest."""
    windows = prediction_windows(store, "validation", history_length=LENGTH, min_history=LENGTH)
    assert len(windows) == WINDOWS
    histories, targets = histories_of(store, windows, LENGTH)
    return float(np.mean(probabilities(histories).argmax(1) == targets))
