"""What the engine runs compiled: rows read a chunk, are scored, or write until some have finished."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from bua_jax.decoding import grammar
from bua_jax.decoding.cache import (
    Chunk,
    Rows,
    Weights,
    embeddings_of,
    extend,
    logits,
    on_mesh,
    put,
    take,
)
from bua_jax.decoding.labels import (
    CandidateTree,
    LabelScores,
    LabelTree,
    score_candidates,
    score_labels,
)
from bua_jax.decoding.sampler import highest, sample
from bua_jax.models import aligned
from bua_jax.models.aligned import Aligned


class Slots(NamedTuple):
    """All rows, with the answers being written: tokens int32[B, N], counts int32[B], live bool[B]."""

    rows: Rows
    tokens: jax.Array
    counts: jax.Array
    live: jax.Array
    in_day: jax.Array  # bool[B], whether the answer is a day
    stream: jax.Array  # int32[B], of random numbers
    day: grammar.DayState


def placed(slots: Slots) -> Slots:
    """On a mesh the caches are spread and all else is on every device, before and after every call."""
    if not jax.sharding.get_abstract_mesh().shape:
        return slots
    rest = slots._replace(rows=slots.rows._replace(caches=()))
    rest = jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, P()), rest)
    return rest._replace(rows=rest.rows._replace(caches=on_mesh(slots.rows.caches)))


@functools.partial(jax.jit, static_argnames="model", donate_argnums=2)
def read(  # noqa: PLR0913 (jit donates one of them; a structure would hide which)
    model: Aligned,
    weights: Weights,
    slots: Slots,
    which,
    lengths,
    answers,
    in_day,
    stream,
    start,
    chunk: Chunk,
) -> Slots:
    """Rows which int32[n] of lengths int32[n] read a chunk; those of `answers` begin one."""
    some = take(slots.rows, which)._replace(lengths=lengths)
    some = extend(model, weights, some, embeddings_of(model, weights, chunk), chunk.counts)

    def at(old: jax.Array, new) -> jax.Array:
        return old.at[which].set(new, mode="drop")

    after = Slots(
        put(slots.rows, which, some),
        slots.tokens,
        at(slots.counts, 0),
        at(slots.live, answers),
        at(slots.in_day, in_day),
        at(slots.stream, stream),
        grammar.DayState(*(at(old, new) for old, new in zip(slots.day, start, strict=True))),
    )
    return placed(after)


@functools.partial(jax.jit, static_argnames=("model", "stop"))
def score(  # noqa: PLR0913 (as `read`)
    model: Aligned,
    weights: Weights,
    rows: Rows,
    which,
    lengths,
    chunk: Chunk,
    tree: LabelTree | CandidateTree,
    stop,
) -> LabelScores:
    """Scores after rows which int32[n] of lengths int32[n] read a chunk; the rows stay as they are."""
    some = take(rows, which)._replace(lengths=lengths)
    some = extend(model, weights, some, embeddings_of(model, weights, chunk), chunk.counts)
    if isinstance(tree, CandidateTree):
        return score_candidates(model, weights, some, tree)
    return score_labels(model, weights, some, tree, stop=stop)


def _keys(seed: jax.Array, stream: jax.Array, step: jax.Array) -> jax.Array:
    """A key for each row: of its stream int32[B] and the token int32[B] that is drawn."""
    return jax.vmap(lambda one, at: jax.random.fold_in(jax.random.fold_in(seed, one), at))(
        stream, step
    )


@functools.partial(
    jax.jit, static_argnames=("model", "stop", "max_new", "limits", "greedy"), donate_argnums=2
)
def decode(  # noqa: PLR0913 (as `read`)
    model: Aligned,
    weights: Weights,
    slots: Slots,
    tables: grammar.Tables | None,
    settings: tuple[jax.Array, jax.Array, jax.Array] | None,
    until: tuple[jax.Array, jax.Array],
    *,
    stop: int,
    max_new: int,
    limits: tuple[int, int, int] | None,
    greedy: bool,
) -> Slots:
    """Decodes all live rows `until` so many of them or more have finished, or have written so many tokens.

    settings: (temperature, top_p, seed) of days; limits: (events, tokens before closing, tokens) of one.
    The stop token is in the cache of every finished row, also of those cut at their limit.
    """
    batch = slots.live.shape[0]
    started = jnp.sum(slots.live)

    def going(state: tuple[Slots, jax.Array]) -> jax.Array:
        slots, left = state
        alive = jnp.sum(slots.live)
        return (alive > 0) & (started - alive < until[0]) & (left > 0)

    def body(state: tuple[Slots, jax.Array]) -> tuple[Slots, jax.Array]:
        slots, left = state
        scores = logits(weights, slots.rows.hidden)
        token, day, limit = highest(scores), slots.day, jnp.full(batch, max_new)
        if settings is not None and limits is not None:
            temperature, top_p, seed = settings
            keys = _keys(seed, slots.stream, slots.counts)
            if tables is None:
                everything = jnp.ones_like(scores, bool)
                drawn = sample(scores, everything, keys, temperature, top_p, greedy=greedy)
            else:
                full = (day.events >= limits[0]) | (slots.counts >= limits[1])
                legal = grammar.allowed(tables, day, full)
                candidates = tables.tokens[day.state]
                offered = jnp.take_along_axis(scores, candidates, axis=-1)
                choice = sample(offered, legal, keys, temperature, top_p, greedy=greedy)
                drawn = jnp.take_along_axis(candidates, choice[:, None], axis=-1)[:, 0]
                day = grammar.advance(tables, day, choice)
            token = jnp.where(slots.in_day, drawn, token)
            limit = jnp.where(slots.in_day, limits[2], limit)
        ends = (token == stop) | (slots.counts >= limit)
        token = jnp.where(ends, stop, token)
        writes = slots.live & ~ends
        at = jnp.where(writes, slots.counts, slots.tokens.shape[1])
        tokens = slots.tokens.at[jnp.arange(batch), at].set(token, mode="drop")
        word = aligned.embed(model, weights, token[:, None])
        read = slots.live.astype(jnp.int32)  # live rows read the stop token too
        rows = extend(model, weights, slots.rows, word, read)
        counts = slots.counts + writes
        slots = slots._replace(rows=rows, tokens=tokens, counts=counts, live=writes, day=day)
        return placed(slots), left - 1

    return jax.lax.while_loop(going, body, (slots, jnp.asarray(until[1])))[0]
