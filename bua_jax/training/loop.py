"""The one loop: steps, validation, logs, checkpoints, exact resume, of any problem."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu import profiler

from bua_jax.basics.console import bar, first_waited, notice
from bua_jax.basics.errors import BuaError, CheckpointError, Interrupted
from bua_jax.basics.interrupts import asked_to_stop
from bua_jax.parallel import processes, sharding
from bua_jax.training import checkpoint
from bua_jax.training.looks import look_scalars, make_look
from bua_jax.training.optimizer import (
    make_optimizer,
    partition,
    print_parts,
    print_trained,
    schedule,
)
from bua_jax.training.problem import LoopSettings, Problem, Scalars, Sums, UnitSums
from bua_jax.training.state import TrainState, create
from bua_jax.training.step import make_step, zero_sums
from bua_jax.training.weighting import Balancer
from bua_jax.training.writers import MetricWriter

_VANISHED = 1e-3  # share of the loss below which it is said that a unit's weight made it so


class TrainingStopped(BuaError):
    """Training cannot or must not go on: NaN, nothing supervised; says what to do."""


# --------------------------------------------------------------------------------- logs and checks


def train_scalars(
    problem: Problem, sums: Sums, rate: Any, seconds: float, waiting: float
) -> Scalars:
    """What is logged of the steps since the last log, which took `seconds`.

    `waiting`: seconds in which the host made batches and the device ran out of work: their share is the
    most that steps can have waited for their input.
    """
    step: Any = sums.step
    items = getattr(sums.problem, problem.items).total
    return {
        **problem.scalars(sums.problem),
        **unit_scalars(problem.units, sums.units),
        "train/learning_rate": float(rate),
        "train/grad_norm": float(step.grad_norm.total / step.steps.total),
        f"train/{problem.items}_per_second": float(items / max(seconds, 1e-9)),
        "train/input_share": waiting / max(seconds, 1e-9),
    }


def unit_scalars(names: Sequence[str], sums: UnitSums) -> Scalars:
    """What each unit that was there weighed, and its effective share of the loss and of the update.

    Shares add up to 1. Of the update, a unit's is the part of its weighted gradient along it, so one that
    conflicts with the others may be negative; with it come the gradients' norms and mean cosines.
    """
    seen = [i for i in range(len(names)) if sums.steps[i] > 0]
    found = {}
    for i in seen:
        found[f"train/weight/{names[i]}"] = sums.weight[i] / sums.steps[i]
        found[f"train/share/{names[i]}"] = sums.loss[i] / _whole(sums.loss)
    if sums.gram is not None:
        gram = sums.gram
        for i in seen:
            found[f"train/gradient_share/{names[i]}"] = gram.pull[i] / _whole(gram.pull)
            found[f"train/gradient_norm/{names[i]}"] = gram.norm[i] / sums.steps[i]
        for i, j in itertools.combinations(seen, 2):
            if gram.pairs[i, j] > 0:
                mean = gram.cosine[i, j] / gram.pairs[i, j]
                found[f"train/cosine/{names[i]}/{names[j]}"] = mean
    return {name: float(value) for name, value in found.items()}


def _whole(parts: Any) -> float:
    return float(np.sum(parts)) or math.nan


def vanished(names: Sequence[str], sums: UnitSums) -> dict[str, str]:
    """Units that weights make as good as nothing, each with what is to be said of it."""
    found = {}
    for i, name in enumerate(names):
        share, plain = sums.loss[i] / _whole(sums.loss), sums.plain[i] / _whole(sums.plain)
        if sums.steps[i] > 0 and abs(share) < _VANISHED and abs(share) < plain / 10:
            found[name] = (
                f"{name} has {share:.2g} of the loss, {plain:.2g} if all weighed the same (its weight is "
                f"{sums.weight[i] / sums.steps[i]:.2g}), so it is as good as not trained"
            )
    return found


def check_faults(balancer: Balancer) -> None:
    """Raises `TrainingStopped` for the first wrong answer of a method that weighs units."""
    if balancer.faults:
        raise TrainingStopped(
            f"{balancer.faults[0]} Nothing of it is saved: mend it, remove the step's folder and run again."
        )


def check_sane(counts: Mapping[str, Any], step: int, advice: str = "") -> None:
    """Raises `TrainingStopped` for what would otherwise be trained on unnoticed; counts of `StepSums`."""
    since = f"Steps {step - int(counts['steps']) + 1} to {step}"
    if counts["unsupervised"]:
        raise TrainingStopped(
            f"{since}: no token of a batch is supervised, so there is nothing to learn. {advice}"
        )
    if counts["not_finite"]:
        raise TrainingStopped(
            f"{since}: the loss or its gradient is NaN or infinite in {int(counts['not_finite'])} of "
            "them. Lower peak_lr or clip_norm; the last checkpoint is from before, so remove the "
            "step's folder to start it anew with another rate."
        )
    if counts["zero"]:
        raise TrainingStopped(
            f"{since}: the loss is exactly 0, which means that the answers are empty or masked. "
            f"{advice}"
        )


class Trace:
    """A profile of `count` steps, the first of them `first`, which TensorBoard shows beside metrics."""

    def __init__(self, folder: Path | None, first: int, count: int) -> None:
        """folder: of the run; None: there is no profile."""
        self.folder = (folder or Path()) / "tensorboard"
        self.first, self.count, self.on = first, count if folder else 0, False

    def before(self, step: int, pending: Any) -> None:
        """To be called before each step, with what the one before it computes."""
        if self.count and step == self.first:
            jax.block_until_ready(pending)
            profiler.start(str(self.folder))
            self.on = True
        elif self.on and step == self.first + self.count:
            jax.block_until_ready(pending)
            self.close()

    def close(self) -> None:
        if self.on:
            profiler.stop()
            notice(f"profile of {self.count} steps from {self.first} on in {self.folder}")
        elif self.count:
            notice(f"no profile: it was to begin at step {self.first}, before which this ended")
        self.on, self.count = False, 0


# ---------------------------------------------------------------------------------------- the loop


def fit(  # noqa: PLR0915 (the loop, in sections)
    problem: Problem,
    variables: Mapping[str, Any],
    parts: tuple[str, ...],
    settings: LoopSettings,
    folder: Path | None,
    mesh: jax.sharding.Mesh,
    identity: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains `parts` of the variables; returns (the best by validation, what was measured).

    Resumes from the newest checkpoint in folder/checkpoints, which must be of the same `identity`: N steps
    equal k steps, a kill, and N - k steps, bit for bit on CPU with as many feed workers; with another number
    the epoch of the data starts anew. Metrics go to metrics.jsonl and tensorboard/ in folder; without one
    nothing is written. Signals to stop save and raise `Interrupted`; what must not go on raises
    `TrainingStopped` before anything of it is saved.
    """
    # -- state: what is trained, and where the run stands
    trainable, frozen = partition(variables, parts)
    print_parts(variables, parts, problem.name)
    print_trained(trainable, problem.name)
    frozen = sharding.place(frozen, sharding.shardings(frozen, mesh))
    steps = settings.total_steps
    optimizer = make_optimizer(trainable, settings.optimizer, steps, problem.decayed)
    state = create(problem, trainable, optimizer, settings.seed)
    placement = sharding.shardings(state, mesh)
    state = sharding.place(state, placement)
    data = problem.data()
    recorded = {**identity, "feed": {"processes": jax.process_count(), **problem.feed}}
    manager = checkpoint.open_manager(folder and folder / "checkpoints")
    step, state = checkpoint.restore(manager, state, data, identity)
    if step:
        notice(f"resuming {problem.name} at step {step} of {steps}")
    best = _Best(folder and folder / "best", step, state.trainable, identity)

    # -- compiled functions, each for one shape: the first call compiles, all others run
    everywhere = sharding.replicated(mesh)
    run_step = _compiled(problem, optimizer, settings, (placement, everywhere))
    losses_of, rate = problem.validation(mesh), schedule(settings.optimizer, steps)
    look = _looking(problem, settings, everywhere)

    # -- steps: the host waits for the device only to log, validate or save
    started = begin = time.monotonic()
    first, waiting, several = step, 0.0, sharding.several_processes(mesh)
    sums, told = sharding.place(zero_sums(problem), everywhere), set[str]()
    with (
        MetricWriter(folder if processes.is_first() else None, start=step) as writer,
        contextlib.closing(Trace(folder, step + 3, settings.profile)) as trace,
        bar() as display,
        _asked(folder) as asked,
        contextlib.closing(data),
    ):
        task = display.add_task(problem.name, total=steps, completed=step)
        while step < steps and not best.is_stale(step, settings):
            wanted = time.monotonic()
            batch = sharding.shard_batch(next(data), mesh, settings.microbatches)
            if all(leaf.is_ready() for leaf in jax.tree.leaves(sums)):  # no step is under way
                waiting += time.monotonic() - wanted
            look(step, state, frozen, batch, writer)
            trace.before(step + 1, sums)
            state, sums = run_step(state, frozen, batch, sums)
            step += 1
            display.advance(task)
            last, validate, save, log = _due(step, settings)
            # Several processes stop at the same step, and agree on it only when they wait anyway.
            stop = log and processes.any_of(bool(asked)) if several else bool(asked)
            save, log = save or stop, log or stop

            if log:
                host = jax.device_get(sums)
                _look_at(problem, host, step, told)
                seconds = time.monotonic() - begin
                scalars = train_scalars(problem, host, rate(step - 1), seconds, waiting)
                writer.write_scalars(step, scalars)
                display.update(task, description=_described(problem, scalars))
                sums = sharding.place(zero_sums(problem), everywhere)

            if validate:
                measured = losses_of({**frozen, **state.trainable})
                state = _validated(state, problem, measured, everywhere)
                writer.write_scalars(step, measured)
                total = measured[f"validation/{problem.objective}"]
                left = (time.monotonic() - started) / (step - first) * (steps - step) / 60
                said = f"step {step}/{steps}, validation loss {total:.4f}, {left:.1f} min left"
                notice(f"{problem.name}: {said}")
                best.offer(step, total, state.trainable, data, recorded)
                last = last or best.is_stale(step, settings)

            if save or last:
                checkpoint.save(manager, step, state, data, recorded)
            if stop and not last:
                where = f"saved step {step} of {steps} in {folder}"
                by = asked[0] if asked else "SIGTERM"  # of another process
                raise Interrupted(by, f"{where}. Run the same command again to go on.")
            if log:
                begin, waiting = time.monotonic(), 0.0

    # -- the best model by validation loss
    trained = best.restored(state.trainable, identity)
    return trained, {"best_step": best.step, "validation_loss": best.loss, "steps": step}


