"""Event sequences as a problem of the loop: networks learn the next behaviour at every position."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics

from bua_jax.events.groups import training_shares
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import (
    WindowIndex,
    prediction_windows,
    sample_windows,
    window_arrays,
)
from bua_jax.models.encoders import EncoderConfig, build
from bua_jax.parallel import sharding
from bua_jax.training.loop import fit
from bua_jax.training.networks import Encoder, Network, predict_last
from bua_jax.training.optimizer import OptimizerSettings
from bua_jax.training.problem import Batch, LoopSettings, Scalars, Sum, Terms
from bua_jax.training.weighting import Balancer, equal
from bua_jax.training.writers import read_scalars

EventSums = metrics.Collection.create(
    log_loss=metrics.Average.from_output("log_loss"),  # of batches
    events=Sum.from_output("events"),
)


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
    validation: int = 4000  # windows of validation users that this is measured on; 0 = all
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
    known; this is the implementable form that docs/reproduction.md describes.
    """
    share = jnp.maximum(shares, 1e-6)
    tau = 2.0 * (share / share.max()) ** 0.25
    q = jax.nn.softmax(jnp.log(share) + class_loss / tau)
    return jnp.clip(q / share, 0.2, 5.0)


def encoder_loss(
    logits: jax.Array, targets: jax.Array, mask: jax.Array, weights: jax.Array
) -> jax.Array:
    """Mean over mask of w_y CE; weights float[C]: all 1 is cross-entropy exactly."""
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.sum(weights[targets] * nll * mask) / jnp.maximum(jnp.sum(mask), 1)


def mixed(weights: jax.Array, dro_lambda: float) -> jax.Array:
    """(1 - lambda) + lambda w: what a class weighs in (1 - lambda) CE + lambda w CE."""
    return (1 - dro_lambda) + dro_lambda * weights


class ClassLosses(NamedTuple):
    """What the robust loss remembers: EMA of the class losses, float[C], and steps so far, int32[]."""

    ema: jax.Array
    steps: jax.Array


def robust(shares: jax.Array, dro_lambda: float, after: int) -> Balancer:
    """`dro_weights`, mixed, once `after` steps have made the class losses known."""

    def combine(
        losses: jax.Array, gram: Any, state: ClassLosses, key: Any, validation: Any
    ) -> tuple[jax.Array, ClassLosses]:
        ema = jnp.where(jnp.isnan(losses), state.ema, 0.98 * state.ema + 0.02 * losses)
        steps = state.steps + 1
        weights = mixed(dro_weights(ema, shares), dro_lambda)
        return jnp.where(steps >= after, weights, 1), ClassLosses(ema, steps)

    return Balancer(lambda count: ClassLosses(jnp.zeros(count), jnp.zeros((), jnp.int32)), combine)


class EventBatches(Iterator[dict[str, np.ndarray]]):
    """Endless batches of the training users' chunks: an offset and an order are drawn for every epoch.

    fields int32[B, L, 4], mask and targets int32[B, L]; an epoch's last batch is filled up with its
    first chunks. The state is JSON.
    """

    def __init__(self, store: EventStore, settings: EncoderSettings, per_epoch: int) -> None:
        self._store, self._settings, self._per_epoch = store, settings, per_epoch
        self._rng = np.random.default_rng(settings.seed)
        self._before = self._rng.bit_generator.state  # as it was before the epoch was drawn
        self._arrays: dict[str, np.ndarray] = {}  # of the epoch, once it is drawn
        self._next = 0  # batch of the epoch

    def _draw(self) -> None:
        self._before = self._rng.bit_generator.state
        length = self._settings.history_length
        chunks = chunk_windows(self._store, length, int(self._rng.integers(0, length)))
        chunks = chunks.take(self._rng.permutation(len(chunks)))
        arrays = window_arrays(self._store, chunks, length=length)
        after = np.minimum(chunks.start[:, None] + 1 + np.arange(length), chunks.end[:, None])
        self._arrays = {
            "fields": arrays["fields"],
            "mask": segments_of(arrays["n_events"], length),
            "targets": self._store.behaviour[after].astype(np.int32),
        }

    def __next__(self) -> dict[str, np.ndarray]:
        if self._next == self._per_epoch:
            self._arrays, self._next = {}, 0
        if not self._arrays:
            self._draw()
        size = self._settings.batch
        first, count = self._next * size, len(self._arrays["mask"])
        rows = np.arange(first, first + size) % count
        self._next += 1
        return {name: array[rows] for name, array in self._arrays.items()}

    def get_state(self) -> dict[str, Any]:
        """The random numbers' state before the epoch, and the batch of it that comes next."""
        return {"before": self._before, "next": self._next}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = state["before"]
        self._draw()
        self._next = int(state["next"])

    def close(self) -> None:
        """There is nothing to end."""


