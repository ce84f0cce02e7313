"""A step of training on dialogues: their loss, its gradient, and the sums that are logged."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bua_jax.dialogue.rounds import ROUND_KINDS, TASKS
from bua_jax.feed.packing import PackingPlan
from bua_jax.models.aligned import Aligned, supervised_nll
from bua_jax.parallel.rows import row_shards
from bua_jax.training import losses, weighting
from bua_jax.training.optimizer import OptimizerSettings
from bua_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
Statistics = dict[str, Any]
_CHUNK = 1024  # supervised tokens per vocabulary projection of a device, about


@dataclass(frozen=True)
class TrainSettings:
    """How a stage is trained; counts in optimizer steps."""

    loss: str = "round_balanced"
    microbatches: int = 1
    total_steps: int = 100
    evaluate_every: int = 50
    checkpoint_every: int = 50
    log_every: int = 10
    task_weights: bool = False
    task_weight_unit: str = "task"  # task or round (its kind): what has an EMA loss and a weight
    task_weight_alpha: float = 1.0
    task_weight_decay: float = 0.9
    task_weight_floor: float = 0.05
    seed: int = 42
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)


def batch_losses(
    model: Aligned, variables: Mapping[str, Any], batch: Batch, plan: PackingPlan
) -> tuple[jax.Array, losses.DialogueLosses]:
    """nll float32[B, T] and the loss of every dialogue."""
    rows = max(1, len(batch["tokens"]) // row_shards())  # of a device
    chunks = -(-plan.max_supervised * rows // _CHUNK)
    chunk = -(-plan.max_supervised // chunks)  # equal chunks waste less than full ones
    nll = supervised_nll(model, variables, batch, room=plan.max_supervised, chunk=chunk)
    return nll, losses.dialogue_losses(nll, batch["round_ids"], batch["segments"], batch["tasks"])


def statistics(nll: jax.Array, per_dialogue: losses.DialogueLosses, batch: Batch) -> Statistics:
    """Sums and counts for logging; they add up over microbatches and steps."""
    return {
        "kind": losses.by_group(nll, batch["kinds"], len(ROUND_KINDS)),
        "task": losses.by_task(per_dialogue, len(TASKS)),
        "tokens": jnp.sum(batch["segments"] > 0).astype(jnp.float32),
        "supervised": jnp.sum(batch["round_ids"] > 0).astype(jnp.float32),
    }


def accumulated(of_part: Callable[[Batch], Any], batch: Batch, microbatches: int) -> Any:
    """Sum of `of_part` over microbatches. Part m has rows m, m + M, ..., of all devices."""
    parts = jax.tree.map(
        lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    shapes = jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], parts))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(
        lambda carry, part: (jax.tree.map(jnp.add, carry, of_part(part)), None), zero, parts
    )[0]


def make_gradient(model: Aligned, plan: PackingPlan, settings: TrainSettings):
    """(trainable, frozen, batch, weights) -> (loss, count, gradients, statistics).

    weights: float[K], of the tasks or round kinds. Numerators, counts and gradients are summed over
    microbatches first and divided by the count of the whole batch after.
    """
    unit = {"task": "tasks", "round": "kinds"}[settings.task_weight_unit]

    def numerator(trainable, frozen, weights, batch):
        nll, per_dialogue = batch_losses(model, {**frozen, **trainable}, batch, plan)
        total, count = losses.LOSSES[settings.loss](
            nll, batch["round_ids"], batch["segments"], weights[batch[unit]]
        )
        return total, (count, statistics(nll, per_dialogue, batch))

    def gradient(trainable, frozen, batch, weights):
        of_part = functools.partial(
            jax.value_and_grad(numerator, has_aux=True), trainable, frozen, weights
        )
        (total, (count, stats)), grads = accumulated(of_part, batch, settings.microbatches)
        grads = jax.tree.map(lambda g: g / jnp.maximum(count, 1), grads)
        return total / jnp.maximum(count, 1), count, grads, stats

    return gradient


def make_step(
    model: Aligned,
    optimizer: optax.GradientTransformation,
    plan: PackingPlan,
    settings: TrainSettings,
):
    """(state, frozen, batch, sums) -> (state, sums + this step's statistics); to be jitted once."""
    gradient = make_gradient(model, plan, settings)

    def step(state: TrainState, frozen, batch: Batch, sums: Statistics):
        weights = jnp.ones_like(state.weighting.ema)
        if settings.task_weights:
            weights = weighting.task_weights(
                state.weighting.ema,
                state.weighting.initial,
                settings.task_weight_alpha,
                floor=settings.task_weight_floor,
            )
        loss, count, grads, stats = gradient(state.trainable, frozen, batch, weights)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)

        total, number = stats["kind" if settings.task_weight_unit == "round" else "task"]
        tracked = weighting.update(
            state.weighting, total / jnp.maximum(number, 1), number > 0, settings.task_weight_decay
        )
        norm = optax.tree.norm(grads)
        step_stats = {
            "steps": 1,
            "grad_norm": norm,
            "unsupervised": count == 0,
            "zero": (count > 0) & (loss == 0),
            "not_finite": ~(jnp.isfinite(loss) & jnp.isfinite(norm)),
        }
        sums = jax.tree.map(jnp.add, sums, stats | step_stats)
        return TrainState(state.step + 1, trainable, opt_state, tracked), sums

    return step


def make_evaluation(model: Aligned, plan: PackingPlan) -> Callable[..., Statistics]:
    """(variables, batch) -> statistics; to be jitted once."""

    def evaluate_batch(variables: Mapping[str, Any], batch: Batch) -> Statistics:
        nll, per_dialogue = batch_losses(model, variables, batch, plan)
        return statistics(nll, per_dialogue, batch)

    return evaluate_batch


def weighted_units(settings: TrainSettings) -> tuple[str, ...]:
    """What has a weight of its own: tasks, or round kinds."""
    return TASKS if settings.task_weight_unit == "task" else ROUND_KINDS


def zero_sums() -> Statistics:
    """What `step` adds up between two logs, before the first step."""
    return {
        "kind": jnp.zeros((2, len(ROUND_KINDS) + 1)),
        "task": jnp.zeros((2, len(TASKS) + 1)),
        **{name: jnp.zeros(()) for name in ("tokens", "supervised", "grad_norm")},
        **{
            name: jnp.zeros((), jnp.int32)
            for name in ("steps", "unsupervised", "zero", "not_finite")
        },
    }


def named(stats: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Mean loss by round kind and task, and over all dialogues, of summed statistics."""
    kinds, tasks = stats["kind"], stats["task"]
    scalars = {
        f"{prefix}/kind/{name}": float(kinds[0][i] / kinds[1][i])
        for i, name in enumerate(ROUND_KINDS, 1)
        if kinds[1][i] > 0
    }
    for i, name in enumerate(TASKS, 1):
        if tasks[1][i] > 0:
            scalars[f"{prefix}/task/{name}"] = float(tasks[0][i] / tasks[1][i])
    scalars[f"{prefix}/round_balanced"] = float(tasks[0].sum() / max(tasks[1].sum(), 1))
    scalars[f"{prefix}/token_mean"] = float(kinds[0].sum() / max(kinds[1].sum(), 1))
    return scalars
