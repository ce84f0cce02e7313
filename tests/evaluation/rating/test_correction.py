"""What is made of a judge's preferences, against arithmetic, another optimiser, and simulated truth."""

import numpy as np
import pytest
from scipy.optimize import minimize

from bua_jax.evaluation.rating.correction import (
    Calibration,
    Preferences,
    at_equal_lengths,
    both_orders,
    doubted,
    estimate,
    logistic,
    rate,
    rises,
    undo,
    weights_of,
    worth,
)

NAN = np.nan


def test_what_changes_with_the_order_is_a_tie() -> None:
    """Rows: how far the text shown first was preferred, as the pair is and the other way round."""
    chosen = np.array([[1, 0], [0, 1], [0.5, 0.5], [1, 1], [0, 0], [1, 0.5], [1, NAN], [NAN, 0.5]])
    assert both_orders(chosen)[:6].tolist() == [1, 0, 0.5, 0.5, 0.5, 0.5]
    assert np.isnan(both_orders(chosen)[6:]).all()


def test_errors_are_undone() -> None:
    """What a judge makes of a win rate, made undone; a guess tells nothing."""
    for true in (0.0, 0.3, 0.9):
        for right in (0.6, 0.75, 1.0):
            seen = true * right + (1 - true) * (1 - right)
            assert undo(np.array([seen]), np.array([right]))[0] == pytest.approx(true, abs=1e-12)
    assert undo(np.array([0.95, 0.1]), np.array([0.8, 0.8])).tolist() == [1, 0]
    assert np.isnan(undo(np.array([0.7]), np.array([0.5]))).all()


def test_the_regression_is_another_optimisers() -> None:
    """By scipy's minimiser of the same penalised likelihood, for weights that differ by row; within 1e-5."""
    rng = np.random.default_rng(0)
    design = np.column_stack([np.eye(2)[rng.integers(0, 2, 60)], rng.normal(size=60)])
    y, weights = rng.integers(0, 3, 60) / 2, rng.integers(0, 3, (4, 60)).astype(float)
    found = logistic(y, design, weights)
    for own, w in zip(found, weights, strict=True):

        def loss(b: np.ndarray, w: np.ndarray = w) -> float:
            z = design @ b
            return float(w @ (np.logaddexp(0, z) - y * z) + 0.02 * b @ b)

        assert own == pytest.approx(minimize(loss, np.zeros(3), tol=1e-12).x, abs=1e-5)


def test_a_regression_of_what_is_separated_stays_finite() -> None:
    design = np.array([[1.0, 1], [1, -1], [1, 1], [1, -1]])
    found = logistic(np.array([1.0, 0, 1, 0]), design, np.ones((1, 4)))[0]
    assert np.isfinite(found).all()
    assert abs(found[0]) < 1e-6
    assert found[1] > 1


def test_length_is_taken_out() -> None:
    """Of two lengths the model has as many parameters as there are rates: a is the mean of their logits."""
    longer = np.repeat([10.0, -10.0], (800, 200))
    value = np.concatenate([np.arange(800) < 640, np.arange(200) < 100]).astype(float)
    given = Preferences(np.arange(1000), np.zeros(1000, int), value, longer)
    level, wins, words = at_equal_lengths(given, 1, np.ones((1, 1000)))
    assert words == 10
    # sigmoid((logit 0.8 + logit 0.5) / 2) = 2 / 3; half the difference of the logits is log 2: 2 / 3 again
    assert level[0, 0] == pytest.approx(2 / 3, abs=1e-3)  # the prior moves it by less
    assert wins[0] == pytest.approx(2 / 3, abs=1e-3)
    assert value.mean() == pytest.approx(0.74)


