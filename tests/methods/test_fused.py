"""The product of experts against scikit-learn, by hand, and on a planted population."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ConfigError
from bua_jax.evaluation import results
from bua_jax.methods.fused import counted, fit_weights, log_experts, product
from tests.support.histories import of


def drawn(rng: np.random.Generator, n: int, classes: int) -> np.ndarray:
    """Distributions float64[n, C]."""
    return rng.dirichlet(np.ones(classes), n)


def log_loss(p: np.ndarray, targets: np.ndarray) -> float:
    return -float(np.mean(np.log(p[np.arange(len(targets)), targets])))


def test_of_two_labels_it_is_logistic_regression() -> None:
    """On log-odds, without an intercept; scikit-learn's C is 1 / (2 n penalty)."""
    rng, penalty = np.random.default_rng(0), 0.02
    one, two = drawn(rng, 400, 2), drawn(rng, 400, 2)
    truth = product(log_experts(one, two), np.asarray([0.9, 0.4]))
    targets = (rng.random(400) < truth[:, 1]).astype(int)
    log_p = log_experts(one, two)
    model = LogisticRegression(C=1 / (2 * 400 * penalty), fit_intercept=False, tol=1e-10)
    model.fit(log_p[:, :, 1] - log_p[:, :, 0], targets)
    found = fit_weights(log_p, targets, penalty)
    np.testing.assert_allclose(found, model.coef_[0], atol=1e-4)  # both stop at small gradients
    expected = model.predict_proba(log_p[:, :, 1] - log_p[:, :, 0])
    np.testing.assert_allclose(product(log_p, found), expected, atol=1e-4)


def test_experts_that_know_different_things_are_better_together() -> None:
    """Each knows one of two independent causes; a third knows nothing and is left out."""
    rng, n, classes = np.random.default_rng(1), 4000, 5
    one, two, noise = (drawn(rng, n, classes) for _ in range(3))
    truth = one * two / (one * two).sum(1, keepdims=True)
    targets = (truth.cumsum(1) > rng.random((n, 1))).argmax(1)
    log_p = log_experts(one, two, noise)
    weights = fit_weights(log_p, targets, 1e-6)
    # four standard errors of a weight here are about 0.1
    np.testing.assert_allclose(weights, [1, 1, 0], atol=0.1)
    assert (weights >= 0).all()
    fused = log_loss(product(log_p, weights), targets)
    assert fused < log_loss(one, targets) - 0.1
    assert fused < log_loss(two, targets) - 0.1


def test_a_wrong_expert_weighs_nothing_and_no_label_is_forbidden() -> None:
    rng = np.random.default_rng(2)
    right = drawn(rng, 500, 4)
    targets = (right.cumsum(1) > rng.random((500, 1))).argmax(1)
    sure = np.eye(4)[(targets + 1) % 4]  # never right
    weights = fit_weights(log_experts(right, sure), targets, 1e-6)
    assert weights[1] == 0
    p = product(log_experts(right, sure), np.asarray([1.0, 1.0]))
    assert (p > 0).all()
    np.testing.assert_allclose(p.sum(1), 1)


def test_counts_by_hand() -> None:
    shares = np.asarray([0.5, 0.25, 0.25])
    expected = [[0.5, 2.25, 1.25], [1.5, 0.25, 0.25]]
    found = counted(of([[1, 1, 2], [0]]), shares, 1.0)
    np.testing.assert_allclose(found, np.asarray(expected) / [[4.0], [2.0]])


def test_labels_without_probabilities_are_refused(tmp_path: Path) -> None:
    def ask(some: slice) -> results.Rows:
        return {"label": np.zeros(2, np.int16)}

    path = tmp_path / "result.arrow"
    results.write(path, "predict", {}, "identity", ["a", "b"], results.Ready({}, 2, ask))
    with pytest.raises(ConfigError, match=r"config\.decoding\.decode=labels"):
        _ = results.read(path).distributions


def test_it_is_no_row_of_the_quickstart() -> None:
    assert "fused" not in configs.load("configs/quickstart.py").evaluation.methods
