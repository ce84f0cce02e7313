"""Pretraining of behaviour encoders: the next behaviour at every position, training users only."""

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bua_jax.basics.console import bar
from bua_jax.events.groups import training_shares
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import (
    WindowIndex,
    prediction_windows,
    sample_windows,
    window_arrays,
)
from bua_jax.models.encoders import EncoderConfig, build, encode_events

_VALIDATION_WINDOWS = 4000


@dataclass(frozen=True)
class EncoderSettings:
    """How an encoder is pretrained; lengths in events, rates per step."""

    history_length: int = 40
    min_history: int = 10
    epochs: int = 10
    batch: int = 64
    peak_lr: float = 1e-3
    weight_decay: float = 0.1
    dro_lambda: float = 0.0
    patience: int = 5  # epochs without a better validation log-loss before it stops
    seed: int = 42


def chunk_windows(store: EventStore, length: int, offset: int) -> WindowIndex:
    """Consecutive chunks of `length` events of training users, each followed by one more event."""
    users, starts, ends = [], [], []
    for user in store.users_of_split("train"):
        first, last = int(store.offsets[user]), int(store.offsets[user + 1])
        begin = np.arange(first - offset, last - 1, length)
        end = np.minimum(begin + length, last - 1)
        begin = np.maximum(begin, first)
        keep = end > begin
        users.append(np.full(keep.sum(), user))
        starts.append(begin[keep])
        ends.append(end[keep])
    user, start, end = np.concatenate(users), np.concatenate(starts), np.concatenate(ends)
    return WindowIndex(user.astype(np.int32), start, end, end + 1)


def segments_of(n_events: np.ndarray, length: int) -> np.ndarray:
    """int32[n, length]: 1 on events, 0 on padding."""
    return (np.arange(length) < n_events[:, None]).astype(np.int32)


def dro_weights(class_loss: jax.Array, shares: jax.Array) -> jax.Array:
    """Per-class weights of BehaveGPT's robust loss, float[C], from an EMA of the class losses.

    q_c is proportional to p_c exp(l_c / tau_c), tau_c = 2 (p_c / p_max)^0.25, so that rare classes may
    deviate more; the weight is q_c / p_c within [0.2, 5]. The published divergence and bound are not
    known; this is the implementable form that the README describes.
    """
    share = jnp.maximum(shares, 1e-6)
    tau = 2.0 * (share / share.max()) ** 0.25
    q = jax.nn.softmax(jnp.log(share) + class_loss / tau)
    return jnp.clip(q / share, 0.2, 5.0)


def encoder_loss(
    logits: jax.Array, targets: jax.Array, mask: jax.Array, weights: jax.Array, dro_lambda: float
) -> jax.Array:
    """(1 - lambda) mean CE + lambda mean(w_y CE) over mask; lambda 0 is cross-entropy exactly."""
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    if dro_lambda:
        nll = (1 - dro_lambda) * nll + dro_lambda * jax.lax.stop_gradient(weights)[targets] * nll
    return jnp.sum(nll * mask) / jnp.maximum(jnp.sum(mask), 1)


@functools.partial(jax.jit, static_argnames=("config",))
def _last_log_probabilities(config: EncoderConfig, params, fields, n_events):
    length = fields.shape[1]
    segments = (jnp.arange(length) < n_events[:, None]).astype(jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length), segments.shape)
    output = encode_events(build(config), params, fields, segments, positions)
    last = jnp.take_along_axis(output.logits, (n_events - 1)[:, None, None], axis=1)[:, 0]
    return jax.nn.log_softmax(last)


