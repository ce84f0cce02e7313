"""Encoders: causal, blind to padding and other segments, robust loss that is cross-entropy at 0."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bua_jax.events.simulate import simulated_store
from bua_jax.models.encoders import EncoderConfig, build, encode_events
from bua_jax.training.events import (
    EncoderSettings,
    chunk_windows,
    dro_weights,
    encoder_loss,
    mixed,
    train_encoder,
)

CONFIGS = {
    "behavegpt": EncoderConfig("behavegpt", 9, 48, dim=8, num_layers=2, num_heads=2),
    "sasrec": EncoderConfig("sasrec", 9, 48, dim=16, num_layers=2, num_heads=1),
    "sasrec, all fields": EncoderConfig(
        "sasrec", 9, 48, dim=16, num_layers=2, num_heads=1, all_fields=True
    ),
}


encode = jax.jit(encode_events, static_argnums=0)


def fields_of(rng: np.random.Generator, batch: int, length: int) -> jnp.ndarray:
    high = np.asarray([7, 48, 11, 9])
    return jnp.asarray(rng.integers(0, high, (batch, length, 4)), jnp.int32)


def prepared(name: str, length: int = 10):
    model, rng = build(CONFIGS[name]), np.random.default_rng(0)
    fields = fields_of(rng, 2, length)
    segments = jnp.ones((2, length), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length), (2, length))
    params = jax.jit(model.init)(jax.random.key(0), fields, segments, positions)["params"]
    return model, params, fields, segments, positions


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes(name: str) -> None:
    model, params, *inputs = prepared(name)
    output = encode(model, params, *inputs)
    width = CONFIGS[name].state_dim
    assert output.states.shape == output.items.shape == (2, 10, width)
    assert output.logits.shape == (2, 10, 9)


@pytest.mark.parametrize("name", CONFIGS)
def test_later_events_change_nothing_before_them(name: str) -> None:
    model, params, fields, *rest = prepared(name)
    whole = encode(model, params, fields, *rest)
    for j in (1, 5, 9):
        changed = fields.at[:, j:, :].set((fields[:, j:, :] + 1) % jnp.asarray([7, 48, 11, 9]))
        other = encode(model, params, changed, *rest)
        assert jnp.array_equal(whole.states[:, :j], other.states[:, :j])
        assert jnp.array_equal(whole.logits[:, :j], other.logits[:, :j])
        assert not jnp.allclose(whole.states[:, j], other.states[:, j])


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_segments_equal_separate_sequences(name: str) -> None:
    model, params, fields, *_ = prepared(name, 10)
    segments = jnp.asarray([[1] * 4 + [2] * 3 + [0] * 3] * 2, jnp.int32)
    positions = jnp.asarray([[0, 1, 2, 3, 0, 1, 2, 0, 0, 0]] * 2, jnp.int32)
    packed = encode(model, params, fields, segments, positions)
    for part in (slice(0, 4), slice(4, 7)):
        alone = encode(
            model,
            params,
            fields[:, part],
            jnp.ones_like(segments[:, part]),
            positions[:, part],
        )
        # float32, another order of summation in attention
        assert jnp.allclose(packed.states[:, part], alone.states, atol=1e-5)
    assert jnp.isfinite(packed.states).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_items_know_no_context_and_states_do(name: str) -> None:
    model, params, fields, *rest = prepared(name)
    repeated = fields.at[:, 7].set(fields[:, 2])
    output = encode(model, params, repeated, *rest)
    assert jnp.array_equal(output.items[:, 2], output.items[:, 7])
    assert not jnp.allclose(output.states[:, 2], output.states[:, 7])


def test_sasrec_reads_behaviours_alone_unless_asked() -> None:
    for name, same in (("sasrec", True), ("sasrec, all fields", False)):
        model, params, fields, *rest = prepared(name)
        moved = fields.at[:, :, :3].set(0)
        one = encode(model, params, fields, *rest).logits
        two = encode(model, params, moved, *rest).logits
        assert bool(jnp.allclose(one, two)) is same


def test_sasrec_scores_are_the_item_table() -> None:
    model, params, *inputs = prepared("sasrec")
    output = encode(model, params, *inputs)
    table = params["behaviour"]["embedding"]
    assert jnp.allclose(output.logits, output.states @ table.T, atol=1e-5)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="behavegpt, sasrec"):
        build(EncoderConfig("gru", 9, 48))


def test_dro_at_zero_is_cross_entropy_exactly() -> None:
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(4, 6, 9)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 9, (4, 6)))
    mask = jnp.asarray(rng.integers(0, 2, (4, 6)))
    weights = jnp.asarray(rng.uniform(0.2, 5, 9), jnp.float32)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    expected = jnp.sum(nll * mask) / jnp.sum(mask)
    assert encoder_loss(logits, targets, mask, mixed(weights, 0.0)) == expected
    assert encoder_loss(logits, targets, mask, mixed(jnp.ones(9), 0.7)) == pytest.approx(
        float(expected), rel=1e-6
    )


def test_dro_weights_by_hand_in_float64() -> None:
    shares = np.asarray([0.7, 0.25, 0.05])
    class_loss = np.asarray([0.5, 1.0, 2.5])
    tau = 2 * (shares / 0.7) ** 0.25
    q = shares * np.exp(class_loss / tau)
    expected = np.clip(q / q.sum() / shares, 0.2, 5.0)
    found = dro_weights(jnp.asarray(class_loss, jnp.float32), jnp.asarray(shares, jnp.float32))
    assert np.allclose(found, expected, rtol=1e-5)
    assert found[2] > found[0]  # a rare class with a large loss weighs more


def test_chunks_hold_training_users_alone_and_every_target_once() -> None:
    store = simulated_store(20, 10, 2)
    chunks = chunk_windows(store, 8, 0)
    assert (store.split[chunks.user] == 0).all()
    targets = np.concatenate(
        [np.arange(a + 1, b + 1) for a, b in zip(chunks.start, chunks.end, strict=True)]
    )
    expected = [
        np.arange(store.offsets[u] + 1, store.offsets[u + 1]) for u in store.users_of_split("train")
    ]
    assert np.array_equal(np.sort(targets), np.concatenate(expected))


@pytest.mark.parametrize("dro_lambda", [pytest.param(0.0, marks=pytest.mark.long), 0.5])
def test_training_is_deterministic_learns_and_keeps_the_best(
    dro_lambda: float, tmp_path: Path
) -> None:
    store = simulated_store(30, 14, 2)
    config = EncoderConfig("behavegpt", 37, 48, dim=8, num_layers=1, num_heads=2)
    settings = EncoderSettings(
        history_length=20, epochs=3, batch=16, peak_lr=5e-3, dro_lambda=dro_lambda
    )
    one, records = train_encoder(config, store, settings, tmp_path)
    two, _ = train_encoder(config, store, settings)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, two))
    assert records[-1]["train_loss"] < records[0]["train_loss"] < np.log(37) + 0.2
    assert min(r["validation_log_loss"] for r in records) < np.log(37)
