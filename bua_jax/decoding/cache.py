"""Decoding state of many rows: their KV caches, and the one forward that extends them.

Layers are unrolled over weights that are unstacked once (`prepare`): slicing a stacked [L, ...] weight
copies it in every step. Rows are right-padded; slot s of a row's cache holds its s-th token. A chunk
may have another number of tokens in every row: the surplus is dropped.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from bua_jax.basics.console import notice
from bua_jax.models import aligned, lora
from bua_jax.models.aligned import Aligned
from bua_jax.models.kernels import cpu
from bua_jax.models.quantization import is_quantized
from bua_jax.models.qwen2 import Block, KVCache, RMSNorm
from bua_jax.parallel.rows import row_and_head_axes

Weights = dict[str, Any]
CACHE_TYPES = ("float32", "bfloat16", "int8")


class Rows(NamedTuple):
    """Caches of every layer with S slots, valid slots int32[B], hidden state of the last token [B, H]."""

    caches: tuple[KVCache, ...]
    lengths: jax.Array
    hidden: jax.Array


class Chunk(NamedTuple):
    """Tokens to append: counts int32[n] of tokens int32[n, C].

    Placeholders among them stand for the events soft_index int32[n, C] points at; events int32[n, L, 4]
    and event_counts int32[n] are None where there are no placeholders.
    """

    tokens: Any
    counts: Any
    soft_index: Any = None
    events: Any = None
    event_counts: Any = None


def prepare(model: Aligned, variables: Any, dtype: str = "float32") -> Weights:
    """Variables as they are decoded with: a tree per layer and the unembedding as [H, V].

    The adapter is merged into a float32 base. On a CPU, not spread over a mesh, float32 matrices are in
    `Panels` where their kernel can be had, rounded to dtype, one of `WEIGHT_TYPES`. Elsewhere they are
    rounded alike and stay as long as they were, which is said.
    """
    weights = _unstack(model, variables)
    head = weights["head"]
    if head.dtype != jnp.float32:
        return weights
    narrow: Callable[[jax.Array, str], Any] = cpu.in_panels
    if len(head.sharding.device_set) > 1 or not cpu.available():
        if dtype == "float32":
            return weights
        notice(
            f"no kernel here reads weights in {dtype}: they are rounded to it and kept in float32"
        )
        narrow = cpu.rounded

    def packed(path: Any, x: Any) -> Any:
        return narrow(x, dtype) if path[-1] == jax.tree_util.DictKey("kernel") else x

    layers = weights["layers"]
    if not is_quantized(layers[0]["params"]["self_attn"]["o_proj"]["kernel"]):
        for i, layer in enumerate(layers):  # one at a time, so that there are not two copies of all
            layers[i] = jax.tree_util.tree_map_with_path(packed, layer)
    return {**weights, "head": narrow(head, dtype)}


@functools.partial(jax.jit, static_argnames="model")
def _unstack(model: Aligned, variables: Any) -> Weights:
    """Variables with a tree per layer, and the unembedding as [H, V] (`x @ W.T` is slow on a CPU).

    The adapter is merged into the base, unless that is quantised, and cannot hold it, or in half
    precision, which would round it.
    """
    kernel: Any = variables["base"]["layers"]["self_attn"]["o_proj"]["kernel"]
    if "adapter" in variables and not is_quantized(kernel) and kernel.dtype.itemsize >= 4:
        variables = aligned.merged(model, variables)
    elif "adapter" in variables and model.llm.lora is not None:
        base = lora.with_rows(variables["base"], variables["adapter"], model.llm.lora)
        variables = {**variables, "base": base}
    layers = {"params": variables["base"]["layers"]}
    if "adapter" in variables:
        layers["lora"] = variables["adapter"]["layers"]
    base = {name: value for name, value in variables["base"].items() if name != "layers"}
    if model.llm.config.tie_word_embeddings:
        head = base["embed_tokens"]["embedding"].T
    else:
        head = base.pop("lm_head")["kernel"]
    each = [jax.tree.map(lambda x, i=i: x[i], layers) for i in range(model.llm.config.num_layers)]
    rest = {name: variables[name] for name in ("encoder", "projector")}
    return {**rest, "base": base, "layers": each, "head": head}


def empty_rows(model: Aligned, batch: int, length: int, dtype: str) -> Rows:
    """No tokens yet, room for `length` per row; dtype of the caches is one of `CACHE_TYPES`."""
    config = model.llm.config
    heads = (batch, config.num_kv_heads)

    def layer() -> KVCache:
        k = jnp.zeros((*heads, config.head_dim, length), dtype)
        v = jnp.zeros((*heads, length, config.head_dim), dtype)
        if dtype != "int8":
            return KVCache(k, v)
        return KVCache(k, v, jnp.zeros((*heads, length)), jnp.zeros((*heads, length)))

    hidden = jnp.zeros((batch, config.hidden_size), config.dtype)
    caches = tuple(layer() for _ in range(config.num_layers))
    return Rows(caches, jnp.zeros(batch, jnp.int32), hidden)


def on_mesh(caches: tuple[KVCache, ...]) -> tuple[KVCache, ...]:
    """The caches spread over the mesh of `jax.set_mesh`, if any: rows over (data, fsdp), heads over tensor.

    An axis that does not divide is left whole.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return caches

    def spread(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, P(*row_and_head_axes(*x.shape[:2])))

    return jax.tree.map(spread, caches)


