"""Networks as predictors: an encoder by its own head at the last event (SASRec, BehaveGPT), or another.

What is shared by methods that read the base: the base, its vectors of labels, how they are trained.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.basics.config import Settings
from bua_jax.events.groups import training_mask
from bua_jax.methods.protocol import Counted, Data, Histories, Site

if TYPE_CHECKING:
    from bua_jax.alignment.bases import Base
    from bua_jax.models.encoders import EncoderConfig
    from bua_jax.training.events import EncoderSettings
    from bua_jax.training.networks import Network

Predicted = Callable[[Histories], np.ndarray]

FILE = "encoder.safetensors"
"""Absent where the run's own encoder is meant."""


def is_the_runs(config: Settings, kind: str, **sizes: Any) -> bool:
    """Whether the run's own encoder is of this kind and these sizes, so that nothing has to be trained."""
    own = config.encoder
    return own.kind == kind and all(own[name] == size for name, size in sizes.items())


def fit(site: Site, data: Data, kind: str, **sizes: Any) -> Mapping[str, Any]:
    """Trains an encoder of `kind` and other `sizes` than the run's as the run's was; goes on after a cut."""
    facts = {"training_windows": int(training_mask(data.store).sum())}
    if is_the_runs(site.config, kind, **sizes):
        return facts
    from bua_jax.alignment.encoder import encoder_config, encoder_metadata, encoder_settings
    from bua_jax.interop.huggingface import save_tree, tree_hash
    from bua_jax.training.events import train_encoder

    catalogue = data.store.catalogue
    config = dataclasses.replace(encoder_config(site.config, catalogue), kind=kind, **sizes)
    settings = encoder_settings(site.config)
    profile = site.config.execution.profile
    params, _ = train_encoder(config, data.store, settings, site.folder, profile=profile)
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


def save(path: Path, network: Any, variables: Mapping[str, Any]) -> None:
    """Writes a trained network, a dataclass of sizes, for `saved`."""
    from bua_jax.interop.huggingface import save_tree

    save_tree(path, variables, {"sizes": json.dumps(dataclasses.asdict(network))})


def saved(path: Path, build: Callable[[dict[str, Any]], "Network"]) -> Predicted:
    """As `predictor_of`, of a file of `save`; build: the network of its sizes. Raises `CheckpointError`."""
    from bua_jax.interop.huggingface import load_tree

    variables, said = load_tree(path)
    return predictor_of(build(json.loads(said["sizes"])), variables)


# ------------------------------------------------------------------------------- the base that is read


def base_of(config: Settings) -> "Base":
    """The run's base, its kernels plain: they are cut, or not looked at."""
    from bua_jax.alignment.bases import load_base
    from bua_jax.parallel.sharding import own_mesh

    model = ConfigDict({**config.model.to_dict(), "base_quantization": "none"})
    return load_base(model, own_mesh(config.execution.mesh))


def label_vectors(base: "Base", labels: Sequence[str]) -> np.ndarray:
    """float32[C, H]: of each label the mean of the base's embeddings of its tokens."""
    table, encode = base.params["embed_tokens"]["embedding"], base.tokenizer.encode
    rows = [np.asarray(table[np.asarray(encode(label))], np.float32) for label in labels]
    return np.stack([row.mean(0) for row in rows])


TRAINING = (
    "encoder.epochs",
    "encoder.batch",
    "encoder.patience",
    "encoder.validation",
    "windows.prediction_history",
    "windows.min_history",
)
"""What `settings_of` reads of the config beside `seed` and a page."""


def settings_of(config: Settings, page: Settings) -> "EncoderSettings":
    """As the encoder is trained, but for the page's `peak_lr` and `weight_decay`, by cross-entropy."""
    from bua_jax.training.events import EncoderSettings

    return EncoderSettings(
        history_length=config.windows.prediction_history,
        min_history=config.windows.min_history,
        epochs=config.encoder.epochs,
        batch=config.encoder.batch,
        patience=config.encoder.patience,
        validation=config.encoder.validation,
        peak_lr=page.peak_lr,
        weight_decay=page.weight_decay,
        seed=config.seed,
    )
