"""An encoder as a predictor: its own head at the last event. SASRec and BehaveGPT share this."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.events.groups import training_mask
from bua_jax.methods.protocol import Counted, Data, Histories, Site

if TYPE_CHECKING:
    from bua_jax.models.encoders import EncoderConfig
    from bua_jax.training.networks import Network

Predicted = Callable[[Histories], np.ndarray]

FILE = "encoder.safetensors"
"""Absent where the run's own encoder is meant."""


def is_the_runs(config: Settings, kind: str) -> bool:
    """Whether the run's own encoder is of this kind, so that nothing has to be trained."""
    return config.encoder.kind == kind


def fit(site: Site, data: Data, kind: str, **sizes: Any) -> Mapping[str, Any]:
    """Trains an encoder of `kind` and other `sizes` than the run's as the run's was; goes on after a cut."""
    facts = {"training_windows": int(training_mask(data.store).sum())}
    if is_the_runs(site.config, kind):
        return facts
    from bua_jax.alignment.encoder import encoder_config, encoder_metadata, encoder_settings
    from bua_jax.interop.huggingface import save_tree, tree_hash
    from bua_jax.training.events import train_encoder

    catalogue = data.store.catalogue
    config = dataclasses.replace(encoder_config(site.config, catalogue), kind=kind, **sizes)
    settings = encoder_settings(site.config)
    params, _ = train_encoder(config, data.store, settings, site.folder)
    metadata = encoder_metadata(config, catalogue, data.store.fingerprint, tree_hash(params))
    save_tree(site.folder / FILE, params, metadata)
    return facts


def load(site: Site, kind: str) -> Counted:
    """The encoder that `fit` trained, or the run's own."""
    own = site.inputs.get("encoder")
    return of_folder(site.folder if own is None else own.folder, site.inputs[f"fit/{kind}"].result)


def of_folder(folder: Path, facts: Mapping[str, Any]) -> Counted:
    """The trained encoder of a folder."""
    from bua_jax.alignment.encoder import load_encoder

    config, params, _ = load_encoder(folder)
    return Counted(predictor(config, params), facts)


def predictor(config: "EncoderConfig", params: Any) -> Predicted:
    """histories -> float64[n, C], of a trained encoder."""
    from bua_jax.training.networks import Encoder

    return predictor_of(Encoder(config), {"encoder": params})


def predictor_of(network: "Network", variables: Mapping[str, Any]) -> Predicted:
    """histories -> float64[n, C], of a trained network."""
    from bua_jax.training.networks import predict_last

    def probabilities(histories: Histories) -> np.ndarray:
        log_p = predict_last(network, variables, histories.fields, histories.n_events)
        found = np.exp(log_p.astype(np.float64))
        return found / found.sum(1, keepdims=True)

    return probabilities
