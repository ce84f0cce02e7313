"""Training's attention on TPUs: JAX's splash kernels, which skip blocks above the diagonal.

Source: `jax.experimental.pallas.ops.tpu.splash_attention`.
"""

import math
from typing import Any

import jax

from bua_jax.basics.errors import ConfigError
from bua_jax.parallel.rows import attend_by_shards

SMALLEST_BLOCK = 128  # lanes of a TPU's vector register: no block has fewer tokens
_LARGEST_BLOCK = 512


def check_splash(row_length: int, platform: str = "tpu") -> None:
    """Raises `ConfigError` for rows that blocks do not divide, and for a platform without the kernels."""
    if platform != "tpu":
        raise ConfigError(
            f"execution.attention='splash' runs on TPUs, but training is to run on {platform}: "
            "set --config.execution.attention=xla."
        )
    if row_length % SMALLEST_BLOCK:
        raise ConfigError(
            f"execution.attention='splash' takes rows of a multiple of {SMALLEST_BLOCK} tokens, but "
            f"row_length={row_length}: set row_length in the stage's config to "
            f"{math.ceil(row_length / SMALLEST_BLOCK) * SMALLEST_BLOCK}, or "
            "--config.execution.attention=xla."
        )


def block_of(row_length: int) -> int:
    """Queries, and keys, that a kernel takes at once: the largest block that divides the row."""
    return math.gcd(row_length, _LARGEST_BLOCK)


def splash_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Causal attention within segments: q [B,T,N,D], k and v [B,T,K,D], int32[B,T] -> [B,T,N,D].

    Padding (segment 0) attends to padding: its output is finite and meaningless. On the mesh of
    `jax.set_mesh` every device attends for its own rows and heads. `interpret` runs the kernels without a
    TPU, slowly: for tests. Raises `ConfigError` for a T that blocks do not divide.
    """
    check_splash(q.shape[1])

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        return _attend(q, k, v, segments, interpret)

    return attend_by_shards(attend, q, k, v, segments)


def _attend(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, interpret: bool
) -> jax.Array:
    """`splash_attention` on one device."""
    # Here, since Pallas takes a while to import and only TPUs need it.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    _, length, heads, width = q.shape
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    sizes: dict[str, Any] = dict.fromkeys(names, block_of(length))
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.CausalMask((length, length))] * heads),
        block_sizes=splash.BlockSizes(**sizes),
        residual_checkpoint_name="attention",  # what remat "dots" keeps: the forward runs once
        interpret=interpret,
    )
    ids = splash.SegmentIds(segments, segments)
    q, k, v = q.swapaxes(1, 2) * width**-0.5, k.swapaxes(1, 2), v.swapaxes(1, 2)
    y = jax.vmap(kernel)(q, k, v, ids)
    return y.swapaxes(1, 2)
