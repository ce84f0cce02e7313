"""Decoding state: a KV cache with per-row lengths, and the two ways to extend it.

Rows are right-padded; slot s of a row holds its s-th token. A chunk may have another number of tokens
in every row: the surplus is dropped.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bua_jax.models import aligned
from bua_jax.models.aligned import Aligned
from bua_jax.models.qwen2 import KVCache, empty_cache


class DecodingState(NamedTuple):
    """Cache of S slots per row, valid slots per row int32[B], hidden of the last token [B, H]."""

    cache: KVCache
    lengths: jax.Array
    hidden: jax.Array


def empty_state(model: Aligned, batch: int, length: int) -> DecodingState:
    """No tokens yet, room for `length` per row."""
    config = model.llm.config
    hidden = jnp.zeros((batch, config.hidden_size), config.dtype)
    return DecodingState(empty_cache(config, batch, length), jnp.zeros(batch, jnp.int32), hidden)


def _extend(model, variables, state: DecodingState, embeddings, counts) -> DecodingState:
    """Appends counts[b] of the embeddings [B, C, H] to row b."""
    slots = state.cache.k.shape[3]
    offset = jnp.arange(embeddings.shape[1])
    positions = state.lengths[:, None] + offset
    index = jnp.where(offset < counts[:, None], positions, slots)
    mask = jnp.arange(slots) <= positions[:, :, None]
    hidden, cache = aligned.hidden(
        model, variables, embeddings, positions, mask, state.cache, index
    )
    assert cache is not None
    last = jnp.take_along_axis(hidden, jnp.maximum(counts - 1, 0)[:, None, None], axis=1)[:, 0]
    last = jnp.where((counts > 0)[:, None], last, state.hidden)
    return DecodingState(cache, state.lengths + counts, last)


@functools.partial(jax.jit, static_argnames=("model",), donate_argnums=(2,))
def append_with_events(
    model: Aligned,
    variables: Any,
    state: DecodingState,
    tokens: jax.Array,
    soft_index: jax.Array,
    counts: jax.Array,
    events: jax.Array,
    event_segments: jax.Array,
) -> DecodingState:
    """Appends turns with placeholders: tokens and soft_index int32[B, C], events int32[B, L, 4]."""
    # Padding stays at position 0: beyond the encoder's table an embedding look-up gives NaN.
    positions = jnp.where(event_segments > 0, jnp.arange(events.shape[1]), 0)
    batch = {
        "tokens": tokens,
        "soft_index": soft_index,
        "events": events,
        "event_segments": event_segments,
        "event_positions": positions,
    }
    return _extend(
        model, variables, state, aligned.input_embeddings(model, variables, batch), counts
    )


@functools.partial(jax.jit, static_argnames=("model",), donate_argnums=(2,))
def append(
    model: Aligned, variables: Any, state: DecodingState, tokens: jax.Array, counts: jax.Array
) -> DecodingState:
    """Appends counts[b] of tokens int32[B, C] (no placeholders) to row b."""
    embeddings = aligned.embed(model, variables, tokens)
    return _extend(model, variables, state, embeddings, counts)


@functools.partial(jax.jit, static_argnames=("model",))
def logits(model: Aligned, variables: Any, state: DecodingState) -> jax.Array:
    """float32[B, V] of the next token."""
    return aligned.unembed(model, variables, state.hidden)


@functools.partial(jax.jit, static_argnames=("model", "max_new", "stop"), donate_argnums=(2,))
def greedy(
    model: Aligned, variables: Any, state: DecodingState, *, max_new: int, stop: int
) -> tuple[DecodingState, jax.Array, jax.Array]:
    """Greedy decoding until every row has the stop token or `max_new` tokens.

    Returns (state, tokens int32[B, max_new], counts int32[B]); counts exclude the stop token, which
    is in the cache of every row in the end, also of rows cut at `max_new`.
    """
    batch = state.lengths.shape[0]

    def going(carry) -> jax.Array:
        step, _, _, _, done = carry
        return (step < max_new) & ~jnp.all(done)

    def body(carry):
        step, state, tokens, counts, done = carry
        token = jnp.argmax(aligned.unembed(model, variables, state.hidden), axis=-1)
        done = done | (token == stop)
        live = (~done).astype(jnp.int32)
        tokens = tokens.at[:, step].set(jnp.where(done, stop, token))
        state = _extend(
            model, variables, state, aligned.embed(model, variables, token[:, None]), live
        )
        return step + 1, state, tokens, counts + live, done

    start = (
        jnp.zeros((), jnp.int32),
        state,
        jnp.full((batch, max_new), stop, jnp.int32),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch, bool),
    )
    _, state, tokens, counts, _ = jax.lax.while_loop(going, body, start)
    closing = jnp.full((batch, 1), stop, jnp.int32)
    one = jnp.ones(batch, jnp.int32)
    return (
        _extend(model, variables, state, aligned.embed(model, variables, closing), one),
        tokens,
        counts,
    )
