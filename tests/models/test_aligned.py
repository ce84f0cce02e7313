"""The composed model: soft tokens in their places, supervised nll, causality through the encoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.models import aligned
from tests.decoding.fakes import LABELS, Bytes, decoder

soft_token_vectors = jax.jit(aligned.soft_token_vectors, static_argnums=0)
input_embeddings = jax.jit(aligned.input_embeddings, static_argnums=0)
hidden = jax.jit(aligned.hidden, static_argnums=0)
supervised_nll = jax.jit(
    aligned.supervised_nll, static_argnums=0, static_argnames=("room", "chunk")
)


def batch_of(rows: int = 2, length: int = 24, events: int = 5, seed: int = 0):
    """Two dialogues a row, the first with `events` soft tokens, the second with one fewer."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(97, 122, (rows, length))
    segments = np.ones((rows, length), int)
    segments[:, 12:] = 2
    segments[:, -2:] = 0
    tokens[:, 1 : 1 + events] = Bytes().soft
    tokens[:, 13 : 13 + events - 1] = Bytes().soft
    positions = np.concatenate([np.arange(12), np.arange(12)])[None].repeat(rows, 0)
    count = 2 * events - 1
    fields = np.stack([rng.integers(0, n, (rows, count + 2)) for n in (7, 24, 11, len(LABELS))], -1)
    owner = np.array([1] * events + [2] * (events - 1) + [0, 0])[None].repeat(rows, 0)
    places = np.array([*range(events), *range(events - 1), 0, 0])[None].repeat(rows, 0)
    round_ids = np.zeros((rows, length), int)
    round_ids[:, 9:12] = 1
    round_ids[:, 18:20] = 1
    return {
        "tokens": jnp.asarray(tokens, jnp.int32),
        "segments": jnp.asarray(segments, jnp.int32),
        "positions": jnp.asarray(positions, jnp.int32),
        "round_ids": jnp.asarray(round_ids, jnp.int32),
        "soft_index": jnp.asarray(np.cumsum(tokens == Bytes().soft, 1) - 1, jnp.int32),
        "events": jnp.asarray(fields, jnp.int32),
        "event_segments": jnp.asarray(owner, jnp.int32),
        "event_positions": jnp.asarray(places, jnp.int32),
    }


@pytest.mark.parametrize("kind", ["sequence", "item"])
def test_placeholders_are_the_events_of_their_index(kind):
    one, batch = decoder(1, soft_tokens=kind), batch_of()
    again = (
        batch["tokens"].at[0, 18].set(Bytes().soft)
    )  # the second dialogue repeats its third event
    batch = {**batch, "tokens": again, "soft_index": batch["soft_index"].at[0, 18].set(7)}
    embeddings = input_embeddings(one.model, one.variables, batch)
    soft = soft_token_vectors(
        one.model,
        one.variables,
        batch["events"],
        batch["event_segments"],
        batch["event_positions"],
    )
    at = np.flatnonzero(np.asarray(batch["tokens"][0]) == Bytes().soft)
    assert len(at) == 10
    assert np.allclose(embeddings[0, at], soft[0, [*range(9), 7]], atol=1e-6)
    plain = aligned.embed(one.model, one.variables, batch["tokens"])
    rest = np.setdiff1d(np.arange(24), at)
    assert np.array_equal(embeddings[0, rest], plain[0, rest])


@pytest.mark.parametrize("kind", ["sequence", "item", "pooled"])
def test_second_tokens_are_of_a_projector_of_their_own(kind):
    """Index -1 - event: the same state through the second projector; the first ones stay as they are."""
    one, batch = decoder(1, soft_tokens=kind, recall=1), batch_of()
    arguments = (batch["events"], batch["event_segments"], batch["event_positions"])
    both = soft_token_vectors(one.model, one.variables, *arguments)
    first = soft_token_vectors(dataclasses.replace(one.model, recall=0), one.variables, *arguments)
    own = {**one.variables, "projector": one.variables["projector"]["recalled"]}
    second = soft_token_vectors(dataclasses.replace(one.model, recall=0), own, *arguments)
    count = first.shape[1]
    assert np.array_equal(both[:, :count], first)
    assert np.array_equal(both[:, count:], second)
    assert np.abs(first - second).max() > 1e-2
    index = batch["soft_index"].at[0, 16].set(-1 - 8)  # the second dialogue's last event
    embeddings = input_embeddings(one.model, one.variables, {**batch, "soft_index": index})
    assert batch["tokens"][0, 16] == Bytes().soft
    assert np.allclose(embeddings[0, 16], second[0, 8], atol=1e-6)
    assert np.allclose(embeddings[0, 15], first[0, 7], atol=1e-6)


