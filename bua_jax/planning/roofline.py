"""FLOPs, memory traffic and time of a training step, FLOPs and time of predictions, from sizes alone.

XLA's own cost analysis counts the body of a loop once, whatever its length: a model whose layers are
scanned would cost one layer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bua_jax.models import lora
from bua_jax.models.aligned import Aligned
from bua_jax.models.kernels import cpu
from bua_jax.models.kernels.splash import block_of
from bua_jax.models.qwen2 import ATTENTION_BLOCK
from bua_jax.models.qwen2_config import Qwen2Config
from bua_jax.planning.targets import Target


@dataclass(frozen=True)
class Work:
    """Of one step of all devices; events and positions are of padded rows, which are computed too."""

    tokens: int
    row_length: int
    events: int
    positions: int  # that are projected to the vocabulary
    encoder_size: int  # parameters
    projector_size: int


def flops(model: Aligned, trained: tuple[str, ...], work: Work) -> dict[str, float]:
    """FLOPs of a step of all devices: {"model": forward and backward, "executed": recomputing too}.

    A multiplication and an addition are two; norms, softmax and the optimizer are left out (below a
    hundredth). Attention is that of the implementation, by blocks of queries; of cudnn, that of xla.
    """
    c, adapter = model.llm.config, model.llm.lora
    assert adapter is not None
    shapes = lora.kernel_shapes(c)
    kernels = c.num_layers * sum(i * o for i, o in shapes.values())
    ranks = c.num_layers * sum(adapter.rank * sum(shapes[name]) for name in adapter.targets)
    blocks = {"splash": block_of(work.row_length), "cpu": cpu.ATTENTION_BLOCK}
    block = blocks.get(c.attention, ATTENTION_BLOCK)
    keys = c.num_layers * _mean_keys(work.row_length, block) * c.num_heads * c.head_dim
    dense, low = 2.0 * work.tokens * kernels, 2.0 * work.tokens * ranks
    attention = 4.0 * work.tokens * keys
    head = 2.0 * work.positions * c.hidden_size * c.vocab_size
    merged = 0.0
    if model.merge_adapter:  # once per step: a b, and its two gradients; the kernels' own gradient
        targets = c.num_layers * sum(math.prod(shapes[name]) for name in adapter.targets)
        backward = (4.0 * adapter.rank + 2.0 * work.tokens) * targets
        merged = 2.0 * adapter.rank * targets + (backward if "adapter" in trained else 0)
        low = 0.0
    soft = 2.0 * work.events * work.projector_size
    encoder = 2.0 * work.events * work.encoder_size
    forward = dense + low + attention + head + soft + encoder
    weights = (dense + head if "base" in trained else 0) + (low if "adapter" in trained else 0)
    projector = 2 * soft if "projector" in trained else 0
    backward = dense + low + 2 * attention + head + weights + projector
    again = dense + low + attention if c.remat == "full" else 0.0
    again += attention / 2 + head  # scores and logits are never kept
    if c.attention == "splash":  # its two backward kernels compute scores and their gradient each
        again += attention
    done = forward + backward + merged
    return {"model": done, "executed": done + again}


def _mean_keys(length: int, block: int) -> float:
    """Keys that a query of a row is scored with, in the mean: all up to the end of its block."""
    ends = [min(i + block, length) for i in range(0, length, block)]
    sizes = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    return sum(size * end for size, end in zip(sizes, ends, strict=True)) / length


def traffic(
    model: Aligned,
    given: Mapping[str, float],
    work: Work,
    mesh: Mapping[str, int],
    microbatches: int,
) -> float:
    """Bytes that a device must at least read or write per step.

    `given`: bytes of a device's share, by part; `mesh`: devices per axis. Counted are the base once
    per pass (read by the products, and written before where it is gathered), each layer's input
    saved and read, the logits of the vocabulary in float32, adapter and moments once. What one
    fusion hands to the next is not, so the truth is above.
    """
    c = model.llm.config
    passes = 3 if c.remat == "full" else 2
    rows, everything = mesh["data"] * mesh["fsdp"], math.prod(mesh.values())
    touched = 2 if mesh["fsdp"] > 1 else 1
    weights = given["base"] * mesh["fsdp"] * touched * passes * microbatches
    width = 2 if c.dtype == "bfloat16" else 4
    saved = 2 * c.num_layers * work.tokens * c.hidden_size * width / rows
    logits = 6 * work.positions * c.vocab_size * 4 / everything
    update = 2 * given["optimizer state"] + 3 * given.get("adapter", 0)
    return weights + saved + logits + update


def seconds(target: Target, executed: float, moved: float, sent: float, dtype: str) -> dict:
    """Times of a step if one resource alone counted; `moved` and `sent` are bytes of one device.

    "roofline" is the longest, as if all overlapped; "in turn" is their sum, as if nothing did.
    GPUs multiply float32 at half the rate of bfloat16 (TF32), TPUs round it to bfloat16.
    """
    slow = 2 if dtype == "float32" and target.device.platform == "cuda" else 1
    times = {
        "compute": executed * slow / target.count / target.device.peak,
        "memory": moved / target.device.bandwidth,
        "interconnect": sent / target.wire,
    }
    return {**times, "roofline": max(times.values()), "in turn": sum(times.values())}


def inference_flops(config: Qwen2Config, tokens: int, written: int, keys: int = 0) -> float:
    """FLOPs of reading tokens, of which `written` go through the head.

    keys: that they attend to, summed over them (by default attention is left out).
    """
    c = config
    kernels = sum(inputs * outputs for inputs, outputs in lora.kernel_shapes(c).values())
    layers = c.num_layers * (tokens * kernels + 2 * keys * c.num_heads * c.head_dim)
    return 2.0 * (layers + written * c.vocab_size * c.hidden_size)


def roofline_minutes(
    config: Qwen2Config, flops: float, *, samples: int = 20_000, prompt: int = 400, new: int = 455
) -> float:
    """Minutes that the multiplications of full predictions take at a device's peak, and no less.

    prompt: tokens read (history and instructions); new: tokens written in three rounds and the answer.
    """
    return samples * inference_flops(config, prompt + new, new) / flops / 60