def test_lengths_of_two_pairs_of_sources_share_their_slope() -> None:
    """Drawn from the model itself: intercepts and slope come back within three standard errors (0.1)."""
    rng = np.random.default_rng(3)
    pair, longer = rng.integers(0, 2, 20_000), rng.normal(5, 20, 20_000)
    words = np.sqrt(np.mean(longer**2))
    logits = np.array([1.0, -0.5])[pair] + 1.5 * np.tanh(longer / words)
    value = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(float)
    given = Preferences(np.arange(20_000), pair, value, longer)
    level, wins, _ = at_equal_lengths(given, 2, np.ones((1, 20_000)))
    assert np.log(level / (1 - level))[0] == pytest.approx([1.0, -0.5], abs=0.1)
    assert np.log(wins / (1 - wins))[0] == pytest.approx(1.5 * np.tanh(1), abs=0.1)


def test_few_answers_that_agree_are_no_certainty() -> None:
    values, weights = doubted(np.ones(10), weights_of(10, 0), 0)
    found = estimate(rate(values, weights))
    assert found.value == 1
    assert 0.5 < found.low < 0.9
    assert found.high == 1
    assert np.isnan(estimate(rate(np.zeros(0), np.zeros((3, 0)))).value)
    ten, zero = np.arange(10), np.zeros(10)
    known = Calibration(ten, np.ones(10), np.ones(10))
    (raw,) = worth(
        Preferences(ten, zero.astype(int), zero, zero), known, 1, weights_of(10, 0), 0
    ).raw
    assert raw.value == raw.low == 0
    assert 0.1 < raw.high < 0.5


WORLDS, ITEMS, TRUE = 300, 120, 0.7


def answers(rng: np.random.Generator, better: np.ndarray, longer: np.ndarray, lean: float):
    """What a simulated judge says: right in 65 % of pairs, wrong in 15 %, tied in 20 %, which is 0.75.

    But in a share `lean` of them it takes the longer text. better: bool[n] whether the first text is.
    """
    draw = rng.random(len(better))
    said = np.where(draw < 0.2, 0.5, np.where(draw < 0.35, ~better, better))
    return np.where(rng.random(len(better)) < lean, 0.5 + np.sign(longer) / 2, said)


@pytest.mark.parametrize("lean", [0.0, 0.2])
def test_corrected_intervals_hold_the_truth(lean: float) -> None:
    """In 95 % of 300 worlds, within three standard errors (0.04); those of the rates as answered do not.

    Where the judge leans to the longer text, which the first most often is, only those of both do. Errors
    are measured on texts of one length, of which it then calls that share tied.
    """
    held = {"raw": 0, "undone": 0, "both": 0}
    for world in range(WORLDS):
        rng = np.random.default_rng([7, world])
        longer = rng.normal(8 if lean else 0, 10, ITEMS)
        value = answers(rng, rng.random(ITEMS) < TRUE, longer, lean)
        known = answers(rng, np.ones(2 * ITEMS, bool), np.zeros(2 * ITEMS), lean)
        item = np.arange(ITEMS)
        given = Preferences(item, np.zeros(ITEMS, int), value, longer)
        tried = Calibration(np.tile(item, 2), known, np.ones(2 * ITEMS))
        found = worth(given, tried, 1, weights_of(ITEMS, world, 300), world)
        for name in held:
            (one,) = getattr(found, name)
            held[name] += one.low <= TRUE <= one.high
    assert held["both"] == pytest.approx(0.95 * WORLDS, abs=0.04 * WORLDS)
    if lean:
        assert held["undone"] < 0.85 * WORLDS
    else:
        assert held["undone"] == pytest.approx(0.95 * WORLDS, abs=0.04 * WORLDS)
        assert held["raw"] < 0.5 * WORLDS


def test_a_judge_is_right_more_often_where_more_is_spoilt() -> None:
    strength = np.repeat([0.2, 0.6, 1.0], 10)
    item = np.arange(30)

    def judge(*right: int) -> Calibration:
        value = np.concatenate([np.arange(10) < n for n in right]).astype(float)
        return Calibration(item, value, strength)

    assert rises(judge(5, 7, 9))
    assert not rises(judge(9, 7, 5))
    assert not rises(judge(7, 7, 7))
    assert rises(judge(9, 9, 9))
