"""The training loop of a stage: step, validation, logging, checkpoints, exact resume."""

import contextlib
import functools
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bua_jax.console import bar, notice
from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.dialogue.rounds import ROUND_KINDS, TASKS
from bua_jax.errors import BuaError
from bua_jax.feed.packing import PackingPlan, batches, fixed_batches
from bua_jax.models.aligned import Aligned, supervised_nll
from bua_jax.training import checkpoint, losses, sharding, weighting
from bua_jax.training.optimizer import OptimizerSettings, make_optimizer, partition, schedule
from bua_jax.training.state import TrainState, create
from bua_jax.training.writers import MetricWriter


class TrainingStopped(BuaError):
    """Training cannot or must not go on: NaN, nothing supervised, or a signal; says what to do."""


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
    task_weight_alpha: float = 1.0
    task_weight_decay: float = 0.9
    task_weight_floor: float = 0.05
    seed: int = 42
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)


# ---------------------------------------------------------------------------------------- the step


def batch_losses(
    model: Aligned, variables: Mapping[str, Any], batch: Mapping[str, jax.Array], plan: PackingPlan
) -> tuple[jax.Array, losses.DialogueLosses]:
    """nll float32[B, T] and the loss of every dialogue."""
    limit = plan.max_supervised * batch["tokens"].shape[0] // plan.rows_per_batch
    nll = supervised_nll(model, variables, batch, max_supervised=limit)
    return nll, losses.dialogue_losses(nll, batch["round_ids"], batch["segments"], batch["tasks"])


def statistics(nll, per_dialogue, batch) -> dict[str, jax.Array]:
    """Sums and counts for logging; they add up over microbatches."""
    return {
        "kind": jnp.stack(losses.by_group(nll, batch["kinds"], len(ROUND_KINDS))),
        "task": jnp.stack(losses.by_task(per_dialogue, len(TASKS))),
        "tokens": jnp.sum(batch["segments"] > 0).astype(jnp.float32),
        "supervised": jnp.sum(batch["round_ids"] > 0).astype(jnp.float32),
    }


def make_step(model: Aligned, optimizer, plan: PackingPlan, settings: TrainSettings):
    """The jitted optimizer step: (state, frozen, batch) -> (state, statistics); state is donated."""

    def numerator(trainable, frozen, batch, weights):
        variables = {**frozen, **trainable}
        nll, per_dialogue = batch_losses(model, variables, batch, plan)
        weighted = nll * weights[batch["tasks"]]
        loss = losses.LOSSES[settings.loss]
        total, count = loss(weighted, batch["round_ids"], batch["segments"])
        return total, (count, statistics(nll, per_dialogue, batch))

    @functools.partial(jax.jit, donate_argnums=(0,))
    def step(state: TrainState, frozen, batch):
        weights = jnp.ones(len(TASKS) + 1)
        if settings.task_weights:
            weights = weighting.task_weights(
                state.weighting.ema,
                state.weighting.initial,
                settings.task_weight_alpha,
                floor=settings.task_weight_floor,
            )
        grad = jax.grad(numerator, has_aux=True)
        parts = jax.tree.map(
            lambda x: x.reshape(settings.microbatches, -1, *x.shape[1:]), dict(batch)
        )

        def accumulate(carry, part):
            return jax.tree.map(jnp.add, carry, grad(state.trainable, frozen, part, weights)), None

        first = jax.tree.map(lambda x: x[0], parts)
        carry = grad(state.trainable, frozen, first, weights)
        rest = jax.tree.map(lambda x: x[1:], parts)
        (grads, (count, stats)), _ = jax.lax.scan(accumulate, carry, rest)
        grads = jax.tree.map(
            lambda g: g / jnp.maximum(count, 1), grads
        )  # by the global denominator
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        mean = stats["task"][0] / jnp.maximum(stats["task"][1], 1)
        seen = (stats["task"][1] > 0).at[0].set(False)
        tracked = weighting.update(state.weighting, mean, seen, settings.task_weight_decay)
        stats = {**stats, "grad_norm": optax.global_norm(grads), "count": count}
        return TrainState(state.step + 1, trainable, opt_state, tracked), stats

    return step


# --------------------------------------------------------------------------------- logs and checks


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


def check_sane(stats: Mapping[str, Any], loss: float, step: int) -> None:
    """Raises `TrainingStopped` for what would otherwise be trained on unnoticed."""
    if float(stats["supervised"]) == 0:
        raise TrainingStopped(
            f"Step {step}: no token in the batch is supervised, so there is nothing to learn. Check the "
            "dialogues with: python -m bua_jax.annotate --show=3."
        )
    if not math.isfinite(loss) or not math.isfinite(float(stats["grad_norm"])):
        raise TrainingStopped(
            f"Step {step}: the loss is {loss} with gradient norm {float(stats['grad_norm'])}. Lower "
            "peak_lr or clip_norm; the last checkpoint is from before."
        )
    if loss == 0.0:
        raise TrainingStopped(
            f"Step {step}: the loss is exactly 0, which means that the answers are empty or masked."
        )


def evaluate(
    evaluate_batch, variables, validation: Sequence[Mapping[str, jax.Array]]
) -> dict[str, float]:
    """Validation losses: per round kind, per task and in total."""
    total: Any = None
    for batch in validation:
        stats = evaluate_batch(variables, batch)
        total = stats if total is None else jax.tree.map(jnp.add, total, stats)
    return named(jax.device_get(total), "validation")


