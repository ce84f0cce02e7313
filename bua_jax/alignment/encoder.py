"""The file of a pretrained encoder."""

from typing import Any

from bua_jax.interop.huggingface import load_tree
from bua_jax.models.encoders import EncoderConfig

FILE = "encoder.safetensors"


def load_encoder(folder) -> tuple[EncoderConfig, Any, dict[str, str]]:
    """(config, parameters, metadata) of a finished encoder step. Raises `CheckpointError`."""
    params, metadata = load_tree(folder / FILE)
    return EncoderConfig.from_json(metadata["config"]), params, metadata
