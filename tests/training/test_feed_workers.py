"""The loop with worker processes: counts are recorded, resume is exact at equal ones, else a notice."""

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.training import checkpoint, loop, sharding
from tests.training import endure, tiny

STEPS = 8
RECORDS = tiny.records(40)
SETTINGS = loop.TrainSettings(
    total_steps=STEPS,
    evaluate_every=STEPS,
    checkpoint_every=2,
    optimizer=loop.OptimizerSettings(peak_lr=1e-2),
)


def step(state: Any, frozen: Any, batch: Any, sums: Any) -> Any:
    """Parameters after it tell of all batches and of their order; it compiles at once."""
    seen = jnp.mean(batch["tokens"] * (1.0 + batch["positions"]))
    trainable = jax.tree.map(lambda x: 0.9 * x + seen, state.trainable)
    state = state._replace(step=state.step + 1, trainable=trainable)
    return state, {**sums, "steps": sums["steps"] + 1, "tokens": sums["tokens"] + 1}


def train(folder: Path, workers: int, monkeypatch: pytest.MonkeyPatch, dies: bool = False) -> Any:
    """Trains a few parameters; one that dies does so in its sixth batch."""
    put, count = sharding.shard_batch, iter(range(1, 1000))

    def putting(batch: Any, mesh: Any, *parts: int) -> Any:
        # Batches of validation come first, without microbatches.
        if parts and next(count) == 6 and dies:
            raise KeyError("died")
        return put(batch, mesh, *parts)

    mesh = sharding.make_mesh("1")
    plan = tiny.plan(RECORDS, workers=workers)
    assert plan.workers == workers
    with monkeypatch.context() as patch, jax.set_mesh(mesh):
        patch.setattr(loop, "make_step", lambda *_: step)
        patch.setattr(loop, "batch_losses", endure.light_losses)
        patch.setattr(sharding, "shard_batch", putting)
        best, _ = loop.train(
            None,  # type: ignore[arg-type]
            endure.light_variables(),
            ("projector", "adapter"),
            RECORDS,
            tiny.records(8, 1),
            plan,
            SETTINGS,
            folder,
            {"stage": "stage2"},
            mesh,
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