@contextlib.contextmanager
def catch_sigterm() -> Iterator[list[bool]]:
    """A one-element list that turns True when SIGTERM arrives (main thread only)."""
    asked = [False]

    def ask(*_: object) -> None:
        asked[0] = True

    try:
        previous = signal.signal(signal.SIGTERM, ask)
    except ValueError:  # not the main thread: signals are somebody else's
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, previous)


# ---------------------------------------------------------------------------------------- the loop


def train(
    model: Aligned,
    variables: Mapping[str, Any],
    groups: tuple[str, ...],
    records: Sequence[TokenRecord],
    validation_records: Sequence[TokenRecord],
    plan: PackingPlan,
    settings: TrainSettings,
    folder: Path,
    metadata: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    description: str = "training",
) -> tuple[dict[str, Any], dict[str, float]]:
    """Trains `groups`; returns (best trained groups by total validation loss, what was measured).

    Resumes from the newest checkpoint in folder/checkpoints: N steps equal k steps, a kill, and N - k
    steps, bit for bit on CPU. SIGTERM saves and raises `TrainingStopped`.
    """
    # -- state: what is trained, and where the run stands
    trainable, frozen = partition(variables, groups)
    trainable = jax.device_put(trainable, sharding.shardings(trainable, mesh))
    frozen = jax.device_put(frozen, sharding.shardings(frozen, mesh))
    optimizer = make_optimizer(trainable, settings.optimizer, settings.total_steps)
    data = batches(records, plan, settings.seed)
    manager = checkpoint.open_manager(folder / "checkpoints")
    best_manager = checkpoint.open_manager(folder / "best", keep=1)
    step, state = checkpoint.restore(
        manager, create(trainable, optimizer, len(TASKS)), data, metadata
    )
    if step:
        notice(f"resuming {description} at step {step} of {settings.total_steps}")
    best_loss = _best_loss(best_manager, step)

    # -- compiled functions
    run_step = make_step(model, optimizer, plan, settings)

    @jax.jit
    def evaluate_batch(variables, batch):
        nll, per_dialogue = batch_losses(model, variables, batch, plan)
        return statistics(nll, per_dialogue, batch)

    validation = [sharding.shard_batch(b, mesh) for b in fixed_batches(validation_records, plan)]
    rate = schedule(settings.optimizer, settings.total_steps)

    # -- steps
    begin, tokens_seen, logged = time.monotonic(), 0.0, step
    with MetricWriter(folder) as writer, bar() as display, catch_sigterm() as asked:
        task = display.add_task(description, total=settings.total_steps, completed=step)
        while step < settings.total_steps:
            state, stats = run_step(state, frozen, sharding.shard_batch(next(data), mesh))
            step += 1
            display.advance(task)
            last = step == settings.total_steps
            if step % settings.log_every == 0 or last or step == 1:
                stats = jax.device_get(stats)
                scalars = named(stats, "train")
                loss = scalars[f"train/{settings.loss}"]
                check_sane(stats, loss, step)
                tokens_seen = float(stats["tokens"]) * (step - logged)
                seconds = time.monotonic() - begin
                begin, logged = time.monotonic(), step
                writer.write_scalars(
                    step,
                    {
                        **scalars,
                        "train/learning_rate": float(rate(step - 1)),
                        "train/grad_norm": float(stats["grad_norm"]),
                        "train/tokens_per_second": tokens_seen / max(seconds, 1e-9),
                        "train/supervised_share": float(stats["supervised"] / stats["tokens"]),
                    },
                )
                display.update(task, description=f"{description} loss {loss:.3f}")
            if step % settings.evaluate_every == 0 or last:
                measured = evaluate(evaluate_batch, {**frozen, **state.trainable}, validation)
                writer.write_scalars(step, measured)
                total = measured[f"validation/{settings.loss}"]
                notice(
                    f"{description}: step {step}/{settings.total_steps}, validation loss {total:.4f}"
                )
                if total < best_loss:
                    best_loss = total
                    record = {**metadata, "validation_loss": total}
                    checkpoint.save(
                        best_manager, step, {"trainable": state.trainable}, data, record
                    )
                begin, logged = time.monotonic(), step
            if step % settings.checkpoint_every == 0 or last or asked[0]:
                checkpoint.save(manager, step, state, data, metadata)
            if asked[0] and not last:
                raise TrainingStopped(
                    f"SIGTERM: saved step {step} of {settings.total_steps} in {folder}. Run the same "
                    "command again to go on."
                )

    # -- the best model by validation loss
    best_step, best = checkpoint.restore(
        best_manager, {"trainable": state.trainable}, data, metadata
    )
    if not best_step:
        raise TrainingStopped("No validation loss was finite, so there is no best model.")
    return best["trainable"], {"best_step": best_step, "validation_loss": best_loss, "steps": step}


def _best_loss(manager: Any, up_to: int) -> float:
    """Validation loss of the saved best; one from after the resumed step is dropped, to be redone."""
    for step in manager.all_steps():
        if step > up_to:
            manager.delete(step)
            continue
        return float(checkpoint.read_metadata(manager, step)["validation_loss"])
    return math.inf