def predict_last(
    config: EncoderConfig, params: Any, fields: np.ndarray, n_events: np.ndarray, batch: int = 512
) -> np.ndarray:
    """log p of the behaviour after each history: int32[n, L, 4], int32[n] -> float32[n, C]."""
    n = len(fields)
    padded = -(-n // batch) * batch
    pad = ((0, padded - n), (0, 0), (0, 0))
    fields, counts = np.pad(fields, pad), np.pad(n_events, (0, padded - n), constant_values=1)
    parts = [
        np.asarray(
            _last_log_probabilities(config, params, fields[i : i + batch], counts[i : i + batch])
        )
        for i in range(0, padded, batch)
    ]
    return np.concatenate(parts)[:n] if parts else np.zeros((0, config.num_behaviours), np.float32)


def _optimizer(settings: EncoderSettings, steps: int) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine over `steps`; biases and norm scales do not decay."""
    warmup = max(1, min(100, steps // 10))
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.peak_lr, warmup, steps)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            schedule,
            weight_decay=settings.weight_decay,
            mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree),
        ),
    )


def _make_step(
    config: EncoderConfig,
    optimizer: optax.GradientTransformation,
    shares: jax.Array,
    dro_lambda: float,
):
    """(params, optimizer state, class losses, batch, key, robust) -> (the first three after it, loss)."""
    model = build(config)

    def loss_of(params, class_loss, batch, key, robust):
        fields = batch["fields"]
        positions = jnp.broadcast_to(jnp.arange(fields.shape[1]), fields.shape[:2])
        output = encode_events(
            model,
            params,
            fields,
            batch["mask"],
            positions,
            deterministic=False,
            rngs={"dropout": key},
        )
        weights = dro_weights(class_loss, shares)
        plain = encoder_loss(output.logits, batch["targets"], batch["mask"], weights, 0.0)
        if not dro_lambda:
            return plain, output.logits
        dro = encoder_loss(output.logits, batch["targets"], batch["mask"], weights, dro_lambda)
        return jnp.where(robust, dro, plain), output.logits

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, state, class_loss, batch, key, robust):
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, logits), grads = gradient(params, class_loss, batch, key, robust)
        updates, state = optimizer.update(grads, state, params)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
        one_hot = jax.nn.one_hot(batch["targets"], config.num_behaviours) * batch["mask"][..., None]
        count = one_hot.sum((0, 1))
        mean = (one_hot * nll[..., None]).sum((0, 1)) / jnp.maximum(count, 1)
        class_loss = jnp.where(count > 0, 0.98 * class_loss + 0.02 * mean, class_loss)
        return optax.apply_updates(params, updates), state, class_loss, loss

    return step


def _epoch(
    store: EventStore, settings: EncoderSettings, rng: np.random.Generator, steps: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of chunks at a drawn offset in a drawn order; the last is filled up with the first."""
    length = settings.history_length
    chunks = chunk_windows(store, length, int(rng.integers(0, length)))
    chunks = chunks.take(rng.permutation(len(chunks)))
    arrays = window_arrays(store, chunks, length=length)
    mask = segments_of(arrays["n_events"], length)
    after = np.minimum(chunks.start[:, None] + 1 + np.arange(length), chunks.end[:, None])
    targets = store.behaviour[after].astype(np.int32)
    for index in range(steps):
        rows = np.arange(index * settings.batch, (index + 1) * settings.batch) % len(chunks)
        yield {"fields": arrays["fields"][rows], "mask": mask[rows], "targets": targets[rows]}


def _validation(store: EventStore, settings: EncoderSettings) -> dict[str, np.ndarray]:
    """Windows of validation users as `window_arrays`."""
    length = settings.history_length
    windows = prediction_windows(
        store, "validation", history_length=length, min_history=settings.min_history
    )
    windows = sample_windows(windows, _VALIDATION_WINDOWS, settings.seed)
    return window_arrays(store, windows, length=length)


def _validate(
    config: EncoderConfig, params: Any, validation: Mapping[str, np.ndarray]
) -> dict[str, float]:
    log_p = predict_last(config, params, validation["fields"], validation["n_events"])
    target = validation["target_behaviour"]
    return {
        "validation_log_loss": -float(np.mean(log_p[np.arange(len(target)), target])),
        "validation_accuracy": float(np.mean(log_p.argmax(1) == target)),
    }


def train_encoder(
    config: EncoderConfig, store: EventStore, settings: EncoderSettings
) -> tuple[Any, list[dict[str, float]]]:
    """Trains on training users, stops early on validation users' log-loss.

    Returns (best parameters, one record per epoch: epoch, train_loss, validation_log_loss,
    validation_accuracy, seconds). Same seed, same parameters on CPU.
    """
    length = settings.history_length
    rng = np.random.default_rng(settings.seed)
    key = jax.random.key(settings.seed)
    example = jnp.zeros((1, length, 4), jnp.int32), jnp.ones((1, length), jnp.int32)
    params = build(config).init(key, *example, jnp.arange(length)[None])["params"]
    steps = -(-len(chunk_windows(store, length, 0)) // settings.batch)
    optimizer = _optimizer(settings, settings.epochs * steps)
    shares = jnp.asarray(training_shares(store), jnp.float32)
    step = _make_step(config, optimizer, shares, settings.dro_lambda)
    validation = _validation(store, settings)
    state, class_loss = optimizer.init(params), jnp.zeros(config.num_behaviours)
    best, best_loss, stale, records = params, np.inf, 0, []
    with bar() as display:
        task = display.add_task(f"encoder {config.kind}", total=settings.epochs * steps)
        for epoch in range(settings.epochs):
            begin, losses = time.monotonic(), []
            for batch in _epoch(store, settings, rng, steps):
                key, subkey = jax.random.split(key)
                params, state, class_loss, loss = step(
                    params, state, class_loss, batch, subkey, epoch > 0
                )
                losses.append(loss)
                display.advance(task)
            measured = _validate(config, params, validation)
            train_loss, seconds = float(np.mean(jax.device_get(losses))), time.monotonic() - begin
            records.append(
                {"epoch": epoch + 1, "train_loss": train_loss, **measured, "seconds": seconds}
            )
            if measured["validation_log_loss"] < best_loss:
                best, best_loss, stale = jax.device_get(params), measured["validation_log_loss"], 0
            else:
                stale += 1
                if stale >= settings.patience:
                    break
    return best, records
