"""A quantised frozen base: the projections' kernels in int8 or nf4, everything else as it is.

int8 has one scale per output channel; nf4 (Dettmers et al., 2023, QLoRA) one per 64 inputs of a channel.
Kernels are dequantised where they are used, so gradients pass through them to the adapter and the
projector. Rounding and formats are those of `qwix`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bua_jax.basics.errors import ConfigError

MODES = ("none", "int8", "nf4")
_BLOCK = 64  # inputs per scale in nf4


def is_quantized(kernel: Any) -> bool:
    """Whether a kernel is quantised."""
    return hasattr(kernel, "qvalue")


def quantize(base: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """Base parameters whose stacked kernels float[L, in, out] are quantised; "none" changes nothing.

    Raises `ConfigError` for another mode, and for nf4 where a kernel's inputs are no multiple of 64.
    """
    if mode not in MODES:
        raise ConfigError(f"base_quantization={mode!r} is none of {', '.join(MODES)}.")
    if mode == "none":
        return dict(base)
    import qwix  # takes a second to import, which only those who quantise should wait for

    def one(kernel: jax.Array) -> Any:
        if mode == "nf4" and kernel.shape[1] % _BLOCK:
            raise ConfigError(
                f"nf4 needs kernels with a multiple of {_BLOCK} inputs, not {kernel.shape[1]}; "
                "use --config.model.base_quantization=int8."
            )
        tiles = {"tiled_axes": {1: _BLOCK}} if mode == "nf4" else {}
        kind = "nf4" if mode == "nf4" else jnp.int8
        how = {"channelwise_axes": (0, 2), "scale_dtype": jnp.float32, **tiles}
        return jax.jit(lambda x: _packed(qwix.quantize(x, kind, **how)))(kernel)

    return {**base, "layers": _with_kernels(base["layers"], one)}


def dequantize(base: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    """Base parameters with plain kernels: what a quantised base computes with."""
    return {**base, "layers": _with_kernels(base["layers"], lambda kernel: plain(kernel, dtype))}


def plain(kernel: Any, dtype: Any) -> jax.Array:
    """A kernel, or one layer's slice of it, as numbers of `dtype`."""
    if not is_quantized(kernel):
        return kernel
    import qwix

    return qwix.dequantize(_unpacked(kernel)).astype(dtype)


def _packed(kernel: Any) -> Any:
    """Two 4-bit values of neighbouring outputs in a byte: devices without 4-bit arrays pad them."""
    q = kernel.qvalue
    if q.dtype != jnp.uint4:
        return kernel
    pairs = q.reshape(*q.shape[:-1], -1, 2)
    return dataclasses.replace(kernel, qvalue=jax.lax.bitcast_convert_type(pairs, jnp.uint8))


def _unpacked(kernel: Any) -> Any:
    q = kernel.qvalue
    if q.dtype != jnp.uint8:
        return kernel
    pairs = jax.lax.bitcast_convert_type(q, jnp.uint4)
    return dataclasses.replace(kernel, qvalue=pairs.reshape(*q.shape[:-1], -1))


def _with_kernels(tree: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    changed = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            changed[name] = _with_kernels(value, change)
        else:
            changed[name] = change(value) if name == "kernel" else value
    return changed
