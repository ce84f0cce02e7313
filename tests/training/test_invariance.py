"""Through the model, value and gradient do not depend on how dialogues are put into batches."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bua_jax.feed.packing import PackingPlan
from bua_jax.parallel import sharding
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.optimizer import partition
from bua_jax.training.state import create
from bua_jax.training.step import make_gradients, weigh
from bua_jax.training.weighting import Balancer
from tests.support import tiny

RECORDS = tiny.records(12)
# Sums of float32 in another order differ by some 1e-7 of the norm; in float64 by 1e-16.
LIMIT = {"float32": 1e-5, "float64": 1e-8}


def gradient_of(
    batch, dtype="float32", microbatches=1, loss="round_balanced", merge_adapter: bool = False
):
    """(loss, count, gradients of projector and adapter) of a batch."""
    model, variables = tiny.model(dataclasses.replace(tiny.QWEN, dtype=dtype))
    model = dataclasses.replace(model, merge_adapter=merge_adapter)
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)
    trainable, frozen = partition(variables, ("projector", "adapter"))
    batch = sharding.shard_batch(batch, sharding.make_mesh("1"), microbatches)
    rows, length = batch["tokens"].shape
    plan = PackingPlan(length, 0, rows, 1, 1, rows * length, 1)
    settings = TrainSettings(microbatches=microbatches, loss=loss)
    gradients = make_gradients(Dialogues(model, plan, settings), microbatches)
    compiled = jax.jit(gradients)
    found = compiled(trainable, frozen, batch, jnp.ones((1, 9), dtype), jax.random.key(0))
    (value,), (gradient,), terms = jax.device_get(found)
    return value, terms.denominator, gradient


@pytest.mark.parametrize(
    ("dtype", "loss"),
    [
        pytest.param("float32", "round_balanced", marks=pytest.mark.long),
        ("float64", "round_balanced"),
        pytest.param("float64", "kind_mean", marks=pytest.mark.long),
    ],
)
def test_packing_padding_order_and_microbatches(dtype: str, loss: str) -> None:
    tokens = sum(int((r.round_ids > 0).sum()) for r in RECORDS)
    with jax.enable_x64(dtype == "float64"):
        value, count, gradient = gradient_of(tiny.rows_of(RECORDS, 60, 40), dtype, 1, loss)
        assert value.dtype == dtype
        assert count == (len(RECORDS) if loss == "round_balanced" else tokens)
        others = [
            # Another order, several times as many to a row, and more padding.
            gradient_of(tiny.rows_of(RECORDS[::-1], 200, 96), dtype, 1, loss),
            # Three microbatches of unequal counts.
            gradient_of(tiny.rows_of(RECORDS, 60, 40), dtype, 3, loss),
        ]
        for other in others:
            assert other[1] == count
            assert tiny.relative(other[0], value) <= LIMIT[dtype]
            assert tiny.relative(other[2], gradient) <= LIMIT[dtype]


def test_dividing_per_microbatch_would_fail() -> None:
    """The negative control: the mean of the means of unequal microbatches is another loss."""
    batch = tiny.rows_of(RECORDS, 60, 40)
    first = np.arange(len(batch["tokens"])) == 0
    whole, one, rest = (
        gradient_of(
            {k: np.where(rows.reshape(-1, *[1] * (v.ndim - 1)), v, 0) for k, v in batch.items()}
        )
        for rows in (first | True, first, ~first)
    )
    assert 0 < one[1] < rest[1]
    assert one[1] + rest[1] == whole[1]
    wrong = jax.tree.map(lambda a, b: (a + b) / 2, one[2], rest[2])
    assert tiny.relative(wrong, whole[2]) > 1000 * LIMIT["float32"]
    right = jax.tree.map(lambda a, b: (a * one[1] + b * rest[1]) / whole[1], one[2], rest[2])
    assert tiny.relative(right, whole[2]) <= LIMIT["float32"]


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.long), "float64"])
def test_an_adapter_merged_once_per_step_has_the_same_gradient(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        batch = tiny.rows_of(RECORDS, 60, 40)
        beside, merged = (gradient_of(batch, dtype, merge_adapter=m) for m in (False, True))
        assert tiny.relative(merged[0], beside[0]) <= LIMIT[dtype]
        assert tiny.relative(merged[2], beside[2]) <= LIMIT[dtype]
        assert all(abs(x).max() > 0 for x in jax.tree.leaves(merged[2]["adapter"]))


def test_a_backward_pass_for_each_unit() -> None:
    """Gradients are linear in the weights of units; their products do not depend on microbatches."""
    model, variables = tiny.model()
    trainable, frozen = partition(variables, ("projector", "adapter"))
    batch = sharding.shard_batch(tiny.rows_of(RECORDS, 60, 40), sharding.make_mesh("1"), 2)
    rows, length = batch["tokens"].shape
    plan = PackingPlan(length, 0, rows, 1, 1, rows * length, 1)
    weights = jnp.linspace(0.5, 2.0, 9)
    seen: list[np.ndarray] = []

    def weighed(microbatches: int, gram: bool) -> tuple[Any, Any]:
        problem = Dialogues(model, plan, TrainSettings(balancer="appendix_k"))
        gradients = make_gradients(problem, microbatches)
        fixed = Balancer(lambda count: (), lambda *_: (weights, ()), gram)
        state = create(problem, trainable, optax.identity())._replace(weights=weights)

        def run(trainable: Any, frozen: Any, batch: Any) -> Any:
            def of_rows(rows: Any) -> Any:
                return gradients(trainable, frozen, batch, rows, jax.random.key(0))

            weighed = weigh(fixed, of_rows, state, jax.random.key(0))
            return (weighed.loss, weighed.gradient), weighed.gram

        found, products = jax.jit(run)(trainable, frozen, batch)
        if gram:
            seen.append(np.asarray(products))
        return found

    alone = weighed(1, gram=False)
    for microbatches in (1, 2):
        assert tiny.relative(weighed(microbatches, gram=True), alone) <= LIMIT["float32"]
    present = np.isin(np.arange(9), batch["tasks"]) & (np.arange(9) > 0)
    np.testing.assert_array_equal(np.diag(seen[0]) > 0, present)
    np.testing.assert_allclose(seen[0], seen[0].T, rtol=1e-6)
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-3, atol=1e-6 * seen[0].max())
