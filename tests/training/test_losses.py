"""Losses against float64 loops, hand cases and torch."""

from collections import defaultdict

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bua_jax.training import losses
from tests.support.helpers import require

# A float32 mean of n positive numbers is off by some 1e-7; float64 by 1e-16.
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}


def by_loops(nll, round_ids, dialogue_ids, weights=None):
    """Eq. 5 written as loops over dictionaries, in float64."""
    dialogues = defaultdict(lambda: defaultdict(list))
    for row in range(nll.shape[0]):
        for t in range(nll.shape[1]):
            if round_ids[row, t] > 0 and dialogue_ids[row, t] > 0:
                w = 1.0 if weights is None else weights[row, t]
                key = (row, dialogue_ids[row, t])
                dialogues[key][round_ids[row, t]].append(float(nll[row, t]) * float(w))
    per_dialogue = [np.mean([np.mean(r) for r in d.values()]) for d in dialogues.values()]
    return float(np.sum(per_dialogue)), len(per_dialogue)


def random_case(seed, rows=4, length=64, dtype=np.float32):
    """Interleaved ids, gaps in their numbering, and NaN or inf where nothing is supervised."""
    rng = np.random.default_rng(seed)
    nll = rng.exponential(2, (rows, length)).astype(dtype)
    round_ids = rng.choice([0, 0, 1, 2, 5], (rows, length)).astype(np.int32)
    dialogue_ids = rng.choice([0, 1, 2, 9], (rows, length)).astype(np.int32)
    masked = (round_ids == 0) | (dialogue_ids == 0)
    nll[masked] = rng.choice([np.nan, np.inf, -np.inf, 3.0], int(masked.sum()))
    return nll, round_ids, dialogue_ids


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (4, 64), (8, 512)])
def test_values_equal_float64_loops(dtype, shape) -> None:
    with jax.enable_x64(dtype is np.float64):
        nll, round_ids, dialogue_ids = random_case(0, *shape, dtype)
        valid = (round_ids > 0) & (dialogue_ids > 0)
        numerator, denominator = losses.round_balanced_loss(nll, round_ids, dialogue_ids)
        expected, count = by_loops(nll, round_ids, dialogue_ids)
        assert numerator.dtype == dtype
        assert denominator == count
        np.testing.assert_allclose(numerator, expected, rtol=TOLERANCE[dtype])
        numerator, denominator = losses.token_mean_loss(nll, round_ids, dialogue_ids)
        assert denominator == valid.sum()
        expected = nll[valid].astype(np.float64).sum()
        np.testing.assert_allclose(numerator, expected, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_equal_torch(dtype) -> None:
    torch = require("torch")
    with jax.enable_x64(dtype is np.float64):
        nll, round_ids, dialogue_ids = random_case(1, dtype=dtype)
        for loss in (losses.round_balanced_loss, losses.token_mean_loss):
            gradient = jax.grad(lambda x, f=loss: f(x, round_ids, dialogue_ids)[0])(nll)
            x = torch.tensor(nll, dtype=torch.float64, requires_grad=True)
            parts = []
            for row in range(len(nll)):
                for d in np.unique(dialogue_ids[row][dialogue_ids[row] > 0]):
                    here = dialogue_ids[row] == d
                    rounds = np.unique(round_ids[row][here & (round_ids[row] > 0)])
                    masks = [torch.tensor(here & (round_ids[row] == r)) for r in rounds]
                    if loss is losses.token_mean_loss:
                        parts += [x[row][m].sum() for m in masks]
                    elif masks:
                        parts.append(torch.stack([x[row][m].mean() for m in masks]).mean())
            torch.stack(parts).sum().backward()
            assert np.isfinite(gradient).all()
            np.testing.assert_allclose(
                gradient, x.grad.numpy(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
            )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_ids(data) -> None:
    shape = (2, 12)  # one shape, so that jax compiles once
    ids = st.sampled_from([0, 1, 2, 3, 1000])
    round_ids = data.draw(hnp.arrays(np.int32, shape, elements=ids))
    dialogue_ids = data.draw(hnp.arrays(np.int32, shape, elements=ids))
    nll = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 8, width=32)))
    numerator, denominator = jax.jit(losses.round_balanced_loss)(nll, round_ids, dialogue_ids)
    expected, count = by_loops(nll, round_ids, dialogue_ids)
    assert denominator == count
    np.testing.assert_allclose(numerator, expected, rtol=1e-6, atol=1e-6)