def test_pooled_tokens_are_the_last_states_of_the_segments():
    sequence, pooled = decoder(1), decoder(1, soft_tokens="pooled")
    batch = batch_of()
    arguments = (batch["events"], batch["event_segments"], batch["event_positions"])
    every = soft_token_vectors(sequence.model, sequence.variables, *arguments)
    last = soft_token_vectors(pooled.model, pooled.variables, *arguments)
    assert np.allclose(last[:, :5], every[:, 4:5], atol=1e-6)
    assert np.allclose(last[:, 5:9], every[:, 8:9], atol=1e-6)


@pytest.mark.parametrize("chunk", [2, 3, 1024])
def test_supervised_nll_equals_the_naive_one(chunk):
    """1e-5: the same float32 logits, computed for gathered positions in chunks."""
    one, batch = decoder(1), batch_of()
    nll = supervised_nll(one.model, one.variables, batch, room=5, chunk=chunk)
    embeddings = input_embeddings(one.model, one.variables, batch)
    states = hidden(one.model, one.variables, embeddings, batch["positions"], batch["segments"])
    log_p = jax.nn.log_softmax(aligned.unembed(one.model, one.variables, states[:, :-1]))
    naive = -np.take_along_axis(log_p, np.asarray(batch["tokens"])[:, 1:, None], axis=-1)[..., 0]
    supervised = np.asarray(batch["round_ids"]) > 0
    assert np.allclose(nll[supervised], naive[supervised[:, 1:]], atol=1e-5)
    assert (np.asarray(nll)[~supervised] == 0).all()


def test_more_supervised_positions_than_room_is_not_silent():
    one, batch = decoder(1), batch_of()
    nll = supervised_nll(one.model, one.variables, batch, room=4, chunk=2)
    assert np.isnan(nll).all()


def test_no_gradient_from_later_events_or_other_dialogues():
    """Logits before the soft token of event j do not depend on events from j on (by gradient of the
    projected vectors), nor on the other dialogue of the row."""
    one, batch = decoder(1), batch_of(rows=1)
    arguments = (batch["events"], batch["event_segments"], batch["event_positions"])
    soft = soft_token_vectors(one.model, one.variables, *arguments)
    plain = aligned.embed(one.model, one.variables, batch["tokens"])

    def at(soft, position):
        embeddings = aligned.insert_soft_tokens(one.model, batch, plain, soft)
        states = hidden(one.model, one.variables, embeddings, batch["positions"], batch["segments"])
        return states[0, position].sum()

    slope = jax.jit(jax.grad(at))
    gradient = np.abs(slope(soft, 3)[0]).sum(-1)
    assert (gradient[:3] > 0).all()  # soft tokens at 1, 2, 3
    assert (gradient[3:] == 0).all()
    gradient = np.abs(slope(soft, 20)[0]).sum(-1)
    assert (gradient[:5] == 0).all()  # the first dialogue
    assert (gradient[5:9] > 0).all()


def test_changing_later_events_leaves_earlier_soft_tokens_unchanged():
    one, batch = decoder(1), batch_of(rows=1)
    changed = batch["events"].at[0, 3, 3].set((batch["events"][0, 3, 3] + 1) % len(LABELS))
    rest = (batch["event_segments"], batch["event_positions"])
    before = soft_token_vectors(one.model, one.variables, batch["events"], *rest)
    after = soft_token_vectors(one.model, one.variables, changed, *rest)
    assert np.array_equal(before[0, :3], after[0, :3])
    assert np.array_equal(before[0, 5:9], after[0, 5:9])  # the other dialogue
    assert not np.array_equal(before[0, 3], after[0, 3])


def test_none_needs_no_events():
    one, batch = decoder(1, soft_tokens="none"), batch_of()
    del batch["events"], batch["event_segments"], batch["event_positions"]
    model = dataclasses.replace(one.model, soft_id=-1)
    nll = supervised_nll(model, one.variables, batch, room=5, chunk=5)
    assert np.isfinite(nll).all()
