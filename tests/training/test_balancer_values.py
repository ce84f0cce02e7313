"""Each method of weighting against another implementation of it, or against what defines it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from bua_jax.training.balancers import gram, losses
from tests.support.balancing import Run, gradients

SMALL = np.array([[-4.0, 1, 1], [6, 1, 1]])
FOUR = np.array([[3.0, -1, 0, 2, 1], [-2, 2, 1, 0, 0], [0.1, 0, -0.2, -0.1, 0], [0, -1, 1, -3, 2]])
# TorchJD 0.18, updates of the two Jacobians above, in float64: CAGrad(c=0.5), FairGrad(alpha=2),
# MGDA(epsilon=1e-12, max_iters=100_000), and the projections with norm_eps = reg_eps = 1e-12. PCGrad's
# and GradVac's second ones depend on an order that it draws otherwise.
TORCHJD = {
    "aligned_mtl": (
        [0.213278746, 0.967332984, 0.967332984],
        [0.030053508, 0.047272194, 0.012547347, -0.013359761, 0.069692212],
    ),
    "mgda": (
        [0.0, 1.0, 1.0],
        [0.049579046, 0.107015903, -0.088587465, -0.036108513, 0.05678204],
    ),
    "dualproj": (
        [0.555555556, 1.111111111, 1.111111111],
        [0.263157895, 0.105263158, 0.315789474, -0.368421053, 0.75],
    ),
    "upgrad": (
        [0.292397661, 1.900584795, 1.900584795],
        [0.474279611, 0.599591918, 0.362669037, -0.334961828, 1.219234467],
    ),
    "imtl_g": (
        [0.076696831, 1.0, 1.0],
        [0.064690764, 0.132591785, -0.011046971, -0.015077381, 0.129732358],
    ),
    "conflict_free": (
        [0.158808976, 2.070606758, 2.070606758],
        [0.759202773, 1.556080716, -0.129645883, -0.176946274, 1.522522832],
    ),
    "cagrad": (
        [0.18350342, 1.204124148, 1.204124148],
        [0.266200554, 0.24035152, 0.107071639, -0.506552058, 0.750000011],
    ),
    "fairgrad": (
        [0.03127368, 0.790817151, 0.790817151],
        [0.823333543, 1.637905397, -0.768419073, -0.522533828, 1.350223421],
    ),
    "nash": (
        [0.054153251, 0.706069198, 0.706069198],
        [0.336382188, 0.584053483, -0.046451083, -0.21197057, 0.706143985],
    ),
    "pcgrad": ([0.584795322, 3.801169591, 3.801169591], None),
    "gradvac": ([0.584795328, 3.801169586, 3.801169586], None),
}
MEAN = ("aligned_mtl", "mgda", "dualproj", "cagrad", "imtl_g")  # theirs weigh by 1 / K
DIRECTION = ("fairgrad", "nash")  # theirs has another length


@pytest.mark.parametrize("name", TORCHJD)
@pytest.mark.parametrize("which", [0, 1])
def test_torchjd_says_the_same(name: str, which: int) -> None:
    rows, expected = (SMALL, FOUR)[which], TORCHJD[name][which]
    if expected is None:
        return
    update = Run(name, len(rows)).step(np.ones(len(rows)), rows @ rows.T) @ rows
    theirs = np.array(expected)
    if name in MEAN or (name == "upgrad"):
        update = update / len(rows)
    if name in DIRECTION:
        update, theirs = update / np.linalg.norm(update), theirs / np.linalg.norm(theirs)
    # Their solvers' ends: MGDA's by its gap, CAGrad's cone program at 1e-8 of the objective (in which
    # ours is the better one, as SLSQP says below), Nash-MTL's at some 1e-4.
    limit = {"mgda": 1e-5, "nash": 2e-3, "cagrad": 2e-4, "fairgrad": 1e-5}.get(name, 1e-7)
    np.testing.assert_allclose(update, theirs, atol=limit)


def test_cagrad_is_the_best_that_slsqp_finds() -> None:
    worse = 0
    for seed in range(6):
        rows = gradients(seed, 4)
        matrix = rows @ rows.T
        scaled = matrix / np.trace(matrix)
        target = scaled.mean(1)
        radius = 0.5 * np.sqrt(scaled.mean())

        def value(w: np.ndarray, a=scaled, h=target, r=radius) -> float:
            return float(w @ h + r * np.sqrt(max(w @ a @ w, 1e-300)))

        update = gram.cagrad(matrix, 0.5) / 4 - 0.25
        mine = update / update.sum()
        starts = [np.full(4, 0.25), *(0.97 * np.eye(4) + 0.0075)]
        found = [
            minimize(
                value,
                start,
                bounds=[(0, 1)] * 4,
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                options={"ftol": 1e-15, "maxiter": 500},
            )
            for start in starts
        ]
        best = min(f.fun for f in found if f.success)
        assert value(mine) <= best + 1e-9
        assert mine.min() >= 0
        worse += value(np.full(4, 0.25)) > best + 1e-3
    assert worse  # the mean, say, would not do


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_fairness_is_what_defines_it(gamma: float, apart: float) -> None:
    """G w = w^(-1 / gamma); gamma = 1 is Nash-MTL's G w = 1 / w."""
    for seed in range(5):
        rows = gradients(seed, size=12, apart=apart)
        matrix = rows @ rows.T
        weights = gram.fair(matrix, gamma)
        assert (weights > 0).all()
        np.testing.assert_allclose(matrix @ weights * weights ** (1 / gamma), 1, rtol=1e-4)


