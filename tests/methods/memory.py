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

LENGTH, WINDOWS, PEOPLE = 8, 64, 4
SETTINGS = EncoderSettings(
    history_length=LENGTH, min_history=LENGTH, epochs=120, batch=4, patience=0, weight_decay=0.0
)


def memory_store() -> EventStore:
    """Training people of drawn events, `WINDOWS` windows in all; validation people live the same lives."""
    rng = np.random.default_rng(0)
    catalogue = simulated_store(6, 2, 0).catalogue
    lives = [
        [(i // 8, i % 8, int(rng.integers(3)), int(rng.integers(37))) for i in range(events)]
        for events in [LENGTH + WINDOWS // PEOPLE] * PEOPLE
    ]
    made = store_of(lives * 2, split=[0] * PEOPLE + [1] * PEOPLE)
    return dataclasses.replace(made, catalogue=catalogue).with_fingerprint()


def remembered(probabilities: Predicted, store: EventStore) -> float:
    """The share of the windows whose next behaviour is the likeliest."""
    windows = prediction_windows(store, "train", history_length=LENGTH, min_history=LENGTH)
    assert len(windows) == WINDOWS
    histories, targets = histories_of(store, windows, LENGTH)
    return float(np.mean(probabilities(histories).argmax(1) == targets))