def test_a_hand_case() -> None:
    """Tokens weigh 1 / (N T_i); the same id in another row is another dialogue."""
    nll = np.array([[9, 1, 3, 10, 7, 0], [5, 9, 9, 9, 9, 9]], np.float32)
    round_ids = np.array([[0, 1, 1, 2, 1, 1], [1, 0, 0, 0, 0, 0]])
    dialogue_ids = np.array([[1, 1, 1, 1, 2, 0], [1, 1, 2, 2, 0, 0]])
    # Row 0: dialogue 1 is ((1 + 3) / 2 + 10) / 2 = 6, 2 is 7. Row 1: 1 is 5, 2 is nothing.
    assert losses.round_balanced_loss(nll, round_ids, dialogue_ids) == (18, 3)
    assert losses.token_mean_loss(nll, round_ids, dialogue_ids) == (26, 5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_nothing_supervised(name: str) -> None:
    nll, zeros = np.full((2, 8), np.nan, np.float32), np.zeros((2, 8), np.int32)

    def loss(nll, round_ids, dialogue_ids):
        counted = losses.count(name, round_ids, dialogue_ids)
        return losses.numerator(nll, counted), counted.denominators.sum()

    assert loss(nll, zeros, zeros + 1) == (0, 0)
    assert loss(nll, zeros + 1, zeros) == (0, 0)
    assert not jax.grad(lambda x: loss(x, zeros, zeros + 1)[0])(nll).any()


def test_weights_multiply_the_numerator_alone() -> None:
    nll, round_ids, dialogue_ids = random_case(3)
    counted = losses.count("round_balanced", round_ids, dialogue_ids)
    plain = losses.numerator(nll, counted)
    assert losses.numerator(nll, counted, np.ones_like(nll)) == plain
    assert losses.round_balanced_loss(nll, round_ids, dialogue_ids, 2 * np.ones_like(nll)) == (
        2 * plain,
        counted.denominators.sum(),
    )
    table = np.array([np.nan, 0.5, 2.0, 0, 0, 0, 0, 0, 0, 3.0])  # by dialogue id; NaN: padding
    for ids in (dialogue_ids, round_ids):
        weights = table[ids]
        expected, _ = by_loops(nll, round_ids, dialogue_ids, weights)
        np.testing.assert_allclose(losses.numerator(nll, counted, weights), expected, rtol=1e-6)
        gradient = jax.grad(lambda x, w=weights: losses.numerator(x, counted, w))(nll)
        assert np.isfinite(gradient).all()


def test_sums_by_task_and_kind() -> None:
    nll, round_ids, dialogue_ids = random_case(4)
    valid = (round_ids > 0) & (dialogue_ids > 0)
    nll = np.where(valid, nll, 0)
    tasks = np.array([0, 2, 3, 0, 0, 0, 0, 0, 0, 2])[dialogue_ids]
    sums, counts = losses.by_task(losses.dialogue_losses(nll, round_ids, dialogue_ids, tasks), 4)
    for task in range(1, 5):
        total, number = by_loops(nll, round_ids, np.where(tasks == task, dialogue_ids, 0))
        assert counts[task] == number
        np.testing.assert_allclose(sums[task], total, rtol=1e-6)
    kinds = np.where(valid, round_ids, 0)
    sums, counts = losses.by_id(jnp.asarray(nll), jnp.asarray(kinds), 5)
    for kind in range(1, 6):
        assert counts[kind] == (kinds == kind).sum()
        np.testing.assert_allclose(sums[kind], nll[kinds == kind].sum(dtype=np.float64), rtol=1e-6)