def forward(
    model: Aligned, weights: Weights, rows: Rows, embeddings, positions, mask=None, counts=None
) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
    """Final hidden states [B, T, H] of embeddings after each row, and their keys and values by layer.

    positions: int32[B, T]; mask: bool[B, T, T], what each of the new tokens attends to among them. With
    counts int32[B], that many are appended to each row's caches, which are returned, and the mask is
    bool[T, T], or None for a causal one (`attends_in_place`).
    """
    config = model.llm.config
    block, x = Block(config, model.llm.lora), embeddings
    new: list[Any] = []
    for layer, past in zip(weights["layers"], rows.caches, strict=True):
        x, pair = _layer(block, layer, x, positions, mask, past, rows.lengths, counts)
        new.append(pair)
    normed: Any = RMSNorm(config.rms_norm_eps).apply({"params": weights["base"]["norm"]}, x)
    return normed, new


@functools.partial(jax.jit, static_argnums=0)  # traced once for all layers, and inlined by XLA
def _layer(  # noqa: PLR0913 (what a block takes)
    block: Block, layer: Any, x, positions, mask, past, lengths, counts
):
    return block.apply(layer, x, positions, mask=mask, past=past, lengths=lengths, counts=counts)


def attends_in_place(weights: Weights, rows: Rows) -> bool:
    """Whether `forward` takes counts: a CPU's kernels do the attention."""
    return isinstance(weights["head"], cpu.Panels) and cpu.attends_in_place(rows.caches[0].k)


def extend(model: Aligned, weights: Weights, rows: Rows, embeddings, counts) -> Rows:
    """Appends counts[b] of the embeddings [B, C, H] to row b."""
    batch, length = embeddings.shape[:2]
    offset = jnp.arange(length)
    positions = rows.lengths[:, None] + offset
    if attends_in_place(weights, rows):
        hidden, pairs = forward(model, weights, rows, embeddings, positions, counts=counts)
        caches = tuple(KVCache(*pair) for pair in pairs)
    else:
        mask = jnp.broadcast_to(offset <= offset[:, None], (batch, length, length))
        hidden, new = forward(model, weights, rows, embeddings, positions, mask)
        slots = rows.caches[0].v.shape[2]
        index = jnp.where(offset < counts[:, None], positions, slots)
        # Never true. It tells XLA that all layers have read the caches before the first is written:
        # otherwise every step copies them all.
        index += slots * (hidden[:, :1, 0] > 3e38)
        caches = tuple(
            _written(cache, *pair, index) for cache, pair in zip(rows.caches, new, strict=True)
        )
    last = jnp.take_along_axis(hidden, jnp.maximum(counts - 1, 0)[:, None, None], axis=1)[:, 0]
    last = jnp.where((counts > 0)[:, None], last, rows.hidden)
    return Rows(caches, rows.lengths + counts, last)


