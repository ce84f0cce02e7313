"""The training loop of a stage: step, validation, logging, checkpoints, exact resume."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bua_jax.basics.console import bar, notice
from bua_jax.basics.errors import BuaError, CheckpointError, Interrupted
from bua_jax.basics.interrupts import asked_to_stop
from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.dialogue.rounds import ROUND_KINDS, TASKS
from bua_jax.feed.packing import THREADS, PackingPlan, batches, fixed_batches, plan_for
from bua_jax.models.aligned import Aligned, supervised_nll
from bua_jax.parallel import processes, sharding
from bua_jax.parallel.rows import row_shards
from bua_jax.training import checkpoint, losses, weighting
from bua_jax.training.optimizer import OptimizerSettings, make_optimizer, partition, schedule
from bua_jax.training.state import TrainState, create
from bua_jax.training.writers import MetricWriter

Batch = Mapping[str, jax.Array]
Statistics = dict[str, Any]
_CHUNK = 1024  # supervised tokens per vocabulary projection of a device, about


class TrainingStopped(BuaError):
    """Training cannot or must not go on: NaN, nothing supervised; says what to do."""


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


# ---------------------------------------------------------------------------------------- the step


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


def train_scalars(
    sums: Mapping[str, Any], rate: float, seconds: float, waiting: float
) -> dict[str, float]:
    """What is logged of the steps since the last log, which took `seconds`.

    `waiting`: seconds in which the host made batches and the device ran out of work: their share is the
    most that steps can have waited for their input.
    """
    return {
        **named(sums, "train"),
        "train/learning_rate": rate,
        "train/grad_norm": float(sums["grad_norm"] / sums["steps"]),
        "train/supervised_share": float(sums["supervised"] / sums["tokens"]),
        "train/tokens_per_second": float(sums["tokens"] / max(seconds, 1e-9)),
        "train/input_share": waiting / max(seconds, 1e-9),
    }


def check_sane(sums: Mapping[str, Any], step: int) -> None:
    """Raises `TrainingStopped` for what would otherwise be trained on unnoticed."""
    since = f"Steps {step - int(sums['steps']) + 1} to {step}"
    if sums["unsupervised"]:
        raise TrainingStopped(
            f"{since}: no token of a batch is supervised, so there is nothing to learn. Check the "
            "dialogues with: python -m bua_jax.annotate --show=3."
        )
    if sums["not_finite"]:
        raise TrainingStopped(
            f"{since}: the loss or its gradient is NaN or infinite in {int(sums['not_finite'])} of "
            "them. Lower peak_lr or clip_norm; the last checkpoint is from before, so remove the "
            "stage's folder to start it anew with another rate."
        )
    if sums["zero"]:
        raise TrainingStopped(
            f"{since}: the loss is exactly 0, which means that the answers are empty or masked. "
            "Check the dialogues with: python -m bua_jax.annotate --show=3."
        )


def evaluate(
    evaluate_batch: Callable[..., Statistics],
    variables: Mapping[str, Any],
    validation: Sequence[Batch],
) -> dict[str, float]:
    """Validation losses: per round kind, per task and in total."""
    sums = [evaluate_batch(variables, batch) for batch in validation]
    return named(jax.tree.map(lambda *x: np.sum(x, axis=0), *jax.device_get(sums)), "validation")


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

    Resumes from the newest checkpoint in folder/checkpoints: N steps equal k steps, a kill, and
    N - k steps, bit for bit on CPU with as many feed workers; with another number the epoch of the
    data starts anew. Metrics go to folder/metrics.jsonl and folder/tensorboard.
    SIGTERM and Ctrl-C save and raise `Interrupted`; NaN, zero loss and missing supervision raise
    `TrainingStopped` before anything of them is saved.
    """
    # -- state: what is trained, and where the run stands
    trainable, frozen = partition(variables, groups)
    frozen = sharding.place(frozen, sharding.shardings(frozen, mesh))
    optimizer = make_optimizer(trainable, settings.optimizer, settings.total_steps)
    weighted = TASKS if settings.task_weight_unit == "task" else ROUND_KINDS
    state = create(trainable, optimizer, len(weighted))
    placement = sharding.shardings(state, mesh)
    state = sharding.place(state, placement)
    data = batches(records, plan, settings.seed)
    feed = {"processes": jax.process_count(), "threads": THREADS, "workers": plan.workers}
    recorded = {**metadata, "feed": feed}  # for the reader: other counts are no other run
    manager = checkpoint.open_manager(folder / "checkpoints")
    best_manager = checkpoint.open_manager(folder / "best", keep=1)
    step, state = checkpoint.restore(manager, state, data, metadata)
    if step:
        notice(f"resuming {description} at step {step} of {settings.total_steps}")
    best_loss = _best_loss(best_manager, step)

    # -- compiled functions, each for one shape: the first call compiles, all others run
    everywhere = sharding.replicated(mesh)
    run_step = jax.jit(
        make_step(model, optimizer, plan, settings),
        donate_argnums=(0, 3),
        out_shardings=(placement, everywhere),
    )
    validation_plan = plan_for(validation_records, plan)

    @functools.partial(jax.jit, out_shardings=everywhere)
    def evaluate_batch(variables: Mapping[str, Any], batch: Batch) -> Statistics:
        nll, per_dialogue = batch_losses(model, variables, batch, validation_plan)
        return statistics(nll, per_dialogue, batch)

    validation = [
        sharding.shard_batch(b, mesh) for b in fixed_batches(validation_records, validation_plan)
    ]
    rate = schedule(settings.optimizer, settings.total_steps)

    # -- steps: the host waits for the device only to log, validate or save
    started = begin = time.monotonic()
    first, waiting = step, 0.0
    sums = sharding.place(zero_sums(), everywhere)
    with (
        MetricWriter(folder if processes.is_first() else None, start=step) as writer,
        bar() as display,
        asked_to_stop("the step at hand") as asked,
        contextlib.closing(data),
    ):
        task = display.add_task(description, total=settings.total_steps, completed=step)
        while step < settings.total_steps:
            wanted = time.monotonic()
            batch = sharding.shard_batch(next(data), mesh, settings.microbatches)
            idle = all(leaf.is_ready() for leaf in jax.tree.leaves(sums))  # no step is under way
            if idle:
                waiting += time.monotonic() - wanted
            state, sums = run_step(state, frozen, batch, sums)
            step += 1
            display.advance(task)
            last = step == settings.total_steps
            validate = last or step % settings.evaluate_every == 0
            save = last or step % settings.checkpoint_every == 0
            log = validate or save or step == 1 or step % settings.log_every == 0
            # Several processes stop at the same step, and agree on it only when they wait anyway.
            stop = (log or not processes.several()) and processes.any_of(bool(asked))
            save, log = save or stop, log or stop

            if log:
                host = jax.device_get(sums)
                check_sane(host, step)
                seconds = time.monotonic() - begin
                scalars = train_scalars(host, float(rate(step - 1)), seconds, waiting)
                writer.write_scalars(step, scalars)
                loss = scalars[f"train/{settings.loss}"]
                display.update(task, description=f"{description} loss {loss:.3f}")
                sums = sharding.place(zero_sums(), everywhere)

            if validate:
                measured = evaluate(evaluate_batch, {**frozen, **state.trainable}, validation)
                writer.write_scalars(step, measured)
                total = measured[f"validation/{settings.loss}"]
                where = f"{description}: step {step}/{settings.total_steps}"
                left = (time.monotonic() - started) / (step - first) * (settings.total_steps - step)
                notice(f"{where}, validation loss {total:.4f}, {left / 60:.1f} min left")
                if total < best_loss:
                    best_loss = total
                    record = {**recorded, "validation_loss": total}
                    checkpoint.save(
                        best_manager, step, {"trainable": state.trainable}, data, record
                    )

            if save:
                checkpoint.save(manager, step, state, data, recorded)
            if stop and not last:
                raise Interrupted(
                    asked[0] if asked else "SIGTERM",  # of another process
                    f"saved step {step} of {settings.total_steps} in {folder}. Run the same command "
                    "again to go on.",
                )
            if log:
                begin, waiting = time.monotonic(), 0.0

    # -- the best model by validation loss
    best_step, best = checkpoint.restore(
        best_manager, {"trainable": state.trainable}, None, metadata
    )
    if not best_step:
        raise TrainingStopped("No validation loss was finite, so there is no best model.")
    return best["trainable"], {"best_step": best_step, "validation_loss": best_loss, "steps": step}


def _best_loss(manager: Any, up_to: int) -> float:
    """Validation loss of the saved best; one from after the resumed step is dropped, and redone.

    A process killed while it saved that one may have left the best before it, whole or in part.
    """
    newest_first = sorted(manager.all_steps(), reverse=True)
    newer = [step for step in newest_first if step > up_to]
    loss = math.inf
    for step in newest_first[len(newer) :]:
        try:
            loss = float(checkpoint.read_metadata(manager, step)["validation_loss"])
            break
        except CheckpointError:
            if not newer:
                raise
            manager.delete(step)  # before the newer one, which tells that it was superseded
    for step in newer:
        manager.delete(step)
    return loss
