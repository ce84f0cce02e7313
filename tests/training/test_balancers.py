"""Properties that every method of weighting keeps; each has a control that shows it could fail."""

import inspect

import jax
import numpy as np
import pytest

from bua_jax.training.balancers import table
from bua_jax.training.losses import LOSSES as LOSSES_THERE
from tests.support.balancing import NAMES, OWN, UNITS, Run, gradients
from tests.support.helpers import ROOT

ALL = [*NAMES, *OWN]
GRAM = [name for name in ALL if Run(name).method.gram]
DRAWS = {"rlw", "pcgrad", "gradvac"}  # whose answer depends on an order that is drawn
SUM = ("rlw", "dwa", "famo", "gradnorm", "mgda", "fairgrad", "nash", "imtl_g")  # weights sum to K
HARMLESS = ("dualproj", "upgrad", "mgda", "cagrad:c=1", "cagrad:c=2", "nash", "fairgrad:gamma=3")
LOSSES = np.array([2.0, 0.5, 1.0, 3.0, 0.1])


def gram_of(rows: np.ndarray) -> np.ndarray:
    return rows @ rows.T


@pytest.mark.parametrize("name", ALL)
def test_weights_are_finite_for_every_kind_of_step(name: str) -> None:
    run = Run(name)
    for step in range(20):
        validation = LOSSES * (1 - 0.01 * step) if step % 3 == 2 else None
        weights = run.step(LOSSES / (1 + step), gram_of(gradients(step, apart=3)), validation)
        assert weights.shape == (UNITS,)
        assert np.isfinite(weights).all()
    assert weights.any()


@pytest.mark.parametrize("name", GRAM)
def test_identical_gradients_give_the_plain_direction(name: str) -> None:
    """And their plain length: CAGrad's is 1 + c times that, EnCodec's its `norm`."""
    row = gradients(0)[:1]
    rows = np.repeat(row, UNITS, axis=0)
    weights = Run(name).step(np.ones(UNITS), gram_of(rows))
    update = weights @ rows
    assert update @ row[0] > 0
    length = {"cagrad": 1.5 * UNITS, "encodec": 1 / np.linalg.norm(row)}.get(name, UNITS)
    if name not in OWN:
        np.testing.assert_allclose(weights.sum(), length, rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in ALL if n not in DRAWS])
def test_the_order_of_units_is_of_no_matter(name: str) -> None:
    text = f"{name}:window=2" if name == "dwa" else name
    order, one, two = np.array([3, 0, 4, 2, 1]), Run(text), Run(text)
    unlike = 0.0
    rng = np.random.default_rng(1)
    for step in range(8):
        losses, gram = rng.uniform(0.1, 3, UNITS), gram_of(gradients(step))
        measured = rng.uniform(0.1, 3, UNITS) if step % 2 else None
        here = None if measured is None else measured[order]
        weights = one.step(losses, gram, measured)
        other = two.step(losses[order], gram[np.ix_(order, order)], here)
        np.testing.assert_allclose(other, weights[order], rtol=1e-6, atol=1e-9)
        unlike = max(unlike, float(np.ptp(weights)))
    assert unlike > 1e-3  # equal weights would pass