def _written(cache: KVCache, k: jax.Array, v: jax.Array, index: jax.Array) -> KVCache:
    """The cache with k and v [B, kv_heads, T, D] in slots index int32[B, T]; those >= S are dropped."""
    row, whole = jnp.arange(len(index))[:, None], slice(None)

    def at(old: Any, place: tuple, values: jax.Array) -> jax.Array:
        return old.at[place].set(values.astype(old.dtype), mode="drop")

    def kept(k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (
            at(cache.k, (row, whole, whole, index), k.transpose(0, 2, 1, 3)),
            at(cache.v, (row, whole, index), v.transpose(0, 2, 1, 3)),
        )

    if cache.k_scale is None:
        return KVCache(*kept(k, v))
    (k, k_scale), (v, v_scale) = _int8(k), _int8(v)
    return KVCache(
        *kept(k, v),
        at(cache.k_scale, (row, whole, index), k_scale.transpose(0, 2, 1)),
        at(cache.v_scale, (row, whole, index), v_scale.transpose(0, 2, 1)),
    )


def _int8(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x [..., D] as whole numbers up to 127, and their scale [...]."""
    scale = jnp.maximum(jnp.abs(x).max(-1), 1e-20).astype(jnp.float32) / 127
    return jnp.round(x / scale[..., None]), scale


def embeddings_of(model: Aligned, weights: Weights, chunk: Chunk) -> jax.Array:
    """[n, C, H], soft tokens in their places."""
    if chunk.events is None:
        return aligned.embed(model, weights, chunk.tokens)
    event = jnp.arange(chunk.events.shape[1])
    segments = (event < chunk.event_counts[:, None]).astype(jnp.int32)
    batch = {
        "tokens": chunk.tokens,
        "soft_index": chunk.soft_index,
        "events": chunk.events,
        "event_segments": segments,
        # Padding stays at position 0: beyond the encoder's table a look-up gives NaN.
        "event_positions": jnp.where(segments > 0, event, 0),
    }
    return aligned.input_embeddings(model, weights, batch)


def with_room(rows: Rows, tokens: int) -> Rows:
    """The rows with free slots for that many more tokens, in caches without scales; a copy."""
    more = -(-tokens // 32) * 32  # slots stay a multiple of 32

    def padded(cache: KVCache) -> KVCache:
        before = ((0, 0), (0, 0))
        return KVCache(
            jnp.pad(cache.k, (*before, (0, 0), (0, more))),
            jnp.pad(cache.v, (*before, (0, more), (0, 0))),
        )

    return rows._replace(caches=tuple(map(padded, rows.caches)))


def take(rows: Rows, which: jax.Array) -> Rows:
    """The rows int32[n], in that order; an index >= B gives an empty row."""
    caches = jax.tree.map(lambda x: jnp.take(x, which, axis=0, mode="clip"), rows.caches)
    lengths = jnp.take(rows.lengths, which, mode="fill", fill_value=0)
    return Rows(caches, lengths, jnp.take(rows.hidden, which, axis=0, mode="clip"))


def put(rows: Rows, which: jax.Array, some: Rows) -> Rows:
    """Writes rows back to where `take` had them from; an index >= B is dropped."""
    caches = jax.tree.map(lambda x, y: x.at[which].set(y, mode="drop"), rows.caches, some.caches)
    lengths = rows.lengths.at[which].set(some.lengths, mode="drop")
    return Rows(caches, lengths, rows.hidden.at[which].set(some.hidden, mode="drop"))


def logits(weights: Weights, hidden: jax.Array) -> jax.Array:
    """[..., H] -> float32[..., V] (float64 where the model is)."""
    if isinstance(weights["head"], cpu.Panels):
        return hidden @ weights["head"]
    kind = jnp.promote_types(hidden.dtype, jnp.float32)
    return jnp.einsum("...h,hv->...v", hidden, weights["head"], preferred_element_type=kind)
