"""LoRA (Hu et al., 2022) as a pytree of its own: `{"layers": {"self_attn": {"q_proj": {"a", "b"}}}}`.

y = x W + (x a) b * alpha / rank, PEFT's convention; a: [layers, in, rank], b: [layers, rank, out]. An
adapter may also hold `rows` [N, hidden], which stand in the place of some of the embedding's (PEFT's
`trainable_token_indices`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bua_jax.models.qwen2_config import Qwen2Config

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
MODULE_OF = {
    "q": "self_attn",
    "k": "self_attn",
    "v": "self_attn",
    "o": "self_attn",
    "gate": "mlp",
    "up": "mlp",
    "down": "mlp",
}


@dataclass(frozen=True)
class LoraConfig:
    """Which projections get an adapter, its rank and scale, and the tokens whose embeddings are trained."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = TARGETS
    tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.targets) - set(TARGETS)
        if unknown or not self.targets or self.rank < 1:
            raise ValueError(
                f"LoRA needs rank >= 1 and targets among {TARGETS}, not {self.targets}."
            )

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def kernel_shapes(config: Qwen2Config) -> dict[str, tuple[int, int]]:
    """(in, out) of each projection."""
    h, heads, kv = config.hidden_size, config.num_heads, config.num_kv_heads
    return {
        "q": (h, heads * config.head_dim),
        "k": (h, kv * config.head_dim),
        "v": (h, kv * config.head_dim),
        "o": (heads * config.head_dim, h),
        "gate": (h, config.intermediate_size),
        "up": (h, config.intermediate_size),
        "down": (config.intermediate_size, h),
    }


def init(
    key: jax.Array, lora: LoraConfig, config: Qwen2Config, embedding: jax.Array | None = None
) -> dict[str, Any]:
    """A fresh adapter: `a` Kaiming-uniform as in PEFT, `b` zero, `rows` the embedding's [V, H]; float32."""
    shapes = kernel_shapes(config)
    tree: dict[str, Any] = {}
    for name, subkey in zip(TARGETS, jax.random.split(key, len(TARGETS)), strict=True):
        if name not in lora.targets:
            continue
        fan_in, fan_out = shapes[name]
        bound = fan_in**-0.5  # kaiming_uniform(a=sqrt(5)) = U(-1/sqrt(fan_in), 1/sqrt(fan_in))
        a = jax.random.uniform(
            subkey, (config.num_layers, fan_in, lora.rank), jnp.float32, -bound, bound
        )
        b = jnp.zeros((config.num_layers, lora.rank, fan_out), jnp.float32)
        tree.setdefault(MODULE_OF[name], {})[f"{name}_proj"] = {"a": a, "b": b}
    if not lora.tokens:
        return {"layers": tree}
    assert embedding is not None
    rows = embedding[jnp.asarray(lora.tokens)].astype(jnp.float32)
    return {"layers": tree, "rows": rows}


def merge(base: Mapping[str, Any], adapter: Mapping[str, Any], lora: LoraConfig) -> dict[str, Any]:
    """Base parameters with the adapter added to its kernels and its rows put in, rounded once to their dtype.

    Computed in float32 (float64 where the adapter is).
    """
    layers = {name: dict(part) for name, part in base["layers"].items()}
    for module, projections in adapter["layers"].items():
        for name, pair in projections.items():
            old = layers[module][name]
            delta = jnp.einsum("lir,lro->lio", pair["a"], pair["b"]) * lora.scale
            kernel = (old["kernel"].astype(delta.dtype) + delta).astype(old["kernel"].dtype)
            layers[module][name] = {**old, "kernel": kernel}
    return {**with_rows(base, adapter, lora), "layers": layers}


def with_rows(
    base: Mapping[str, Any], adapter: Mapping[str, Any], lora: LoraConfig
) -> dict[str, Any]:
    """Base parameters whose embedding has the adapter's rows in the place of its own."""
    if not lora.tokens:
        return dict(base)
    table = base["embed_tokens"]["embedding"]
    rows = adapter["rows"].astype(table.dtype)
    return {**base, "embed_tokens": {"embedding": table.at[jnp.asarray(lora.tokens)].set(rows)}}
