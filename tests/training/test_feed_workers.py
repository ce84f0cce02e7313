"""The loop with worker processes: counts are recorded, resume is exact at equal ones, else a notice."""

import dataclasses
import multiprocessing
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.parallel import sharding
from bua_jax.training import checkpoint, dialogues, loop
from bua_jax.training.optimizer import OptimizerSettings
from bua_jax.training.problem import Sum, Sums
from bua_jax.training.writers import read_scalars
from tests.programs import endure
from tests.support import tiny

STEPS = 8
RECORDS = tiny.records(40)
SETTINGS = dialogues.TrainSettings(
    total_steps=STEPS,
    evaluate_every=STEPS,
    checkpoint_every=2,
    optimizer=OptimizerSettings(peak_lr=1e-2),
)


def step(state: Any, frozen: Any, batch: Any, sums: Any) -> Any:
    """Parameters after it tell of all batches and of their order; it compiles at once."""
    seen = jnp.mean(batch["tokens"] * (1.0 + batch["positions"]))
    trainable = jax.tree.map(lambda x: 0.9 * x + seen, state.trainable)
    state = state._replace(step=state.step + 1, trainable=trainable)
    return state, counted(sums, 1)


def counted(sums: Sums, tokens: Any) -> Sums:
    """The sums with `tokens` more, and a step more if they are whole."""
    more = Sum(sums.problem.tokens.total + tokens)
    steps = Sum(sums.step.steps.total + jnp.floor(tokens))
    return Sums(sums.step.replace(steps=steps), sums.problem.replace(tokens=more), sums.units)


def slow_step(state: Any, frozen: Any, batch: Any, sums: Any) -> Any:
    """The same, after some hundred products that take the device a tenth of a second or more."""
    work = jnp.ones((512, 512)) * state.step
    work = jax.lax.fori_loop(0, 300, lambda _, x: jnp.tanh(x @ x), work)
    state, sums = step(state, frozen, batch, sums)
    return state, counted(sums, 1e-9 * jnp.abs(work[0, 0]))


def train(
    folder: Path,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    dies: bool = False,
    make: Any = step,
    pause: float = 0,
    settings: dialogues.TrainSettings = SETTINGS,
) -> Any:
    """Trains a few parameters; one that dies does so in its sixth batch. A batch takes `pause` seconds."""
    put, count = sharding.shard_batch, iter(range(1, 1000))

    def putting(batch: Any, mesh: Any, *parts: int) -> Any:
        # Batches of validation come first, without microbatches.
        if parts and next(count) == 6 and dies:
            raise KeyError("died")
        time.sleep(pause if parts else 0)
        return put(batch, mesh, *parts)

    mesh = sharding.make_mesh("1")
    plan = tiny.plan(RECORDS, workers=workers)
    assert plan.workers == workers
    with monkeypatch.context() as patch, jax.set_mesh(mesh):
        patch.setattr(loop, "make_step", lambda *_: make)
        patch.setattr(dialogues, "batch_losses", endure.light_losses)
        patch.setattr(sharding, "shard_batch", putting)
        problem = dialogues.Dialogues(None, plan, settings, RECORDS, tiny.records(8, 1))
        best, _ = loop.fit(
            problem,
            endure.light_variables(),
            ("projector", "adapter"),
            settings,
            folder,
            mesh,
            {"stage": "stage2"},
        )
    return best


def same(one: Any, other: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def test_resume_at_equal_and_at_other_counts(tmp_path: Path, capsys, monkeypatch) -> None:
    whole = train(tmp_path / "whole", 2, monkeypatch)
    assert multiprocessing.active_children() == []
    manager = checkpoint.open_manager(tmp_path / "whole" / "checkpoints")
    recorded = checkpoint.read_metadata(manager, STEPS)["feed"]
    assert recorded == {"processes": 1, "threads": 0, "workers": 2}

    with pytest.raises(KeyError, match="died") as died:
        train(tmp_path / "cut", 2, monkeypatch, dies=True)
    assert multiprocessing.active_children() == []  # though the error still refers to all there was
    assert died.value
    shutil.copytree(tmp_path / "cut", tmp_path / "other")

    capsys.readouterr()
    assert same(train(tmp_path / "cut", 2, monkeypatch), whole)
    said = capsys.readouterr().err
    assert f"resuming training at step 4 of {STEPS}" in said
    assert "worker processes" not in said

    # From step 4 on with other batches.
    other = train(tmp_path / "other", 0, monkeypatch)
    said = capsys.readouterr().err
    assert f"resuming training at step 4 of {STEPS}" in said
    assert said.count("made by 2 worker processes and now are by 0") == 1
    assert not same(other, whole)
    assert jax.tree.structure(other) == jax.tree.structure(whole)


@pytest.mark.long
def test_only_a_device_without_work_waits(tmp_path: Path, monkeypatch) -> None:
    """Every batch of 0.02 s is waited for beside short steps; beside long ones the first after a log is."""
    settings = dataclasses.replace(SETTINGS, checkpoint_every=STEPS, log_every=STEPS)

    def waited(make: Any) -> float:
        """Seconds, of all steps but the first, which is logged alone; their "tokens" are their number."""
        folder = tmp_path / make.__name__
        train(folder, 0, monkeypatch, make=make, pause=0.02, settings=settings)
        last = [s for s in read_scalars(folder) if "train/input_share" in s][-1]
        return last["train/input_share"] * (STEPS - 1) / last["train/tokens_per_second"]

    short = waited(step)
    assert short >= (STEPS - 1) * 0.02
    assert 0.02 <= waited(slow_step) < short / 2
