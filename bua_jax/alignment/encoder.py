"""The encoder that a config asks for, and the file of a pretrained one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bua_jax.basics.config import Settings
from bua_jax.events.schema import Catalogue
from bua_jax.interop.huggingface import load_tree
from bua_jax.models.encoders import EncoderConfig

if TYPE_CHECKING:  # imports optimizers and checkpoints, which asking does not need
    from bua_jax.training.events import EncoderSettings

FILE = "encoder.safetensors"


def load_encoder(folder: Path) -> tuple[EncoderConfig, Any, dict[str, str]]:
    """(config, parameters, metadata) of a finished encoder step. Raises `CheckpointError`."""
    params, metadata = load_tree(folder / FILE)
    return EncoderConfig.from_json(metadata["config"]), params, metadata


def encoder_config(run_config: Settings, catalogue: Catalogue) -> EncoderConfig:
    """Sizes of the encoder that the config asks for."""
    config, windows = run_config.encoder, run_config.windows
    return EncoderConfig(
        kind=config.kind,
        num_behaviours=len(catalogue.behaviours),
        slots_per_day=catalogue.slots_per_day,
        dim=config.dim,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout=config.dropout,
        max_events=max(windows.prediction_history, windows.generation_history),
    )


def encoder_settings(run_config: Settings) -> EncoderSettings:
    """How the config wants encoders trained (the baselines' too)."""
    from bua_jax.training.events import EncoderSettings

    config = run_config.encoder
    return EncoderSettings(
        history_length=run_config.windows.prediction_history,
        min_history=run_config.windows.min_history,
        epochs=config.epochs,
        batch=config.batch,
        peak_lr=config.peak_lr,
        weight_decay=config.weight_decay,
        dro_lambda=config.dro_lambda,
        patience=config.patience,
        validation=config.validation,
        seed=run_config.seed,
    )


def encoder_metadata(
    config: EncoderConfig, catalogue: Catalogue, data: str, digest: str
) -> dict[str, str]:
    """What the file of an encoder says of it; data: fingerprint of the events; digest: of its parameters."""
    return {
        "config": config.to_json(),
        "catalogue": catalogue.to_json(),
        "data": data,
        "hash": digest,
    }