def test_gradients_that_cancel() -> None:
    """Where no update helps all, methods stay finite; MGDA's update is 0, as are two methods' weights, which
    a run then stops for."""
    rows = np.array([[1.0, 2.0], [-1.0, -2.0]])
    for name in set(TORCHJD) - {"aligned_mtl", "conflict_free"}:
        assert np.isfinite(Run(name, 2).step(np.ones(2), rows @ rows.T)).all()
    for name in ("aligned_mtl", "conflict_free"):
        with pytest.raises(ValueError, match="all 0"):
            Run(name, 2).step(np.ones(2), rows @ rows.T)
    np.testing.assert_allclose(gram.mgda(rows @ rows.T) @ rows, 0, atol=1e-12)


def test_equal_cosines_and_projections() -> None:
    rows = gradients(1)
    matrix, norm = rows @ rows.T, np.linalg.norm(rows, axis=1)
    update = gram.conflict_free(matrix) @ rows
    np.testing.assert_allclose(np.ptp(rows @ update / norm / np.linalg.norm(update)), 0, atol=1e-9)
    np.testing.assert_allclose(
        np.linalg.norm(update), (rows @ update).sum() / np.linalg.norm(update)
    )
    update = gram.imtl_g(matrix) @ rows
    np.testing.assert_allclose(np.ptp(rows @ update / norm), 0, atol=1e-9)
    assert np.ptp(rows @ rows.sum(0) / norm) > 0.1


def test_a_vaccine_raises_a_cosine_to_its_average() -> None:
    run = Run("gradvac:rate=1", 2)
    alike = np.array([[1.0, 0], [0.8, 0.6]])
    np.testing.assert_allclose(run.step([1, 1], alike @ alike.T), 1)  # 0.8 is above the average 0
    apart = np.array([[1.0, 0], [0.6, 0.8]])
    weights = run.step([1, 1], apart @ apart.T)
    first = apart[0] + (weights[1] - 1) * apart[1]
    np.testing.assert_allclose(first @ apart[1] / np.linalg.norm(first), 0.8, rtol=1e-6)
    np.testing.assert_allclose(run.state[0][0, 1], 0.6)


# ---------------------------------------------------------------------------------------- from losses

LOSSES = np.array([4.0, 1.0, 0.25])


def repeated(name: str, times: int) -> np.ndarray:
    run = Run(name, 3)
    for _ in range(times):
        weights = run.step(LOSSES, np.eye(3))
    return weights


def test_fixed_points_of_learned_weights() -> None:
    np.testing.assert_allclose(repeated("uncertainty", 2000), 1 / (2 * LOSSES), rtol=1e-6)
    np.testing.assert_allclose(repeated("imtl_l", 2000), 1 / LOSSES, rtol=1e-6)
    assert abs(repeated("uncertainty", 5)[0] - 0.125) > 0.1


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("log_loss", lambda x: jnp.log(x).sum()),
        ("gls", lambda x: jnp.prod(x) ** (1 / 3)),
        ("stch:mu=0.5", lambda x: 1.5 * jax.nn.logsumexp(jnp.log(x / LOSSES) / 0.5)),
    ],
)
def test_weights_are_the_gradient_of_a_scalar(name: str, total) -> None:
    run = Run(name, 3)
    run.step(LOSSES)
    with jax.enable_x64(True):
        now = np.array([3.0, 0.9, 0.05])
        np.testing.assert_allclose(run.step(now), jax.grad(total)(now), rtol=1e-9)


def test_random_weights_are_a_softmax_of_normals() -> None:
    weights = Run("rlw", 3).step(LOSSES)
    np.testing.assert_allclose(weights, 3 * softmax(np.random.default_rng([0, 0]).normal(size=3)))


def test_dynamic_average_by_hand() -> None:
    run = Run("dwa:window=2", 2)
    steps = [([4, 2], 1), ([2, 2], 1), ([2, 1], 1), ([1, 2], 2)]  # windows (3, 2), then (1.5, 1.5)
    for values, _ in steps[:-1]:
        np.testing.assert_allclose(run.step(values), [1, 1])
    expected = 2 * softmax(np.array([0.5, 0.75]) / 2)
    np.testing.assert_allclose(run.step(steps[-1][0]), expected)
    np.testing.assert_allclose(run.step([9, 9]), expected)  # until the next window is full


