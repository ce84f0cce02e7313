"""Behaviour encoders behind one interface."""

from bua_jax.models.encoders.base import Encoder, EncoderConfig, EncoderOutput
from bua_jax.models.encoders.behavegpt import BehaveGPT
from bua_jax.models.encoders.sasrec import SASRec

__all__ = ["BehaveGPT", "Encoder", "EncoderConfig", "EncoderOutput", "SASRec", "build"]

KINDS = {"behavegpt": BehaveGPT, "sasrec": SASRec}


def build(config: EncoderConfig) -> BehaveGPT | SASRec:
    """The module for `config.kind`. Raises `ValueError` for an unknown kind."""
    if config.kind not in KINDS:
        raise ValueError(f"Unknown encoder {config.kind!r}; there are {', '.join(KINDS)}.")
    return KINDS[config.kind](config)
