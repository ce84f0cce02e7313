"""Behaviour encoders behind one interface."""

import flax.linen as nn

from bua_jax.models.encoders.base import EncoderConfig, EncoderOutput, dropout, encode_events
from bua_jax.models.encoders.behavegpt import BehaveGPT
from bua_jax.models.encoders.sasrec import SASRec

__all__ = [
    "BehaveGPT",
    "EncoderConfig",
    "EncoderOutput",
    "SASRec",
    "build",
    "dropout",
    "encode_events",
]

KINDS: dict[str, type[nn.Module]] = {"behavegpt": BehaveGPT, "sasrec": SASRec}


def build(config: EncoderConfig) -> nn.Module:
    """The module for `config.kind`. Raises `ValueError` for an unknown kind."""
    if config.kind not in KINDS:
        raise ValueError(f"Unknown encoder {config.kind!r}; there are {', '.join(KINDS)}.")
    module: type = KINDS[config.kind]
    return module(config)