def test_famo_by_hand() -> None:
    method, state = losses.famo(), losses.famo().init(2)
    weights, state = method.combine(np.array([2.0, 1.0]), None, state, None, None)
    np.testing.assert_allclose(weights, [2 / 3, 4 / 3])  # z / l, to the sum K
    state = method.after(np.array([1.0, 1.0]), state)  # the first fell by log 2
    # Adam's first step is the rate, against the sign of z (fell - z fell).
    np.testing.assert_allclose(state.logits, [-0.025, 0.025], rtol=1e-6)
    for _ in range(50):
        _, state = method.combine(np.array([2.0, 1.0]), None, state, None, None)
        state = method.after(np.array([1.0, 1.0]), state)
    assert softmax(state.logits)[0] < 0.3  # who falls faster weighs less


def test_convergence_by_hand() -> None:
    """The formulas of CoBa as they are printed."""
    slope, tau = np.array([[-0.4, -0.2, -0.1], [-0.3, -0.3, -0.3], [0.1, 0.1, 0.2]]), 5.0
    now, count, number = slope[:, -1], 3, 3
    relative = softmax(count * now / np.abs(now).sum())
    absolute = softmax([-number * a[-1] / np.abs(a).sum() for a in slope])
    worst = slope.max(0)
    steps = softmax([-tau * s * worst[s - 1] / np.abs(worst).sum() for s in (1, 2, 3)])
    factor = min(number * steps[-1], 1)
    expected = softmax(count * (factor * relative + (1 - factor) * absolute))
    weights = losses.convergence_weights(slope, tau)
    floored = np.maximum(expected, 1 / 30)
    np.testing.assert_allclose(weights, 3 * floored / floored.sum())
    assert 0 < factor < 1


def test_slopes_are_least_squares() -> None:
    values = np.array([[np.nan, 3, 1, 4, 1], [5, 4, 3, 2, 1], [np.nan, np.nan, np.nan, np.nan, 2]])
    found = losses.slopes(values)
    np.testing.assert_allclose(found[0], np.polyfit(np.arange(4), values[0, 1:], 1)[0])
    np.testing.assert_allclose(found[1:], [-1, 0], atol=1e-12)


def test_convergence_moves_after_its_warmup() -> None:
    run = Run("coba:warmup=2,window=4", 2)
    for fall in (1.0, 0.9):
        np.testing.assert_array_equal(run.step([1, 1], None, np.array([fall, 1.0])), 1)
    moved = run.step([1, 1], None, np.array([0.7, 1.0]))
    assert moved[1] > moved[0]  # who converges slower weighs more
    np.testing.assert_array_equal(run.step([5, 1]), moved)  # until the next validation


# ---------------------------------------------------------------------------------- from norms


def test_norms_by_hand() -> None:
    products = np.diag([1.0, 4.0, 16.0])
    norm = np.array([1.0, 2.0, 4.0])
    run = Run("norm_ema:decay=0.5", 3)
    first = 0.5 + 0.5 * norm.mean() / norm
    np.testing.assert_allclose(run.step(LOSSES, products), first)
    np.testing.assert_allclose(run.step(LOSSES, products), 0.5 * first + 0.5 * norm.mean() / norm)
    run = Run("encodec:norm=3,decay=0.5", 3)
    np.testing.assert_allclose(run.step(LOSSES, products), 1 / norm)
    averaged = (0.5 * norm + 3 * norm) / 1.5
    np.testing.assert_allclose(run.step(LOSSES, 9 * products), 1 / averaged)


def test_gradnorm_by_autodiff() -> None:
    """The weights' first step is Adam's on the L1 distance, with the target held."""
    products, rate = np.diag([1.0, 4.0, 16.0]), 0.025
    run = Run("gradnorm:alpha=1.5", 3)
    np.testing.assert_array_equal(run.step(LOSSES, products), 1)
    norm = jnp.sqrt(jnp.diag(products))

    def distance(weights):
        weighted = weights * norm
        target = jax.lax.stop_gradient(weighted.mean() * jnp.ones(3))  # all learn at one speed
        return jnp.abs(weighted - target).sum()

    moved = 1 - rate * np.sign(jax.grad(distance)(jnp.ones(3)))
    np.testing.assert_allclose(run.step(LOSSES, products), 3 * moved / moved.sum(), rtol=1e-5)
    for _ in range(300):
        weights = run.step(LOSSES, products)
    assert np.ptp(weights * norm) < 0.3  # norms are drawn together


def test_a_slower_unit_gets_a_larger_gradient() -> None:
    run = Run("gradnorm", 2)
    for step in range(300):
        weights = run.step([1.0, 0.9 ** min(step, 10)], np.eye(2))
    assert weights[0] > weights[1]
