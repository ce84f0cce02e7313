"""What every behaviour encoder takes and returns."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bua_jax.models.qwen2 import causal_mask


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder; `dim` is the width of each of BehaveGPT's four embeddings, or of SASRec."""

    kind: str  # behavegpt or sasrec
    num_behaviours: int
    slots_per_day: int
    dim: int = 32
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.1
    max_events: int = 128
    num_places: int = 11
    all_fields: bool = False  # SASRec: sum four embeddings instead of the behaviour's alone

    @property
    def state_dim(self) -> int:
        return 4 * self.dim if self.kind == "behavegpt" else self.dim

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "EncoderConfig":
        return cls(**json.loads(text))


class EncoderOutput(NamedTuple):
    """states and items float32[B, S, D]; logits float32[B, S, C] of the behaviour that follows."""

    states: jax.Array
    items: jax.Array
    logits: jax.Array


def encode_events(
    encoder: nn.Module,
    params: Any,
    fields: jax.Array,
    segments: jax.Array,
    positions: jax.Array,
    **options: Any,
) -> EncoderOutput:
    """Applies an encoder: fields int32[B, S, 4], segments and positions int32[B, S] (0 = padding)."""
    output: Any = encoder.apply({"params": params}, fields, segments, positions, **options)
    return output


def attention_mask(segments: jax.Array) -> jax.Array:
    """bool[B, 1, S, S]; every row keeps itself, so that padding stays finite."""
    s = segments.shape[1]
    return (causal_mask(segments) | jnp.eye(s, dtype=bool))[:, None]


def dropout(key: jax.Array | None) -> dict[str, Any]:
    """How a module is applied with dropout drawn from `key`, or without."""
    return {} if key is None else {"deterministic": False, "rngs": {"dropout": key}}
