"""SASRec and BehaveGPT as predictors: an encoder's own head at the last event."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bua_jax.events.groups import training_mask
from bua_jax.events.schema import EventStore
from bua_jax.methods.protocol import Histories
from bua_jax.models.encoders import EncoderConfig
from bua_jax.training.events import EncoderSettings, predict_last, train_encoder


@dataclass(frozen=True)
class Neural:
    """A trained encoder."""

    config: EncoderConfig
    params: Any
    num_training_windows: int

    @property
    def name(self) -> str:
        return self.config.kind

    @property
    def fields(self) -> tuple[str, ...]:
        everything = self.config.kind == "behavegpt" or self.config.all_fields
        return ("weekday", "slot", "place", "behaviour") if everything else ("behaviour",)

    def predict(self, histories: Histories) -> np.ndarray:
        log_p = predict_last(self.config, self.params, histories.fields, histories.n_events)
        probabilities = np.exp(log_p.astype(np.float64))
        return probabilities / probabilities.sum(1, keepdims=True)


def from_encoder(config: EncoderConfig, params: Any, store: EventStore) -> Neural:
    """A predictor from parameters that are already trained."""
    return Neural(config, params, int(training_mask(store).sum()))


def fit(
    config: EncoderConfig,
    store: EventStore,
    settings: EncoderSettings,
    folder: Path | None = None,
) -> Neural:
    """Trains an encoder of its own; goes on with what is in `folder`, or keeps nothing without one."""
    params, _ = train_encoder(config, store, settings, folder)
    return from_encoder(config, params, store)
