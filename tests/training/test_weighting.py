"""Task weights by the formula as printed (Appendix K.1); where every method ends a planted conflict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bua_jax.training import weighting
from bua_jax.training.balancers import table
from tests.support import toy


def printed(ema, initial, alpha):
    """Appendix K.1 line by line, in float64."""
    valid = initial > 0
    ratio = ema[valid] / initial[valid]
    speed = (ratio.mean() / ratio) ** alpha
    weights = np.ones(len(ema))
    weights[valid] = speed / speed.sum() * valid.sum()
    return weights


@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.0, 0.0, -1.0])
def test_the_formula_as_printed(alpha: float) -> None:
    ema, initial = np.array([1.0, 3.0, 2.0, 0.0, 0.4]), np.array([2.0, 3.5, 4.0, 0.0, 0.5])
    weights = weighting.task_weights(ema, initial, alpha)
    np.testing.assert_allclose(weights, printed(ema, initial, alpha), rtol=1e-6)
    assert weights[3] == 1  # never seen
    np.testing.assert_allclose(weights.sum(), len(ema), rtol=1e-6)


def test_direction() -> None:
    """As printed the slower task (r = 0.9) weighs less; a negative alpha turns that round."""
    ema, initial = jnp.array([0.9, 0.3]), jnp.array([1.0, 1.0])
    assert weighting.task_weights(ema, initial, 1.0)[0] < 1
    assert weighting.task_weights(ema, initial, -1.0)[0] > 1


def test_extremes_stay_finite() -> None:
    ema, initial = jnp.array([0.0, 1.0, jnp.nan]), jnp.array([1.0, 1.0, 1.0])
    for alpha in (-3.0, 1.0, 30.0):
        weights = weighting.task_weights(ema, initial, alpha)
        assert np.isfinite(weights).all()
        assert weights[2] == 1
    floored = weighting.task_weights(ema[:2], initial[:2], 1.0, floor=0.25)
    np.testing.assert_allclose(floored, [1.6, 0.4], rtol=1e-6)  # s = 1/0.25 to 1
    assert (weighting.task_weights(jnp.zeros(3), jnp.zeros(3), 1.0) == 1).all()


def test_update_starts_decays_and_keeps() -> None:
    state = weighting.init(3)
    state = weighting.update(state, jnp.array([4.0, 2.0, 9.0]), jnp.array([True, True, False]), 0.9)
    np.testing.assert_allclose(state.initial, [4, 2, 0])
    np.testing.assert_allclose(state.ema, [4, 2, 0])
    state = weighting.update(state, jnp.array([2.0, 0.0, 6.0]), jnp.array([True, False, True]), 0.9)
    np.testing.assert_allclose(state.initial, [4, 2, 6])
    np.testing.assert_allclose(state.ema, [3.8, 2, 6], rtol=1e-6)


def test_appendix_k_as_a_balancer() -> None:
    """Weights of the next step follow from all losses so far; a unit that is absent (NaN) keeps its own."""
    balancer, key = weighting.appendix_k(1.0, 0.9, 0.05), jax.random.key(0)
    state, expected = balancer.init(3), weighting.init(3)
    for losses in ([4.0, 2.0, np.nan], [2.0, np.nan, 6.0], [1.0, 2.0, 3.0]):
        weights, state = balancer.combine(jnp.array(losses), None, state, key, None)
        seen = ~np.isnan(losses)
        expected = weighting.update(expected, jnp.nan_to_num(jnp.array(losses)), seen, 0.9)
        jax.tree.map(np.testing.assert_array_equal, state, expected)
        wanted = weighting.task_weights(expected.ema, expected.initial, 1.0, floor=0.05)
        np.testing.assert_array_equal(weights, wanted)
    assert not balancer.gram
    assert len({*np.asarray(weights).tolist()}) == 3


def test_equal_weights() -> None:
    balancer = weighting.equal()
    losses = jnp.array([1.0, jnp.nan])
    weights, state = balancer.combine(losses, None, balancer.init(2), jax.random.key(0), None)
    np.testing.assert_array_equal(weights, [1, 1])
    assert jax.tree.leaves(state) == []


# ------------------------------------------------------------------------------- a planted conflict

ENDS = {
    "equal": 0.75,  # as often as it happens
    **dict.fromkeys(("imtl_g", "conflict_free", "encodec", "nash"), 0.5),  # parts of equal norms
    **dict.fromkeys(("log_loss", "gls", "uncertainty", "imtl_l", "famo"), 1.0),  # B is given up
    "stch": 0.75,  # with mu = 1 it is a function of the plain sum
    "cagrad:c=0": 0.75,
}
"""p_A by hand; of the others it is asked that they end on the front, neither unit given up."""
QUICK = ("equal", "conflict_free", "log_loss")


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.long)
        for name in ("cagrad:c=0", *table.BALANCERS)
    ],
)
def test_where_a_conflict_ends(name: str) -> None:
    """Three in four do A after what one in four does B after: a front of which every point is known."""
    a, b, c = toy.end_of_conflict(name)
    assert c < 0.002
    if name in ENDS:
        assert a == pytest.approx(ENDS[name], abs=0.01)
    elif name != "appendix_k":  # as printed, the slower unit weighs less, and less again
        assert min(a, b) > 0.1
