"""Through the whole model, value and gradient do not depend on how dialogues are put into batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.feed.packing import PackingPlan
from bua_jax.training import loop, sharding
from tests.training import tiny

RECORDS = tiny.records(12)
# Sums of float32 in another order differ by some 1e-7 of the norm; in float64 by 1e-16.
LIMIT = {"float32": 1e-5, "float64": 1e-8}


def gradient_of(dtype: str, microbatches: int, loss: str):
    """Jitted batch -> (loss, count, gradients of projector and adapter)."""
    model, variables = tiny.model(dataclasses.replace(tiny.QWEN, dtype=dtype))
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)
    trainable, frozen = loop.partition(variables, ("projector", "adapter"))
    mesh = sharding.make_mesh("1")

    def run(batch):
        batch = sharding.shard_batch(batch, mesh, microbatches)
        rows, length = batch["tokens"].shape
        plan = PackingPlan(length, 0, rows, 1, 1, rows * length, 1)
        settings = loop.TrainSettings(microbatches=microbatches, loss=loss)
        gradient = jax.jit(loop.make_gradient(model, plan, settings))
        weights = jnp.ones(9, dtype)
        return jax.device_get(gradient(trainable, frozen, batch, weights)[:3])

    return run


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["round_balanced", "token_mean"])
def test_packing_padding_order_and_microbatches(dtype: str, loss: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        whole = gradient_of(dtype, 1, loss)
        value, count, gradient = whole(tiny.rows_of(RECORDS, 60, 40))
        assert value.dtype == dtype
        assert count == (
            12 if loss == "round_balanced" else sum((r.round_ids > 0).sum() for r in RECORDS)
        )
        others = [
            whole(tiny.rows_of(RECORDS, 200, 80)),  # several times as many to a row
            whole(tiny.rows_of(RECORDS[::-1], 60, 48)),  # another order
            gradient_of(dtype, 3, loss)(tiny.rows_of(RECORDS, 60, 40)),  # three microbatches
        ]
        for other in others:
            assert other[1] == count
            assert tiny.relative(other[0], value) <= LIMIT[dtype]
            assert tiny.relative(other[2], gradient) <= LIMIT[dtype]


def test_dividing_per_microbatch_would_fail() -> None:
    """The negative control: means of microbatches of unequal counts are another loss."""
    run = gradient_of("float32", 1, "round_balanced")
    batch = tiny.rows_of(RECORDS, 60, 40)
    rows = len(batch["tokens"])
    parts = [
        {k: np.asarray(v[:, ...])[m : m + rows // 2 or 1] for k, v in batch.items()}
        for m in (0, rows // 2)
    ]
    halves = [run({k: v[: rows // 2] for k, v in part.items()}) for part in parts]
    assert halves[0][1] != halves[1][1]
    wrong = jax.tree.map(lambda a, b: (a + b) / 2, halves[0][2], halves[1][2])
    used = {k: v[: 2 * (rows // 2)] for k, v in batch.items()}
    _, _, gradient = run(used)
    assert tiny.relative(wrong, gradient) > 100 * LIMIT["float32"]
    counts = [h[1] for h in halves]
    right = jax.tree.map(
        lambda a, b: (a * counts[0] + b * counts[1]) / sum(counts), halves[0][2], halves[1][2]
    )
    assert tiny.relative(right, gradient) <= LIMIT["float32"]
