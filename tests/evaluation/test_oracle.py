"""Flips of predictions and McNemar's test, by hand."""

import numpy as np
import pytest
from scipy.stats import binom

from bua_jax.evaluation.oracle import flips


def test_by_hand() -> None:
    before = np.asarray([1, 1, 1, 0, 0, 0, 0, 0], bool)
    after = np.asarray([1, 1, 0, 1, 1, 1, 0, 0], bool)
    found = flips(before, after)
    assert (found["r2w"], found["w2r"], found["accuracy"]) == (1, 3, 5 / 8)
    # two-sided: twice the tail of four fair coins with at most one head
    assert found["p"] == pytest.approx(2 * binom.cdf(1, 4, 0.5))


def test_the_difference_of_flips_is_the_change_of_accuracy() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(500) < 0.4, rng.random(500) < 0.5
    found = flips(before, after)
    assert (found["w2r"] - found["r2w"]) / 500 == pytest.approx(after.mean() - before.mean())


def test_no_flips_mean_nothing() -> None:
    same = np.asarray([True, False])
    assert flips(same, same) == {"accuracy": 0.5, "r2w": 0, "w2r": 0, "p": 1.0}
    with pytest.raises(ValueError, match="2 predictions before, but 1 after"):
        flips(same, same[:1])
