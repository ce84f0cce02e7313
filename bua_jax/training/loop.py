"""The training loop of a stage: step, validation, logging, checkpoints, exact resume."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bua_jax.basics.console import bar, notice
from bua_jax.basics.errors import BuaError, CheckpointError, Interrupted
from bua_jax.basics.interrupts import asked_to_stop
from bua_jax.dialogue.prompts import TokenRecord
from bua_jax.feed.batches import Batches, fixed_batches
from bua_jax.feed.packing import THREADS, PackingPlan, plan_for
from bua_jax.models.aligned import Aligned
from bua_jax.parallel import processes, sharding
from bua_jax.training import checkpoint
from bua_jax.training.dialogues import (
    Batch,
    Statistics,
    TrainSettings,
    make_evaluation,
    make_step,
    named,
    weighted_units,
    zero_sums,
)
from bua_jax.training.optimizer import make_optimizer, partition, schedule
from bua_jax.training.state import create
from bua_jax.training.writers import MetricWriter


class TrainingStopped(BuaError):
    """Training cannot or must not go on: NaN, nothing supervised; says what to do."""


# --------------------------------------------------------------------------------- logs and checks


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


def _validation_of(
    model: Aligned, records: Sequence[TokenRecord], plan: PackingPlan, mesh: jax.sharding.Mesh
) -> Callable[[Mapping[str, Any]], dict[str, float]]:
    """variables -> validation losses on the records, packed once."""
    own = plan_for(records, plan)
    batch_of = jax.jit(make_evaluation(model, own), out_shardings=sharding.replicated(mesh))
    data = [sharding.shard_batch(batch, mesh) for batch in fixed_batches(records, own)]
    return lambda variables: evaluate(batch_of, variables, data)


# ---------------------------------------------------------------------------------------- the loop


def train(  # noqa: PLR0913, PLR0915 (the loop, in sections)
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

    Resumes from the newest checkpoint in folder/checkpoints: N steps equal k steps, a kill, and N - k steps,
    bit for bit on CPU with as many feed workers; with another number the epoch of the data starts anew.
    Metrics go to folder/metrics.jsonl and folder/tensorboard. Signals to stop save and raise `Interrupted`;
    NaN, zero loss and missing supervision raise `TrainingStopped`, and nothing of them is saved.
    """
    # -- state: what is trained, and where the run stands
    trainable, frozen = partition(variables, groups)
    frozen = sharding.place(frozen, sharding.shardings(frozen, mesh))
    optimizer = make_optimizer(trainable, settings.optimizer, settings.total_steps)
    state = create(trainable, optimizer, len(weighted_units(settings)))
    placement = sharding.shardings(state, mesh)
    state = sharding.place(state, placement)
    data = Batches(records, plan, settings.seed)
    feed = {"processes": jax.process_count(), "threads": THREADS, "workers": plan.workers}
    recorded = {**metadata, "feed": feed}  # for the reader: other counts are no other run
    manager = checkpoint.open_manager(folder / "checkpoints")
    step, state = checkpoint.restore(manager, state, data, metadata)
    if step:
        notice(f"resuming {description} at step {step} of {settings.total_steps}")
    best = _Best(folder / "best", step)

    # -- compiled functions, each for one shape: the first call compiles, all others run
    everywhere = sharding.replicated(mesh)
    run_step = jax.jit(
        make_step(model, optimizer, plan, settings),
        donate_argnums=(0, 3),
        out_shardings=(placement, everywhere),
    )
    losses_of = _validation_of(model, validation_records, plan, mesh)
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
            if all(leaf.is_ready() for leaf in jax.tree.leaves(sums)):  # no step is under way
                waiting += time.monotonic() - wanted
            state, sums = run_step(state, frozen, batch, sums)
            step += 1
            display.advance(task)
            last, validate, save, log = _due(step, settings)
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
                measured = losses_of({**frozen, **state.trainable})
                writer.write_scalars(step, measured)
                total = measured[f"validation/{settings.loss}"]
                left = (time.monotonic() - started) / (step - first) * (settings.total_steps - step)
                where = f"{description}: step {step}/{settings.total_steps}"
                notice(f"{where}, validation loss {total:.4f}, {left / 60:.1f} min left")
                best.offer(step, total, state.trainable, data, recorded)

            if save:
                checkpoint.save(manager, step, state, data, recorded)
            if stop and not last:
                where = f"saved step {step} of {settings.total_steps} in {folder}"
                by = asked[0] if asked else "SIGTERM"  # of another process
                raise Interrupted(by, f"{where}. Run the same command again to go on.")
            if log:
                begin, waiting = time.monotonic(), 0.0

    # -- the best model by validation loss
    best_step, trained = best.restored(state.trainable, metadata)
    return trained, {"best_step": best_step, "validation_loss": best.loss, "steps": step}


class _Due(NamedTuple):
    last: bool
    validate: bool
    save: bool
    log: bool


def _due(step: int, settings: TrainSettings) -> _Due:
    """What is to be done after a step."""
    last = step == settings.total_steps
    validate = last or step % settings.evaluate_every == 0
    save = last or step % settings.checkpoint_every == 0
    log = validate or save or step == 1 or step % settings.log_every == 0
    return _Due(last, validate, save, log)


class _Best:
    """The trained parts with the lowest validation loss so far, kept in a folder of their own."""

    def __init__(self, folder: Path, up_to: int) -> None:
        """up_to: the resumed step; see `_best_loss`."""
        self.manager = checkpoint.open_manager(folder, keep=1)
        self.loss = _best_loss(self.manager, up_to)

    def offer(self, step: int, loss: float, trainable: Any, data: Any, recorded: Any) -> None:
        """Saves `trainable` if its loss is lower than those before."""
        if loss < self.loss:
            self.loss = loss
            record = {**recorded, "validation_loss": loss}
            checkpoint.save(self.manager, step, {"trainable": trainable}, data, record)

    def restored(self, like: Any, metadata: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """(step, trained parts), shaped and placed as `like`. Raises `TrainingStopped` if there are none."""
        step, best = checkpoint.restore(self.manager, {"trainable": like}, None, metadata)
        if not step:
            raise TrainingStopped("No validation loss was finite, so there is no best model.")
        return step, best["trainable"]


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