@pytest.mark.parametrize("name", GRAM)
def test_a_common_factor_of_gradients_moves_no_direction(name: str) -> None:
    rows = gradients(2, size=4)
    losses, factor = LOSSES, 1e3
    if name == "encodec":  # averages are of one step here
        factor = 7.0
    one, two = (Run(name).step(losses, gram_of(f * rows)) for f in (1.0, factor))
    unit = [w / np.abs(w).sum() for w in (one, two)]
    np.testing.assert_allclose(*unit, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("apart", [0.0, 1.5, 3.0])
def test_no_unit_is_made_worse(name: str, apart: float) -> None:
    """The update has no negative part along any gradient; the plain sum has."""
    harmed = 0
    for seed in range(20):
        rows = gradients(seed, apart=apart)
        gram, norm = gram_of(rows), np.linalg.norm(rows, axis=1)
        weights = Run(name).step(LOSSES, gram)
        length = np.linalg.norm(weights @ rows)
        assert (gram @ weights / norm).min() >= -1e-6 * max(length, norm.min()), seed
        harmed += (gram.sum(1)).min() < 0
    assert harmed >= 3


@pytest.mark.parametrize("name", ["pcgrad", "cagrad:c=0.1"])
def test_who_promises_nothing_can_harm(name: str) -> None:
    """The control of the test before: it sees a method that makes a unit worse."""
    grams = [gram_of(gradients(seed)) for seed in range(20)]
    assert min((gram @ Run(name).step(LOSSES, gram)).min() for gram in grams) < 0


@pytest.mark.parametrize("name", ALL)
def test_absent_units_keep_their_state(name: str) -> None:
    """A unit that is away for many steps is as if the others had been alone."""
    run, alone = Run(name), Run(name, UNITS - 1)
    rng = np.random.default_rng(3)
    count = 60 if run.method.gram else 250
    for step in range(count):
        losses, gram = rng.uniform(0.1, 3, UNITS), gram_of(gradients(step))
        run.seed = alone.seed = step
        before = run.state
        losses[-1] = np.nan
        gram[-1] = gram[:, -1] = 0
        measured = np.append(losses[:-1], np.nan) if step % 50 == 49 else None
        weights = run.step(losses, gram, measured)
        others = alone.step(
            losses[:-1], gram[:-1, :-1], None if measured is None else measured[:-1]
        )
        assert np.isnan(weights[-1])
        np.testing.assert_allclose(weights[:-1], others, rtol=1e-9)
    kept = [np.ndim(leaf) for leaf in jax.tree.leaves(run.state)]
    for whole, was in zip(*map(jax.tree.leaves, (run.state, before)), strict=True):
        if np.ndim(whole):
            np.testing.assert_array_equal(whole[-1], was[-1])
    moved = [
        not np.array_equal(a[:-1], b[:-1], equal_nan=True)
        for a, b in zip(*map(jax.tree.leaves, (run.state, run.method.init(UNITS))), strict=True)
        if np.ndim(a)
    ]
    assert any(moved) or not kept  # a state that nothing moves would pass
    back = run.step(LOSSES, gram_of(gradients(0)))
    assert np.isfinite(back).all()


@pytest.mark.parametrize("name", ALL)
def test_one_unit_alone_and_none(name: str) -> None:
    run, row = Run(name), gradients(0, 1)
    for _ in range(3):
        weights = run.step([0.7], gram_of(row), np.array([0.7]))
        assert weights.shape == (1,)
        assert weights[0] > 0
    run = Run(name)
    state = run.state
    assert np.isnan(run.step(np.full(UNITS, np.nan), np.zeros((UNITS, UNITS)))).all()
    jax.tree.map(np.testing.assert_array_equal, run.state, state)


@pytest.mark.parametrize("name", ALL)
def test_a_solved_unit(name: str) -> None:
    """A loss of 0, whose gradient is 0 too, neither breaks nor rules."""
    run = Run(name)
    rows = gradients(4)
    rows[1] = 0
    losses = np.where(np.arange(UNITS) == 1, 0.0, LOSSES)
    for step in range(5):
        weights = run.step(losses, gram_of(rows), losses if step == 2 else None)
        there = weights[~np.isnan(weights)]
        assert np.isfinite(there).all()
        assert np.abs(there).max() <= 1e3 * max(np.abs(there).min(), 1) + 1e4


@pytest.mark.parametrize("name", ALL)
def test_a_diverged_step_changes_nothing(name: str) -> None:
    run, bad = Run(name), gram_of(gradients(0))
    state, losses = run.state, LOSSES.copy()
    losses[0], bad[0, 0] = np.inf, np.inf
    assert np.isnan(run.step(losses, bad)).all()
    jax.tree.map(np.testing.assert_array_equal, run.state, state) if not run.method.after else None


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same(name: str) -> None:
    def weights(seed: int) -> np.ndarray:
        run = Run(name, seed=seed)
        return np.stack([run.step(LOSSES, gram_of(gradients(step))) for step in range(4)])

    np.testing.assert_array_equal(weights(0), weights(0))
    draws = not np.array_equal(weights(0), weights(1))
    assert draws == (name in DRAWS) or name in OWN


@pytest.mark.parametrize("name", SUM)
def test_weights_that_sum_to_the_number_of_units(name: str) -> None:
    run = Run(name)
    for step in range(4):
        np.testing.assert_allclose(
            run.step(LOSSES, gram_of(gradients(step))).sum(), UNITS, rtol=1e-9
        )


def test_every_entry_is_walked() -> None:
    traced = [name for name, entry in table.BALANCERS.items() if entry.traced]
    assert traced == ["equal", "appendix_k"]
    assert len(NAMES) + len(traced) == len(table.BALANCERS)
    assert len(NAMES) == 23


def test_the_page_names_every_one_with_its_defaults() -> None:
    page = (ROOT / "docs" / "loss-weighting.md").read_text()
    for name, entry in table.BALANCERS.items():
        settings = inspect.signature(entry.build).parameters.values()
        shown = ", ".join(f"`{s.name}` {s.default:g}" for s in settings)
        assert f"| `{name}`{f' ({shown})' if shown else ''} |" in page
        assert set(entry.legal) == {s.name for s in settings}
    for name in LOSSES_THERE:
        assert f"| `{name}`" in page