@dataclass(frozen=True)
class Events:
    """The problem of a network (`training.problem.Problem`)."""

    network: Network
    store: EventStore
    settings: EncoderSettings

    objective, items = "log_loss", "events"
    advice = "Check the events with their card, data/card.md of the run."

    @property
    def feed(self) -> Mapping[str, int]:
        return {}

    @property
    def name(self) -> str:
        return self.network.name

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(self.store.catalogue.behaviours)

    @functools.cached_property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        chunks = chunk_windows(self.store, self.settings.history_length, 0)
        return -(-len(chunks) // self.settings.batch)

    @functools.cached_property
    def balancer(self) -> Balancer:
        if not self.settings.dro_lambda:
            return equal()
        shares = jnp.asarray(training_shares(self.store), jnp.float32)
        return robust(shares, self.settings.dro_lambda, self.per_epoch)

    def data(self) -> EventBatches:
        return EventBatches(self.store, self.settings, self.per_epoch)

    def prepared(self, batch: Batch) -> Batch:
        return batch

    def validated(self, scalars: Scalars) -> np.ndarray:
        return np.full(len(self.units), np.nan)

    def numerators(
        self, variables: Mapping[str, Any], batch: Batch, rows: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Terms]:
        logits = self.network.logits(variables, batch["fields"], batch["mask"], key)
        return self.scored(logits, batch, rows)

    def scored(self, logits: jax.Array, batch: Batch, rows: jax.Array) -> tuple[jax.Array, Terms]:
        """The cross-entropy of logits float[B, L, C] with each row of weights, and what is logged of it."""
        mask, targets = batch["mask"], batch["targets"]
        means = jnp.stack([encoder_loss(logits, targets, mask, weights) for weights in rows])
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        one_hot = jax.nn.one_hot(targets, self.network.classes) * mask[..., None]
        classes = jnp.stack([(one_hot * nll[..., None]).sum((0, 1)), one_hot.sum((0, 1))])
        sums = EventSums.single_from_model_output(log_loss=means[0], events=mask.sum())
        return means, Terms(jnp.ones(()), classes, sums)

    def empty(self) -> Any:
        return EventSums.empty()

    def scalars(self, sums: Any) -> Scalars:
        return {"train/log_loss": float(sums.log_loss.compute())}

    def validation_arrays(self) -> dict[str, np.ndarray]:
        """`window_arrays` of the validation people's windows that it is chosen on."""
        length = self.settings.history_length
        windows = prediction_windows(
            self.store,
            "validation",
            history_length=length,
            min_history=self.settings.min_history,
        )
        windows = sample_windows(windows, self.settings.validation, self.settings.seed)
        return window_arrays(self.store, windows, length=length)

    def validation(self, mesh: jax.sharding.Mesh) -> Callable[[Mapping[str, Any]], Scalars]:
        arrays = self.validation_arrays()
        target = arrays["target_behaviour"]

        def measure(variables: Mapping[str, Any]) -> Scalars:
            read = {part: sharding.to_host(variables[part]) for part in self.network.parts}
            log_p = predict_last(self.network, read, arrays["fields"], arrays["n_events"])
            return {
                "validation/log_loss": -float(np.mean(log_p[np.arange(len(target)), target])),
                "validation/accuracy": float(np.mean(log_p.argmax(1) == target)),
            }

        return measure

    def decayed(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: x.ndim > 1, tree)

    def optimizer(self, steps: int) -> OptimizerSettings:
        """Warm-up and cosine over `steps`."""
        return OptimizerSettings(
            peak_lr=self.settings.peak_lr,
            initial_lr=0.0,
            final_lr=0.0,
            warmup_share=max(1, min(100, steps // 10)) / steps,
            weight_decay=self.settings.weight_decay,
        )


def loop_settings(problem: Events, profile: int = 0) -> LoopSettings:
    """An epoch is validated and saved at its end; the rate's course is over all that there may be."""
    settings, steps = problem.settings, problem.settings.epochs * problem.per_epoch
    return LoopSettings(
        total_steps=steps,
        evaluate_every=problem.per_epoch,
        checkpoint_every=problem.per_epoch,
        log_every=problem.per_epoch,
        patience=settings.patience,
        profile=profile,
        seed=settings.seed,
        optimizer=problem.optimizer(steps),
    )


def fresh(config: EncoderConfig, settings: EncoderSettings) -> Any:
    """The encoder's parameters before training."""
    length = settings.history_length
    example = jnp.zeros((1, length, 4), jnp.int32), jnp.ones((1, length), jnp.int32)
    key = jax.random.key(settings.seed)
    init = jax.jit(build(config).init)  # op by op it would take twice as long to compile
    return init(key, *example, jnp.arange(length)[None])["params"]


def train(
    problem: Events,
    variables: Mapping[str, Any],
    rates: Mapping[str, float],
    folder: Path | None,
    config: Mapping[str, Any],
    mesh: jax.sharding.Mesh | None = None,
    profile: int = 0,
) -> dict[str, Any]:
    """Trains the parts that `rates` names, each at that multiple of the problem's rate; returns their best.

    config: of the network, which what is in `folder` must be of. See `train_encoder`.
    """
    mesh = mesh or sharding.make_mesh("1", jax.local_devices()[:1])
    identity = {
        "config": config,
        "settings": dataclasses.asdict(problem.settings),
        "data": problem.store.fingerprint,
    }
    how = loop_settings(problem, profile)
    optimizer = dataclasses.replace(how.optimizer, rates=rates)
    how = dataclasses.replace(how, optimizer=optimizer)
    with jax.set_mesh(mesh):
        best, _ = fit(problem, variables, tuple(rates), how, folder, mesh, identity)
    return sharding.to_host(best)


def train_encoder(
    config: EncoderConfig,
    store: EventStore,
    settings: EncoderSettings,
    folder: Path | None = None,
    mesh: jax.sharding.Mesh | None = None,
    profile: int = 0,
) -> tuple[Any, list[Scalars]]:
    """Trains on training users, stops early on validation users' log-loss.

    Returns (best parameters, one record per epoch: epoch, train_loss, validation_log_loss,
    validation_accuracy). Same seed, same parameters on CPU. What is in `folder` is gone on with, as by
    `training.loop.fit`; without one nothing is kept and there are no records. `mesh`: by default one
    device of this process, which then trains alone.
    """
    problem = Events(Encoder(config), store, settings)
    variables = {"encoder": fresh(config, settings)}
    said = dataclasses.asdict(config)
    best = train(problem, variables, {"encoder": 1.0}, folder, said, mesh, profile)
    records = epochs(read_scalars(folder), problem.per_epoch) if folder else []
    return best["encoder"], records


def epochs(scalars: list[Scalars], per_epoch: int) -> list[Scalars]:
    """What metrics.jsonl says of every epoch; its training loss is the mean of its batches'."""
    found, total, before = [], 0.0, 0.0
    for record in scalars:
        if "train/log_loss" in record:
            total += record["train/log_loss"] * (record["step"] - before)
            before = record["step"]
        if "validation/log_loss" in record:
            found.append(
                {
                    "epoch": record["step"] // per_epoch,
                    "train_loss": total / per_epoch,
                    "validation_log_loss": record["validation/log_loss"],
                    "validation_accuracy": record["validation/accuracy"],
                }
            )
            total = 0.0
    return found