def _compiled(
    problem: Problem, optimizer: Any, settings: LoopSettings, places: Any
) -> Callable[..., Any]:
    """A step in one program. Its first call compiles it in seconds to minutes, which is said."""
    one_step = make_step(problem, optimizer, settings.microbatches)
    jitted = jax.jit(one_step, donate_argnums=(0, 3), out_shardings=places)
    return first_waited(jitted, f"{problem.name}: compiling")


def _looking(problem: Problem, settings: LoopSettings, placement: Any) -> Callable[..., None]:
    """(step, state, frozen, batch, writer): logs the units' gradients of the next step, where it is due."""
    of_batch = jax.jit(make_look(problem, settings.microbatches), out_shardings=placement)

    def look(step: int, state: TrainState, frozen: Any, batch: Any, writer: MetricWriter) -> None:
        if settings.gradients_every and step % settings.gradients_every == 0:
            found = jax.device_get(of_batch(state, frozen, batch))
            writer.write_scalars(step + 1, look_scalars(problem.units, *found))

    return look


def _described(problem: Problem, scalars: Scalars) -> str:
    return f"{problem.name} loss {scalars[f'train/{problem.objective}']:.3f}"


def _look_at(problem: Problem, sums: Sums, step: int, told: set[str]) -> None:
    """Raises for what must not go on; says of units that are as good as not trained, once of each.

    told: the names of those of which it was said; they are added here.
    """
    check_faults(problem.balancer)
    check_sane(sums.step.compute(), step, problem.advice)
    for name, said in vanished(problem.units, sums.units).items():
        if name not in told:
            notice(f"{problem.name}, step {step}: {said}.")
        told.add(name)


def _validated(
    state: TrainState, problem: Problem, measured: Scalars, placement: Any
) -> TrainState:
    """The state with the units' validation losses, for a balancer that asks for them."""
    if not problem.balancer.validated:
        return state
    own = jnp.asarray(problem.validated(measured), jnp.float32)
    return state._replace(validation=sharding.place(own, placement))


def _asked(folder: Path | None) -> contextlib.AbstractContextManager[list[str]]:
    """Signals to stop; where nothing can be saved they act as ever."""
    return asked_to_stop("the step at hand") if folder else contextlib.nullcontext([])


class _Due(NamedTuple):
    last: bool
    validate: bool
    save: bool
    log: bool


def _due(step: int, settings: LoopSettings) -> _Due:
    """What is to be done after a step."""
    last = step == settings.total_steps
    validate = last or step % settings.evaluate_every == 0
    save = last or step % settings.checkpoint_every == 0
    log = validate or save or step == 1 or step % settings.log_every == 0
    return _Due(last, validate, save, log)


class _Best:
    """The trained parts with the lowest validation loss so far, kept in a folder of their own."""

    def __init__(
        self, folder: Path | None, up_to: int, like: Any, identity: Mapping[str, Any]
    ) -> None:
        """up_to: the resumed step; see `_best_loss`. Raises `CheckpointError` if the best is damaged."""
        self.manager = checkpoint.open_manager(folder, keep=1)
        self.loss = _best_loss(self.manager, up_to)
        if self.manager.all_steps():  # or it would be known when all is trained
            self.restored(like, identity)
        # Where a later one has replaced the best, that is found again before patience is over.
        self.step = max(self.manager.all_steps(), default=up_to)

    def offer(self, step: int, loss: float, trainable: Any, data: Any, recorded: Any) -> None:
        """Saves `trainable` if its loss is lower than those before."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            record = {**recorded, "validation_loss": loss}
            checkpoint.save(self.manager, step, {"trainable": trainable}, data, record)

    def is_stale(self, step: int, settings: LoopSettings) -> bool:
        """Whether the last `settings.patience` validations up to a step were no better."""
        validated = step // settings.evaluate_every - self.step // settings.evaluate_every
        return 0 < settings.patience <= validated

    def restored(self, like: Any, identity: Mapping[str, Any]) -> dict[str, Any]:
        """The trained parts, shaped and placed as `like`. Raises `TrainingStopped` if there are none."""
        step, best = checkpoint.restore(self.manager, {"trainable": like}, None, identity)
        if not step:
            raise TrainingStopped("No validation loss was finite, so there is no best model.")
        return best["trainable"]


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
